//! `#[task]`: a function and the call of it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, ItemFn, LitInt, Path, PathArguments, Result, ReturnType, Type, parse_quote};

/// What stands in the attribute's parentheses.
struct Options {
    krate: Path,
    version: u32,
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = parse_options(attributes)?;
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let parameters = function.sig.inputs.iter().map(Parameter::of).collect::<Result<Vec<_>>>()?;
    Ok(generate(&options, &function, &parameters))
}

fn parse_options(attributes: TokenStream) -> Result<Options> {
    let mut options = Options { krate: parse_quote!(::starling), version: 0 };
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            options.krate = meta.value()?.call(Path::parse_mod_style)?;
        } else if meta.path.is_ident("version") {
            options.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
        } else {
            return Err(meta.error("a task takes `version = NUMBER` and `crate = PATH`"));
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
        let parameter = match &*typed.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                return Err(Error::new(reference.span(), "a task cannot change its input: take it owned or by `&`"));
            }
            Type::Reference(reference) => match &*reference.elem {
                Type::Slice(slice) => {
                    let element = &slice.elem;
                    Parameter { data: parse_quote!(::std::vec::Vec<#element>), pass: Pass::Sliced }
                }
                Type::Path(path) if path.path.is_ident("str") => {
                    Parameter { data: parse_quote!(::std::string::String), pass: Pass::Sliced }
                }
                data => Parameter { data: data.clone(), pass: Pass::Borrowed },
            },
            ty => match arc_of(ty) {
                Some(data) => Parameter { data, pass: Pass::Shared },
                None => Parameter { data: ty.clone(), pass: Pass::Owned },
            },
        };
        Ok(parameter)
    }
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
