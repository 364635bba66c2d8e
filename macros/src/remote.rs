//! `#[derive(RemoteMessage)]`: what a message is called on the wire, and which actors take it from other nodes.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Data, DeriveInput, Error, LitInt, Meta, Path, Result, Token, Type, parse_quote};

/// What stands in `#[remote( ... )]`.
struct Options {
    krate: Path,
    version: u32,
    actors: Vec<Type>,
}

enum Option_ {
    Crate(Path),
    Version(u32),
    Actor(Type),
}

impl Parse for Option_ {
    fn parse(input: ParseStream<'_>) -> Result<Option_> {
        if input.peek(Token![crate]) && input.peek2(Token![=]) {
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            return Ok(Option_::Crate(input.call(Path::parse_mod_style)?));
        }
        if input.peek(syn::Ident) && input.peek2(Token![=]) {
            let name: syn::Ident = input.parse()?;
            if name != "version" {
                return Err(Error::new(
                    name.span(),
                    "a remote message takes `version = NUMBER`, `crate = PATH` and actors",
                ));
            }
            input.parse::<Token![=]>()?;
            return Ok(Option_::Version(input.parse::<LitInt>()?.base10_parse()?));
        }
        Ok(Option_::Actor(input.parse()?))
    }
}

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let item: DeriveInput = syn::parse2(item)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "a remote message has no generics: write one type for each message",
        ));
    }
    let options = options_of(&item.attrs)?;
    let schema = schema_of(&item);
    let Options { krate, version, actors } = options;
    let message = &item.ident;
    let name = message.to_string();
    let accepted = actors.iter().map(|actor| accept(&krate, actor, &parse_quote!(#message)));
    Ok(quote! {
        impl #krate::__remote::RemoteMessage for #message {
            const DEF: #krate::__remote::MessageDef = #krate::__remote::MessageDef {
                name: ::core::concat!(::core::module_path!(), "::", #name),
                version: #version,
                schema: #schema,
            };
        }
        #(#accepted)*
    })
}

fn accept(krate: &Path, actor: &Type, message: &Type) -> TokenStream {
    quote! {
        impl #krate::__remote::actix::Handler<#krate::__remote::Delivered<#message>> for #actor {
            type Result = ();

            fn handle(
                &mut self,
                message: #krate::__remote::Delivered<#message>,
                context: &mut <#actor as #krate::__remote::actix::Actor>::Context,
            ) {
                message.hand_to(self, context);
            }
        }

        impl #krate::__remote::Accepts<#message> for #actor {}

        #krate::__remote::inventory::submit! { #krate::__remote::Handling::of::<#actor, #message>() }
    }
}

fn options_of(attributes: &[Attribute]) -> Result<Options> {
    let mut options = Options { krate: parse_quote!(::starling), version: 0, actors: Vec::new() };
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("remote")) {
        for option in attribute.parse_args_with(Punctuated::<Option_, Token![,]>::parse_terminated)? {
            match option {
                Option_::Crate(krate) => options.krate = krate,
                Option_::Version(version) => options.version = version,
                Option_::Actor(actor) => options.actors.push(actor),
            }
        }
    }
    Ok(options)
}

/// A hash of what decides about the encoding, as it is written: the fields with their serde attributes, and the result.
fn schema_of(item: &DeriveInput) -> u64 {
    let mut item = item.clone();
    let is_of_encoding = |attribute: &Attribute| attribute.path().is_ident("serde");
    let result = item.attrs.iter().filter(|attribute| attribute.path().is_ident("rtype"));
    let mut text: String = result
        .map(|attribute| match &attribute.meta {
            Meta::List(list) => list.tokens.to_string(),
            other => other.to_token_stream().to_string(),
        })
        .collect();
    let keep = |attributes: &mut Vec<Attribute>| attributes.retain(is_of_encoding);
    match &mut item.data {
        Data::Struct(data) => data.fields.iter_mut().for_each(|field| keep(&mut field.attrs)),
        Data::Enum(data) => data.variants.iter_mut().for_each(|variant| {
            keep(&mut variant.attrs);
            variant.fields.iter_mut().for_each(|field| keep(&mut field.attrs));
        }),
        Data::Union(_) => {}
    }
    item.attrs.retain(is_of_encoding);
    item.vis = syn::Visibility::Inherited;
    text.push_str(&item.to_token_stream().to_string());
    // FNV-1a: it must be the same in every build.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
