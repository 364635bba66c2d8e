use std::collections::BTreeMap;
use std::fs;

use starling_core::ids::NodeId;

use super::error::FilesError;
use super::listing::{FileEntry, Found, Listing};
use super::read::{self, open_same};
use super::write::{self, Begun, part_path};

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn names() -> BTreeMap<NodeId, String> {
    [(node(1), "a"), (node(2), "b"), (node(3), "c")].map(|(node, name)| (node, name.to_owned())).into()
}

fn file(path: &str, size: u64, modified: u64) -> FileEntry {
    FileEntry { path: path.to_owned(), size, modified }
}

#[test]
fn a_file_that_all_have_is_fine_whatever_its_times() {
    let answers = [(1, 7), (2, 9), (3, 8)].map(|(number, time)| (node(number), Found::File(file("/x", 5, time))));
    let listing = Listing::merge("/x", &names(), answers.into());
    listing.check(true).unwrap();
    assert_eq!((listing.files[0].size(), listing.files[0].modified()), (5, 9));
    assert!(!listing.is_directory);
}

#[test]
fn what_nobody_has_names_who_was_asked() {
    let answers = [1, 2, 3].map(|number| (node(number), Found::Nothing)).into();
    let error = Listing::merge("/x", &names(), answers).check(false).unwrap_err();
    assert!(matches!(error, FilesError::Nowhere { .. }));
    assert!(error.to_string().starts_with("no worker has /x (asked: a, b, c); "), "{error}");
}

#[test]
fn an_empty_directory_is_something() {
    let answers = vec![(node(1), Found::Files(Vec::new())), (node(2), Found::Nothing)];
    let listing = Listing::merge("/x", &names(), answers);
    listing.check(true).unwrap();
    assert!(listing.is_directory && listing.files.is_empty());
}

#[test]
fn copies_of_other_sizes_are_named_with_their_sizes() {
    let answers = [(1, 5), (2, 6), (3, 5)].map(|(number, size)| (node(number), Found::File(file("/x", size, 0))));
    let error = Listing::merge("/x", &names(), answers.into()).check(false).unwrap_err();
    let text = "/x is not the same file on all nodes: 5 bytes on a, c, 6 bytes on b; ";
    assert!(error.to_string().starts_with(text), "{error}");
}

#[test]
fn who_lacks_a_file_is_an_error_only_if_it_is_to_be_everywhere() {
    let answers = vec![
        (node(1), Found::Files(vec![file("/d/x", 1, 0), file("/d/y", 2, 0)])),
        (node(2), Found::Files(vec![file("/d/y", 2, 0)])),
        (node(3), Found::Nothing),
    ];
    let listing = Listing::merge("/d", &names(), answers);
    listing.check(false).unwrap();
    let holders: Vec<Vec<NodeId>> = listing.files.iter().map(|file| file.nodes().collect()).collect();
    assert_eq!(holders, [vec![node(1)], vec![node(1), node(2)]]);
    assert_eq!(listing.lacking(&listing.files[1]).collect::<Vec<_>>(), [node(3)]);
    let error = listing.check(true).unwrap_err();
    assert!(error.to_string().starts_with("/d/x is not on every node: b, c lack it"), "{error}");
}

#[test]
fn a_node_that_answers_twice_or_never_counts_once_or_not() {
    // A worker's task ran on another worker after it had gone, so that one has answered twice.
    let answers = vec![(node(1), Found::File(file("/x", 1, 0))), (node(1), Found::File(file("/x", 1, 0)))];
    let listing = Listing::merge("/x", &names(), answers);
    listing.check(true).unwrap();
    assert_eq!((listing.asked.len(), listing.files[0].copies.len()), (1, 1));
}

#[test]
fn names_that_are_not_enough_come_with_ids() {
    let names = [(node(1), "w"), (node(2), "w"), (node(3), "")].map(|(node, name)| (node, name.to_owned())).into();
    let answers = [1, 2, 3].map(|number| (node(number), Found::Nothing)).into();
    let listing = Listing::merge("/x", &names, answers);
    let text = listing.name_of([node(1), node(3)]);
    assert_eq!(text, format!("w ({}), {}", node(1), node(3)));
}

#[test]
fn paths_directories_and_patterns_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    fs::create_dir_all(folder.path().join("d/e")).unwrap();
    for name in ["d/a.csv", "d/e/b.csv", "d/c.txt", "[x].csv"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    std::os::unix::fs::symlink(folder.path().join("gone"), folder.path().join("d/link")).unwrap();
    let paths = |pattern: &str| match read::find(&format!("{root}/{pattern}")).unwrap() {
        Found::Nothing => vec!["nothing".to_owned()],
        Found::File(file) => vec![file.path[root.len() + 1..].to_owned()],
        Found::Files(files) => files.iter().map(|file| file.path[root.len() + 1..].to_owned()).collect(),
    };
    assert_eq!(paths("d/a.csv"), ["d/a.csv"]);
    assert_eq!(paths("d"), ["d/a.csv", "d/c.txt", "d/e/b.csv"]);
    assert_eq!(paths("d/*.csv"), ["d/a.csv"]);
    assert_eq!(paths("**/*.csv"), ["[x].csv", "d/a.csv", "d/e/b.csv"]);
    assert_eq!(paths("[x].csv"), ["[x].csv"]);
    for absent in ["none", "none/at/all", "*.parquet", "d/a.csv/x"] {
        assert_eq!(paths(absent), ["nothing"], "{absent}");
    }
    assert!(matches!(read::find("relative"), Err(FilesError::Relative { .. })));
    assert!(matches!(read::find(&format!("{root}/a**b")), Err(FilesError::Pattern { .. })));
}

#[test]
fn links_in_a_circle_are_an_error_and_not_endless() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("self")).unwrap();
    // The system itself gives up on too many links, or the walk does.
    let outcome = read::find(folder.path().to_str().unwrap());
    assert!(matches!(outcome, Err(FilesError::Io { .. })), "{outcome:?}");
}

#[test]
fn a_file_that_was_replaced_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, "12345").unwrap();
    let Found::File(seen) = read::find(path.to_str().unwrap()).unwrap() else { panic!("no file") };
    let open = open_same(&seen).unwrap().unwrap();
    assert_eq!(read::read_at(&open, 1, 3).unwrap(), b"23");
    assert_eq!(read::read_at(&open, 3, 9).unwrap(), b"45");
    fs::write(&path, "123456").unwrap();
    assert!(open_same(&seen).unwrap().is_none());
    fs::remove_file(&path).unwrap();
    assert!(open_same(&seen).unwrap().is_none());
}

#[test]
fn pieces_in_any_order_become_a_file_with_its_time_once_they_are_right() {
    use sha2::Digest;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x");
    let path = target.to_str().unwrap();
    let digest: [u8; 32] = sha2::Sha256::digest(b"hello world").into();
    assert_eq!(write::begin(path, 7, 11, false, false).unwrap(), Begun::Ready);
    write::piece(path, 7, 6, b"world").unwrap();
    assert!(!target.exists());
    write::piece(path, 7, 0, b"hello ").unwrap();
    let time = 1_600_000_000_123_456_789;
    assert!(write::end(path, 7, digest, time).unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"hello world");
    let Found::File(found) = read::find(path).unwrap() else { panic!("no file") };
    assert_eq!(found.modified, time);
    assert!(!part_path(path, 7).exists());
    // Said again, by a try whose outcome was lost.
    assert!(write::end(path, 7, digest, time).unwrap());

    assert_eq!(write::begin(path, 8, 11, false, false).unwrap(), Begun::SameSize(digest));
    assert_eq!(write::begin(path, 8, 12, false, false).unwrap(), Begun::Another);
    assert_eq!(write::begin(path, 8, 12, true, false).unwrap(), Begun::Ready);
    write::piece(path, 8, 0, b"hello worse!").unwrap();
    assert!(!write::end(path, 8, digest, time).unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"hello world");
    assert!(!part_path(path, 8).exists());
}

#[test]
fn directories_are_made_only_when_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("d/e");
    let path = inner.join("x");
    let path = path.to_str().unwrap();
    let absent = Begun::NoDirectory(inner.display().to_string());
    assert_eq!(write::begin(path, 1, 0, false, false).unwrap(), absent);
    assert!(!inner.exists());
    assert_eq!(write::begin(path, 1, 0, false, true).unwrap(), Begun::Ready);
    write::abort(path, 1);
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    assert_eq!(write::begin(inner.to_str().unwrap(), 1, 0, true, true).unwrap(), Begun::IsDirectory);
}
