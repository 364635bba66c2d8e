//! The way into an actor: many events at a time, one wake-up for all of them.
//!
//! A wake-up across threads costs tens of microseconds, an event a fraction of one. So producers add to a shared
//! vector, and only the first to find it empty wakes the actor, which then takes all that has gathered. A producer that
//! reads from a peer waits while the inbox is full, and so the peer's stream stands still; a producer whose events are
//! bounded by the actor's own requests (a task handed to a thread) does not wait.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The sending side; clones send to the same actor.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// `None` once it is closed.
    gathered: Mutex<Option<Vec<T>>>,
    /// Told when the actor has taken what had gathered.
    taken: Notify,
    /// How many events make it full for those who wait.
    full: usize,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T> Inbox<T> {
    /// An inbox that is full at `full` events and calls `wake` when its first event comes.
    pub fn new(full: usize, wake: impl Fn() + Send + Sync + 'static) -> Inbox<T> {
        let shared =
            Shared { gathered: Mutex::new(Some(Vec::new())), taken: Notify::new(), full, wake: Box::new(wake) };
        Inbox { shared: Arc::new(shared) }
    }

    /// Adds an event even if the inbox is full. For events that the actor's own requests bound.
    pub fn push(&self, event: T) {
        self.extend([event]);
    }

    /// Adds events even if the inbox is full. For events that the actor's own requests bound.
    pub fn extend(&self, events: impl IntoIterator<Item = T>) {
        let mut lock = self.lock();
        // Nobody is there to take it any more.
        let Some(gathered) = lock.as_mut() else { return };
        let was_empty = gathered.is_empty();
        gathered.extend(events);
        let is_empty = gathered.is_empty();
        drop(lock);
        if was_empty && !is_empty {
            (self.shared.wake)();
        }
    }

    /// Adds events once the inbox is not full.
    pub async fn extend_when_free(&self, events: impl IntoIterator<Item = T>) {
        loop {
            let taken = self.shared.taken.notified();
            if self.lock().as_ref().is_none_or(|gathered| gathered.len() < self.shared.full) {
                break;
            }
            taken.await;
        }
        self.extend(events);
    }

    /// Takes all that has gathered, in order, and leaves `empty` in its place, whose memory is reused.
    pub fn take(&self, empty: &mut Vec<T>) {
        debug_assert!(empty.is_empty(), "what is given in exchange is empty");
        if let Some(gathered) = self.lock().as_mut() {
            std::mem::swap(gathered, empty);
        }
        self.shared.taken.notify_waiters();
    }

    /// Drops what has gathered and all that comes: the actor is gone.
    pub fn close(&self) {
        let gathered = self.lock().take();
        self.shared.taken.notify_waiters();
        // Outside of the lock, since dropping an event may wake who waits for an answer to it.
        drop(gathered);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<T>>> {
        self.shared.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Inbox<T> {
        Inbox { shared: Arc::clone(&self.shared) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_wake_for_many_events_and_a_full_inbox_waits() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let inbox = Inbox::new(2, {
            let wakes = wakes.clone();
            move || {
                wakes.fetch_add(1, Ordering::SeqCst);
            }
        });
        inbox.extend([1, 2]);
        inbox.push(3);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);

        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.extend_when_free([4]).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let mut events = Vec::new();
        inbox.take(&mut events);
        assert_eq!(events, [1, 2, 3]);
        waiting.await.unwrap();
        events.clear();
        inbox.take(&mut events);
        assert_eq!((events, wakes.load(Ordering::SeqCst)), (vec![4], 2));
    }
}
