//! `task!`: a closure, registered like a function, and a typed handle of it.
//!
//! The closure stands twice in what is generated: once in the registration, an item that cannot see local variables, and
//! once beside it, never run, so that the compiler infers the handle's result type. The captures come in as arguments of
//! a closure around the closure, so that its body uses them like captured variables.
//!
//! A closure whose written result borrows from its item becomes a function instead ([`lent`](super::lent)).

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprClosure, Ident, Pat, Path, Result, Token, Type, bracketed, parse_quote};

use crate::lent::{self, Lent};

/// What stands in `task!( ... )`.
pub(crate) struct Input {
    krate: Path,
    pub(crate) captures: Vec<Capture>,
    pub(crate) closure: ExprClosure,
}

/// `name: Type = value`, or `name: Type` for a clone of the variable `name`.
pub(crate) struct Capture {
    pub(crate) name: Ident,
    ty: Type,
    value: Expr,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> Result<Input> {
        let mut krate: Path = parse_quote!(::starling);
        if input.peek(Token![crate]) && input.peek2(Token![=]) {
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            krate = input.call(Path::parse_mod_style)?;
            input.parse::<Token![,]>()?;
        }
        let mut captures = Vec::new();
        if input.peek(syn::token::Bracket) {
            let list;
            bracketed!(list in input);
            captures = Punctuated::<Capture, Token![,]>::parse_terminated(&list)?.into_iter().collect();
        }
        let closure = match input.parse::<Expr>()? {
            Expr::Closure(closure) => closure,
            other => {
                return Err(Error::new(
                    other.span(),
                    "task! takes a closure, with its captures before it: task!([min: i64 = 3] |x: i64| x >= min)",
                ));
            }
        };
        input.parse::<Option<Token![,]>>()?;
        if !input.is_empty() {
            return Err(input.error("nothing may follow the closure"));
        }
        Ok(Input { krate, captures, closure })
    }
}

impl Parse for Capture {
    fn parse(input: ParseStream<'_>) -> Result<Capture> {
        let name: Ident = input.parse()?;
        if !input.peek(Token![:]) {
            return Err(Error::new(name.span(), "a capture needs its type: `name: Type` or `name: Type = value`"));
        }
        input.parse::<Token![:]>()?;
        let ty = input.parse()?;
        let value = match input.parse::<Option<Token![=]>>()? {
            Some(_) => input.parse()?,
            None => parse_quote!(::std::clone::Clone::clone(&#name)),
        };
        Ok(Capture { name, ty, value })
    }
}

/// A parameter of the closure.
pub(crate) struct Parameter {
    pub(crate) ty: Type,
    /// Whether it is taken as `&ty`.
    pub(crate) by_ref: bool,
}

impl Parameter {
    pub(crate) fn of(pattern: &Pat) -> Result<Parameter> {
        let Pat::Type(typed) = pattern else {
            return Err(Error::new(pattern.span(), "a task's parameter needs its type: `|line: String| ..`"));
        };
        match &*typed.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                Err(Error::new(reference.span(), "a task cannot change its input: take it owned or by `&`"))
            }
            Type::Reference(reference) => Ok(Parameter { ty: (*reference.elem).clone(), by_ref: true }),
            ty => Ok(Parameter { ty: ty.clone(), by_ref: false }),
        }
    }

    /// As it stands in the handle's type.
    fn marker(&self, private: &TokenStream) -> TokenStream {
        let ty = &self.ty;
        if self.by_ref { quote!(#private::items::Ref<#ty>) } else { quote!(#ty) }
    }

    /// What a caller gives.
    fn data(&self) -> TokenStream {
        let ty = &self.ty;
        if self.by_ref { quote!(<#ty as ::std::borrow::ToOwned>::Owned) } else { quote!(#ty) }
    }

    /// The closure's argument from the shared value.
    fn passed(&self, name: &Ident) -> TokenStream {
        let ty = &self.ty;
        if self.by_ref {
            quote!(::std::borrow::Borrow::<#ty>::borrow(&*#name))
        } else {
            quote!(::std::sync::Arc::unwrap_or_clone(#name))
        }
    }
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let mut input: Input = syn::parse2(input)?;
    check(&input.closure)?;
    // Its captures are parameters of the closure around it, which it outlives.
    input.closure.capture = Some(Token![move](Span::call_site()));
    let parameters = input.closure.inputs.iter().map(Parameter::of).collect::<Result<Vec<_>>>()?;
    if parameters.len() > 5 {
        return Err(Error::new(input.closure.inputs[5].span(), "a task closure takes at most 5 parameters"));
    }
    let lent = lent::of(&input.closure, &parameters)?;
    Ok(generate(&input, &parameters, lent.as_ref()))
}

fn check(closure: &ExprClosure) -> Result<()> {
    if let Some(asyncness) = &closure.asyncness {
        return Err(Error::new(asyncness.span(), "a task closure is not async: write an async fn with #[task]"));
    }
    if let Some(lifetimes) = &closure.lifetimes {
        return Err(Error::new(lifetimes.span(), "a task closure has no lifetimes of its own"));
    }
    Ok(())
}

fn generate(input: &Input, parameters: &[Parameter], lent: Option<&Lent>) -> TokenStream {
    let Input { krate, captures, closure } = input;
    let private = quote!(#krate::__private);
    let capture_names: Vec<_> = captures.iter().map(|capture| &capture.name).collect();
    let capture_types: Vec<_> = captures.iter().map(|capture| &capture.ty).collect();
    let capture_values = captures.iter().map(|capture| &capture.value);
    let captured = quote!((#(#capture_types,)*));

    let signature = signature(input);
    // A capture may go unused and a parameter's type be spelled out twice; rustc says so once, for the first copy.
    let make = match lent {
        None => quote!(let make = |(#(#capture_names,)*): #captured| #closure;),
        Some(lent) => lent.function(input, &captured, &parameters[0]),
    };

    let names: Vec<_> = (0..parameters.len()).map(|at| format_ident!("argument_{at}")).collect();
    let data: Vec<_> = parameters.iter().map(Parameter::data).collect();
    let at = 1..=parameters.len();
    let passed = parameters.iter().zip(&names).map(|(parameter, name)| parameter.passed(name));
    let nevers: Vec<_> = parameters.iter().map(|_| quote!(#private::items::never())).collect();
    let markers = parameters.iter().map(|parameter| parameter.marker(&private));
    let (returned, like, items) = match lent {
        None => (
            quote!(make(captures)(#(#passed),*)),
            quote!((|(#(#capture_names,)*): #captured| #closure)(#private::items::never())(#(#nevers),*)),
            items(&private, &captured, parameters, &nevers),
        ),
        Some(lent) => {
            (lent.returned(&private, passed), lent.like(&private), lent.items(&private, &captured, &parameters[0]))
        }
    };

    quote! {{
        static __TASK: #private::TaskDef = #private::TaskDef {
            name: ::std::concat!(::std::module_path!(), "::{closure}:", ::std::line!(), ":", ::std::column!()),
            signature: #signature,
            version: 0,
            json: ::std::option::Option::None,
            entries: || {
                // Outside of the block below, whose traits would take part in the method calls of the closure's body.
                #make
                {
                    #[allow(unused_imports)]
                    use #private::items::{
                        HasFilter as _, HasFlatMap as _, HasFold as _, HasKey as _, HasMap as _, HasOrder as _,
                        HasPartitions as _, HasReduce as _, HasRemove as _, HasTryMap as _, LacksFilter as _,
                        LacksFlatMap as _, LacksFold as _, LacksKey as _, LacksMap as _, LacksOrder as _,
                        LacksPartitions as _, LacksReduce as _, LacksRemove as _, LacksTryMap as _, OutcomeNone as _,
                        OutcomePlain as _, OutcomeResult as _,
                    };
                    #[allow(unused_imports)]
                    use #private::{ExtractList as _, ExtractListShared as _, ExtractPlain as _};
                    #private::Entries {
                        call: ::std::sync::Arc::new(move |args: &mut #private::TaskArgs| {
                            #[allow(clippy::let_unit_value)]
                            let captures = args.owned::<#captured>(0)?;
                            #(let #names: ::std::sync::Arc<#data> =
                                (&&&#private::Extract::<#data>::new()).extract(args, #at)?;)*
                            (&&&#private::items::Outcome::new(#returned)).output()
                        }),
                        items: ::std::option::Option::Some(#items),
                    }
                }
            },
        };
        #private::inventory::submit! { #private::Linked(&__TASK) }
        #[allow(warnings, clippy::all)]
        let handle = #private::items::TaskFn::<(#(#markers,)*), _>::new(
            &__TASK,
            { let captures: #captured = (#(#capture_values,)*); captures },
            || #like,
        );
        handle
    }}
}

/// The `ItemFns` of the closure `make` makes: what it can do with items. One of several parameters may take its items from
/// the parts of a tuple.
fn items(
    private: &TokenStream,
    captured: &TokenStream,
    parameters: &[Parameter],
    nevers: &[TokenStream],
) -> TokenStream {
    match parameters {
        [item] => {
            let ty = &item.ty;
            let shape = if item.by_ref { quote!(by_ref) } else { quote!(by_value) };
            quote! {{
                let shape = #private::items::#shape::<#captured, #ty, _, _, _>(make);
                #private::items::ItemFns {
                    map: (&shape).map(),
                    filter: (&shape).filter(),
                    remove: (&shape).remove(),
                    flat_map: (&shape).flat_map(),
                    try_map: (&shape).try_map(),
                    partitions: (&shape).partitions(),
                    reduce: (&shape).reduce(),
                    key: (&shape).key(),
                    topk: (&shape).topk(),
                    ..shape.base()
                }
            }}
        }
        [state, item] if !state.by_ref => {
            let (state, ty) = (&state.ty, &item.ty);
            let shape = if item.by_ref { quote!(fold_by_ref) } else { quote!(fold_by_value) };
            let starmap = starmap(private, captured, parameters);
            quote! {{
                let shape = #private::items::#shape::<#captured, #state, #ty, _, _, _>(make);
                #private::items::ItemFns { fold: (&shape).fold(), starmap: #starmap, ..shape.base() }
            }}
        }
        _ => {
            let plain = quote!(#private::items::ItemFns::plain(|| make(#private::items::never())(#(#nevers),*)));
            if parameters.is_empty() {
                return plain;
            }
            let starmap = starmap(private, captured, parameters);
            quote!(#private::items::ItemFns { starmap: #starmap, ..#plain })
        }
    }
}

/// `map` of a closure whose one parameter is a tuple of the parameters.
fn starmap(private: &TokenStream, captured: &TokenStream, parameters: &[Parameter]) -> TokenStream {
    let names: Vec<_> = (0..parameters.len()).map(|at| format_ident!("part_{at}")).collect();
    let data: Vec<_> = parameters.iter().map(Parameter::data).collect();
    let passed = parameters.iter().zip(&names).map(|(parameter, name)| {
        let ty = &parameter.ty;
        if parameter.by_ref { quote!(::std::borrow::Borrow::<#ty>::borrow(&#name)) } else { quote!(#name) }
    });
    quote! {{
        let shape = #private::items::by_value::<#captured, (#(#data,)*), _, _, _>(move |captures: #captured| {
            let closure = make(captures);
            move |(#(#names,)*): (#(#data,)*)| closure(#(#passed),*)
        });
        (&shape).map()
    }}
}

/// What a person sees in a list of tasks, and a digest of the body: nodes whose closures differ must not mix.
fn signature(input: &Input) -> String {
    let parameters = &input.closure.inputs;
    let output = &input.closure.output;
    let body = &input.closure.body;
    let mut text = String::new();
    if !input.captures.is_empty() {
        let captures: Vec<_> = input
            .captures
            .iter()
            .map(|capture| {
                let (name, ty) = (&capture.name, &capture.ty);
                spelled(quote!(#name: #ty))
            })
            .collect();
        text += &format!("[{}]", captures.join(","));
    }
    text += &format!("|{}|{}", spelled(quote!(#parameters)), spelled(quote!(#output)));
    format!("{text}#{:08x}", digest(&spelled(quote!(#body))))
}

/// The tokens in one line, whatever their layout: literals as they are, and a space only where two tokens would otherwise
/// read as one.
fn spelled(tokens: TokenStream) -> String {
    let mut text = String::new();
    let mut before = None;
    for token in tokens {
        let apart = match (&before, &token) {
            (Some(TokenTree::Punct(one)), TokenTree::Punct(_)) => one.spacing() == Spacing::Alone,
            (Some(TokenTree::Ident(_) | TokenTree::Literal(_)), TokenTree::Ident(_) | TokenTree::Literal(_)) => true,
            _ => false,
        };
        if apart {
            text.push(' ');
        }
        match &token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    // What a macro has put in as one piece; it binds as if it stood in parentheses.
                    Delimiter::None => ("\u{27e8}", "\u{27e9}"),
                };
                text += open;
                text += &spelled(group.stream());
                text += close;
            }
            other => text += &other.to_string(),
        }
        before = Some(token);
    }
    text
}

/// FNV-1a of 32 bits: the same for every build of the same source.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: TokenStream) -> String {
        expand(input).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_a_task_is_an_error_that_says_what_to_write() {
        assert!(error(quote!(parse)).starts_with("task! takes a closure"));
        assert!(error(quote!(|line| line)).starts_with("a task's parameter needs its type"));
        assert!(error(quote!(|line: &mut String| ())).starts_with("a task cannot change its input"));
        assert!(error(quote!(async |line: String| line)).starts_with("a task closure is not async"));
        assert!(error(quote!([min] |n: u8| n > min)).starts_with("a capture needs its type"));
        assert!(
            error(quote!(|a: u8, b: u8, c: u8, d: u8, e: u8, f: u8| ())).starts_with("a task closure takes at most 5")
        );
    }

    #[test]
    fn the_signature_tells_bodies_apart_but_not_layouts() {
        let of = |tokens| signature(&syn::parse2(tokens).unwrap());
        let one = of(quote!([min: i64 = 3] |n: &i64| *n > min));
        assert!(one.starts_with("[min:i64]|n: &i64|#"), "{one}");
        assert_eq!(one, of("[ min : i64=4 ]\n|n: & i64|   *n>min".parse().unwrap()));
        assert_ne!(one, of(quote!([min: i64 = 3] |n: &i64| *n >= min)));
        for (one, other) in [
            ("|s: &str| s.split(' ').count()", "|s: &str| s.split('\t').count()"),
            (r#"|s: &str| s.split("a b").count()"#, r#"|s: &str| s.split("ab").count()"#),
            (r#"|s: &str| format!("{s} ")"#, r#"|s: &str| format!("{s}")"#),
            ("|a: bool| a & &b()", "|a: bool| a && b()"),
            ("|a: u8| m!(a b)", "|a: u8| m!(ab)"),
            ("|a: u8| m!(a (b) c)", "|a: u8| m!(a (b c))"),
        ] {
            assert_ne!(of(one.parse().unwrap()), of(other.parse().unwrap()), "{one}");
        }
    }
}
