//! The flight recorder: a scheduler's events to a file, without the scheduler waiting for a disk.
//!
//! [`Recorder::record`] encodes the event into memory; a thread of its own writes what has gathered, some twenty times a
//! second, which is what a scheduler that is killed loses of its end. Memory is bounded: if the disk is slower than the
//! events, the recording ends, and says so as its last record, since one with a hole in it could not be replayed. It
//! ends in the same way at its limit. Whatever ends it is logged once, and never disturbs the scheduler.
//!
//! The file of the run before is kept as `FILE.1`, and the one before that is lost, so that a service which restarts by
//! itself leaves the recording of the run that failed. Nothing but a recording is ever replaced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::ids::Time;
use starling_core::record::{Encoder, Ending, Header, MAGIC};
use starling_core::scheduler::Event;

/// How long events gather before they are written.
const PAUSE: Duration = Duration::from_millis(50);

/// With so many bytes the writer does not wait any longer.
const WRITE_BYTES: usize = 1 << 20;

/// With more bytes than these unwritten, the disk is too slow. One event may come on top.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How long the end waits for the disk.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a recording cannot be begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be made or looked at.
    #[error("the recording {path} cannot be written: {source}: give --record a file that can be")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something else under this name.
    #[error("{path} exists and is no recording, so it is not replaced: give --record another file, or move it away")]
    NotARecording {
        /// The file.
        path: PathBuf,
    },
    /// Another scheduler writes there.
    #[error("another process records to {path}: give --record another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// Takes a scheduler's events. Clones take them for the same recording.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    encoder: Mutex<Encoder>,
    /// Told when there is much to write, or nothing will follow.
    wake: Condvar,
    path: PathBuf,
    backlog_bytes_max: usize,
}

/// A recording that is under way. Dropping it ends it: the file is whole then.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    /// Disconnected once the writer has ended. Locked by nobody: a node that has this is shared between threads.
    written: Mutex<Receiver<()>>,
}

impl Recording {
    /// Begins a recording of at most `limit_bytes` bytes in this file, and a thread that writes it.
    pub fn start(path: &Path, header: &Header, limit_bytes: u64) -> Result<Recording, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let encoder = Encoder::new(header, limit_bytes);
        let file = create(path)?;
        Recording::start_on(file, path, encoder, BACKLOG_BYTES_MAX).map_err(failed)
    }

    fn start_on(
        out: impl Write + Send + 'static,
        path: &Path,
        encoder: Encoder,
        backlog_bytes_max: usize,
    ) -> io::Result<Recording> {
        let shared = Arc::new(Shared {
            encoder: Mutex::new(encoder),
            wake: Condvar::new(),
            path: path.to_owned(),
            backlog_bytes_max,
        });
        let (done, written) = sync_channel(1);
        std::thread::Builder::new().name("recorder".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write(out, &done)
        })?;
        Ok(Recording { recorder: Recorder { shared }, written: Mutex::new(written) })
    }

    /// What takes the events.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let written = self.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.recorder.shared;
        let mut encoder = shared.lock();
        let last = encoder.last();
        encoder.end(last, Ending::Stopped);
        drop(encoder);
        shared.wake.notify_one();
        // The other end is dropped when the thread has ended, whatever became of it.
        if written.recv_timeout(FINISH_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(file = %shared.path.display(), "the end of the recording could not be written in time");
        }
    }
}

impl Recorder {
    /// Records that this event comes to the scheduler at this time. Costs its encoding, and never waits for the disk.
    /// After the recording's end this does nothing.
    pub fn record(&self, now: Time, event: &Event) {
        let shared = &*self.shared;
        let mut encoder = shared.lock();
        let before = encoder.pending_bytes();
        let ending = if before > shared.backlog_bytes_max && !encoder.has_ended() {
            encoder.end(now, Ending::FellBehind);
            Some(Ending::FellBehind)
        } else {
            encoder.record(now, event)
        };
        let is_much = before < WRITE_BYTES && encoder.pending_bytes() >= WRITE_BYTES;
        drop(encoder);
        if is_much || ending.is_some() {
            shared.wake.notify_one();
        }
        if let Some(ending) = ending {
            tracing::warn!(file = %shared.path.display(), "the recording ends here, and the scheduler goes on: {ending}");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Encoder> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what gathers, to the end. `done` is dropped then, which tells.
    fn write(&self, mut out: impl Write, _done: &SyncSender<()>) {
        let mut bytes = Vec::new();
        loop {
            let has_ended = self.take(&mut bytes);
            if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
                tracing::error!(file = %self.path.display(), %error, "the recording ends here, and the scheduler goes on");
                self.fail();
                return;
            }
            if has_ended {
                return;
            }
        }
    }

    /// Takes what there is to write, after a pause if it is little. Whether nothing will follow.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        let is_little = |encoder: &mut Encoder| encoder.pending_bytes() < WRITE_BYTES && !encoder.has_ended();
        let waited = self.wake.wait_timeout_while(self.lock(), PAUSE, is_little);
        let (mut encoder, _) = waited.unwrap_or_else(PoisonError::into_inner);
        encoder.take(bytes);
        encoder.has_ended()
    }

    /// Nothing can be written any more, so nothing shall gather.
    fn fail(&self) {
        let mut encoder = self.lock();
        let last = encoder.last();
        encoder.end(last, Ending::Stopped);
        encoder.take(&mut Vec::new());
    }
}

/// Makes the file, after the recording of the run before was put aside.
/// Whether a recording could be begun in this file, before there is anything to record.
///
/// # Errors
/// What would be in the way.
pub fn check(path: &Path) -> Result<(), RecordError> {
    let failed = |source| RecordError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    for file in [path, &aside(path)] {
        match look_at(file).map_err(failed)? {
            Found::SomethingElse => return Err(RecordError::NotARecording { path: file.to_owned() }),
            Found::Recording(found) if is_locked(&found) => return Err(RecordError::InUse { path: file.to_owned() }),
            Found::Recording(_) | Found::Nothing | Found::Empty => {}
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<File, RecordError> {
    let failed = |source| RecordError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true);
    match look_at(path).map_err(failed)? {
        Found::Nothing => {
            options.create_new(true);
        }
        Found::Empty => {}
        Found::SomethingElse => return Err(RecordError::NotARecording { path: path.to_owned() }),
        Found::Recording(file) => {
            if is_locked(&file) {
                return Err(RecordError::InUse { path: path.to_owned() });
            }
            let aside = aside(path);
            if matches!(look_at(&aside).map_err(failed)?, Found::SomethingElse) {
                return Err(RecordError::NotARecording { path: aside });
            }
            std::fs::rename(path, &aside).map_err(failed)?;
            tracing::info!(file = %aside.display(), "kept the recording of the run before");
            options.create_new(true);
        }
    }
    // The names of tasks and the texts of errors are for the owner only.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(failed)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    if is_locked(&file) {
        return Err(RecordError::InUse { path: path.to_owned() });
    }
    Ok(file)
}

/// Where the recording of the run before is kept.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// What there is under a name.
enum Found {
    Nothing,
    Empty,
    Recording(File),
    SomethingElse,
}

fn look_at(path: &Path) -> io::Result<Found> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    // A pipe would wait for somebody to write into it.
    if !metadata.is_file() {
        return Ok(Found::SomethingElse);
    }
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    (&mut file).take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [] => Found::Empty,
        start if start == MAGIC => Found::Recording(file),
        _ => Found::SomethingElse,
    })
}

/// Takes the lock of a file until it is closed; whether another process has it. Where there are no locks, none has.
fn is_locked(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use starling_core::ids::{ClientId, JobId, Term};
    use starling_core::record::{Item, Reader};
    use starling_core::scheduler::Config;

    use super::*;

    fn header() -> Header {
        let config = Config::default();
        Header { config, term: Term(1), first_job: JobId(5), has_ledger: false, started_unix_ms: 0 }
    }

    fn client(number: u32) -> Event {
        Event::ClientJoined { client: ClientId(number) }
    }

    /// The events' clients, and how it ended.
    fn read(bytes: &[u8]) -> (Vec<u32>, Option<Ending>) {
        let (mut clients, mut end) = (Vec::new(), None);
        for item in Reader::open(bytes).unwrap() {
            match item.unwrap() {
                Item::Event(_, Event::ClientJoined { client }) => clients.push(client.0),
                Item::Event(_, event) => panic!("{event:?} was not recorded"),
                Item::Ended(_, ending) => end = Some(ending),
            }
        }
        (clients, end)
    }

    fn read_file(path: &Path) -> (Vec<u32>, Option<Ending>) {
        read(&std::fs::read(path).unwrap())
    }

    #[test]
    fn events_are_in_the_file_soon_and_the_end_is_there_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let recording = Recording::start(&path, &header(), 1 << 30).unwrap();
        let recorder = recording.recorder();
        recorder.record(Time(1), &client(7));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::fs::metadata(&path).unwrap().len() == 0 || read_file(&path).0.is_empty() {
            assert!(std::time::Instant::now() < deadline, "the event was not written");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(read_file(&path), (vec![7], None));
        recorder.record(Time(2), &client(8));
        drop(recording);
        assert_eq!(read_file(&path), (vec![7, 8], Some(Ending::Stopped)));
        recorder.record(Time(3), &client(9));
        assert_eq!(read_file(&path), (vec![7, 8], Some(Ending::Stopped)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_run_before_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.rec");
        let before = folder.path().join("events.rec.1");
        for run in 0..3 {
            let recording = Recording::start(&path, &header(), 1 << 30).unwrap();
            recording.recorder().record(Time(1), &client(run));
            drop(recording);
            assert_eq!(read_file(&path).0, [run]);
            if run > 0 {
                assert_eq!(read_file(&before).0, [run - 1]);
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_but_a_recording_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thesis");
        std::fs::write(&path, "chapter one").unwrap();
        let error = Recording::start(&path, &header(), 1 << 30).unwrap_err();
        assert!(error.to_string().contains("thesis exists and is no recording"), "{error}");

        let events = folder.path().join("events");
        drop(Recording::start(&events, &header(), 1 << 30).unwrap());
        std::fs::rename(&path, folder.path().join("events.1")).unwrap();
        let error = Recording::start(&events, &header(), 1 << 30).unwrap_err();
        assert!(error.to_string().contains("events.1 exists and is no recording"), "{error}");
        assert_eq!(read_file(&events), (vec![], Some(Ending::Stopped)));
        assert_eq!(std::fs::read(folder.path().join("events.1")).unwrap(), b"chapter one");

        let error = Recording::start(folder.path(), &header(), 1 << 30).unwrap_err();
        assert!(matches!(error, RecordError::NotARecording { .. }), "{error}");
        let error = Recording::start(&folder.path().join("no/such/folder"), &header(), 1 << 30).unwrap_err();
        assert!(matches!(error, RecordError::Io { .. }), "{error}");
    }

    #[test]
    fn an_empty_file_is_used_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, "").unwrap();
        let recording = Recording::start(&path, &header(), 1 << 30).unwrap();
        recording.recorder().record(Time(1), &client(1));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::fs::metadata(&path).unwrap().len() == 0 {
            assert!(std::time::Instant::now() < deadline, "nothing was written");
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = Recording::start(&path, &header(), 1 << 30).unwrap_err();
        assert!(matches!(error, RecordError::InUse { .. }), "{error}");
        drop(recording);
        assert_eq!(read_file(&path), (vec![1], Some(Ending::Stopped)));
    }

    #[test]
    fn at_the_limit_the_recording_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let recording = Recording::start(&path, &header(), 10_000).unwrap();
        for number in 0..10_000 {
            recording.recorder().record(Time(1), &client(number));
        }
        drop(recording);
        let (clients, ending) = read_file(&path);
        assert_eq!(ending, Some(Ending::LimitReached));
        assert!(clients.len() > 1000 && clients.iter().copied().eq(0..clients.len() as u32));
        assert!(std::fs::metadata(&path).unwrap().len() < 10_100);
    }

    /// A disk that takes nothing until it is told to.
    struct Stuck {
        go_on: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Disconnected once the test lets go.
            let _ = self.go_on.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_is_too_slow_ends_the_recording_and_never_holds_up_the_scheduler() {
        let (let_go, go_on) = sync_channel(1);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let disk = Stuck { go_on, written: written.clone() };
        let backlog = 20_000;
        let recording =
            Recording::start_on(disk, Path::new("slow"), Encoder::new(&header(), 1 << 30), backlog).unwrap();
        let recorder = recording.recorder();
        for number in 0..100_000 {
            recorder.record(Time(1), &client(number));
        }
        assert!(recorder.shared.lock().pending_bytes() < backlog + 100);
        drop(let_go);
        drop(recording);
        let (clients, ending) = read(&written.lock().unwrap());
        assert_eq!(ending, Some(Ending::FellBehind));
        assert!(clients.len() < 100_000 && clients.iter().copied().eq(0..clients.len() as u32));
    }

    /// A disk that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_is_full_ends_the_recording_and_nothing_gathers() {
        let recording =
            Recording::start_on(Full, Path::new("full"), Encoder::new(&header(), 1 << 30), BACKLOG_BYTES_MAX).unwrap();
        let recorder = recording.recorder();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !recorder.shared.lock().has_ended() {
            assert!(std::time::Instant::now() < deadline, "the failure was not noticed");
            recorder.record(Time(1), &client(1));
        }
        recorder.record(Time(2), &client(2));
        assert_eq!(recorder.shared.lock().pending_bytes(), 0);
        drop(recording);
    }
}
