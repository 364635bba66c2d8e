//! How an answer is waited for: actively, where that is shorter than a wake-up.
//!
//! A thread that sleeps until a message comes costs two wake-ups of a core an ask, each of which takes longer than the
//! message's whole way (about 20 us here). So whoever waits for an answer that is likely to come soon looks for it a short while,
//! between letting the other tasks of its thread run. Where both sides share one core this is no slower: the kernel lets the
//! woken side run at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

/// For how long an answer is looked for.
const LOOK: Duration = Duration::from_micros(60);
/// Where answers have lately taken longer than this, nobody looks for them: it would be in vain.
const SOON_US: u32 = 100;

/// What is known of the answers over one link.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How long answers have lately taken, in microseconds.
    recent_us: AtomicU32,
    /// Somebody looks for an answer: one thread is enough.
    is_looked_for: AtomicBool,
}

impl Pace {
    /// Waits for an answer that was asked for just now.
    pub(crate) async fn wait<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
        let asked = Instant::now();
        if let Some(_looking) = self.look() {
            while asked.elapsed() < LOOK && answer.is_empty() && !answer.is_terminated() {
                yield_now().await;
            }
        }
        let answered = answer.await;
        self.took(asked.elapsed());
        answered
    }

    /// Whether an answer is to be looked for, by one at a time.
    fn look(&self) -> Option<Looking<'_>> {
        let is_soon = self.recent_us.load(Ordering::Relaxed) <= SOON_US;
        let looks = is_soon && !self.is_looked_for.swap(true, Ordering::Acquire);
        looks.then_some(Looking(&self.is_looked_for))
    }

    fn took(&self, time: Duration) {
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let recent = self.recent_us.load(Ordering::Relaxed);
        // A loss among threads that do so at once costs nothing.
        self.recent_us.store(recent - recent / 8 + time / 8, Ordering::Relaxed);
    }
}

/// Somebody looks for an answer until this is dropped.
struct Looking<'a>(&'a AtomicBool);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_that_take_long_are_not_looked_for_until_they_are_soon_again() {
        let pace = Pace::default();
        pace.took(Duration::from_secs(3));
        assert!(pace.look().is_none());
        let (tx, rx) = oneshot::channel();
        tx.send(7).unwrap();
        assert_eq!(pace.wait(rx).await, Ok(7));
        for _ in 0..200 {
            pace.took(Duration::from_micros(20));
        }
        assert!(pace.look().is_some());
        let (tx, rx) = oneshot::channel::<()>();
        drop(tx);
        assert!(pace.wait(rx).await.is_err());
        assert!(!pace.is_looked_for.load(Ordering::Relaxed));
    }

    #[test]
    fn one_looks_at_a_time() {
        let pace = Pace::default();
        let first = pace.look();
        assert!(first.is_some());
        assert!(pace.look().is_none());
        drop(first);
        assert!(pace.look().is_some());
    }
}
