//! Arguments: what a caller may write, how they cross, and how a task gets them with their types.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;

use super::delayed::{Delayed, DelayedNode};
use super::future::{Future, FutureInner};
use super::graph::Key;
use crate::value::{CodecError, Data, Encoded, LiveValue, Value};

/// An argument as it is in a task's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// The value itself.
    Value(Encoded),
    /// The output of the task's input with this number.
    Input(u32),
    /// A list, each element the output of one input.
    Inputs(Vec<u32>),
}

/// What a caller may pass where a task takes a `T`: a `T`, a future of one, or, for a list, a list of futures.
pub trait IntoArg<T> {
    /// Adds itself to the call's arguments.
    fn into_arg(self, args: &mut ArgList);
}

/// What an argument refers to that is not the value itself.
#[derive(Clone)]
pub enum Input {
    /// A submitted task's output.
    Future(Arc<FutureInner>),
    /// The output of the task of this key, in the same [`Graph`](super::Graph).
    Key(String),
    /// The output of a call that is not submitted yet.
    Delayed(Arc<DelayedNode>),
}

/// The arguments of a call under construction.
#[derive(Default)]
pub struct ArgList {
    pub(super) args: Vec<Arg>,
    pub(super) inputs: Vec<Input>,
    pub(super) error: Option<CodecError>,
}

impl ArgList {
    fn input<T>(&mut self, future: Future<T>) -> u32 {
        self.inputs.push(Input::Future(future.inner));
        self.inputs.len() as u32 - 1
    }

    fn delayed_list<T>(&mut self, delayed: impl Iterator<Item = Delayed<T>>) {
        let first = self.inputs.len() as u32;
        self.inputs.extend(delayed.map(|delayed| Input::Delayed(delayed.node)));
        self.args.push(Arg::Inputs((first..self.inputs.len() as u32).collect()));
    }
}

impl<T: Data> IntoArg<T> for T {
    fn into_arg(self, args: &mut ArgList) {
        match Encoded::of(&self) {
            Ok(encoded) => args.args.push(Arg::Value(encoded)),
            // Said when the call is submitted: a caller should not have to handle every argument by itself.
            Err(error) => {
                args.error.get_or_insert(error);
            }
        }
    }
}

impl<T> IntoArg<T> for Future<T> {
    fn into_arg(self, args: &mut ArgList) {
        let number = args.input(self);
        args.args.push(Arg::Input(number));
    }
}

impl<T> IntoArg<T> for &Future<T> {
    fn into_arg(self, args: &mut ArgList) {
        self.clone().into_arg(args);
    }
}

impl<T> IntoArg<T> for Key<T> {
    fn into_arg(self, args: &mut ArgList) {
        args.inputs.push(Input::Key(self.name));
        args.args.push(Arg::Input(args.inputs.len() as u32 - 1));
    }
}

impl<T> IntoArg<Vec<T>> for Vec<Key<T>> {
    fn into_arg(self, args: &mut ArgList) {
        let first = args.inputs.len() as u32;
        args.args.push(Arg::Inputs((first..first + self.len() as u32).collect()));
        args.inputs.extend(self.into_iter().map(|key| Input::Key(key.name)));
    }
}

impl<T> IntoArg<Vec<T>> for Vec<Future<T>> {
    fn into_arg(self, args: &mut ArgList) {
        let numbers = self.into_iter().map(|future| args.input(future)).collect();
        args.args.push(Arg::Inputs(numbers));
    }
}

impl<T> IntoArg<Vec<T>> for &[Future<T>] {
    fn into_arg(self, args: &mut ArgList) {
        IntoArg::<Vec<T>>::into_arg(self.to_vec(), args);
    }
}

/// A list whose elements the task shares instead of owning them.
impl<T> IntoArg<Vec<Arc<T>>> for Vec<Future<T>> {
    fn into_arg(self, args: &mut ArgList) {
        let numbers = self.into_iter().map(|future| args.input(future)).collect();
        args.args.push(Arg::Inputs(numbers));
    }
}

impl<T> IntoArg<T> for Delayed<T> {
    fn into_arg(self, args: &mut ArgList) {
        args.inputs.push(Input::Delayed(self.node));
        args.args.push(Arg::Input(args.inputs.len() as u32 - 1));
    }
}

impl<T> IntoArg<T> for &Delayed<T> {
    fn into_arg(self, args: &mut ArgList) {
        self.clone().into_arg(args);
    }
}

impl<T> IntoArg<Vec<T>> for Vec<Delayed<T>> {
    fn into_arg(self, args: &mut ArgList) {
        args.delayed_list(self.into_iter());
    }
}

impl<T> IntoArg<Vec<T>> for &[Delayed<T>] {
    fn into_arg(self, args: &mut ArgList) {
        args.delayed_list(self.iter().cloned());
    }
}

impl<T> IntoArg<Vec<T>> for &Vec<Delayed<T>> {
    fn into_arg(self, args: &mut ArgList) {
        args.delayed_list(self.iter().cloned());
    }
}

/// A list whose elements the task shares instead of owning them.
impl<T> IntoArg<Vec<Arc<T>>> for Vec<Delayed<T>> {
    fn into_arg(self, args: &mut ArgList) {
        args.delayed_list(self.into_iter());
    }
}

/// An input that came encoded.
pub(crate) struct Decoded {
    pub(crate) number: u32,
    pub(crate) encoded: Encoded,
    pub(crate) live: Value,
}

/// The arguments of a task that is about to run.
pub struct TaskArgs {
    args: Vec<Option<Arg>>,
    inputs: Vec<Value>,
    /// The inputs that came encoded and were decoded, by number.
    decoded: Vec<Decoded>,
}

impl TaskArgs {
    /// The arguments in `payload`, which refers to `inputs` by number.
    pub fn new(payload: &[u8], inputs: Vec<Value>) -> Result<TaskArgs, FailureCause> {
        let args: Vec<Arg> = postcard::from_bytes(payload)
            .map_err(|error| FailureCause::Codec { message: format!("the task's payload: {error}") })?;
        Ok(TaskArgs { args: args.into_iter().map(Some).collect(), inputs, decoded: Vec::new() })
    }

    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `at` as it is, live or encoded, for who does not know its type.
    pub fn value(&mut self, at: usize) -> Result<Value, FailureCause> {
        match self.take(at)? {
            Arg::Value(encoded) => Ok(Value::Encoded(encoded)),
            Arg::Input(number) => self
                .inputs
                .get(number as usize)
                .cloned()
                .ok_or_else(|| FailureCause::Codec { message: format!("input {number} is missing") }),
            Arg::Inputs(_) => {
                Err(FailureCause::Codec { message: format!("argument {at} is a list of futures, not one value") })
            }
        }
    }

    /// The inputs, for a task that is made of others.
    pub(super) fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// Argument `at`, shared with the store if it is another task's output.
    pub fn shared<T: Data>(&mut self, at: usize) -> Result<Arc<T>, FailureCause> {
        match self.take(at)? {
            Arg::Value(encoded) => encoded.decode().map(Arc::new).map_err(codec),
            Arg::Input(number) => self.input(number),
            Arg::Inputs(_) => Err(FailureCause::Codec {
                message: format!("argument {at} is a list of futures, but {} is no list", std::any::type_name::<T>()),
            }),
        }
    }

    /// Argument `at`, owned: copied if the store or another task holds it too.
    pub fn owned<T: Data>(&mut self, at: usize) -> Result<T, FailureCause> {
        self.shared(at).map(Arc::unwrap_or_clone)
    }

    /// The list argument `at`, its elements shared.
    pub fn list_shared<T: Data>(&mut self, at: usize) -> Result<Vec<Arc<T>>, FailureCause> {
        match self.take(at)? {
            Arg::Inputs(numbers) => numbers.into_iter().map(|number| self.input(number)).collect(),
            arg => {
                self.args[at] = Some(arg);
                Ok(self.owned::<Vec<T>>(at)?.into_iter().map(Arc::new).collect())
            }
        }
    }

    /// The list argument `at`, owned.
    pub fn list<T: Data>(&mut self, at: usize) -> Result<Vec<T>, FailureCause> {
        match self.take(at)? {
            Arg::Inputs(numbers) => {
                numbers.into_iter().map(|number| self.input(number).map(Arc::unwrap_or_clone)).collect()
            }
            arg => {
                self.args[at] = Some(arg);
                self.owned(at)
            }
        }
    }

    fn take(&mut self, at: usize) -> Result<Arg, FailureCause> {
        self.args
            .get_mut(at)
            .and_then(Option::take)
            .ok_or_else(|| FailureCause::Codec { message: format!("argument {at} is missing") })
    }

    fn input<T: Data>(&mut self, number: u32) -> Result<Arc<T>, FailureCause> {
        let value = self
            .inputs
            .get_mut(number as usize)
            .ok_or_else(|| FailureCause::Codec { message: format!("input {number} is missing") })?;
        let live: Arc<T> = value.get().map_err(codec)?;
        if let Value::Encoded(encoded) = value {
            let encoded = encoded.clone();
            *value = Value::Live(Arc::clone(&live) as Arc<dyn LiveValue>);
            self.decoded.push(Decoded { number, encoded, live: value.clone() });
        }
        Ok(live)
    }

    /// The inputs that came encoded and now are live too.
    pub(crate) fn into_decoded(self) -> Vec<Decoded> {
        self.decoded
    }
}

fn codec(error: CodecError) -> FailureCause {
    FailureCause::Codec { message: error.to_string() }
}

/// Picks, by the type of a parameter, how its argument is taken. The macros call `(&&&Extract::<T>::new()).extract(..)`:
/// method lookup tries the traits below in their order, so that a list may also be a list of futures.
pub struct Extract<T>(PhantomData<fn() -> T>);

impl<T> Extract<T> {
    /// For a parameter of type `T`.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Extract<T> {
        Extract(PhantomData)
    }
}

/// For a `Vec<Arc<T>>`.
pub trait ExtractListShared<T> {
    /// The argument.
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<T>, FailureCause>;
}

impl<T: Data> ExtractListShared<Vec<Arc<T>>> for &&Extract<Vec<Arc<T>>> {
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<Vec<Arc<T>>>, FailureCause> {
        args.list_shared(at).map(Arc::new)
    }
}

/// For a `Vec<T>`.
pub trait ExtractList<T> {
    /// The argument.
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<T>, FailureCause>;
}

impl<T: Data> ExtractList<Vec<T>> for &Extract<Vec<T>> {
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<Vec<T>>, FailureCause> {
        if matches!(args.args.get(at), Some(Some(Arg::Inputs(_)))) {
            args.list(at).map(Arc::new)
        } else {
            args.shared(at)
        }
    }
}

/// For every other type.
pub trait ExtractPlain<T> {
    /// The argument.
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<T>, FailureCause>;
}

impl<T: Data> ExtractPlain<T> for Extract<T> {
    fn extract(&self, args: &mut TaskArgs, at: usize) -> Result<Arc<T>, FailureCause> {
        args.shared(at)
    }
}
