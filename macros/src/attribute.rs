//! `#[task]`: a function and the call of it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, ItemFn, LitBool, LitInt, Pat, Path, PathArguments, Result, ReturnType, Type,
    parse_quote,
};

/// What stands in the attribute's parentheses.
struct Options {
    krate: Path,
    version: u32,
    json: bool,
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = parse_options(attributes)?;
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let parameters = function.sig.inputs.iter().map(Parameter::of).collect::<Result<Vec<_>>>()?;
    Ok(generate(&options, &function, &parameters))
}

fn parse_options(attributes: TokenStream) -> Result<Options> {
    let mut options = Options { krate: parse_quote!(::starling), version: 0, json: true };
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            options.krate = meta.value()?.call(Path::parse_mod_style)?;
        } else if meta.path.is_ident("version") {
            options.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
        } else if meta.path.is_ident("json") {
            options.json = meta.value()?.parse::<LitBool>()?.value;
        } else {
            return Err(meta.error("a task takes `version = NUMBER`, `json = false` and `crate = PATH`"));
        }
        Ok(())
    });
    parser.parse2(attributes)?;
    Ok(options)
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return Err(Error::new(signature.generics.span(), "a task has no generics: write one task for each type"));
    }
    if let Some(unsafety) = &signature.unsafety {
        return Err(Error::new(unsafety.span(), "a task is not unsafe: a worker cannot know what it must uphold"));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(Error::new(variadic.span(), "a task has a fixed number of parameters"));
    }
    Ok(())
}

/// How a parameter is filled from the stored value, which is shared with the store.
enum Pass {
    /// `T`: moved, or copied if something else holds it.
    Owned,
    /// `Arc<T>`.
    Shared,
    /// `&T`.
    Borrowed,
    /// `&[T]` from a `Vec<T>`, `&str` from a `String`.
    Sliced,
}

struct Parameter {
    /// Its name; `_` if it is a pattern.
    name: String,
    /// Its type, as written.
    written: String,
    /// The type of the value that a caller gives.
    data: Type,
    pass: Pass,
}

impl Parameter {
    fn of(argument: &FnArg) -> Result<Parameter> {
        let typed = match argument {
            FnArg::Typed(typed) => typed,
            FnArg::Receiver(receiver) => {
                return Err(Error::new(receiver.span(), "a task is a plain function: pass `self` as an argument"));
            }
        };
        let name = match &*typed.pat {
            Pat::Ident(name) => name.ident.unraw().to_string(),
            _ => "_".to_owned(),
        };
        let written = spelled(&typed.ty);
        let (data, pass) = match &*typed.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                return Err(Error::new(reference.span(), "a task cannot change its input: take it owned or by `&`"));
            }
            Type::Reference(reference) => match &*reference.elem {
                Type::Slice(slice) => {
                    let element = &slice.elem;
                    (parse_quote!(::std::vec::Vec<#element>), Pass::Sliced)
                }
                Type::Path(path) if path.path.is_ident("str") => (parse_quote!(::std::string::String), Pass::Sliced),
                data => (data.clone(), Pass::Borrowed),
            },
            ty => match arc_of(ty) {
                Some(data) => (data, Pass::Shared),
                None => (ty.clone(), Pass::Owned),
            },
        };
        Ok(Parameter { name, written, data, pass })
    }
}

/// A type for a person: without the spaces between its tokens but where two words would read as one.
fn spelled(ty: &Type) -> String {
    let text = quote!(#ty).to_string();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut spelled = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_between_words = spelled.ends_with(is_word) && chars.peek().is_some_and(|&next| is_word(next));
        if c != ' ' || is_between_words || spelled.ends_with(',') {
            spelled.push(c);
        }
    }
    spelled
}

/// The `T` of an `Arc<T>`.
fn arc_of(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match (last.ident == "Arc", arguments.args.first()) {
        (true, Some(GenericArgument::Type(inner))) => Some(inner.clone()),
        _ => None,
    }
}

fn is_result(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
}

fn generate(options: &Options, function: &ItemFn, parameters: &[Parameter]) -> TokenStream {
    let krate = &options.krate;
    let version = options.version;
    let private = quote!(#krate::__private);
    let name = &function.sig.ident;
    let visibility = &function.vis;

    let mut types = String::new();
    for argument in &function.sig.inputs {
        if let FnArg::Typed(typed) = argument {
            let ty = &typed.ty;
            types += &format!("{},", quote!(#ty));
        }
    }
    let returned: Type = match &function.sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    let signature = format!("({types}) -> {}", quote!(#returned)).replace(' ', "");

    let names: Vec<_> = (0..parameters.len()).map(|at| format_ident!("argument_{at}")).collect();
    let data: Vec<_> = parameters.iter().map(|parameter| &parameter.data).collect();
    let at = 0..parameters.len();
    let passed = parameters.iter().zip(&names).map(|(parameter, name)| match parameter.pass {
        Pass::Owned => quote!(::std::sync::Arc::unwrap_or_clone(#name)),
        Pass::Shared => quote!(#name),
        Pass::Borrowed => quote!(&*#name),
        Pass::Sliced => quote!(&#name[..]),
    });
    let called = quote!(#name(#(#passed),*));
    let run = if function.sig.asyncness.is_some() { quote!(#private::block_on(#called)) } else { called };
    let (output, outcome) = if is_result(&returned) {
        (quote!(<#returned as #private::TaskResult>::Output), quote!(#private::TaskResult::into_outcome(#run)?))
    } else {
        (quote!(#returned), run)
    };
    let json = if options.json {
        let parameters = parameters.iter().map(|Parameter { name, written, data, .. }| {
            quote!(#private::JsonParameter { name: #name, written: #written, encode: #private::encode_json::<#data> })
        });
        quote!(::std::option::Option::Some(#private::JsonEntry {
            parameters: &[#(#parameters),*],
            show: #private::show_json::<#output>,
        }))
    } else {
        quote!(::std::option::Option::None)
    };
    let doc = format!("Calls of the task [`{name}`](fn@{name}).");

    quote! {
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types)]
        #visibility struct #name {}

        const _: () = {
            static DEF: #private::TaskDef = #private::TaskDef {
                name: ::std::concat!(::std::module_path!(), "::", ::std::stringify!(#name)),
                signature: #signature,
                version: #version,
                json: #json,
                entries: || #private::Entries {
                    call: ::std::sync::Arc::new(|args: &mut #private::TaskArgs| {
                        #[allow(unused_imports)]
                        use #private::{ExtractList as _, ExtractListShared as _, ExtractPlain as _};
                        #(let #names: ::std::sync::Arc<#data> = (&&&#private::Extract::<#data>::new()).extract(args, #at)?;)*
                        #[allow(clippy::let_unit_value)]
                        let output = #outcome;
                        ::std::result::Result::Ok(#private::Value::live::<#output>(output))
                    }),
                    items: ::std::option::Option::None,
                },
            };

            #private::inventory::submit! { #private::Linked(&DEF) }

            impl #name {
                /// A call of the task, to be submitted.
                #[allow(clippy::too_many_arguments)]
                #visibility fn task(#(#names: impl #private::IntoArg<#data>),*) -> #private::Call<#output> {
                    #private::Call::new(&DEF)#(.arg::<#data>(#names))*
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_a_person_writes_them() {
        for text in ["u64", "&[i64]", "&str", "BTreeMap<String, Vec<u8>>", "&'static str", "(u8, dyn Any)", "[u8;16]"] {
            assert_eq!(spelled(&syn::parse_str(text).unwrap()), text);
        }
    }

    #[test]
    fn what_the_attribute_does_not_take_is_an_error_that_names_what_it_takes() {
        let function = quote!(
            fn f() {}
        );
        let error = expand(quote!(retries = 3), function.clone()).unwrap_err();
        assert_eq!(error.to_string(), "a task takes `version = NUMBER`, `json = false` and `crate = PATH`");
        let generated = |attributes| expand(attributes, function.clone()).unwrap().to_string();
        assert!(generated(quote!()).contains("JsonEntry"));
        assert!(!generated(quote!(json = false)).contains("JsonEntry"));
    }
}
