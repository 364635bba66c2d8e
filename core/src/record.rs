//! A scheduler's event log: what came, and when, so that the same machine can be run again over the same events.
//!
//! The machine is deterministic, so its events are all of its history; effects and states follow from them
//! ([`replay`]). Encoded arguments and inline results are left out, since no decision depends on more of them than
//! that they are there: a recording tells nobody's data, and a replay gives the same effects but for these bytes.
//!
//! ```text
//! file:    magic, format, protocol, then blocks
//! block:   length (u32), CRC-32 (u32), records          the first block holds the header
//! record:  microseconds since the record before, entry  (postcard)
//! ```
//!
//! Blocks are written whole. What follows the last whole block of a file that was cut, or the first damaged one, is not
//! read, and the error says where that is; everything before it is good. Ids are written as differences, and functions
//! by their place in the header, so that a task takes some 25 bytes from its submission to its release.
//!
//! Nothing here touches a file: [`Encoder`] gives bytes, [`Reader`] takes them from whatever it is given.

pub mod replay;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::fixed::FixedMap;
use crate::ids::{Attempt, ClientId, JobId, KindId, TaskId, Term, Time, WorkerId};
use crate::scheduler::{Config, Event, Scheduler};
use crate::spec::{TaskOptions, TaskSpec};
use crate::wire::{FromClient, FromWorker, INLINE_RESULT_BYTES_MAX, KindInfo, PROTOCOL_VERSION};

/// What every recording begins with.
pub const MAGIC: [u8; 8] = *b"STARLREC";

/// The version of what this module writes. Events are written as the wire has them, so [`PROTOCOL_VERSION`] counts too.
pub const FORMAT_VERSION: u32 = 3;

/// A block is closed once it has so many bytes: what a scheduler that is killed in the middle of a write loses.
const BLOCK_BYTES: usize = 64 * 1024;

/// No block is larger: a block has at least one record, and one event is at most a frame of the mesh.
const BLOCK_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The length and the checksum before a block's records.
const BLOCK_HEAD_BYTES: usize = 8;

/// What is kept free below the limit for the record that says that the limit was reached.
const ENDING_BYTES_MAX: u64 = 64;

/// What is known before the first event: the scheduler as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the scheduler was told at the start.
    pub config: Config,
    /// Its term of office.
    pub term: Term,
    /// The id of its first job.
    pub first_job: JobId,
    /// Whether it has a ledger, and begins with a recovery.
    pub has_ledger: bool,
    /// When it was started, in milliseconds since 1970, for people; 0 if that is not known.
    pub started_unix_ms: u64,
}

impl Header {
    /// The scheduler that the events came to, before the first of them.
    pub fn scheduler(&self) -> Scheduler {
        let scheduler = Scheduler::new(self.config.clone()).in_term(self.term).first_job(self.first_job);
        if self.has_ledger { scheduler.recovering() } else { scheduler }
    }
}

/// Why nothing follows in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The scheduler was stopped.
    Stopped,
    /// The recording may not become longer.
    LimitReached,
    /// Events came faster than they could be written.
    FellBehind,
    /// One event was larger than a recording can hold.
    TooLarge,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Stopped => "the scheduler was stopped",
            Ending::LimitReached => "the recording reached its limit: give a larger --record-limit to have more",
            Ending::FellBehind => "the disk was too slow for the recording: record to a faster one to have more",
            Ending::TooLarge => "one event was larger than a recording can hold",
        })
    }
}

/// What a recording holds after its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// This came to the scheduler at this time.
    Event(Time, Event),
    /// Nothing follows.
    Ended(Time, Ending),
}

/// Why a recording cannot be read, or not any further. What was read before it is good.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be had.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no recording of a scheduler: it does not begin with {}", String::from_utf8_lossy(&MAGIC))]
    NotARecording,
    /// Another version has written it.
    #[error(
        "the recording is of format {format} and protocol {protocol}, and this node reads format {FORMAT_VERSION} and \
         protocol {PROTOCOL_VERSION}: replay it with a node of the version that wrote it"
    )]
    Version {
        /// The format's version in the recording.
        format: u32,
        /// The wire protocol's version in the recording.
        protocol: u32,
    },
    /// It ends in the middle of a block: its scheduler was killed while it wrote, or the copy is not whole.
    #[error("the recording is cut at byte {at}")]
    Cut {
        /// Where the last whole block ends.
        at: u64,
    },
    /// Its bytes are not what was written.
    #[error("the recording is damaged in the block at byte {at}: {what}")]
    Damaged {
        /// Where the damaged block begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Makes a recording's bytes of events.
#[derive(Debug)]
pub struct Encoder {
    /// Closed blocks, then the open one with room for its head.
    bytes: Vec<u8>,
    /// Where the open block begins.
    open_at: usize,
    /// How many bytes have been taken.
    taken: u64,
    /// How many bytes there may be in all.
    limit: u64,
    has_ended: bool,
    previous: Time,
    /// Each function's place in the header.
    kinds: FixedMap<KindId, u32>,
    first_job: JobId,
}

impl Encoder {
    /// An encoder that has the header to give, and gives at most `limit` bytes more than that.
    pub fn new(header: &Header, limit: u64) -> Encoder {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        let open_at = bytes.len();
        bytes.extend_from_slice(&[0; BLOCK_HEAD_BYTES]);
        let places = (0..).zip(&header.config.kinds);
        let mut kinds = FixedMap::default();
        for (place, info) in places {
            kinds.entry(info.kind).or_insert(place);
        }
        let mut encoder = Encoder {
            bytes,
            open_at,
            taken: 0,
            limit,
            has_ended: false,
            previous: Time(0),
            kinds,
            first_job: header.first_job,
        };
        append(&mut encoder.bytes, header);
        encoder.close_block();
        encoder.limit = limit.saturating_add(encoder.bytes.len() as u64);
        encoder
    }

    /// Appends an event, or, where it would not fit, the recording's end, which is given back. Nothing is appended after
    /// an end.
    pub fn record(&mut self, now: Time, event: &Event) -> Option<Ending> {
        if self.has_ended {
            return None;
        }
        let before = self.bytes.len();
        let entry = self.entry(event);
        append(&mut self.bytes, &(now.0.wrapping_sub(self.previous.0), entry));
        let ending = if self.bytes.len() - before > BLOCK_BYTES_MAX - BLOCK_BYTES {
            Ending::TooLarge
        } else if self.total() + ENDING_BYTES_MAX > self.limit {
            Ending::LimitReached
        } else {
            self.previous = now;
            if self.bytes.len() - self.open_at >= BLOCK_BYTES {
                self.close_block();
            }
            return None;
        };
        self.bytes.truncate(before);
        self.end(now, ending);
        Some(ending)
    }

    /// Appends the recording's end, if it has none yet.
    pub fn end(&mut self, now: Time, ending: Ending) {
        if !self.has_ended {
            self.has_ended = true;
            append(&mut self.bytes, &(now.0.wrapping_sub(self.previous.0), Entry::Ended(ending)));
            self.close_block();
        }
    }

    /// The time of the last event.
    pub fn last(&self) -> Time {
        self.previous
    }

    /// Whether there is an end, and nothing will be appended any more.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// How many bytes there are to take.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len() - if self.is_open_block_empty() { BLOCK_HEAD_BYTES } else { 0 }
    }

    /// Closes the open block and leaves all bytes since the last call in `into`, whose memory is used for the next.
    pub fn take(&mut self, into: &mut Vec<u8>) {
        if !self.is_open_block_empty() {
            self.close_block();
        }
        self.bytes.truncate(self.open_at);
        self.taken += self.bytes.len() as u64;
        into.clear();
        std::mem::swap(&mut self.bytes, into);
        self.open_at = 0;
        self.bytes.extend_from_slice(&[0; BLOCK_HEAD_BYTES]);
    }

    /// How many bytes there are in all, the taken ones included.
    fn total(&self) -> u64 {
        self.taken + self.bytes.len() as u64
    }

    fn is_open_block_empty(&self) -> bool {
        self.bytes.len() == self.open_at + BLOCK_HEAD_BYTES
    }

    fn close_block(&mut self) {
        let (head, records) = self.bytes[self.open_at..].split_at_mut(BLOCK_HEAD_BYTES);
        head[..4].copy_from_slice(&(records.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(records).to_le_bytes());
        self.open_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; BLOCK_HEAD_BYTES]);
    }

    /// The event as it is written: without the bytes that nothing depends on, and shorter where there are many.
    fn entry<'a>(&self, event: &'a Event) -> Entry<'a> {
        match event {
            Event::FromClient { client, message: FromClient::Submit { job, token, kinds, tasks } } => {
                let mut places = Places { first_job: self.first_job, next: TaskId::new(*job, 0) };
                Entry::Submit {
                    client: *client,
                    job: job.0.wrapping_sub(self.first_job.0),
                    token: *token,
                    kinds: Cow::Borrowed(kinds),
                    tasks: tasks.iter().map(|spec| self.spec(&mut places, spec)).collect(),
                }
            }
            Event::FromClient { client, message: FromClient::Release { tasks } } => {
                let mut places = Places { first_job: self.first_job, next: TaskId::new(self.first_job, 0) };
                let tasks = tasks.iter().map(|task| places.place(*task)).collect();
                Entry::Release { client: *client, tasks }
            }
            Event::FromWorker { worker, message: FromWorker::Finished { task, attempt, nbytes, run_us, inline } }
                if !task.is_part() =>
            {
                Entry::Finished {
                    worker: *worker,
                    job: task.job.0.wrapping_sub(self.first_job.0),
                    index: task.index,
                    attempt: *attempt,
                    nbytes: *nbytes,
                    run_us: *run_us,
                    // A longer one is for the scheduler as if it were not there.
                    has_inline: inline.as_ref().is_some_and(|bytes| bytes.len() <= INLINE_RESULT_BYTES_MAX),
                }
            }
            other => Entry::Other(Cow::Borrowed(other)),
        }
    }

    fn spec(&self, places: &mut Places, spec: &TaskSpec) -> Spec {
        Spec {
            place: places.place(spec.task),
            kind: match self.kinds.get(&spec.kind) {
                Some(place) => KindAt::Listed(*place),
                None => KindAt::Unlisted(spec.kind),
            },
            inputs: spec.inputs.iter().map(|input| spec.task.index.wrapping_sub(*input)).collect(),
            options: Some(&spec.options).filter(|options| **options != TaskOptions::default()).cloned(),
        }
    }
}

/// Appends a value's encoding. None of what is written here refuses to be encoded.
fn append<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    struct Appending<'a>(&'a mut Vec<u8>);
    impl postcard::ser_flavors::Flavor for Appending<'_> {
        type Output = ();

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }

        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    let encoded = postcard::serialize_with_flavor(value, Appending(bytes));
    debug_assert!(encoded.is_ok(), "sequences have lengths and memory takes bytes: {encoded:?}");
}

/// What a record says, as it is written.
#[derive(Debug, Serialize, Deserialize)]
enum Entry<'a> {
    Ended(Ending),
    /// An event that is not written in one of the shorter ways below.
    Other(Cow<'a, Event>),
    Submit {
        client: ClientId,
        /// Counted from the scheduler's first job, as in all of these.
        job: u32,
        token: u64,
        kinds: Cow<'a, [KindInfo]>,
        tasks: Vec<Spec>,
    },
    Release {
        client: ClientId,
        tasks: Vec<Place>,
    },
    Finished {
        worker: WorkerId,
        job: u32,
        index: u32,
        attempt: Attempt,
        nbytes: u64,
        run_us: u64,
        has_inline: bool,
    },
}

/// A submitted task, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    place: Place,
    kind: KindAt,
    /// How far before the task each is.
    inputs: SmallVec<[u32; 3]>,
    /// `None` for the usual ones.
    options: Option<TaskOptions>,
}

#[derive(Debug, Serialize, Deserialize)]
enum KindAt {
    /// At this place in the header.
    Listed(u32),
    Unlisted(KindId),
}

/// A task in a list.
#[derive(Debug, Serialize, Deserialize)]
enum Place {
    /// The one after the last.
    Next,
    At {
        job: u32,
        index: u32,
    },
    /// What only a peer that errs names to a scheduler.
    Part {
        job: u32,
        index: u32,
        number: u32,
    },
}

/// Writes and reads the tasks of one list.
struct Places {
    first_job: JobId,
    next: TaskId,
}

impl Places {
    fn place(&mut self, task: TaskId) -> Place {
        let place = if task == self.next {
            Place::Next
        } else {
            let (job, index) = (task.job.0.wrapping_sub(self.first_job.0), task.index);
            match task.part_number() {
                None => Place::At { job, index },
                Some(number) => Place::Part { job, index, number },
            }
        };
        self.next = TaskId::new(task.job, task.index.wrapping_add(1));
        place
    }

    fn task(&mut self, place: &Place) -> TaskId {
        let task = match place {
            Place::Next => self.next,
            Place::At { job, index } => TaskId::new(JobId(self.first_job.0.wrapping_add(*job)), *index),
            Place::Part { job, index, number } => {
                TaskId::new(JobId(self.first_job.0.wrapping_add(*job)), *index).part(*number)
            }
        };
        self.next = TaskId::new(task.job, task.index.wrapping_add(1));
        task
    }
}

/// Reads a recording: the header first, then its items. After an error or the end there are none.
#[derive(Debug)]
pub struct Reader<R> {
    bytes: R,
    header: Header,
    /// The block that is being read, how far, and where it begins in the recording.
    block: Vec<u8>,
    at: usize,
    block_begins: u64,
    /// Where the next block begins.
    next_begins: u64,
    previous: Time,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(mut bytes: R) -> Result<Reader<R>, ReadError> {
        let mut start = [0; 16];
        let mut so_far = 0;
        while so_far < start.len() {
            match bytes.read(&mut start[so_far..]) {
                Ok(0) => break,
                Ok(count) => so_far += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if so_far < MAGIC.len() || start[..8] != MAGIC {
            return Err(ReadError::NotARecording);
        }
        if so_far < start.len() {
            return Err(ReadError::Cut { at: 0 });
        }
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        let (format, protocol) = (number(8), number(12));
        if (format, protocol) != (FORMAT_VERSION, PROTOCOL_VERSION) {
            return Err(ReadError::Version { format, protocol });
        }
        let begins = start.len() as u64;
        let mut block = Vec::new();
        let Some(next_begins) = read_block(&mut bytes, &mut block, begins)? else {
            return Err(ReadError::Cut { at: begins });
        };
        let header = postcard::from_bytes(&block)
            .map_err(|_| ReadError::Damaged { at: begins, what: "it does not hold a header" })?;
        block.clear();
        Ok(Reader {
            bytes,
            header,
            block,
            at: 0,
            block_begins: next_begins,
            next_begins,
            previous: Time(0),
            is_over: false,
        })
    }

    /// What is known before the first event.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Item>, ReadError> {
        if self.at == self.block.len() {
            match read_block(&mut self.bytes, &mut self.block, self.next_begins)? {
                None => return Ok(None),
                Some(next_begins) => {
                    (self.block_begins, self.next_begins) = (self.next_begins, next_begins);
                    self.at = 0;
                }
            }
        }
        let left = &self.block[self.at..];
        let ((passed, entry), rest) = postcard::take_from_bytes::<(u64, Entry<'_>)>(left)
            .map_err(|_| self.damaged("a record of it cannot be decoded"))?;
        self.at = self.block.len() - rest.len();
        let now = Time(self.previous.0.wrapping_add(passed));
        self.previous = now;
        Ok(Some(match entry {
            Entry::Ended(ending) => Item::Ended(now, ending),
            entry => Item::Event(now, self.event(entry)?),
        }))
    }

    /// The event that was written so.
    fn event(&self, entry: Entry<'_>) -> Result<Event, ReadError> {
        let first_job = self.header.first_job;
        let job_at = |job: u32| JobId(first_job.0.wrapping_add(job));
        Ok(match entry {
            Entry::Ended(_) => return Err(self.damaged("its end is no event")),
            Entry::Other(event) => event.into_owned(),
            Entry::Submit { client, job, token, kinds, tasks } => {
                let job = job_at(job);
                let mut places = Places { first_job, next: TaskId::new(job, 0) };
                let tasks = tasks.into_iter().map(|spec| self.spec(&mut places, spec)).collect::<Result<_, _>>()?;
                let message = FromClient::Submit { job, token, kinds: kinds.into_owned(), tasks };
                Event::FromClient { client, message }
            }
            Entry::Release { client, tasks } => {
                let mut places = Places { first_job, next: TaskId::new(first_job, 0) };
                let tasks = tasks.iter().map(|place| places.task(place)).collect();
                Event::FromClient { client, message: FromClient::Release { tasks } }
            }
            Entry::Finished { worker, job, index, attempt, nbytes, run_us, has_inline } => {
                let task = TaskId::new(job_at(job), index);
                let inline = has_inline.then(Bytes::new);
                Event::FromWorker { worker, message: FromWorker::Finished { task, attempt, nbytes, run_us, inline } }
            }
        })
    }

    fn spec(&self, places: &mut Places, spec: Spec) -> Result<TaskSpec, ReadError> {
        let task = places.task(&spec.place);
        let kind = match spec.kind {
            KindAt::Unlisted(kind) => kind,
            KindAt::Listed(place) => match self.header.config.kinds.get(place as usize) {
                Some(info) => info.kind,
                None => return Err(self.damaged("a function of it is not in the header")),
            },
        };
        Ok(TaskSpec {
            task,
            kind,
            payload: Bytes::new(),
            inputs: spec.inputs.iter().map(|back| task.index.wrapping_sub(*back)).collect(),
            options: spec.options.unwrap_or_default(),
        })
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { at: self.block_begins, what }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Result<Item, ReadError>> {
        if self.is_over {
            return None;
        }
        let item = self.read().transpose();
        self.is_over = !matches!(item, Some(Ok(Item::Event(..))));
        item
    }
}

/// Reads the block that begins at `begins` and gives where the next one begins; `None` if there is none. Memory grows
/// with what is really there, not with what a length says.
fn read_block(bytes: &mut impl Read, block: &mut Vec<u8>, begins: u64) -> Result<Option<u64>, ReadError> {
    block.clear();
    bytes.by_ref().take(BLOCK_HEAD_BYTES as u64).read_to_end(block)?;
    if block.is_empty() {
        return Ok(None);
    }
    let Ok([l0, l1, l2, l3, c0, c1, c2, c3]) = <[u8; BLOCK_HEAD_BYTES]>::try_from(block.as_slice()) else {
        return Err(ReadError::Cut { at: begins });
    };
    let (length, checksum) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
    if length == 0 || length as usize > BLOCK_BYTES_MAX {
        return Err(ReadError::Damaged { at: begins, what: "no block has such a length" });
    }
    block.clear();
    bytes.by_ref().take(u64::from(length)).read_to_end(block)?;
    if block.len() < length as usize {
        return Err(ReadError::Cut { at: begins });
    }
    if crc32fast::hash(block) != checksum {
        return Err(ReadError::Damaged { at: begins, what: "its checksum is wrong" });
    }
    Ok(Some(begins + (BLOCK_HEAD_BYTES as u64) + u64::from(length)))
}
