//! What a node has promised, in three files:
//!
//! - `vote`: for whom it has voted, which cluster it belongs to, and up to which entry it has acknowledged its log;
//! - `log`: a head and entries, records that are appended and synced before they are acknowledged;
//! - `snapshot`: the ledger up to some entry, so that the log can be cut from its front.
//!
//! `vote` and `snapshot` are replaced as a whole. Whatever is found after a crash is either what was acknowledged and
//! perhaps more, or an error: a node never starts as if it had promised less.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;
use tokio::sync::watch;

use crate::disk::{Disk, Memory};
use crate::error::QuorumError;
use crate::raft::{Entry, LogId, SnapshotMeta, Vote};
use crate::record;

pub(crate) const VOTE: &str = "vote";
pub(crate) const LOG: &str = "log";
pub(crate) const SNAPSHOT: &str = "snapshot";

/// The format of the files. Another one is not read.
const FORMAT: u32 = 2;

/// Which cluster a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterId(pub(crate) [u8; 16]);

/// What is in `snapshot`: what it covers, and the encoded ledger.
pub(crate) type Saved = (SnapshotMeta, Vec<u8>);

/// What is in `vote`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promise {
    format: u32,
    /// Who has promised it.
    node: NodeId,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) vote: Option<Vote>,
    /// The index of the last entry that was acknowledged; `None` before the first.
    pub(crate) end: Option<u64>,
}

/// The first record of `log`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// The last entry that the file has no longer.
    purged: Option<LogId>,
}

/// The files of a node, and its log as it is in memory.
pub(crate) struct Store {
    pub(crate) node: NodeId,
    /// What a person knows the files by.
    place: String,
    is_fast: bool,
    /// Locked while something is written, and so never by who may not wait.
    disk: Mutex<Box<dyn Disk>>,
    told: Mutex<Told>,
    held: Mutex<Held>,
    /// Up to which entry there is a snapshot on disk. It changes as well when something has broken.
    covered: watch::Sender<Option<u64>>,
}

/// What the files are known to hold.
struct Told {
    promise: Promise,
    /// The error after which nothing is written any more, since nobody knows what is in the files.
    broken: Option<String>,
}

/// The log.
#[derive(Default)]
struct Held {
    /// Each with where its record begins.
    entries: BTreeMap<u64, (Entry, u64)>,
    purged: Option<LogId>,
    /// Bytes of the file that count.
    len: u64,
    /// There is more in the file, which was truncated and counts again after a crash.
    has_tail: bool,
}

impl Store {
    /// Reads what is there, with the snapshot.
    pub(crate) fn open(node: NodeId, mut disk: Box<dyn Disk>) -> Result<(Store, Option<Saved>), QuorumError> {
        let promise = read_promise(node, &mut *disk)?;
        let snapshot = read_snapshot(&mut *disk)?;
        let held = read_log(&mut *disk, &promise)?;
        let covered = snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if held.purged.map(|id| id.index) > covered.map(|id| id.index) {
            let what = "it is missing or older than the log's beginning".to_owned();
            return Err(QuorumError::Damaged { place: disk.place(SNAPSHOT), what });
        }
        let is_fast = disk.is_fast();
        let place = disk.place("").trim_end_matches('/').to_owned();
        let told = Mutex::new(Told { promise, broken: None });
        let covered = watch::Sender::new(covered.map(|id| id.index));
        let store = Store { node, place, is_fast, disk: Mutex::new(disk), told, held: Mutex::new(held), covered };
        Ok((store, snapshot))
    }

    /// No log, no vote: nothing was ever promised.
    pub(crate) fn is_new(&self) -> bool {
        let promise = self.promise();
        promise.vote.is_none() && promise.end.is_none() && self.last().is_none()
    }

    pub(crate) fn promise(&self) -> Promise {
        self.told().promise.clone()
    }

    /// What a person knows the files by.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Lets go of the files, so that another may have them.
    pub(crate) fn close(&self) {
        self.give_up("it was stopped".to_owned());
        *self.disk() = Box::new(Memory::new());
    }

    pub(crate) fn broken(&self) -> Option<String> {
        self.told().broken.clone()
    }

    /// The last entry, whether it is still here or only in the snapshot.
    pub(crate) fn last(&self) -> Option<LogId> {
        let held = self.held();
        held.entries.last_key_value().map(|(_, (entry, _))| entry.log_id).or(held.purged)
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.held().purged
    }

    /// Bytes and entries of the log.
    pub(crate) fn log_size(&self) -> (u64, u64) {
        let held = self.held();
        (held.len, held.entries.len() as u64)
    }

    /// The entries that are here from `from` to before `to`: at least one if there is any, and not many more bytes than
    /// `bytes_max`.
    pub(crate) fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Vec<Entry> {
        let held = self.held();
        if from >= to {
            return Vec::new();
        }
        let first = held.entries.get(&from).map_or(0, |(_, at)| *at);
        let near = held.entries.range(from..to).take_while(|(_, (_, at))| at.saturating_sub(first) <= bytes_max);
        near.map(|(_, (entry, _))| entry.clone()).collect()
    }

    /// Remembers the cluster.
    pub(crate) async fn save_cluster(self: &Arc<Store>, cluster: ClusterId) -> io::Result<()> {
        self.run(move |store, disk| store.promise_on(disk, |promise| promise.cluster = Some(cluster))).await
    }

    /// Remembers the vote.
    pub(crate) async fn save_vote(self: &Arc<Store>, vote: Vote) -> io::Result<()> {
        self.run(move |store, disk| store.promise_on(disk, |promise| promise.vote = Some(vote))).await
    }

    /// Adds entries, which follow on the last one.
    pub(crate) async fn append(self: &Arc<Store>, entries: Vec<Entry>) -> io::Result<()> {
        let (Some(first), Some(end)) = (entries.first(), entries.last().map(|entry| entry.log_id.index)) else {
            return Ok(());
        };
        let last = self.last().map(|id| id.index);
        if last.map_or(0, |last| last + 1) != first.log_id.index {
            return Err(io::Error::other(format!("entry {} does not follow on {last:?}", first.log_id.index)));
        }
        let mut records = Vec::new();
        let mut places = Vec::with_capacity(entries.len());
        for entry in &entries {
            places.push(records.len() as u64);
            records.extend(encode(entry)?);
        }
        let added = records.len() as u64;
        let (len, has_tail) = {
            let held = self.held();
            (held.len, held.has_tail)
        };
        self.run(move |store, disk| {
            if has_tail {
                store.promise_on(disk, |promise| promise.end = last)?;
                disk.cut(LOG, len)?;
            }
            disk.append(LOG, &records)?;
            store.promise_on(disk, |promise| promise.end = Some(end))
        })
        .await?;
        let mut held = self.held();
        held.entries.extend(entries.into_iter().zip(places).map(|(entry, at)| (entry.log_id.index, (entry, len + at))));
        (held.len, held.has_tail) = (len + added, false);
        Ok(())
    }

    /// Forgets the entries from `from` on. Some of them may have been acknowledged, when a snapshot is about to take their
    /// places, so they stay on disk until that is there or others are written instead.
    pub(crate) fn truncate(&self, from: u64) {
        let mut held = self.held();
        let removed = held.entries.split_off(&from);
        if let Some((_, (_, at))) = removed.first_key_value() {
            (held.len, held.has_tail) = (*at, true);
        }
    }

    /// Forgets the entries up to this one, which a snapshot has, as soon as that is on disk.
    pub(crate) async fn purge(self: &Arc<Store>, upto: LogId) -> io::Result<()> {
        let mut covered = self.covered.subscribe();
        let is_covered = |covered: &Option<u64>| self.broken().is_some() || *covered >= Some(upto.index);
        drop(covered.wait_for(is_covered).await.map_err(io::Error::other)?);
        let mut file = encode(&Head { format: FORMAT, purged: Some(upto) })?;
        let mut kept = BTreeMap::new();
        for (index, (entry, _)) in self.held().entries.range(upto.index.saturating_add(1)..) {
            // What follows on an entry is not of an older term. What is was left by a crash while a snapshot came.
            if entry.log_id.leader_id < upto.leader_id {
                break;
            }
            kept.insert(*index, (entry.clone(), file.len() as u64));
            file.extend(encode(entry)?);
        }
        let len = file.len() as u64;
        let end = kept.last_key_value().map_or(upto.index, |(index, _)| *index);
        self.run(move |store, disk| {
            if store.promise().end > Some(end) {
                store.promise_on(disk, |promise| promise.end = Some(end))?;
            }
            disk.replace(LOG, &file)
        })
        .await?;
        *self.held() = Held { entries: kept, purged: Some(upto), len, has_tail: false };
        Ok(())
    }

    /// Puts this in the place of the snapshot.
    pub(crate) async fn save_snapshot(self: &Arc<Store>, meta: SnapshotMeta, ledger: Arc<Vec<u8>>) -> io::Result<()> {
        let covered = meta.last_log_id.map(|id| id.index);
        let record = encode(&(FORMAT, meta, &*ledger))?;
        self.run(move |_, disk| disk.replace(SNAPSHOT, &record)).await?;
        self.covered.send_replace(covered);
        Ok(())
    }

    /// Writes nothing more.
    pub(crate) fn give_up(&self, why: String) {
        self.told().broken.get_or_insert(why);
        // Whoever waits for a snapshot waits no longer.
        self.covered.send_modify(|_| ());
    }

    /// Does what may take a while where that holds up nobody else.
    async fn run(
        self: &Arc<Store>,
        write: impl FnOnce(&Store, &mut dyn Disk) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let store = Arc::clone(self);
        let run = move || {
            let mut disk = store.disk();
            if let Some(broken) = store.broken() {
                return Err(io::Error::other(broken));
            }
            let done = write(&store, &mut **disk);
            if let Err(error) = &done {
                store.give_up(format!("{}: {error}", store.place));
            }
            done
        };
        if self.is_fast { run() } else { tokio::task::spawn_blocking(run).await.map_err(io::Error::other)? }
    }

    fn promise_on(&self, disk: &mut dyn Disk, change: impl FnOnce(&mut Promise)) -> io::Result<()> {
        let mut promise = self.promise();
        change(&mut promise);
        disk.replace(VOTE, &encode(&promise)?)?;
        self.told().promise = promise;
        Ok(())
    }

    fn disk(&self) -> MutexGuard<'_, Box<dyn Disk>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let content = postcard::to_stdvec(value).map_err(io::Error::other)?;
    record::frame(&content).ok_or_else(|| io::Error::other("a record of over 4 GiB"))
}

fn damaged(disk: &dyn Disk, name: &str, what: impl Into<String>) -> QuorumError {
    QuorumError::Damaged { place: disk.place(name), what: what.into() }
}

fn read(disk: &mut dyn Disk, name: &str) -> Result<Option<Vec<u8>>, QuorumError> {
    disk.read(name).map_err(|source| QuorumError::Io { place: disk.place(name), source })
}

/// The value of a file that is one record.
fn read_whole<T: for<'a> Deserialize<'a>>(disk: &mut dyn Disk, name: &str) -> Result<Option<T>, QuorumError> {
    let Some(file) = read(disk, name)? else { return Ok(None) };
    let whole = record::content(&file, 0).filter(|range| range.end == file.len());
    let value = whole.and_then(|range| postcard::from_bytes(&file[range]).ok());
    value.map(Some).ok_or_else(|| damaged(disk, name, "its checksum or its content is wrong"))
}

fn read_promise(node: NodeId, disk: &mut dyn Disk) -> Result<Promise, QuorumError> {
    if let Some(promise) = read_whole::<Promise>(disk, VOTE)? {
        if promise.format != FORMAT {
            return Err(damaged(disk, VOTE, "it is of another version of the program"));
        }
        if promise.node != node {
            return Err(QuorumError::OtherNode { place: disk.place(VOTE), node: promise.node });
        }
        return Ok(promise);
    }
    for name in [LOG, SNAPSHOT] {
        if read(disk, name)?.is_some() {
            return Err(damaged(disk, VOTE, format!("it is missing, and {name} is there")));
        }
    }
    let promise = Promise { format: FORMAT, node, ..Promise::default() };
    let written = encode(&promise).and_then(|record| disk.replace(VOTE, &record));
    written.map_err(|source| QuorumError::Io { place: disk.place(VOTE), source })?;
    Ok(promise)
}

fn read_snapshot(disk: &mut dyn Disk) -> Result<Option<Saved>, QuorumError> {
    let Some((format, meta, ledger)) = read_whole::<(u32, SnapshotMeta, Vec<u8>)>(disk, SNAPSHOT)? else {
        return Ok(None);
    };
    match format {
        FORMAT => Ok(Some((meta, ledger))),
        _ => Err(damaged(disk, SNAPSHOT, "it is of another version of the program")),
    }
}

fn read_log(disk: &mut dyn Disk, promise: &Promise) -> Result<Held, QuorumError> {
    let Some(file) = read(disk, LOG)? else {
        if promise.end.is_some() {
            return Err(damaged(disk, LOG, "it is missing"));
        }
        let head = encode(&Head { format: FORMAT, purged: None });
        let written = head.and_then(|head| disk.replace(LOG, &head).map(|()| head.len() as u64));
        let len = written.map_err(|source| QuorumError::Io { place: disk.place(LOG), source })?;
        return Ok(Held { len, ..Held::default() });
    };
    let head =
        record::content(&file, 0).and_then(|range| Some((range.end, postcard::from_bytes::<Head>(&file[range]).ok()?)));
    let Some((mut at, head)) = head.filter(|(_, head)| head.format == FORMAT) else {
        return Err(damaged(disk, LOG, "its first record is wrong, or of another version of the program"));
    };
    let mut entries = BTreeMap::new();
    let mut next = head.purged.map_or(0, |id| id.index + 1);
    while at < file.len() {
        let entry = record::content(&file, at)
            .and_then(|range| Some((range.end, postcard::from_bytes::<Entry>(&file[range]).ok()?)))
            .filter(|(_, entry)| entry.log_id.index == next);
        let Some((end, entry)) = entry else { break };
        entries.insert(next, (entry, at as u64));
        (at, next) = (end, next + 1);
    }
    if promise.end.is_some_and(|end| next <= end) {
        return Err(damaged(disk, LOG, format!("entry {next} is missing or wrong, at byte {at} of {}", file.len())));
    }
    if at < file.len() {
        let place = disk.place(LOG);
        tracing::warn!(place, at, len = file.len(), "the log ends in a record that was never acknowledged: cut off");
        disk.cut(LOG, at as u64).map_err(|source| QuorumError::Io { place, source })?;
    }
    Ok(Held { entries, purged: head.purged, len: at as u64, has_tail: false })
}
