//! Where actors run: an actix system of the node's own, one arbiter an actor, and in place.
//!
//! The node brings its own `System` thread, so that it can be embedded in any tokio service. Each vital actor has an
//! arbiter to itself, so that none waits for another. An actor that panics is gone, and the node with it.
//!
//! **In place.** A wake-up across threads costs more than what most inputs take: so whoever adds to the inbox of an actor that
//! nobody is running runs it, there and then, and its arbiter has nothing to do. If somebody is running it, that one takes
//! what was added too. One who has done so for [`ROUNDS_IN_PLACE`] hands over to the arbiter, so that nobody is kept from work of
//! its own. At no time do two threads run one actor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, Context, Handler, Message, System};
use starling_runtime::inbox::Inbox;
use tokio::sync::watch;

/// How often one who runs an actor in place takes what was added meanwhile.
const ROUNDS_IN_PLACE: u32 = 16;

/// What an actor of a node is to this module, which keeps actix behind it: it takes what comes, one input after the
/// other, and performs what follows from them together. It must not block, nor care which thread it is on.
pub(crate) trait Vital: Send + 'static {
    /// What may come.
    type Input: Send + 'static;
    /// How often it is ticked, if at all.
    const TICK: Option<Duration> = None;
    /// Whether it may run on the threads of those who have something for it.
    const IN_PLACE: bool = true;

    /// Takes one input.
    fn input(&mut self, input: Self::Input);

    /// Called after the last input of those that had gathered, and after a tick.
    fn perform(&mut self) {}

    fn tick(&mut self) {}
}

/// "You are to run."
#[derive(Message)]
#[rtype(result = "()")]
struct Run;

/// A node's actix system on a thread of its own.
pub(crate) struct ActorHost {
    system: System,
    thread: Option<JoinHandle<()>>,
    /// Set to the actor's name when an actor dies by a fault of ours.
    fault: watch::Sender<Option<&'static str>>,
}

impl ActorHost {
    pub(crate) fn start() -> std::io::Result<ActorHost> {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("actix-system".into()).spawn(move || {
            let runner = System::new();
            if ready.send(System::current()).is_ok() {
                // The system ends when the node stops it; its exit code is then 0.
                let _ = runner.run();
            }
        })?;
        let system = started.recv().map_err(|_| std::io::Error::other("the actix system's thread ended at once"))?;
        Ok(ActorHost { system, thread: Some(thread), fault: watch::Sender::new(None) })
    }

    /// Starts an actor with an arbiter of its own. It is run when its inbox, full at `full`, has something.
    pub(crate) fn spawn<A: Vital>(
        &self,
        name: &'static str,
        full: usize,
        make: impl FnOnce(Inbox<A::Input>) -> A,
    ) -> std::io::Result<Inbox<A::Input>> {
        let arbiter = self.new_arbiter()?;
        let fault = self.fault.clone();
        let driven = Arc::new_cyclic(|driven: &Weak<Driven<A>>| {
            let inbox = Inbox::new(full, {
                let driven = driven.clone();
                move || {
                    if let Some(driven) = driven.upgrade() {
                        driven.wake();
                    }
                }
            });
            let running = Running { actor: Some(make(inbox.clone())), inputs: Vec::new() };
            Driven {
                // Nobody runs it before its arbiter is there.
                state: AtomicU8::new(RUNNING),
                is_tick_due: AtomicBool::new(false),
                running: Mutex::new(running),
                inbox,
                arbiter: OnceLock::new(),
                name,
                fault,
            }
        });
        let address = OnArbiter::start_in_arbiter(&arbiter, {
            let driven = Arc::clone(&driven);
            move |_| OnArbiter { driven }
        });
        // Only this function sets it.
        let _ = driven.arbiter.set(address);
        driven.run(ROUNDS_IN_PLACE);
        Ok(driven.inbox.clone())
    }

    /// A new arbiter. It belongs to the system of the thread that makes it, so the system's own thread does.
    pub(crate) fn new_arbiter(&self) -> std::io::Result<ArbiterHandle> {
        let (ready, made) = std::sync::mpsc::sync_channel(1);
        self.system.arbiter().spawn_fn(move || {
            let _ = ready.send(Arbiter::new().handle());
        });
        made.recv().map_err(|_| std::io::Error::other("the actix system has ended"))
    }

    /// What makes arbiters for as long as the system is there.
    pub(crate) fn arbiters(&self) -> Arbiters {
        Arbiters(self.system.clone())
    }

    /// Changes when an actor has died by a fault of ours.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<&'static str>> {
        self.fault.subscribe()
    }
}

/// Makes arbiters, without keeping the system.
pub(crate) struct Arbiters(System);

impl Arbiters {
    /// A new arbiter; `None` if the system has ended.
    pub(crate) async fn make(&self) -> Option<ArbiterHandle> {
        let (ready, made) = tokio::sync::oneshot::channel();
        self.0.arbiter().spawn_fn(move || {
            let _ = ready.send(Arbiter::new().handle());
        });
        made.await.ok()
    }
}

impl Drop for ActorHost {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nobody runs the actor.
const IDLE: u8 = 0;
/// Somebody runs it, or its arbiter is about to.
const RUNNING: u8 = 1;
/// The same, and there is more for it to do.
const PENDING: u8 = 2;

/// An actor and who runs it.
struct Driven<A: Vital> {
    state: AtomicU8,
    is_tick_due: AtomicBool,
    /// Locked by the one who has put `state` to running, hence never contended.
    running: Mutex<Running<A>>,
    inbox: Inbox<A::Input>,
    /// Set before the actor runs for the first time.
    arbiter: OnceLock<Addr<OnArbiter<A>>>,
    name: &'static str,
    fault: watch::Sender<Option<&'static str>>,
}

struct Running<A: Vital> {
    /// `None` once it has panicked.
    actor: Option<A>,
    /// Reused from round to round.
    inputs: Vec<A::Input>,
}

impl<A: Vital> Driven<A> {
    /// There is something for the actor to do: it is run here, unless somebody runs it already.
    fn wake(&self) {
        let took = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(if state == IDLE { RUNNING } else { PENDING })
        });
        if took == Ok(IDLE) {
            if A::IN_PLACE { self.run(ROUNDS_IN_PLACE) } else { self.hand_over() }
        }
    }

    /// Has the arbiter run the actor. The caller is the one who would have to.
    fn hand_over(&self) {
        if let Some(arbiter) = self.arbiter.get() {
            arbiter.do_send(Run);
        }
    }

    /// Runs the actor until it has nothing to do, at most so many rounds. The caller has put the state to running.
    fn run(&self, rounds: u32) {
        for _ in 0..rounds {
            // A panic is a fault of ours: the actor is gone, and the node is told.
            if catch_unwind(AssertUnwindSafe(|| self.round())).is_err() {
                self.end();
                self.fault.send_replace(Some(self.name));
                return;
            }
            if self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
            // More has come.
            self.state.store(RUNNING, Ordering::Release);
        }
        self.hand_over();
    }

    fn round(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { actor: Some(actor), inputs } = &mut *running else { return };
        if self.is_tick_due.swap(false, Ordering::AcqRel) {
            actor.tick();
        }
        self.inbox.take(inputs);
        for input in inputs.drain(..) {
            actor.input(input);
        }
        actor.perform();
    }

    /// The actor is gone: nobody may go on waiting for it.
    fn end(&self) {
        self.inbox.close();
        let gone = self.running.lock().unwrap_or_else(PoisonError::into_inner).actor.take();
        if catch_unwind(AssertUnwindSafe(|| drop(gone))).is_err() {
            tracing::error!(actor = self.name, "an actor panicked while it was dropped");
        }
    }
}

/// The actor's part on its arbiter.
struct OnArbiter<A: Vital> {
    driven: Arc<Driven<A>>,
}

impl<A: Vital> Actor for OnArbiter<A> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some(pause) = A::TICK {
            context.run_interval(pause, |this, _| {
                this.driven.is_tick_due.store(true, Ordering::Release);
                this.driven.wake();
            });
        }
    }
}

impl<A: Vital> Handler<Run> for OnArbiter<A> {
    type Result = ();

    fn handle(&mut self, _: Run, _: &mut Context<Self>) {
        self.driven.run(u32::MAX);
    }
}

impl<A: Vital> Drop for OnArbiter<A> {
    /// The system has ended.
    fn drop(&mut self) {
        self.driven.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Vital for Panics {
        type Input = ();

        fn input(&mut self, (): ()) {
            panic!("on purpose");
        }
    }

    #[tokio::test]
    async fn an_actor_that_panics_is_noticed_and_nobody_waits_for_its_inbox() {
        let host = ActorHost::start().unwrap();
        let mut fault = host.fault();
        let inbox = host.spawn("panicking", 1, |_| Panics).unwrap();
        inbox.push(());
        let name = *tokio::time::timeout(Duration::from_secs(20), fault.wait_for(Option::is_some))
            .await
            .expect("the fault is told")
            .unwrap();
        assert_eq!(name, Some("panicking"));
        // Full, and yet these end.
        inbox.extend_when_free([(), ()]).await;
        inbox.extend_when_free([()]).await;
    }

    /// Adds up what it gets, and tells how often it was run by two threads at once.
    struct Adds {
        is_running: Arc<AtomicBool>,
        sum: u64,
        total: watch::Sender<u64>,
    }

    impl Vital for Adds {
        type Input = u64;

        fn input(&mut self, input: u64) {
            assert!(!self.is_running.swap(true, Ordering::SeqCst), "two threads run one actor");
            self.sum += input;
            assert!(self.is_running.swap(false, Ordering::SeqCst));
        }

        fn perform(&mut self) {
            self.total.send_replace(self.sum);
        }
    }

    #[tokio::test]
    async fn what_many_threads_add_is_taken_once_each_and_by_one_thread_at_a_time() {
        let host = ActorHost::start().unwrap();
        let (total, mut told) = watch::channel(0);
        let inbox = host.spawn("adding", 1, |_| Adds { is_running: Arc::default(), sum: 0, total }).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let inbox = inbox.clone();
                std::thread::spawn(move || (0..10_000).for_each(|_| inbox.push(1)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let all = tokio::time::timeout(Duration::from_secs(20), told.wait_for(|total| *total == 40_000)).await;
        assert!(all.is_ok_and(|all| all.is_ok()), "something was lost");
        assert_eq!(*host.fault().borrow(), None);
    }

    /// Says on which thread it runs.
    struct Where(watch::Sender<Option<std::thread::ThreadId>>);

    impl Vital for Where {
        type Input = ();

        fn input(&mut self, (): ()) {
            self.0.send_replace(Some(std::thread::current().id()));
        }
    }

    #[tokio::test]
    async fn an_idle_actor_runs_on_the_thread_of_the_one_who_has_something_for_it() {
        let host = ActorHost::start().unwrap();
        let (place, told) = watch::channel(None);
        let inbox = host.spawn("placed", 1, |_| Where(place)).unwrap();
        inbox.push(());
        assert_eq!(*told.borrow(), Some(std::thread::current().id()));
    }
}
