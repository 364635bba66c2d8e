//! Blocks on a stream: a header that says the lengths, the bytes as they are, then their checksum.
//!
//! Nothing is copied through postcard but the headers. Many small blocks share a write; a large buffer is written from
//! where it lies and read to where it stays.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use crc32fast::Hasher;
use futures::io::BufReader;
use futures::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_core::ids::TaskId;

use crate::value::Encoded;

/// The largest header. It bounds the number of buffers of a block, and of tasks of a request.
const HEADER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that are checked, written or read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Parts up to this size are copied together into one write.
const SMALL_BYTES: usize = 32 * 1024;

/// Bytes read ahead of headers and small parts.
const READ_AHEAD: usize = 64 * 1024;

/// The lengths of a block's parts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shape {
    head: u64,
    buffers: Vec<u64>,
}

impl Shape {
    pub(crate) fn of(value: &Encoded) -> Shape {
        let buffers = value.buffers.iter().map(|buffer| buffer.len() as u64).collect();
        Shape { head: value.head.len() as u64, buffers }
    }

    fn nbytes(&self) -> Option<u64> {
        self.buffers.iter().try_fold(self.head, |sum, &length| sum.checked_add(length))
    }
}

/// What answers each task of a request, in its order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BlockHeader {
    pub(crate) task: TaskId,
    /// The shape of the bytes that follow; none if the block is not there.
    pub(crate) shape: Option<Shape>,
}

/// A block as it arrived.
pub(crate) enum Received {
    Sound(Encoded),
    /// Its checksum is not that of its bytes. The stream goes on behind it.
    Damaged,
}

/// A stream of headers and blocks, with a limit on standing still.
pub(crate) struct BlockStream<S> {
    io: BufReader<S>,
    /// Small parts that wait for more to be written with them.
    out: Vec<u8>,
    stall: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> BlockStream<S> {
    pub(crate) fn new(io: S, stall: Duration) -> BlockStream<S> {
        BlockStream { io: BufReader::with_capacity(READ_AHEAD, io), out: Vec::new(), stall }
    }

    /// Adds a header to what is to be written.
    pub(crate) async fn write_header(&mut self, header: &impl Serialize) -> io::Result<()> {
        let body = postcard::to_stdvec(header).map_err(io::Error::other)?;
        if body.len() > HEADER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the header is too large"));
        }
        self.out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&body);
        self.write_if_much().await
    }

    /// Adds a block's bytes, which follow the header that says their shape.
    pub(crate) async fn write_block(&mut self, value: &Encoded) -> io::Result<()> {
        let mut crc = Hasher::new();
        for part in std::iter::once(&value.head).chain(&value.buffers) {
            if part.len() <= SMALL_BYTES {
                crc.update(part);
                self.out.extend_from_slice(part);
                self.write_if_much().await?;
                continue;
            }
            self.write_out().await?;
            for chunk in part.chunks(CHUNK_BYTES) {
                // Checked just before it is written, while it is in the cache.
                crc.update(chunk);
                within(self.stall, self.io.write_all(chunk)).await?;
            }
        }
        self.out.extend_from_slice(&crc.finalize().to_le_bytes());
        self.write_if_much().await
    }

    /// Writes what waits, and sees it on its way.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.write_out().await?;
        within(self.stall, self.io.flush()).await
    }

    async fn write_if_much(&mut self) -> io::Result<()> {
        if self.out.len() >= CHUNK_BYTES { self.write_out().await } else { Ok(()) }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            within(self.stall, self.io.write_all(&self.out)).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Waits, for as long as it takes, until there is something to read. False: the peer has closed the stream.
    pub(crate) async fn wait(&mut self) -> io::Result<bool> {
        let ahead = std::future::poll_fn(|cx| {
            std::pin::Pin::new(&mut self.io).poll_fill_buf(cx).map(|filled| filled.map(|bytes| !bytes.is_empty()))
        });
        ahead.await
    }

    pub(crate) async fn read_header<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        within(self.stall, self.io.read_exact(&mut length)).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(invalid("a header is too large"));
        }
        let mut body = vec![0; length];
        within(self.stall, self.io.read_exact(&mut body)).await?;
        postcard::from_bytes(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Reads the bytes of a block of this shape.
    pub(crate) async fn read_block(&mut self, shape: &Shape, bytes_max: u64) -> io::Result<Received> {
        if shape.nbytes().is_none_or(|nbytes| nbytes > bytes_max) {
            return Err(invalid("a block is larger than the limit"));
        }
        let mut crc = Hasher::new();
        let head = self.read_part(shape.head, &mut crc).await?;
        let mut buffers = Vec::with_capacity(shape.buffers.len());
        for &length in &shape.buffers {
            buffers.push(self.read_part(length, &mut crc).await?);
        }
        let mut sum = [0; 4];
        within(self.stall, self.io.read_exact(&mut sum)).await?;
        let sound = crc.finalize() == u32::from_le_bytes(sum);
        Ok(if sound { Received::Sound(Encoded { head, buffers }) } else { Received::Damaged })
    }

    async fn read_part(&mut self, length: u64, crc: &mut Hasher) -> io::Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| invalid("a block is larger than memory"))?;
        // The zeroes of a large one come from the system page by page, as the bytes do: a length alone costs nothing.
        let mut part = vec![0; length];
        for chunk in part.chunks_mut(CHUNK_BYTES) {
            within(self.stall, self.io.read_exact(chunk)).await?;
            crc.update(chunk);
        }
        Ok(Bytes::from(part))
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The outcome of an operation that makes progress, or an error if it makes none for so long.
async fn within<T>(stall: Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(stall, operation).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("the transfer stood still for {} s", stall.as_secs())))
    })
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
