use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use starling_core::ids::JobId;
use tempfile::TempDir;

use super::*;
use crate::parts::Parts;
use crate::value::Buffer;

fn task(index: u32) -> TaskId {
    TaskId::new(JobId(0), index)
}

/// A string whose encoding has so many bytes, by the store's count, and which tells it from others.
fn text(nbytes: usize, mark: u32) -> String {
    let start = format!("{mark} ");
    format!("{start}{}", "x".repeat(nbytes - 1 - start.len()))
}

/// A store with this limit that spills into a directory of the test's own.
struct Spilling {
    store: Arc<Store>,
    parent: TempDir,
}

impl std::ops::Deref for Spilling {
    type Target = Arc<Store>;

    fn deref(&self) -> &Arc<Store> {
        &self.store
    }
}

fn spilling(limit: u64) -> Spilling {
    spilling_with(MemoryConfig::limited(limit))
}

fn spilling_with(config: MemoryConfig) -> Spilling {
    let parent = tempfile::tempdir().unwrap();
    let config = MemoryConfig { spill_directory: Some(parent.path().to_owned()), ..config };
    Spilling { store: Store::start(&config).unwrap(), parent }
}

impl Spilling {
    fn put(&self, index: u32, nbytes: usize) {
        assert_eq!(self.insert(task(index), Value::live(text(nbytes, index))).unwrap(), nbytes as u64);
    }

    /// Reads a value that [`Spilling::put`] has put.
    fn read(&self, index: u32, nbytes: usize) {
        let value = self.get(task(index)).unwrap().expect("it is held");
        assert!(*value.get::<String>().unwrap() == text(nbytes, index), "the value of {index} has changed");
    }

    fn is_in_memory(&self, index: u32) -> bool {
        self.values.get(&task(index)).unwrap().memory.is_some()
    }

    fn in_memory(&self) -> Vec<u32> {
        (0..self.len() as u32).filter(|&index| self.is_in_memory(index)).collect()
    }

    fn in_memory_of(&self, indices: &[u32]) -> Vec<u32> {
        indices.iter().copied().filter(|&index| self.is_in_memory(index)).collect()
    }

    /// The files of spilled values, and their sizes.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(self.spill_directory().unwrap()).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_name() != "lock");
        files.map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect()
    }

    fn path_of(&self, index: u32) -> PathBuf {
        self.values.get(&task(index)).unwrap().disk.as_ref().unwrap().path()
    }
}

/// Waits for what the store's thread brings about.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn bytes_are_counted_through_insert_replace_and_remove() {
    let store = Store::unlimited();
    store.insert(task(0), Value::live("x".repeat(99))).unwrap();
    store.insert(task(0), Value::live("x".repeat(199))).unwrap();
    store.insert(task(1), Value::live("x".repeat(49))).unwrap();
    assert_eq!((store.nbytes(), store.len()), (250, 2));
    assert_eq!(store.remove(task(0)).unwrap().memory_bytes(), 200);
    assert!(store.remove(task(0)).is_none());
    assert_eq!((store.nbytes(), store.len()), (50, 1));
}

#[test]
fn what_does_not_fit_and_must_not_be_spilled_is_refused_and_nothing_changes() {
    let store = Store::start(&MemoryConfig { spill_limit: Some(0), ..MemoryConfig::limited(1000) }).unwrap();
    store.insert(task(0), Value::live(text(600, 0))).unwrap();
    let full = store.insert(task(1), Value::live(text(400, 1))).unwrap_err();
    assert!(matches!(full, StoreError::Full { nbytes: 400, held: 600, limit: 1000 }), "{full}");
    assert!(full.to_string().contains("--memory-limit"), "{full}");
    // Small ones may use what is above refuse.
    store.insert(task(2), Value::live(text(250, 2))).unwrap();
    store.insert(task(3), Value::live(text(150, 3))).unwrap();
    assert!(store.insert(task(4), Value::live(7_u8)).is_err());
    assert_eq!((store.nbytes(), store.len(), store.spill_directory()), (1000, 3, None));
}

#[test]
fn values_over_the_target_go_to_disk_come_back_and_leave_nothing() {
    let store = spilling(100_000);
    for index in 0..100 {
        store.put(index, 3_000);
    }
    eventually("the target", || store.nbytes() <= 60_000);
    assert_eq!(store.nbytes() + store.spilled_bytes(), 300_000);
    assert!(store.spilled_bytes_total() >= store.spilled_bytes());
    assert_eq!(store.disk_bytes(), store.files().iter().map(|(_, nbytes)| nbytes).sum::<u64>());
    assert!(store.files().len() < 60, "small values share files: {:?}", store.files());
    for index in (0..100).rev() {
        store.read(index, 3_000);
        assert_eq!(store.nbytes_of(task(index)), 3_000);
    }
    for index in 0..100 {
        store.remove(task(index)).unwrap();
    }
    assert_eq!((store.nbytes(), store.spilled_bytes(), store.len()), (0, 0, 0));
    eventually("an empty disk", || store.disk_bytes() == 0 && store.files().is_empty());
}

#[test]
fn the_least_recently_used_go_first() {
    let store = spilling(100_000);
    for index in 0..5 {
        store.put(index, 10_000);
    }
    store.read(0, 10_000);
    store.read(2, 10_000);
    store.put(5, 20_000);
    eventually("the target", || store.nbytes() == 50_000);
    assert_eq!(store.in_memory(), [0, 2, 4, 5]);
    // One that is read comes back, and what was used longest ago goes for it.
    store.read(1, 10_000);
    assert!(store.is_in_memory(1));
    store.put(6, 10_000);
    eventually("the target", || store.nbytes() <= 56_250);
    assert!(!store.is_in_memory(4) && store.is_in_memory(1) && store.is_in_memory(6), "{:?}", store.in_memory());
}

#[test]
fn what_somebody_has_in_hand_stays_and_others_go() {
    let store = spilling(100_000);
    store.put(0, 20_000);
    let in_hand = store.get(task(0)).unwrap().unwrap();
    let encoded = Value::Encoded(Encoded::of(&text(20_000, 1)).unwrap());
    store.insert(task(1), encoded).unwrap();
    let also_in_hand = store.get(task(1)).unwrap().unwrap();
    store.put(2, 15_000);
    store.put(3, 10_000);
    eventually("the target", || !store.is_in_memory(2));
    assert_eq!(store.in_memory(), [0, 1, 3]);
    drop((in_hand, also_in_hand));
    store.put(4, 25_000);
    eventually("the target", || store.nbytes() <= 56_250);
    assert!(!store.is_in_memory(0) && store.is_in_memory(4), "{:?}", store.in_memory());
}

#[test]
fn a_copy_on_disk_is_kept_with_what_came_back_and_not_written_again() {
    let store = spilling(100_000);
    store.put(0, 30_000);
    store.put(1, 40_000);
    eventually("the target", || store.nbytes() == 40_000);
    let (files, freed) = (store.files(), store.spilled_bytes_total());
    assert_eq!((files.len(), freed), (1, 30_000));
    // It comes back although that is over the target, and the other has to go for it.
    store.read(0, 30_000);
    eventually("the other on disk", || store.in_memory() == [0]);
    store.read(1, 40_000);
    // What was spilled is counted a moment after it has left the memory.
    eventually("the first on disk again", || store.in_memory() == [1] && store.spilled_bytes_total() >= 100_000);
    assert_eq!(store.spilled_bytes_total(), 100_000);
    assert_eq!(store.files().len(), 2);
    assert_eq!((store.nbytes(), store.spilled_bytes()), (40_000, 30_000));
}

#[test]
fn what_is_read_without_room_is_given_and_not_kept() {
    let store = spilling(100_000);
    store.put(0, 50_000);
    let in_hand = store.get(task(0)).unwrap().unwrap();
    store.put(1, 30_000);
    eventually("the target", || store.nbytes() == 50_000);
    store.read(1, 30_000);
    assert_eq!((store.in_memory(), store.nbytes(), store.spilled_bytes()), (vec![0], 50_000, 30_000));
    drop(in_hand);
}

#[test]
fn a_live_value_takes_the_place_of_what_it_was_decoded_from() {
    let store = spilling(100_000);
    store.put(0, 30_000);
    store.put(1, 40_000);
    eventually("the target", || store.nbytes() == 40_000);
    store.remove(task(1));
    let Some(Value::Encoded(encoded)) = store.get(task(0)).unwrap() else { panic!("it comes encoded from disk") };
    let live = Value::live(encoded.decode::<String>().unwrap());
    store.replace_decoded(task(0), &encoded, live);
    drop(encoded);
    assert!(matches!(store.get(task(0)).unwrap(), Some(Value::Live(_))));
    // And goes again without being written again.
    let files = store.files();
    store.put(2, 40_000);
    eventually("it on disk", || !store.is_in_memory(0));
    assert_eq!(store.files(), files);
    store.read(0, 30_000);
}

#[test]
fn a_value_larger_than_the_limit_goes_straight_to_disk() {
    let store = spilling(10_000);
    store.put(0, 1_000_000);
    assert_eq!((store.nbytes(), store.spilled_bytes(), store.spilled_bytes_total()), (0, 1_000_000, 0));
    store.read(0, 1_000_000);
    assert_eq!(store.get_encoded(task(0)).unwrap(), Some(Encoded::of(&text(1_000_000, 0)).unwrap()));
    assert_eq!((store.nbytes(), store.files().len()), (0, 1));
}

#[test]
fn all_parts_of_a_value_come_back_however_large_they_are() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Parts {
        numbers: Vec<u32>,
        buffers: Vec<Buffer>,
        name: String,
    }
    let store = spilling(1_000);
    for (index, size) in [0_usize, 1, 100, 40_000, 256 * 1024, 256 * 1024 + 1, 700_000].into_iter().enumerate() {
        let parts = Parts {
            numbers: (0..size as u32 / 4).collect(),
            buffers: vec![vec![1; size].into(), Buffer(Bytes::new()), vec![2; size / 3].into()],
            name: "n".repeat(300),
        };
        let room = store.admit(Value::live(parts.clone())).unwrap();
        store.place(task(index as u32), room);
        if size > 1000 {
            assert!(!store.is_in_memory(index as u32));
        }
        assert_eq!(*store.get(task(index as u32)).unwrap().unwrap().get::<Parts>().unwrap(), parts);
    }
}

#[test]
fn a_part_is_cut_out_of_the_whole_wherever_that_is() {
    let parts = || Parts::live((0..4_u8).map(|number| Buffer::from(vec![number; 50_000])));
    let check = |store: &Store| {
        for number in 0..5 {
            let part = store.get_encoded(task(0).part(number)).unwrap().unwrap();
            let part: Parts = part.decode().unwrap();
            assert_eq!((part.len(), part.here().count()), (4, usize::from(number < 4)));
            let expected = (number < 4).then(|| Arc::new(Buffer::from(vec![number as u8; 50_000])));
            assert_eq!(part.get::<Buffer>(number as usize).unwrap(), expected);
        }
        assert!(store.get_encoded(task(1).part(0)).unwrap().is_none());
    };
    let live = Store::unlimited();
    live.insert(task(0), Value::live(parts())).unwrap();
    check(&live);
    let encoded = Store::unlimited();
    encoded.insert(task(0), Value::Encoded(Encoded::of(&parts()).unwrap())).unwrap();
    check(&encoded);
    // What is held under the part's own key comes before the whole; what is not in parts is given as it is.
    encoded.insert(task(0).part(2), Value::live(7_u8)).unwrap();
    assert_eq!(encoded.get_encoded(task(0).part(2)).unwrap().unwrap().decode::<u8>().unwrap(), 7);
    encoded.insert(task(2), Value::live(text(100, 2))).unwrap();
    let whole = encoded.get_encoded(task(2).part(1)).unwrap().unwrap();
    assert_eq!(whole.decode::<String>().unwrap(), text(100, 2));

    let spilled = spilling(100_000);
    spilled.insert(task(0), Value::live(parts())).unwrap();
    spilled.insert(task(2), Value::live(text(200_000, 2))).unwrap();
    assert_eq!(spilled.in_memory_of(&[0, 2]), Vec::<u32>::new());
    check(&spilled);
    let part = spilled.get_part(task(0), 1).unwrap().unwrap().get::<Parts>().unwrap();
    assert_eq!(part.here().map(|part| part.0).collect::<Vec<_>>(), [1]);
    assert_eq!(spilled.in_memory_of(&[0, 2]), Vec::<u32>::new());
    assert_eq!(live.get_part(task(0), 1).unwrap().unwrap().get::<Parts>().unwrap().here().count(), 4);
    assert!(live.get_part(task(1), 1).unwrap().is_none());
    let whole = spilled.get_encoded(task(2).part(1)).unwrap().unwrap();
    assert_eq!(whole.decode::<String>().unwrap(), text(200_000, 2));

    // Only what is read is looked at.
    let file = fs::OpenOptions::new().write(true).open(spilled.path_of(0)).unwrap();
    let nbytes = file.metadata().unwrap().len();
    file.write_all_at(&[9], nbytes - 10_000).unwrap();
    assert!(spilled.get_encoded(task(0).part(0)).unwrap().is_some());
    let damaged = spilled.get_encoded(task(0).part(3)).unwrap_err();
    assert!(matches!(&damaged, StoreError::Damaged { task: of, .. } if *of == task(0).part(3)), "{damaged}");
}

#[test]
fn a_file_that_was_changed_cut_or_removed_is_told_and_others_are_not_touched() {
    let store = spilling(10_000);
    for index in 0..4 {
        store.put(index, 20_000);
    }
    let file = fs::OpenOptions::new().write(true).open(store.path_of(0)).unwrap();
    file.write_all_at(b"y", 10_000).unwrap();
    let damaged = store.get(task(0)).unwrap_err();
    assert!(matches!(&damaged, StoreError::Damaged { task: of, path } if *of == task(0) && *path == store.path_of(0)));
    assert!(store.get_encoded(task(0)).is_err());
    assert!(matches!(FailureCause::from(damaged), FailureCause::Store { .. }));
    // The numbers at the end, and the lengths before them.
    for back in 1..=16 {
        let file = fs::OpenOptions::new().read(true).write(true).open(store.path_of(3)).unwrap();
        let at = file.metadata().unwrap().len() - back;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        assert!(store.get(task(3)).is_err(), "{back} bytes before the end");
        file.write_all_at(&byte, at).unwrap();
        assert!(store.get(task(3)).is_ok());
    }

    fs::OpenOptions::new().write(true).open(store.path_of(1)).unwrap().set_len(15_000).unwrap();
    assert!(matches!(store.get(task(1)).unwrap_err(), StoreError::Unreadable { .. }));
    fs::remove_file(store.path_of(2)).unwrap();
    let gone = store.get(task(2)).unwrap_err();
    assert!(gone.to_string().contains("--spill-directory"), "{gone}");
    store.read(3, 20_000);
    assert_eq!((store.nbytes(), store.spilled_bytes()), (0, 80_000));
}

#[test]
fn over_the_spill_limit_a_value_stays_in_memory_if_it_can_and_is_refused_if_not() {
    let store = spilling_with(MemoryConfig { spill_limit: Some(50_000), ..MemoryConfig::limited(100_000) });
    store.put(0, 40_000);
    store.put(1, 40_000);
    eventually("the target", || store.nbytes() == 40_000);
    store.put(2, 40_000);
    // Over the target, and there is no way to change that.
    assert_eq!((store.nbytes(), store.spilled_bytes()), (80_000, 40_000));
    let refused = store.insert(task(3), Value::live(text(40_000, 3))).unwrap_err();
    assert!(matches!(refused, StoreError::Spill { nbytes: 40_000, held: 80_000, limit: 100_000, .. }), "{refused}");
    for option in ["--spill-limit is 50000", "--spill-directory", "--memory-limit"] {
        assert!(refused.to_string().contains(option), "{refused}");
    }
    assert_eq!((store.nbytes(), store.spilled_bytes(), store.len()), (80_000, 40_000, 3));
    eventually("no half files", || store.files().len() == 1);
    for index in 0..3 {
        store.read(index, 40_000);
    }
    // What is freed on disk is free for others.
    store.remove(task(0));
    store.put(3, 40_000);
    store.read(3, 40_000);
}

#[test]
fn second_copies_make_room_on_a_full_disk() {
    let store = spilling_with(MemoryConfig { spill_limit: Some(45_000), ..MemoryConfig::limited(100_000) });
    store.put(0, 40_000);
    store.put(1, 30_000);
    eventually("the target", || store.in_memory() == [1]);
    // Over the target, so that the other has to go, whose place on disk this one still has.
    store.read(0, 40_000);
    eventually("the other on disk", || store.in_memory() == [0]);
    store.read(0, 40_000);
    assert_eq!((store.nbytes(), store.spilled_bytes()), (40_000, 30_000));
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_half_files() {
    const IN_NAMESPACE: &str = "STARLING_TEST_FULL_DISK";
    if let Some(mounted) = std::env::var_os(IN_NAMESPACE) {
        return on_a_full_disk(Path::new(&mounted));
    }
    let mount = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let name = "store::tests::a_full_disk_is_an_error_and_leaves_no_half_files";
    // A mount of its own, which nobody else sees and which goes with the process.
    let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" || exit 77; exec \"$2\" --exact \"$3\" --nocapture";
    let run = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([mount.path().as_os_str(), test.as_os_str(), name.as_ref()])
        .env(IN_NAMESPACE, mount.path())
        .output();
    match run {
        Ok(run) if run.status.success() => {}
        Ok(run) if run.status.code() == Some(101) => {
            panic!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
        }
        other => eprintln!("skipped: a file system cannot be mounted here, which takes root: {other:?}"),
    }
}

fn on_a_full_disk(mounted: &Path) {
    let config = MemoryConfig { spill_directory: Some(mounted.to_owned()), ..MemoryConfig::limited(10_000) };
    let store = Store::start(&config).unwrap();
    store.insert(task(0), Value::live(text(100_000, 0))).unwrap();
    let full = store.insert(task(1), Value::live(text(1_000_000, 1))).unwrap_err();
    assert!(full.to_string().contains("No space left on device"), "{full}");
    assert!(matches!(&full, StoreError::Spill { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    let in_directory = || fs::read_dir(store.spill_directory().unwrap()).unwrap().count();
    assert_eq!((in_directory(), store.spilled_bytes(), store.nbytes()), (2, 100_000, 0), "a lock and one file");
    // There is room again for what fits.
    store.insert(task(2), Value::live(text(100_000, 2))).unwrap();
    assert_eq!(*store.get(task(2)).unwrap().unwrap().get::<String>().unwrap(), text(100_000, 2));
}

/// Cannot be encoded, which shows only beyond what is sampled for its size.
#[derive(Clone, Deserialize)]
struct Touchy(u32);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            500 => panic!("on purpose"),
            600 => Err(serde::ser::Error::custom("on purpose")),
            number => serializer.serialize_u32(number),
        }
    }
}

#[test]
fn what_cannot_be_encoded_stays_in_memory_and_is_refused_when_there_is_no_room() {
    let touchy = |numbers: std::ops::Range<u32>| Value::live(numbers.map(Touchy).collect::<Vec<_>>());
    for numbers in [400..5_400, 501..5_501] {
        let store = spilling(100_000);
        let nbytes = store.insert(task(0), touchy(numbers.clone())).unwrap();
        store.put(1, 10_000);
        store.put(2, 40_000);
        eventually("others on disk", || store.nbytes() <= 60_000);
        assert!(store.is_in_memory(0) && !store.is_in_memory(1));
        store.read(1, 10_000);
        let (held, spilled) = (store.nbytes(), store.spilled_bytes());
        assert_eq!(held + spilled, nbytes + 50_000);
        let refused = store.insert(task(3), touchy(numbers.start..40_000)).unwrap_err();
        match numbers.start {
            400 => assert!(matches!(refused, StoreError::Full { .. }), "{refused}"),
            _ => assert!(matches!(refused, StoreError::Codec(_)), "{refused}"),
        }
        assert_eq!((store.nbytes() + store.spilled_bytes(), store.len()), (held + spilled, 3));
    }
}

#[test]
fn a_place_that_is_not_used_is_given_up() {
    let store = spilling(10_000);
    let room = store.admit_now(Value::live(text(9_000, 0))).unwrap().unwrap_or_else(|_| panic!("there is room"));
    assert_eq!(store.nbytes(), 9_000);
    let Ok(Err(value)) = store.admit_now(Value::live(text(9_000, 1))) else { panic!("there is no room") };
    // Straight to disk.
    let placed = store.admit(value).unwrap();
    assert_eq!((store.nbytes(), store.files().len()), (9_000, 1));
    drop((room, placed));
    store.put(2, 300);
    store.remove(task(2));
    assert_eq!((store.nbytes(), store.spilled_bytes(), store.len()), (0, 0, 0));
    eventually("an empty disk", || store.files().is_empty());
}

#[test]
fn an_insert_over_the_limit_waits_for_spilling_rather_than_going_to_disk_itself() {
    let store = spilling(100_000);
    for index in 0..20 {
        store.put(index, 30_000);
    }
    assert!(store.is_in_memory(19), "the last one is what is needed next");
    for index in 0..20 {
        store.read(index, 30_000);
    }
}

#[test]
fn a_process_that_is_too_large_has_values_spilled_below_the_target() {
    let store = spilling(100_000);
    for index in 0..5 {
        store.put(index, 10_000);
    }
    store.relieve(25_000, false);
    eventually("25000 bytes less", || store.nbytes() == 20_000);
    assert_eq!(store.in_memory(), [3, 4]);
    // Over refuse nothing more is kept in memory, but what is too small to matter.
    store.relieve(0, true);
    store.put(5, 10_000);
    store.put(6, 100);
    store.read(0, 10_000);
    assert!(!store.is_in_memory(0) && !store.is_in_memory(5) && store.is_in_memory(6));
    store.relieve(0, false);
    store.read(0, 10_000);
    assert!(store.is_in_memory(0));
}

#[test]
fn the_directory_is_its_owners_alone_and_goes_with_the_store() {
    let store = spilling(10_000);
    store.put(0, 20_000);
    let directory = store.spill_directory().unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(store.path_of(0)).unwrap().permissions().mode() & 0o777, 0o600);
    let Spilling { store, parent } = store;
    let weak = Arc::downgrade(&store);
    drop(store);
    eventually("nothing", || weak.upgrade().is_none() && fs::read_dir(parent.path()).unwrap().next().is_none());

    let store = spilling(10_000);
    store.put(0, 20_000);
    store.close();
    assert!(!store.spill_directory().unwrap().exists());
    assert!(store.get(task(0)).is_err());
    let refused = store.insert(task(1), Value::live(text(20_000, 1))).unwrap_err();
    assert!(refused.to_string().contains("shutting down"), "{refused}");
}

#[test]
fn what_an_ended_node_has_left_is_removed_and_what_others_use_is_not() {
    let live = spilling(10_000);
    let parent = live.parent.path();
    let make = |name: &str, mode: u32, lock: bool| {
        let path = parent.join(name);
        fs::DirBuilder::new().mode(mode).create(&path).unwrap();
        fs::write(path.join("0"), "spilled").unwrap();
        if lock {
            fs::write(path.join("lock"), "").unwrap();
        }
        path
    };
    let dead = make("starling-spill-0123", 0o700, true);
    let half_removed = make("starling-spill-4567", 0o700, false);
    let open_to_others = make("starling-spill-89ab", 0o755, true);
    let of_another_program = make("another", 0o700, true);
    let config = MemoryConfig { spill_directory: Some(parent.to_owned()), ..MemoryConfig::limited(10_000) };
    let second = Store::start(&config).unwrap();
    assert!(!dead.exists() && !half_removed.exists());
    assert!(open_to_others.exists() && of_another_program.exists() && live.spill_directory().unwrap().exists());
    live.put(0, 20_000);
    live.read(0, 20_000);
    drop(second);
}

#[test]
fn a_directory_that_cannot_be_made_is_told_with_the_remedy() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let config = MemoryConfig { spill_directory: Some(file), ..MemoryConfig::limited(10_000) };
    let error = Store::start(&config).err().expect("a file is no directory").to_string();
    assert!(error.contains("--spill-directory") && error.contains("--spill-limit 0"), "{error}");
    assert!(matches!(
        Store::start(&MemoryConfig { target: 2.0, ..MemoryConfig::limited(1) }),
        Err(StoreStartError::Config(_))
    ));
}

#[test]
fn the_queue_of_values_that_may_be_spilled_forgets_those_that_are_gone() {
    let store = spilling(100_000);
    for round in 0..40_000 {
        store.put(round % 10, 1_000);
    }
    eventually("a short queue", || store.spill.as_ref().unwrap().queue_len() < 10_000);
    assert_eq!((store.nbytes(), store.len()), (10_000, 10));
}

#[test]
fn many_threads_insert_get_and_remove_while_values_are_spilled() {
    use_by_many_threads(&spilling(200_000), false);
}

#[test]
fn many_threads_meet_a_full_disk_again_and_again() {
    let config = MemoryConfig { spill_limit: Some(400_000), ..MemoryConfig::limited(200_000) };
    use_by_many_threads(&spilling_with(config), true);
}

/// Checks all that is read, and that the accounts end at zero.
fn use_by_many_threads(store: &Spilling, may_be_full: bool) {
    const THREADS: u32 = 4;
    const TASKS: u32 = 64;
    let contents = |index: u32| {
        let nbytes = if index.is_multiple_of(7) { 90_000 } else { 300 + 100 * index as usize };
        text(nbytes, index)
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut seed = u64::from(thread) + 1;
                let mut next = move |below: u32| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 33) as u32 % below
                };
                for _ in 0..1_500 {
                    let index = next(TASKS);
                    match next(5) {
                        0 | 1 => match store.insert(task(index), Value::live(contents(index))) {
                            Err(StoreError::Spill { .. }) if may_be_full => {}
                            inserted => assert!(inserted.unwrap() >= 300),
                        },
                        2 => drop(store.remove(task(index))),
                        3 => {
                            if let Some(encoded) = store.get_encoded(task(index)).unwrap() {
                                assert_eq!(encoded.decode::<String>().unwrap(), contents(index));
                            }
                        }
                        _ => {
                            let Some(value) = store.get(task(index)).unwrap() else { continue };
                            let live = value.get::<String>().unwrap();
                            assert_eq!(*live, contents(index));
                            if let Value::Encoded(encoded) = value {
                                store.replace_decoded(task(index), &encoded, Value::Live(live));
                            }
                        }
                    }
                    // What others are about to reserve, and give back, may be in it.
                    assert!(store.nbytes() <= 190_000 + u64::from(THREADS) * 90_000);
                }
            });
        }
    });
    assert!(store.spilled_bytes_total() > 0);
    let sizes: Vec<u64> = (0..TASKS).map(|index| store.nbytes_of(task(index))).collect();
    eventually("settled accounts", || store.nbytes() + store.spilled_bytes() == sizes.iter().sum::<u64>());
    for index in 0..TASKS {
        if let Some(value) = store.get(task(index)).unwrap() {
            assert_eq!(*value.get::<String>().unwrap(), contents(index));
        }
        store.remove(task(index));
    }
    eventually("empty accounts", || (store.nbytes(), store.spilled_bytes(), store.disk_bytes()) == (0, 0, 0));
    assert!(store.is_empty() && store.files().is_empty());
}
