//! The typed handle of a closure that `task!` has registered.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::error::Error;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;
use starling_core::ids::KindId;

use super::ItemFns;
use crate::task::args::{Arg, ArgList, IntoArg};
use crate::task::{Call, TaskDef, TaskResult, Tasks};
use crate::value::{CodecError, Data, Encoded, Value};

/// Marks a parameter that is taken by reference, in a [`TaskFn`]'s type.
pub struct Ref<U: ?Sized>(PhantomData<fn(&U)>);

/// A parameter of a closure: a type for itself, [`Ref`] for a reference to one.
pub trait Param: 'static {
    /// The value that a caller gives, and that an item is.
    type Item: Data;
}

impl<A: Data> Param for A {
    type Item = A;
}

impl<U: ToOwned<Owned: Data> + ?Sized + 'static> Param for Ref<U> {
    type Item = U::Owned;
}

/// The parameters of a closure of several: what `starmap` spreads a tuple over.
pub trait Params: 'static {
    /// The tuple that an item is.
    type Items: Data;
}

macro_rules! params {
    ($($param:ident)*) => {
        impl<$($param: Param),*> Params for ($($param,)*) {
            type Items = ($($param::Item,)*);
        }
    };
}

params!(P1 P2);
params!(P1 P2 P3);
params!(P1 P2 P3 P4);
params!(P1 P2 P3 P4 P5);

/// A closure of the binary and the values that it has captured, as a collection's task is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FnRef {
    /// The closure.
    pub kind: KindId,
    /// Its captures, a tuple.
    pub captures: Encoded,
}

impl FnRef {
    /// The closure's item-wise entry points in this binary.
    pub fn resolve(&self) -> Result<&'static ItemFns, FailureCause> {
        Tasks::linked().get(self.kind).and_then(|task| task.entries.items.as_ref()).ok_or_else(|| FailureCause::Error {
            message: format!(
                "the closure {:?} is not in the worker's binary: start the worker from the program that submits it",
                self.kind
            ),
            sources: Vec::new(),
        })
    }
}

/// A closure that `task!` has made a task: `P` is a tuple of its parameters ([`Ref`] for those by reference), `R` what it
/// returns.
///
/// [`call`](PlainFn::call) makes an ordinary task of it; a closure that returns a `Result` then fails the task with its
/// error. Collections run it item by item.
pub struct TaskFn<P, R> {
    plain: PlainFn<P, R>,
}

/// What a [`TaskFn`] is beside the treatment of a `Result`.
pub struct PlainFn<P, R> {
    def: &'static TaskDef,
    captures: Result<Encoded, CodecError>,
    types: PhantomData<fn(P) -> R>,
}

impl<P, R: 'static> TaskFn<P, R> {
    /// The handle of `def`, a closure that returns what `like` would (it is not called). Written by `task!`.
    ///
    /// # Panics
    /// If the closure by itself returns another type than the code around the handle takes it to return, as `|| 1` may:
    /// the closure then needs a written return type.
    pub fn new<C: Data>(def: &'static TaskDef, captures: C, like: impl FnOnce() -> R) -> TaskFn<P, R> {
        drop(like);
        if let Some(items) = &(def.entries)().items
            && items.returns != TypeId::of::<R>()
        {
            panic!(
                "the closure {} returns {} but is used as if it returned {}: write its return type, |..| -> {} {{ .. }}",
                def.name,
                items.returns_name,
                type_name::<R>(),
                type_name::<R>(),
            );
        }
        TaskFn { plain: PlainFn { def, captures: Encoded::of(&captures), types: PhantomData } }
    }
}

impl<P, R> PlainFn<P, R> {
    /// The closure's name: its module, line and column.
    pub fn name(&self) -> &'static str {
        self.def.name
    }

    /// The closure as a collection's task is told of it. Fails if a captured value cannot be encoded.
    pub fn reference(&self) -> Result<FnRef, CodecError> {
        Ok(FnRef { kind: self.def.kind(), captures: self.captures.clone()? })
    }

    fn begin<T>(&self) -> Call<T> {
        Call::new(self.def).arg::<Captures>(Captures(self.captures.clone()))
    }
}

impl<P, R> Deref for TaskFn<P, R> {
    type Target = PlainFn<P, R>;

    fn deref(&self) -> &PlainFn<P, R> {
        &self.plain
    }
}

impl<P, R> Clone for TaskFn<P, R> {
    fn clone(&self) -> TaskFn<P, R> {
        let plain = &self.plain;
        TaskFn { plain: PlainFn { def: plain.def, captures: plain.captures.clone(), types: PhantomData } }
    }
}

/// A closure's captures, encoded already.
struct Captures(Result<Encoded, CodecError>);

impl IntoArg<Captures> for Captures {
    fn into_arg(self, args: &mut ArgList) {
        match self.0 {
            Ok(encoded) => args.args.push(Arg::Value(encoded)),
            Err(error) => {
                args.error.get_or_insert(error);
            }
        }
    }
}

macro_rules! call {
    ($($param:ident $arg:ident),*) => {
        impl<$($param: Param,)* R: Data> PlainFn<($($param,)*), R> {
            /// A call of the closure as one task.
            pub fn call(&self, $($arg: impl IntoArg<$param::Item>),*) -> Call<R> {
                self.begin()$(.arg::<$param::Item>($arg))*
            }
        }

        impl<$($param: Param,)* T: Data, E: Into<Box<dyn Error + Send + Sync>>> TaskFn<($($param,)*), Result<T, E>> {
            /// A call of the closure as one task, which fails if the closure returns an error.
            pub fn call(&self, $($arg: impl IntoArg<$param::Item>),*) -> Call<T> {
                self.begin()$(.arg::<$param::Item>($arg))*
            }
        }
    };
}

call!();
call!(P1 a);
call!(P1 a, P2 b);
call!(P1 a, P2 b, P3 c);
call!(P1 a, P2 b, P3 c, P4 d);
call!(P1 a, P2 b, P3 c, P4 d, P5 e);

/// Stands for a value where only a type is asked for; what calls it is never run.
pub fn never<T>() -> T {
    unreachable!("a closure was run that only has a type to show")
}

/// What a closure returned, on its way to a task's output. As with `Extract`, method lookup tries the traits below in
/// their order: a `Result` of a value, a value, anything else.
pub struct Outcome<R>(Cell<Option<R>>);

impl<R> Outcome<R> {
    /// Wraps what the closure returned.
    pub fn new(returned: R) -> Outcome<R> {
        Outcome(Cell::new(Some(returned)))
    }

    fn take(&self) -> Result<R, FailureCause> {
        self.0.take().ok_or_else(|| FailureCause::Codec { message: "a task's outcome was taken twice".into() })
    }
}

/// For a `Result<T, E>`.
pub trait OutcomeResult {
    /// The output, or why there is none.
    fn output(&self) -> Result<Value, FailureCause>;
}

impl<T: Data, E: Into<Box<dyn Error + Send + Sync>>> OutcomeResult for &&Outcome<Result<T, E>> {
    fn output(&self) -> Result<Value, FailureCause> {
        self.take()?.into_outcome().map(Value::live)
    }
}

/// For a plain value.
pub trait OutcomePlain {
    /// The output.
    fn output(&self) -> Result<Value, FailureCause>;
}

impl<T: Data> OutcomePlain for &Outcome<T> {
    fn output(&self) -> Result<Value, FailureCause> {
        self.take().map(Value::live)
    }
}

/// For what cannot be a task's output, such as an iterator.
pub trait OutcomeNone {
    /// An error that says so.
    fn output(&self) -> Result<Value, FailureCause>;
}

impl<T> OutcomeNone for Outcome<T> {
    fn output(&self) -> Result<Value, FailureCause> {
        Err(FailureCause::Codec { message: format!("{} cannot be a task's output", type_name::<T>()) })
    }
}
