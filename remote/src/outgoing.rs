//! What waits to be written on a link. Items are encoded right into one buffer, which leaves as one frame; what gathers while
//! it is written goes into the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use starling_runtime::mesh::LinkSender;
use tokio::sync::Notify;

/// How many bytes gather before those who can wait do.
const BUFFER_FULL: usize = 8 * 1024 * 1024;
/// How many bytes gather before a receiver that does not read is given up. Answers are bounded by what was asked.
const BUFFER_MAX: usize = 256 * 1024 * 1024;

/// The writing side of a link.
pub(crate) struct Outgoing {
    state: Mutex<State>,
    /// There is something to write, or nothing will be.
    written_to: Notify,
    /// There is room again.
    drained: Notify,
}

struct State {
    buffer: Vec<u8>,
    /// Set once the link is open.
    link: Option<LinkSender>,
    /// A frame has been taken out of the buffer and is not queued on the link yet.
    is_writing: bool,
    is_closed: bool,
}

/// Nothing more reaches the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Outgoing {
    pub(crate) fn new() -> Outgoing {
        let state = State { buffer: Vec::new(), link: None, is_writing: false, is_closed: false };
        Outgoing { state: Mutex::new(state), written_to: Notify::new(), drained: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item, to be written soon.
    pub(crate) fn say<T: Serialize>(&self, item: &T) -> Result<(), Closed> {
        self.add(false, |buffer| encode(item, buffer))
    }

    /// Adds an item that somebody waits for: it is written without another wake-up if the link has room.
    pub(crate) fn say_now<T: Serialize>(&self, item: &T) -> Result<(), Closed> {
        self.add(true, |buffer| encode(item, buffer))
    }

    fn add(&self, is_urgent: bool, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Closed);
        }
        let was_empty = state.buffer.is_empty();
        encode(&mut state.buffer);
        if state.buffer.len() > BUFFER_MAX {
            drop(state);
            self.close();
            return Err(Closed);
        }
        if is_urgent && !state.is_writing {
            let State { buffer, link: Some(link), .. } = &mut *state else { return Ok(()) };
            let frame = Bytes::from(std::mem::take(buffer));
            match link.try_send(frame.clone()) {
                Ok(()) => return Ok(()),
                // The writing task waits for room.
                Err(_) => *buffer = frame.into(),
            }
        }
        drop(state);
        if was_empty || is_urgent {
            self.written_to.notify_one();
        }
        Ok(())
    }

    /// Whether so much waits that who can wait does.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().buffer.len() > BUFFER_FULL
    }

    /// Waits until there is room, or nothing can be written any more.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let state = self.lock();
                if state.is_closed || state.buffer.len() <= BUFFER_FULL {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Writes until it is closed, from this side or the other.
    pub(crate) async fn write(&self, link: LinkSender) {
        self.lock().link = Some(link.clone());
        loop {
            let frame = {
                let mut state = self.lock();
                if state.is_closed {
                    return;
                }
                state.is_writing = !state.buffer.is_empty();
                std::mem::take(&mut state.buffer)
            };
            if frame.is_empty() {
                tokio::select! {
                    () = self.written_to.notified() => {}
                    () = link.closed() => return self.close(),
                }
                continue;
            }
            let sent = link.send(Bytes::from(frame)).await;
            self.lock().is_writing = false;
            self.drained.notify_waiters();
            if sent.is_err() {
                return self.close();
            }
        }
    }

    /// Nothing more is written.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.link = None;
        state.buffer = Vec::new();
        drop(state);
        self.written_to.notify_one();
        self.drained.notify_waiters();
    }
}

/// Appends an item. What is said here can be encoded: numbers, bytes and text.
fn encode<T: Serialize>(item: &T, buffer: &mut Vec<u8>) {
    match postcard::to_extend(item, std::mem::take(buffer)) {
        Ok(extended) => *buffer = extended,
        Err(error) => unreachable!("a message to another node cannot be encoded: {error}"),
    }
}
