//! A task that waits, and gives its slot up for so long.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;
use starling_core::worker::Event;

use super::run::outside_task;
use super::{SEAT, Shared};

/// How long a task that waits keeps its slot.
const SLOT_KEPT: Duration = Duration::from_millis(1);

/// Runs a future to its end on this thread. For `async` tasks, and for tasks that wait for others.
///
/// Inside a task, the thread's slot is given up while the future has been pending for more than a few milliseconds, so
/// that another task may run. When the future goes on, so does the task, even if all slots are taken by then: then
/// nothing else begins until there is a free one.
///
/// # Panics
/// Outside of a tokio runtime's context; executor threads are always in one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Handle::current();
    let seat = SEAT.with_borrow(|seat| seat.as_ref().map(|seat| (Arc::clone(&seat.shared), seat.number)));
    match seat {
        Some((shared, number)) => runtime.block_on(give_way(future, &shared, number)),
        None => runtime.block_on(future),
    }
}

/// The future's output. While it is pending for long, the slot is free for others.
async fn give_way<F: Future>(future: F, shared: &Arc<Shared>, number: usize) -> F::Output {
    let mut future = pin!(future);
    let mut slot = Slot { shared, number, is_given_up: false };
    let mut patience = pin!(tokio::time::sleep(SLOT_KEPT));
    // Tells whether the future is to be polled, or the time has only passed.
    let wanted = Arc::new(Wanted { is_wanted: AtomicBool::new(true), outer: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&wanted));
    std::future::poll_fn(move |context| {
        wanted.outer.register(context.waker());
        if wanted.is_wanted.swap(false, Ordering::AcqRel) {
            slot.take_back();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            patience.as_mut().reset(tokio::time::Instant::now() + SLOT_KEPT);
        }
        if !slot.is_given_up && patience.as_mut().poll(context).is_ready() {
            slot.give_up();
        }
        Poll::Pending
    })
    .await
}

/// Wakes whoever polls [`give_way`], and notes that the inner future asked for it.
struct Wanted {
    is_wanted: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Wanted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_wanted.store(true, Ordering::Release);
        self.outer.wake();
    }
}

/// A running task's slot, which it has again when this is dropped.
struct Slot<'a> {
    shared: &'a Arc<Shared>,
    number: usize,
    is_given_up: bool,
}

impl Slot<'_> {
    fn give_up(&mut self) {
        // Asked only once each time, whatever the answer.
        self.is_given_up = true;
        if let Some((task, attempt)) = self.shared.suspend(self.number) {
            outside_task(|| (self.shared.done)(Event::Suspended { task, attempt }));
        }
    }

    fn take_back(&mut self) {
        if std::mem::take(&mut self.is_given_up)
            && let Some((task, attempt)) = self.shared.resume(self.number)
        {
            outside_task(|| (self.shared.done)(Event::Resumed { task, attempt }));
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}
