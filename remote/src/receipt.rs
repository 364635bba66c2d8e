//! What became of a message: told by dropping, so that no way out of a mailbox is silent.

use std::sync::Arc;

use serde::Serialize;

use crate::outgoing::Outgoing;
use crate::wire::{MESSAGE_BYTES_MAX, NoReply, ToSender};

/// Who is told when a message was handled, or dropped without that.
pub(crate) trait Flow: Send + Sync {
    fn handled(&self);
    fn dropped(&self);
}

/// That a message is in an actor's mailbox. Dropping it says that the actor ended first, or failed in handling it.
pub(crate) struct Receipt(Option<Arc<dyn Flow>>);

impl Receipt {
    pub(crate) fn new(flow: Arc<dyn Flow>) -> Receipt {
        Receipt(Some(flow))
    }

    /// Tells nobody.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }

    pub(crate) fn handled(mut self) {
        if let Some(flow) = self.0.take() {
            flow.handled();
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(flow) = self.0.take() {
            flow.dropped();
        }
    }
}

/// The way back to who asked, on another node. Dropping it says that there is no answer.
pub(crate) struct Reply {
    ask: u32,
    out: Option<Arc<Outgoing>>,
    receipt: Option<Receipt>,
}

impl Reply {
    pub(crate) fn new(ask: u32, out: Arc<Outgoing>, receipt: Option<Receipt>) -> Reply {
        Reply { ask, out: Some(out), receipt }
    }

    pub(crate) fn send<R: Serialize>(mut self, result: &R) {
        let encoded = postcard::to_stdvec(result);
        let Some(out) = self.out.take() else { return };
        if let Some(receipt) = self.receipt.take() {
            receipt.handled();
        }
        let ask = self.ask;
        // Nobody waits behind a closed link.
        let _ = match &encoded {
            Ok(payload) if payload.len() <= MESSAGE_BYTES_MAX => out.say_now(&ToSender::Reply { ask, payload }),
            Ok(payload) => {
                let why = NoReply::TooLarge { size: payload.len() as u64 };
                out.say(&ToSender::NoReply { ask, why })
            }
            Err(error) => out.say(&ToSender::NoReply { ask, why: NoReply::Encode(error.to_string()) }),
        };
    }

    pub(crate) fn refuse(mut self, why: NoReply) {
        if let Some(out) = self.out.take() {
            // Nobody waits behind a closed link.
            let _ = out.say(&ToSender::NoReply { ask: self.ask, why });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // Nobody waits behind a closed link.
            let _ = out.say(&ToSender::NoReply { ask: self.ask, why: NoReply::Stopped });
        }
    }
}
