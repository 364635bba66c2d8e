//! A link: one long-lived stream between two nodes that carries frames both ways, in order.
//!
//! A frame is its length (4 bytes, little endian) and its bytes. Reading and writing run in tasks of their own, so that
//! two nodes that both write never wait for each other; frames that wait together leave in one write, and arrive in one
//! batch. Both directions are bounded, in frames and in bytes. What frames mean is not known here.
//!
//! A link closes as a whole: when either side drops its receiver or all its senders, both ends write what they have
//! queued, and then neither can send any more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use starling_core::ids::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a stream must be to carry a link or blocks.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Frames up to this size are copied together into one write.
const COALESCE_BYTES_MAX: usize = 64 * 1024;

/// Frames taken from the queue at a time.
const FRAMES_PER_WRITE: usize = 512;

/// Bytes read at a time where no large frame is awaited.
const READ_BYTES: usize = 64 * 1024;

/// By how much the buffer of a large frame grows, so that its length costs memory only as its bytes come.
const GROW_BYTES: usize = 1024 * 1024;

/// Batches of received frames that wait for the receiver. A batch is what one read held, or one large frame.
const BATCHES_WAITING: usize = 16;

/// How long a link that is being closed may take to write what was queued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A control stream to another node.
#[derive(Debug)]
pub struct Link {
    /// The node at the other end.
    pub peer: NodeId,
    /// Frames to it.
    pub tx: LinkSender,
    /// Frames from it.
    pub rx: LinkReceiver,
}

/// Why a frame was not queued. It was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link is closed; open another one.
    #[error("the link is closed")]
    Closed,
    /// Too much waits already ([`LinkSender::try_send`] only).
    #[error("the link's queue is full")]
    Full,
    /// The frame is larger than the limit.
    #[error("a frame of {size} bytes is larger than the limit of {max}: send it in parts")]
    TooLarge {
        /// The frame's size.
        size: usize,
        /// The limit.
        max: usize,
    },
}

/// The sizes that bound a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    pub(crate) frame_bytes_max: usize,
    pub(crate) queue_frames: usize,
    pub(crate) queue_bytes: usize,
}

type Queued = (Bytes, OwnedSemaphorePermit);

/// The sending half. Clones send on the same link, which closes once all are dropped.
#[derive(Clone, Debug)]
pub struct LinkSender {
    queue: mpsc::Sender<Queued>,
    /// A permit a KiB that may wait.
    room: Arc<Semaphore>,
    room_max: u32,
    frame_bytes_max: usize,
}

impl LinkSender {
    /// Queues a frame, and waits while the queue is full. `Ok` does not say that it has arrived. Frames that several
    /// clones send at the same time leave in either order; those of one sender in its own.
    pub async fn send(&self, frame: Bytes) -> Result<(), LinkError> {
        let permits = self.permits(&frame)?;
        let permit = self.room.clone().acquire_many_owned(permits).await.map_err(|_| LinkError::Closed)?;
        self.queue.send((frame, permit)).await.map_err(|_| LinkError::Closed)
    }

    /// Queues a frame if there is room for it.
    pub fn try_send(&self, frame: Bytes) -> Result<(), LinkError> {
        let permits = self.permits(&frame)?;
        let permit = self.room.clone().try_acquire_many_owned(permits).map_err(|error| match error {
            tokio::sync::TryAcquireError::Closed => LinkError::Closed,
            tokio::sync::TryAcquireError::NoPermits => LinkError::Full,
        })?;
        self.queue.try_send((frame, permit)).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => LinkError::Closed,
            mpsc::error::TrySendError::Full(_) => LinkError::Full,
        })
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Returns once nothing can be sent any more.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    fn permits(&self, frame: &Bytes) -> Result<u32, LinkError> {
        let (size, max) = (frame.len(), self.frame_bytes_max);
        if size > max {
            return Err(LinkError::TooLarge { size, max });
        }
        // A frame larger than the whole queue passes alone.
        Ok(u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX).min(self.room_max))
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct LinkReceiver {
    batches: mpsc::Receiver<Vec<Bytes>>,
    batch: VecDeque<Bytes>,
}

impl LinkReceiver {
    /// The next frame; none once the link is closed and all its frames are taken. Cancel safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        if self.batch.is_empty() {
            self.batch = self.batches.recv().await?.into();
        }
        self.batch.pop_front()
    }

    /// The next frame if one is here.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        if self.batch.is_empty() {
            self.batch = self.batches.try_recv().ok()?.into();
        }
        self.batch.pop_front()
    }
}

/// Starts the two tasks of a link over a stream. They end when the stream does, when the halves are dropped, or on
/// `cancel`, then after what was queued is written.
pub(crate) fn spawn(
    io: impl Io,
    peer: NodeId,
    limits: LinkLimits,
    cancel: CancellationToken,
    on: &TaskTracker,
) -> Link {
    let (read, write) = io.split();
    let (queue, queued) = mpsc::channel(limits.queue_frames);
    let (batches_tx, batches) = mpsc::channel(BATCHES_WAITING);
    let room_max = u32::try_from(limits.queue_bytes / 1024).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(room_max as usize));
    // The reader takes the writer along, whatever ended it: nobody listens at one of the two ends.
    let ended = cancel.child_token();
    on.spawn(write_task(write, queued, room.clone(), ended.clone()));
    on.spawn(async move {
        let reading = read_frames(read, &batches_tx, limits.frame_bytes_max);
        let outcome = tokio::select! {
            outcome = reading => outcome,
            () = cancel.cancelled() => Ok(()),
            () = batches_tx.closed() => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, %error, "a link broke");
        }
        ended.cancel();
    });
    let tx = LinkSender { queue, room, room_max, frame_bytes_max: limits.frame_bytes_max };
    Link { peer, tx, rx: LinkReceiver { batches, batch: VecDeque::new() } }
}

async fn read_frames(
    mut io: ReadHalf<impl Io>,
    batches: &mpsc::Sender<Vec<Bytes>>,
    frame_bytes_max: usize,
) -> io::Result<()> {
    // Zeroed once; small reads go through it, so that the buffer of the frames is never zeroed for nothing.
    let mut scratch = vec![0; READ_BYTES];
    let mut buffer = BytesMut::new();
    loop {
        let mut batch = Vec::new();
        let missing = loop {
            match next_frame(&mut buffer, frame_bytes_max)? {
                Next::Frame(frame) => batch.push(frame),
                Next::Missing(bytes) => break bytes,
            }
        };
        if !batch.is_empty() && batches.send(batch).await.is_err() {
            return Ok(());
        }
        if missing <= READ_BYTES {
            let count = io.read(&mut scratch).await?;
            if count == 0 {
                return if buffer.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            buffer.extend_from_slice(&scratch[..count]);
        } else {
            let filled = buffer.len();
            buffer.resize(filled + missing.min(GROW_BYTES), 0);
            io.read_exact(&mut buffer[filled..]).await?;
        }
    }
}

enum Next {
    Frame(Bytes),
    /// At least this many bytes are missing.
    Missing(usize),
}

fn next_frame(buffer: &mut BytesMut, frame_bytes_max: usize) -> io::Result<Next> {
    let Some(&length) = buffer.first_chunk() else { return Ok(Next::Missing(4 - buffer.len())) };
    let length = u32::from_le_bytes(length) as usize;
    if length > frame_bytes_max {
        let text = format!("a frame of {length} bytes is larger than the limit of {frame_bytes_max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let Some(missing) = (4 + length).checked_sub(buffer.len()).filter(|&missing| missing > 0) else {
        let mut frame = buffer.split_to(4 + length).freeze();
        bytes::Buf::advance(&mut frame, 4);
        return Ok(Next::Frame(frame));
    };
    Ok(Next::Missing(missing))
}

async fn write_task(
    mut io: WriteHalf<impl Io>,
    mut queued: mpsc::Receiver<Queued>,
    room: Arc<Semaphore>,
    cancel: CancellationToken,
) {
    // What was queued is still written after the cancelling, but a peer that does not read cannot hold that up.
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        outcome = write_frames(&mut io, &mut queued, &cancel) => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a link could not be written");
            }
        }
        () = overdue => {}
    }
    room.close();
    queued.close();
    drop(tokio::time::timeout(DRAIN_TIMEOUT, io.close()).await);
}

/// Writes frames until the queue is closed and empty. Being cancelled closes it.
async fn write_frames(
    io: &mut WriteHalf<impl Io>,
    queued: &mut mpsc::Receiver<Queued>,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let mut frames = Vec::with_capacity(FRAMES_PER_WRITE);
    let mut buffer = BytesMut::with_capacity(COALESCE_BYTES_MAX);
    loop {
        let taken = tokio::select! {
            taken = queued.recv_many(&mut frames, FRAMES_PER_WRITE) => taken,
            () = cancel.cancelled(), if !queued.is_closed() => {
                queued.close();
                continue;
            }
        };
        if taken == 0 {
            return Ok(());
        }
        for (frame, _) in &frames {
            if buffer.len() + 4 + frame.len() > COALESCE_BYTES_MAX && !buffer.is_empty() {
                io.write_all(&buffer).await?;
                buffer.clear();
            }
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            buffer.put_u32_le(length);
            if buffer.len() + frame.len() <= COALESCE_BYTES_MAX {
                buffer.put_slice(frame);
            } else {
                io.write_all(&buffer).await?;
                buffer.clear();
                io.write_all(frame).await?;
            }
        }
        if !buffer.is_empty() {
            io.write_all(&buffer).await?;
            buffer.clear();
        }
        frames.clear();
        io.flush().await?;
    }
}
