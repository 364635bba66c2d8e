//! A task with its arguments, not yet submitted.

use std::error::Error;
use std::marker::PhantomData;

use starling_core::failure::FailureCause;
use starling_core::spec::TaskOptions;

use super::TaskDef;
use super::args::{Arg, ArgList, Input, IntoArg};
use crate::value::{CodecError, Data};

/// A task with its arguments, whose output is an `R`. Submitting it gives a `Future<R>`.
#[must_use = "a call does nothing until it is submitted"]
pub struct Call<R> {
    def: &'static TaskDef,
    args: ArgList,
    options: TaskOptions,
    result: PhantomData<fn() -> R>,
}

/// A call without its type, for the client.
pub struct CallParts {
    /// The function.
    pub def: &'static TaskDef,
    /// The encoded arguments.
    pub payload: Vec<u8>,
    /// What the payload refers to, by number.
    pub inputs: Vec<Input>,
    /// How the task is to be treated.
    pub options: TaskOptions,
}

impl<R> Call<R> {
    /// A call of `def` without arguments. Written by the macros, which know that `def` gives an `R`.
    pub fn new(def: &'static TaskDef) -> Call<R> {
        Call { def, args: ArgList::default(), options: TaskOptions::default(), result: PhantomData }
    }

    /// With one more argument, for a parameter of type `T`.
    pub fn arg<T>(mut self, arg: impl IntoArg<T>) -> Call<R> {
        arg.into_arg(&mut self.args);
        self
    }

    /// Tried again this often if it returns an error or panics.
    pub fn retries(mut self, retries: u16) -> Call<R> {
        self.options.retries = retries;
        self
    }

    /// Higher runs first, whatever was submitted earlier. The default is 0.
    pub fn priority(mut self, priority: i32) -> Call<R> {
        self.options.priority = priority;
        self
    }

    /// The call without its type. Fails if an argument could not be encoded.
    pub fn into_parts(self) -> Result<CallParts, CodecError> {
        if let Some(error) = self.args.error {
            return Err(error);
        }
        let payload = postcard::to_stdvec::<Vec<Arg>>(&self.args.args)
            .map_err(|source| CodecError::Encode { type_name: self.def.name, source })?;
        Ok(CallParts { def: self.def, payload, inputs: self.args.inputs, options: self.options })
    }
}

/// What a task may return besides a plain value: a `Result`, whose error becomes the task's failure.
pub trait TaskResult {
    /// The task's output.
    type Output: Data;

    /// The output, or why there is none.
    fn into_outcome(self) -> Result<Self::Output, FailureCause>;
}

impl<T: Data, E: Into<Box<dyn Error + Send + Sync>>> TaskResult for Result<T, E> {
    type Output = T;

    fn into_outcome(self) -> Result<T, FailureCause> {
        self.map_err(|error| {
            let error = error.into();
            let mut sources = Vec::new();
            let mut source = error.source();
            while let Some(error) = source {
                sources.push(error.to_string());
                source = error.source();
            }
            FailureCause::Error { message: error.to_string(), sources }
        })
    }
}
