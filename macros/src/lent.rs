//! Closures whose written result borrows from their item: `-> &V`, or `-> impl Iterator<Item = &V>`.
//!
//! The result of a closure cannot borrow from its argument unless something else spells out its type; that of a function
//! can. So such a closure becomes a function of its captures and its item, both by reference. That it is one is read off the
//! written result: the compiler's types are not known here.

use proc_macro2::{Ident, Punct, Spacing, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{
    Error, Expr, ExprClosure, GenericArgument, Pat, PathArguments, Result, ReturnType, Type, TypeImplTrait,
    TypeParamBound, TypeReference,
};

use crate::closure::{Input, Parameter};

/// What a closure lends of its item.
pub(crate) enum Lent {
    /// A part: `&V`.
    One(Type),
    /// Many parts: an iterator, as written, of `&V`.
    Many(TypeImplTrait, Type),
}

/// What the closure lends, if its result says so.
pub(crate) fn of(closure: &ExprClosure, parameters: &[Parameter]) -> Result<Option<Lent>> {
    let ReturnType::Type(_, output) = &closure.output else { return Ok(None) };
    let lent = match &**output {
        Type::Reference(reference) if is_elided(reference) => Lent::One((*reference.elem).clone()),
        Type::ImplTrait(iterator) => {
            let item = iterator.bounds.iter().find_map(item_of).ok_or_else(|| {
                let help = "a task closure gives `impl Iterator<Item = &T>`, or a collection of values: `Vec<T>`";
                Error::new(output.span(), help)
            })?;
            Lent::Many(iterator.clone(), item)
        }
        _ => return Ok(None),
    };
    match parameters {
        [item] if item.by_ref => Ok(Some(lent)),
        _ => Err(Error::new(output.span(), "what borrows from an item comes of one parameter: `|item: &T| -> &U ..`")),
    }
}

fn is_elided(reference: &TypeReference) -> bool {
    reference.mutability.is_none() && reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident == "_")
}

/// The `V` of a bound `Iterator<Item = &V>`.
fn item_of(bound: &TypeParamBound) -> Option<Type> {
    let TypeParamBound::Trait(bound) = bound else { return None };
    let PathArguments::AngleBracketed(arguments) = &bound.path.segments.last()?.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(item) if item.ident == "Item" => match &item.ty {
            Type::Reference(reference) if is_elided(reference) => Some((*reference.elem).clone()),
            _ => None,
        },
        _ => None,
    })
}

impl Lent {
    /// The function that the closure becomes.
    pub(crate) fn function(&self, input: &Input, captured: &TokenStream, item: &Parameter) -> TokenStream {
        let names: Vec<_> = input.captures.iter().map(|capture| &capture.name).collect();
        let ty = &item.ty;
        let pattern = match &input.closure.inputs[0] {
            Pat::Type(typed) => &typed.pat,
            pattern => pattern,
        };
        let output = match self {
            Lent::One(part) => quote!(&'item #part),
            Lent::Many(iterator, _) => {
                let iterator = with_lifetimes(iterator.to_token_stream());
                quote!(#iterator + 'item)
            }
        };
        // Braces around a function's body that has braces are one pair too many.
        let body = match &*input.closure.body {
            Expr::Block(block) if block.label.is_none() && block.attrs.is_empty() => {
                let statements = &block.block.stmts;
                quote!(#(#statements)*)
            }
            body => body.to_token_stream(),
        };
        let taken_apart = (!names.is_empty()).then(|| quote!(let (#(#names,)*) = captures;));
        quote! {
            #[allow(unused_variables, clippy::needless_lifetimes, clippy::extra_unused_lifetimes)]
            fn lend<'item>(captures: &'item #captured, #pattern: &'item #ty) -> #output {
                #taken_apart
                #body
            }
        }
    }

    /// What a task of the closure by itself gives.
    pub(crate) fn returned(&self, private: &TokenStream, passed: impl Iterator<Item = TokenStream>) -> TokenStream {
        match self {
            Lent::One(_) => quote!(::std::borrow::ToOwned::to_owned(lend(&captures, #(#passed),*))),
            Lent::Many(..) => quote!(#private::items::NoOutput::of(captures)),
        }
    }

    /// An expression of the type that the handle says the closure returns.
    pub(crate) fn like(&self, private: &TokenStream) -> TokenStream {
        match self {
            Lent::One(part) => quote!(#private::items::never::<<#part as ::std::borrow::ToOwned>::Owned>()),
            Lent::Many(_, part) => quote!(#private::items::never::<#private::items::Lends<#part>>()),
        }
    }

    /// The closure's `ItemFns`.
    pub(crate) fn items(&self, private: &TokenStream, captured: &TokenStream, item: &Parameter) -> TokenStream {
        let ty = &item.ty;
        match self {
            Lent::One(part) => quote! {{
                let shape = #private::items::lends_one::<#captured, #ty, #part, _>(lend);
                #private::items::ItemFns {
                    map: (&shape).map(),
                    key: (&shape).key(),
                    topk: (&shape).topk(),
                    ..shape.base()
                }
            }},
            Lent::Many(_, part) => quote! {{
                let shape = #private::items::lends_many::<#captured, #ty, #part, _>(lend);
                #private::items::ItemFns { flat_map: (&shape).flat_map(), ..shape.base() }
            }},
        }
    }
}

/// The tokens with the item's lifetime wherever one is left out.
fn with_lifetimes(tokens: TokenStream) -> TokenStream {
    let quote = || TokenTree::from(Punct::new('\'', Spacing::Joint));
    let item = || TokenTree::from(Ident::new("item", Span::call_site()));
    let mut out = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is =
            |token: Option<&TokenTree>, char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char);
        match &token {
            TokenTree::Group(group) => {
                let inner = with_lifetimes(group.stream());
                out.extend([TokenTree::from(proc_macro2::Group::new(group.delimiter(), inner))]);
            }
            token if is(Some(token), '&') => {
                out.extend([token.clone()]);
                if !is(tokens.peek(), '\'') {
                    out.extend([quote(), item()]);
                }
            }
            token if is(Some(token), '\'') && matches!(tokens.peek(), Some(TokenTree::Ident(name)) if name == "_") => {
                tokens.next();
                out.extend([quote(), item()]);
            }
            token => out.extend([token.clone()]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_that_are_left_out_become_the_items() {
        let with = |text: &str| with_lifetimes(text.parse().unwrap()).to_string().replace(' ', "");
        assert_eq!(with("impl Iterator<Item = &str> + '_"), with("impl Iterator<Item = &'item str> + 'item"));
        assert_eq!(with("impl Iterator<Item = &(u8, &'static str)>"), "implIterator<Item=&'item(u8,&'staticstr)>");
    }

    fn lent(closure: TokenStream) -> std::result::Result<Option<Lent>, String> {
        let closure: ExprClosure = syn::parse2(closure).unwrap();
        let parameters: Vec<_> = closure.inputs.iter().map(|pattern| Parameter::of(pattern).unwrap()).collect();
        of(&closure, &parameters).map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_written_result_that_borrows_is_lent() {
        assert!(matches!(lent(quote!(|line: &str| -> &str { line })), Ok(Some(Lent::One(_)))));
        assert!(matches!(
            lent(quote!(|line: &str| -> impl Iterator<Item = &str> { line.lines() })),
            Ok(Some(Lent::Many(..)))
        ));
        for owned in [quote!(|line: &str| line.len()), quote!(|n: u32| -> &'static str { "n" })] {
            assert!(matches!(lent(owned), Ok(None)));
        }
        let error = |closure| lent(closure).map(|_| ()).unwrap_err();
        assert!(error(quote!(|n: u32| -> impl Iterator<Item = u32> { 0..n })).contains("`Vec<T>`"));
        assert!(error(quote!(|line: String| -> &str { &line })).contains("`|item: &T| -> &U ..`"));
        assert!(error(quote!(|a: &str, b: &str| -> &str { a })).contains("one parameter"));
    }
}
