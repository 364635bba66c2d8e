//! Where actors run: an actix system of the node's own, one arbiter an actor.
//!
//! The node brings its own `System` thread, so that it can be embedded in any tokio service. Each vital actor has an
//! arbiter to itself, so that none waits for another. An actor that panics is gone, and the node with it.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, Context, Handler, Message, System};
use starling_runtime::inbox::Inbox;
use tokio::sync::watch;

/// What an actor of a node is to this module, which keeps actix behind it: it takes what comes, one input after the
/// other, and performs what follows from them together.
pub(crate) trait Vital: Unpin + 'static {
    /// What may come.
    type Input: Send + Unpin + 'static;
    /// How often it is ticked, if at all.
    const TICK: Option<Duration> = None;

    /// Takes one input.
    fn input(&mut self, input: Self::Input);

    /// Called after the last input of those that had gathered.
    fn perform(&mut self) {}

    fn tick(&mut self) {}
}

/// "There is something in your inbox."
#[derive(Message)]
#[rtype(result = "()")]
struct Wake;

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

    /// Starts an actor on an arbiter of its own. It is woken when its inbox, full at `full`, has something.
    pub(crate) fn spawn<A: Vital>(
        &self,
        name: &'static str,
        full: usize,
        make: impl FnOnce(Inbox<A::Input>) -> A + Send + 'static,
    ) -> std::io::Result<Inbox<A::Input>> {
        let address: Arc<OnceLock<Addr<Driven<A>>>> = Arc::default();
        let inbox = Inbox::new(full, {
            let address = Arc::clone(&address);
            move || {
                if let Some(address) = address.get() {
                    address.do_send(Wake);
                }
            }
        });
        let fault = self.fault.clone();
        let started = Driven::start_in_arbiter(&self.new_arbiter()?, {
            let inbox = inbox.clone();
            move |context| {
                // Whatever came before the address was known.
                context.notify(Wake);
                Driven { actor: make(inbox.clone()), inbox, inputs: Vec::new(), name, fault }
            }
        });
        // Only this function sets it.
        let _ = address.set(started);
        Ok(inbox)
    }

    /// A new arbiter. It belongs to the system of the thread that makes it, so the system's own thread does.
    fn new_arbiter(&self) -> std::io::Result<ArbiterHandle> {
        let (ready, made) = std::sync::mpsc::sync_channel(1);
        self.system.arbiter().spawn_fn(move || {
            let _ = ready.send(Arbiter::new().handle());
        });
        made.recv().map_err(|_| std::io::Error::other("the actix system has ended"))
    }

    /// Changes when an actor has died by a fault of ours.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<&'static str>> {
        self.fault.subscribe()
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

/// An actor as actix sees it.
struct Driven<A: Vital> {
    actor: A,
    inbox: Inbox<A::Input>,
    /// Reused from wake to wake.
    inputs: Vec<A::Input>,
    name: &'static str,
    fault: watch::Sender<Option<&'static str>>,
}

impl<A: Vital> Actor for Driven<A> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some(pause) = A::TICK {
            context.run_interval(pause, |driven, _| driven.actor.tick());
        }
    }
}

impl<A: Vital> Handler<Wake> for Driven<A> {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        let mut inputs = std::mem::take(&mut self.inputs);
        self.inbox.take(&mut inputs);
        for input in inputs.drain(..) {
            self.actor.input(input);
        }
        self.inputs = inputs;
        self.actor.perform();
    }
}

impl<A: Vital> Drop for Driven<A> {
    /// The runtime catches a panic in a handler and drops the actor: then nobody may go on waiting for it.
    fn drop(&mut self) {
        self.inbox.close();
        if std::thread::panicking() {
            self.fault.send_replace(Some(self.name));
        }
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
}
