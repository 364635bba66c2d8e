//! A task with its arguments, not yet submitted.

use std::error::Error;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use starling_core::failure::FailureCause;
use starling_core::spec::{Amount, NAME_BYTES_MAX, PartOf, REQUIREMENTS_MAX, Requirements, TaskOptions};

use super::TaskDef;
use super::args::{Arg, ArgList, Input, IntoArg};
use super::future::ClientError;
use crate::value::{CodecError, Data, Encoded};

/// A task with its arguments, whose output is an `R`. Submitting it gives a `Future<R>`.
#[must_use = "a call does nothing until it is submitted"]
pub struct Call<R> {
    def: &'static TaskDef,
    args: ArgList,
    options: TaskOptions,
    /// `None` as long as the caller has not said any.
    priority: Option<i32>,
    /// The first option that is out of its bounds.
    problem: Option<String>,
    result: PhantomData<fn() -> R>,
}

/// A call without its type, for the client.
#[derive(Clone)]
pub struct CallParts {
    /// The function.
    pub def: &'static TaskDef,
    /// The encoded arguments.
    pub payload: Vec<u8>,
    /// What the payload refers to, by number.
    pub inputs: Vec<Input>,
    /// How the task is to be treated.
    pub options: TaskOptions,
    /// Whether the caller has said the priority that is in the options.
    pub has_priority: bool,
}

impl<R> Call<R> {
    /// A call of `def` without arguments. Written by the macros, which know that `def` gives an `R`.
    pub fn new(def: &'static TaskDef) -> Call<R> {
        Call {
            def,
            args: ArgList::default(),
            options: TaskOptions::default(),
            priority: None,
            problem: None,
            result: PhantomData,
        }
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

    /// Higher runs first, whatever was submitted earlier. The default is 0; inside of a task, one more than that task's,
    /// so that what was begun is finished first.
    pub fn priority(mut self, priority: i32) -> Call<R> {
        self.priority = Some(priority);
        self
    }

    /// How long one try may run, in whole milliseconds, rounded up. A task that runs longer fails with
    /// [`FailureCause::TimedOut`], and its place on the worker is free again at once; its thread ends only when it returns,
    /// since user code cannot be stopped from outside. 0 or more than 49 days is refused when the call is submitted.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use starling_runtime::task::Call;
    /// # fn limited(call: Call<u64>) -> Call<u64> {
    /// call.timeout(Duration::from_secs(30)).retries(2)
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Call<R> {
        let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
        match u32::try_from(rounded_up) {
            Ok(0) => self.refuse("a timeout of 0 would let nothing run: leave it out for no limit".to_owned()),
            Ok(timeout_ms) => self.options.timeout_ms = timeout_ms,
            Err(_) => self.refuse(format!(
                "a timeout of {} s is too long: give at most {} s, or leave it out for no limit",
                timeout.as_secs(),
                u32::MAX / 1000
            )),
        }
        self
    }

    /// Of the inputs from number `from` on, the task takes only part `index` of `of`: where such an input is not on the
    /// task's own worker, no more than this part of it is fetched. Inputs are the futures among the arguments, those in lists
    /// included, numbered from 0 in their order. They should be [`Parts`](crate::parts::Parts) of `of` parts each, about
    /// equally large: the task gets `Parts` of which at least that part is there. An output that is not in parts is taken
    /// whole.
    ///
    /// ```
    /// # use starling_runtime::task::Call;
    /// # fn merged(merge: impl Fn(usize) -> Call<u64>) -> Vec<Call<u64>> {
    /// (0..8).map(|index| merge(index).part(index, 8, 0)).collect()
    /// # }
    /// ```
    pub fn part(mut self, index: usize, of: usize, from: usize) -> Call<R> {
        let number = |number: usize| u32::try_from(number).ok();
        let of_parts = number(of).and_then(NonZeroU32::new);
        match (number(index).filter(|_| index < of), of_parts, number(from)) {
            (Some(index), Some(of), Some(from)) => self.options.part = Some(PartOf { index, of, from }),
            _ => self.refuse(format!("part {index} of {of} does not exist: parts are numbered from 0")),
        }
        self
    }

    /// The output is kept on so many workers, so that it survives the loss of all but one of them without being computed
    /// again. If there are fewer workers it is on all of them, and on more as soon as they come. 0 is refused when the call
    /// is submitted.
    ///
    /// ```
    /// # use starling_runtime::task::Call;
    /// # fn precious(call: Call<u64>) -> Call<u64> {
    /// call.replicas(2)
    /// # }
    /// ```
    pub fn replicas(mut self, replicas: u8) -> Call<R> {
        if replicas == 0 {
            self.refuse("an output on 0 workers is nowhere: give 1, or leave it out, for a single copy".to_owned());
        }
        self.options.replicas = replicas;
        self
    }

    /// What the task takes of an abstract resource while it runs: it runs only on workers that were started with
    /// `--resources` of that name, and no more such tasks at once than these have. Amounts have at most three decimals.
    ///
    /// ```
    /// # use starling_runtime::task::Call;
    /// # fn on_gpu(call: Call<u64>) -> Call<u64> {
    /// call.resource("gpu", 1.0).resource("disk", 0.25)
    /// # }
    /// ```
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Call<R> {
        let name = name.into();
        match (name_problem("resource", &name), amount_of(amount)) {
            (Some(problem), _) => self.refuse(problem),
            (None, None) => self
                .refuse(format!("{amount} is no amount of {name}: give a number above 0 with at most three decimals")),
            (None, Some(amount)) => {
                self.requirements().resources.insert(name, amount);
            }
        }
        self
    }

    /// The only workers that may run the task, each by its name, its host's name, or the beginning of its node's id.
    /// None at all is no restriction.
    ///
    /// ```
    /// # use starling_runtime::task::Call;
    /// # fn near_the_data(call: Call<u64>) -> Call<u64> {
    /// call.workers(["rack1-a", "rack1-b"]).allow_other_workers()
    /// # }
    /// ```
    pub fn workers(mut self, workers: impl IntoIterator<Item = impl Into<String>>) -> Call<R> {
        for worker in workers {
            let worker = worker.into();
            match name_problem("worker", &worker) {
                Some(problem) => self.refuse(problem),
                None => self.requirements().workers.push(worker),
            }
        }
        self
    }

    /// Lets the task run elsewhere as long as none of the [`workers`](Call::workers) is there.
    pub fn allow_other_workers(mut self) -> Call<R> {
        self.requirements().allow_other_workers = true;
        self
    }

    /// The task that is called.
    pub fn def(&self) -> &'static TaskDef {
        self.def
    }

    /// With inputs that none of its own arguments refers to.
    pub(super) fn with_inputs(mut self, inputs: Vec<Input>) -> Call<R> {
        self.args.inputs.extend(inputs);
        self
    }

    /// Treated as these parts say.
    pub(super) fn treated_as(mut self, parts: &CallParts) -> Call<R> {
        self.options = parts.options.clone();
        self.priority = parts.has_priority.then_some(parts.options.priority);
        self
    }

    /// With one more argument, encoded by who knows its type.
    pub(super) fn encoded_arg(mut self, arg: Encoded) -> Call<R> {
        self.args.args.push(Arg::Value(arg));
        self
    }

    /// The call without its type.
    ///
    /// # Errors
    /// [`ClientError::Codec`] if an argument could not be encoded, [`ClientError::BadOptions`] if an option is out of its
    /// bounds.
    pub fn into_parts(mut self) -> Result<CallParts, ClientError> {
        if let Some(error) = self.args.error {
            return Err(error.into());
        }
        let name = self.def.name;
        self.options.requirements =
            self.options.requirements.filter(|needs| !needs.resources.is_empty() || !needs.workers.is_empty());
        let counts =
            self.options.requirements.as_ref().map_or((0, 0), |needs| (needs.resources.len(), needs.workers.len()));
        let too_many = |what: &str, count: usize| {
            (count > REQUIREMENTS_MAX).then(|| format!("{count} {what} are too many: name at most {REQUIREMENTS_MAX}"))
        };
        let no_part = self.options.part.and_then(|part| part.problem(self.args.inputs.len()));
        let problem = self.problem.or(too_many("resources", counts.0)).or(too_many("workers", counts.1)).or(no_part);
        if let Some(problem) = problem {
            return Err(ClientError::BadOptions { name, problem });
        }
        self.options.priority = self.priority.unwrap_or_default();
        let payload = postcard::to_stdvec::<Vec<Arg>>(&self.args.args)
            .map_err(|source| CodecError::Encode { type_name: name, source })?;
        let (inputs, has_priority) = (self.args.inputs, self.priority.is_some());
        Ok(CallParts { def: self.def, payload, inputs, options: self.options, has_priority })
    }

    fn requirements(&mut self) -> &mut Requirements {
        Arc::make_mut(self.options.requirements.get_or_insert_default())
    }

    fn refuse(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }
}

fn name_problem(what: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        return Some(format!("a {what} without a name is none: name it"));
    }
    (name.len() > NAME_BYTES_MAX)
        .then(|| format!("the name of a {what} has {} bytes: give it at most {NAME_BYTES_MAX}", name.len()))
}

/// In whole thousandths; `None` if it is not positive, not finite, too large or finer than that.
fn amount_of(amount: f64) -> Option<Amount> {
    /// Below it every whole number of thousandths is a number of its own.
    const MAX: f64 = (1_u64 << 52) as f64;
    let thousandths = (amount * 1000.0).round();
    // 0.1 and its like are near a whole number of thousandths, not on it.
    let is_exact = (amount * 1000.0 - thousandths).abs() <= 4.0 * f64::EPSILON * thousandths.max(1.0);
    (is_exact && (1.0..=MAX).contains(&thousandths)).then_some(Amount(thousandths as u64))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::task::{Entries, Graph};

    static DEF: TaskDef = TaskDef {
        name: "crate::work",
        signature: "() -> u64",
        version: 0,
        json: None,
        entries: || Entries { call: Arc::new(|_| Err(FailureCause::UnknownKind)), items: None },
    };

    fn call() -> Call<u64> {
        Call::new(&DEF)
    }

    fn problem_of(call: Call<u64>) -> String {
        match call.into_parts().map(|parts| parts.options) {
            Err(ClientError::BadOptions { name: "crate::work", problem }) => problem,
            other => panic!("not refused for its options: {other:?}"),
        }
    }

    #[test]
    fn options_reach_the_task_as_they_were_said() {
        let parts = call()
            .timeout(Duration::from_micros(1500))
            .resource("gpu", 1.0)
            .resource("gpu", 2.0)
            .resource("disk", 0.25)
            .workers(["a"])
            .workers(vec!["b".to_owned()])
            .allow_other_workers()
            .retries(3)
            .replicas(2)
            .into_parts()
            .unwrap();
        let requirements = Requirements {
            resources: BTreeMap::from([("disk".to_owned(), Amount(250)), ("gpu".to_owned(), Amount::whole(2))]),
            workers: vec!["a".to_owned(), "b".to_owned()],
            allow_other_workers: true,
        };
        let expected = TaskOptions {
            priority: 0,
            retries: 3,
            wanted: true,
            timeout_ms: 2,
            requirements: Some(Arc::new(requirements)),
            part: None,
            replicas: 2,
        };
        assert_eq!((parts.options, parts.has_priority), (expected, false));
    }

    #[test]
    fn a_priority_is_told_from_the_default_even_if_it_is_the_same() {
        let parts = call().priority(0).into_parts().unwrap();
        assert_eq!((parts.options, parts.has_priority), (TaskOptions::default(), true));
    }

    #[test]
    fn no_restriction_is_said_by_nothing() {
        let parts = call().workers(Vec::<String>::new()).allow_other_workers().into_parts().unwrap();
        assert_eq!(parts.options, TaskOptions::default());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let longest = Duration::from_millis(u64::from(u32::MAX));
        assert_eq!(call().timeout(longest).into_parts().unwrap().options.timeout_ms, u32::MAX);
        assert!(problem_of(call().timeout(Duration::ZERO)).contains("timeout of 0"));
        assert!(problem_of(call().timeout(longest + Duration::from_nanos(1))).contains("too long"));
        assert!(problem_of(call().timeout(Duration::MAX)).contains("too long"));
        assert!(problem_of(call().replicas(0)).contains("on 0 workers is nowhere"));
        for amount in [0.0, -1.0, 0.0004, 1.0005, 1_000_000.000_5, f64::NAN, f64::INFINITY, 1e300] {
            assert!(problem_of(call().resource("gpu", amount)).contains("is no amount of gpu"), "{amount}");
        }
        for amount in [0.001, 0.1, 0.333, 1.005, 1_000_000.001] {
            assert!(call().resource("gpu", amount).into_parts().is_ok(), "{amount}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(problem_of(call().resource(&long, 1.0)).contains("257 bytes"));
        assert!(problem_of(call().resource("", 1.0)).contains("without a name"));
        assert!(problem_of(call().workers(["a", &long])).contains("257 bytes"));
        assert!(problem_of(call().workers([""])).contains("without a name"));
        let many = (0..=REQUIREMENTS_MAX).map(|number| number.to_string());
        assert!(problem_of(call().workers(many.clone())).contains("65 workers are too many"));
        assert!(call().workers(many.clone().skip(1)).into_parts().is_ok());
        assert!(
            problem_of(many.fold(call(), |call, name| call.resource(name, 1.0))).contains("65 resources are too many")
        );
    }

    #[test]
    fn the_first_problem_is_told_and_a_graph_tells_it_too() {
        let bad = || call().resource("", 1.0).timeout(Duration::ZERO);
        assert!(problem_of(bad()).contains("without a name"));
        let mut graph = Graph::new();
        assert!(matches!(graph.add("one", bad()), Err(ClientError::BadOptions { .. })));
        // The name is still free.
        graph.add("one", call()).unwrap();
    }
}
