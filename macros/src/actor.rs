//! `#[actor]`: an actor that the cluster can make.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{Error, ItemImpl, Path, Result, parse_quote};

struct Options {
    krate: Path,
    snapshot: bool,
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Options { krate, snapshot } = parse_options(attributes)?;
    let item: ItemImpl = syn::parse2(item)?;
    let trait_name = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    if trait_name.is_none_or(|segment| segment.ident != "RemoteActor") {
        return Err(Error::new_spanned(&item.self_ty, "this belongs on `impl RemoteActor for` an actor"));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "an actor that is spawned has no generics: write one for each type",
        ));
    }
    let actor = &item.self_ty;
    let def = if snapshot { quote!(with_snapshots) } else { quote!(of) };
    Ok(quote! {
        #item

        #krate::__remote::inventory::submit! { #krate::__spawn::ActorDef::#def::<#actor>() }
    })
}

fn parse_options(attributes: TokenStream) -> Result<Options> {
    let mut options = Options { krate: parse_quote!(::starling), snapshot: false };
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            options.krate = meta.value()?.call(Path::parse_mod_style)?;
        } else if meta.path.is_ident("snapshot") {
            options.snapshot = true;
        } else {
            return Err(meta.error("an actor takes `snapshot` and `crate = PATH`"));
        }
        Ok(())
    });
    parser.parse2(attributes)?;
    Ok(options)
}
