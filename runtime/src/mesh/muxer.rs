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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The largest payload of one frame. yamux lets a stream begin with 256 KiB of credit, so more would be of no use.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// The most streams of one connection. A peer that opens more loses the connection.
const STREAMS_MAX: usize = 512;

/// Streams that wait for the swarm to take them. One more is dropped, which its opener sees as a reset.
const INBOUND_WAITING_MAX: usize = 64;

/// What a peer may send before it is admitted. The handshake takes less than a KiB of it.
const STRANGER_BYTES_MAX: usize = 64 * 1024;

/// The upgrade of an authenticated connection to a multiplexed one.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    config: yamux::Config,
    admitted: Arc<AtomicBool>,
}

impl Upgrade {
    /// Until the flag is set, little is taken in from the peer.
    pub(crate) fn new(admitted: Arc<AtomicBool>) -> Upgrade {
        let mut config = yamux::Config::default();
        config.set_split_send_size(FRAME_BYTES_MAX);
        config.set_max_num_streams(STREAMS_MAX);
        Upgrade { config, admitted }
    }

    fn muxer<C: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, io: C, mode: yamux::Mode) -> Muxer<C> {
        let io = Metered { io, admitted: self.admitted, taken: 0 };
        let connection = yamux::Connection::new(io, self.config, mode);
        Muxer { connection, closed: CancellationToken::new(), inbound: VecDeque::new(), inbound_waker: None }
    }
}

/// A connection that breaks when a peer that is not admitted sends more than a handshake needs.
pub(crate) struct Metered<C> {
    io: C,
    admitted: Arc<AtomicBool>,
    /// Bytes taken in before the admission.
    taken: usize,
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if !self.admitted.load(Ordering::Acquire) {
            self.taken += count;
            if self.taken > STRANGER_BYTES_MAX {
                return Poll::Ready(Err(io::Error::other("the peer sent too much before its admission")));
            }
        }
        Poll::Ready(Ok(count))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
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
        ready(Ok(self.muxer(io, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        ready(Ok(self.muxer(io, yamux::Mode::Client)))
    }
}

/// A multiplexed connection.
pub(crate) struct Muxer<C> {
    connection: yamux::Connection<Metered<C>>,
    /// Cancelled when this side closes the connection, or drops it.
    closed: CancellationToken,
    /// Inbound streams that came while the connection was driven for other ends.
    inbound: VecDeque<yamux::Stream>,
    /// Who waits for an inbound stream.
    inbound_waker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Muxer<C> {
    fn substream(&self, stream: yamux::Stream) -> Substream {
        let end = || Box::pin(self.closed.clone().cancelled_owned());
        Substream { stream, read_end: end(), write_end: end() }
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
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(self.substream(stream)));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.inbound_waker = Some(cx.waker().clone());
        }
        next.map_ok(|stream| self.substream(stream))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let next = self.connection.poll_new_outbound(cx);
        next.map_ok(|stream| self.substream(stream)).map_err(io_error)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed.cancel();
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

impl<C> Drop for Muxer<C> {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// A stream that ends with its connection, whichever side closes that.
pub(crate) struct Substream {
    stream: yamux::Stream,
    /// Two of them, as the halves of a stream may be polled by different tasks.
    read_end: Pin<Box<WaitForCancellationFutureOwned>>,
    write_end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Substream {
    /// The outcome of the stream; when there is none and the connection is closed, there will never be one.
    fn or_ended<T>(
        end: &mut Pin<Box<WaitForCancellationFutureOwned>>,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        ended: impl FnOnce() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_pending() && end.as_mut().poll(cx).is_ready() { Poll::Ready(ended()) } else { outcome }
    }
}

impl AsyncRead for Substream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        Substream::or_ended(&mut self.read_end, cx, outcome, || Ok(0))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        Substream::or_ended(&mut self.write_end, cx, outcome, || Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        Substream::or_ended(&mut self.write_end, cx, outcome, || Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_close(cx);
        Substream::or_ended(&mut self.write_end, cx, outcome, || Ok(()))
    }
}

fn io_error(error: yamux::ConnectionError) -> io::Error {
    match error {
        yamux::ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}
