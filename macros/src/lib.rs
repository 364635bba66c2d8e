//! The macros that make a function a task (`#[task]`, and `task!` for a closure), and a type a message to remote actors
//! (`#[derive(RemoteMessage)]`), and an actor one that the cluster can make (`#[actor]`).
//!
//! The first two write a `TaskDef` into the binary. What they generate refers to `CRATE::__private`, where `CRATE` is
//! `::starling` unless `crate = path` says otherwise.

use proc_macro::TokenStream;

mod actor;
mod attribute;
mod closure;
mod lent;
mod remote;

/// Makes a function a task: beside the function `f` it defines `f::task(args...)`, a call that can be submitted.
///
/// Parameters may be owned (`Vec<String>`), references (`&Vec<String>`, `&[String]`, `&str`) or `Arc<T>`. References and
/// `Arc`s share the stored value, owned parameters copy it when something else holds it too. Each argument of
/// `f::task` may be the value or a `Future` of it; for a `Vec<T>` or `&[T]` also a `Vec<Future<T>>`. The function may be
/// `async`, and may return a value or a `Result`, whose error with its chain of sources reaches the client.
///
/// ```ignore
/// #[starling::task]
/// fn total(parts: &[u64]) -> u64 { parts.iter().sum() }
///
/// let sum = cluster.submit(total::task(vec![1, 2, 3])).result().await?;
/// ```
///
/// `#[task(version = 2)]` gives the function a new id although its signature is the same: for a change of meaning that
/// must not be mixed in one cluster.
///
/// `node submit` calls the function by its name with arguments in JSON; `#[task(json = false)]` keeps it out of that, for
/// functions whose arguments nobody would write by hand.
#[proc_macro_attribute]
pub fn task(attributes: TokenStream, item: TokenStream) -> TokenStream {
    attribute::expand(attributes.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a closure a task: `task!(|line: String| line.len())`, a typed handle that collections run item by item and that
/// `handle.call(args...)` makes an ordinary call of.
///
/// Parameters need their types; `&T` takes the item by reference, as `filter` and keys want it. Captures are listed, since
/// they are encoded and sent: `task!([min: i64 = 3, tag: String] |post: &Post| ...)`, where `tag: String` alone means a
/// clone of the variable `tag`. Inside the closure they are used like captured variables. A closure whose result type is
/// open (`|x: u32| 1`) needs it written: `|x: u32| -> u64 { 1 }`. There is no `task!` inside of a `task!`.
///
/// A closure of one parameter `&T` may give what borrows from it, if it says so: `|line: &str| -> &str { line.trim() }`, or
/// for `flat_map` `|line: &str| -> impl Iterator<Item = &str> { line.split(' ') }`. Texts are then not copied on their way to
/// the next step, and to a key not at all. Such a closure sees its captures by reference.
///
/// `crate = path,` at the start says where the generated code finds Starling, if not at `::starling`.
///
/// An attribute and a macro cannot be reached by one path, so this one is `starling::prelude::task!`, while the attribute
/// is `#[starling::task]`.
#[proc_macro]
pub fn task_closure(input: TokenStream) -> TokenStream {
    closure::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a serde type a message for actors on any node. `#[remote(Counter, Audit)]` names the actors of this crate that take it;
/// each has an ordinary actix `Handler` for it. `#[derive(actix::Message)]` and `#[rtype(result = "...")]` say what the answer is.
///
/// ```ignore
/// #[derive(Serialize, Deserialize, Message, RemoteMessage)]
/// #[rtype(result = "u64")]
/// #[remote(Counter)]
/// struct Add(u64);
/// ```
///
/// Two nodes mean the same by a message if its path, its fields with their serde attributes, its result and its version are the same.
/// `#[remote(version = 2, Counter)]` makes it another message for a change that these do not show. `crate = path` says where the
/// generated code finds Starling, if not at `::starling`.
#[proc_macro_derive(RemoteMessage, attributes(remote))]
pub fn remote_message(input: TokenStream) -> TokenStream {
    remote::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Has the cluster be able to make actors of a type: on its `impl RemoteActor`. `#[starling::actor(snapshot)]` if the type has
/// `Snapshot` too, so that its state is kept on other nodes. `crate = path` says where the generated code finds Starling, if not at
/// `::starling`.
///
/// ```ignore
/// #[starling::actor]
/// impl RemoteActor for Counter {
///     type Args = u64;
///
///     fn create(from: u64, _: &ActorEnv) -> Result<Counter, BoxError> {
///         Ok(Counter { total: from })
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn actor(attributes: TokenStream, item: TokenStream) -> TokenStream {
    actor::expand(attributes.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
