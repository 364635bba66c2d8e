//! yamux with large frames.
//!
//! libp2p's own wrapper of yamux hides the size at which frames are split, 16 KiB, and at that size bulk moves at half
//! the speed. This is the same small adapter around the same crate, on the same protocol name, with the size set. It
//! decides nothing else.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};

/// The largest payload of one frame. yamux lets a stream begin with 256 KiB of credit, so more would be of no use.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// The most streams of one connection. A peer that opens more loses the connection.
const STREAMS_MAX: usize = 512;

/// Streams that wait for the swarm to take them. One more is dropped, which its opener sees as a reset.
const INBOUND_WAITING_MAX: usize = 64;

/// The upgrade of an authenticated connection to a multiplexed one.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade(yamux::Config);

impl Upgrade {
    pub(crate) fn new() -> Upgrade {
        let mut config = yamux::Config::default();
        config.set_split_send_size(FRAME_BYTES_MAX);
        config.set_max_num_streams(STREAMS_MAX);
        Upgrade(config)
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, io: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(io, self.0, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(io, self.0, yamux::Mode::Client)))
    }
}

/// A multiplexed connection.
pub(crate) struct Muxer<C> {
    connection: yamux::Connection<C>,
    /// Inbound streams that came while the connection was driven for other ends.
    inbound: VecDeque<yamux::Stream>,
    /// Who waits for an inbound stream.
    inbound_waker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Muxer<C> {
    fn new(io: C, config: yamux::Config, mode: yamux::Mode) -> Muxer<C> {
        Muxer { connection: yamux::Connection::new(io, config, mode), inbound: VecDeque::new(), inbound_waker: None }
    }

    /// Drives the connection until there is a new inbound stream. yamux makes progress on all its streams only here.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.connection.poll_next_inbound(cx).map(|next| match next {
            Some(next) => next.map_err(io_error),
            None => Err(io_error(yamux::ConnectionError::Closed)),
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.inbound_waker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.connection.poll_new_outbound(cx).map_err(io_error)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(io_error)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        match self.poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(stream)) if self.inbound.len() < INBOUND_WAITING_MAX => self.inbound.push_back(stream),
            Poll::Ready(Ok(stream)) => drop(stream),
        }
        if let Some(waker) = self.inbound_waker.take() {
            waker.wake();
        }
        // There may be more; others get a turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn io_error(error: yamux::ConnectionError) -> io::Error {
    match error {
        yamux::ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}
