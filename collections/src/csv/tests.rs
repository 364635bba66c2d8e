//! Every way of cutting a file must give what reading it in one piece gives, or an error where that gives one.

use std::fs;

use proptest::prelude::*;

use super::FileStamp;
use super::records::{Columns, Fault, Malformed, Records};
use super::scan::{BlockScan, Marks};
use super::split::{OddQuotes, Split, split};

/// The real posts, if this checkout has them.
pub(crate) fn real_posts() -> Option<(String, Vec<u8>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/posts.csv");
    let bytes = fs::read(path).ok();
    if bytes.is_none() {
        eprintln!("skipped: there is no {path}");
    }
    bytes.map(|bytes| (path.to_owned(), bytes))
}

fn scan_blocks(bytes: &[u8], block_bytes: usize, read_bytes: usize) -> Vec<BlockScan> {
    bytes
        .chunks(block_bytes)
        .map(|block| {
            let mut scan = BlockScan::default();
            for (number, piece) in block.chunks(read_bytes).enumerate() {
                scan.update(Marks::default(), (number * read_bytes) as u64, piece);
            }
            scan
        })
        .collect()
}

type Rows = Vec<Vec<Vec<u8>>>;

#[derive(Debug)]
enum Broken {
    Odd,
    Malformed,
}

fn rows_of(bytes: &[u8], offset: u64, columns: Option<Columns>) -> Result<Rows, Malformed> {
    let mut records = Records::new(bytes, offset, columns);
    let mut rows = Rows::new();
    while let Some(record) = records.next()? {
        rows.push(record.iter().map(<[u8]>::to_vec).collect());
    }
    Ok(rows)
}

fn read_in_blocks(bytes: &[u8], block_bytes: usize, read_bytes: usize) -> Result<(Split, Rows), Broken> {
    let scans = scan_blocks(bytes, block_bytes, read_bytes);
    let cut = split(bytes.len() as u64, block_bytes as u64, &scans).map_err(|OddQuotes| Broken::Odd)?;
    let mut rows = rows_of(&bytes[..cut.header_end as usize], 0, None).map_err(|_| Broken::Malformed)?;
    let total = rows.first().map_or(0, Vec::len);
    for range in &cut.ranges {
        let bytes = &bytes[range.start as usize..range.end as usize];
        rows.extend(rows_of(bytes, range.start, Some(Columns::all(total))).map_err(|_| Broken::Malformed)?);
    }
    Ok((cut, rows))
}

/// What the csv crate makes of the file in one piece.
fn oracle(bytes: &[u8]) -> Rows {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    reader.byte_records().map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
}

fn written(rows: &[Vec<String>], crlf: bool, last_newline: bool) -> Vec<u8> {
    let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
    let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).unwrap();
    }
    let mut bytes = writer.into_inner().unwrap();
    if !last_newline {
        bytes.truncate(bytes.len() - if crlf { 2 } else { 1 });
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_table_is_read_exactly_whatever_the_block_size(
        rows in prop::collection::vec(prop::collection::vec("[a\"\n\r,é]{0,6}", 3), 1..12),
        crlf in any::<bool>(),
        last_newline in any::<bool>(),
        read_bytes in 1_usize..40,
    ) {
        let bytes = written(&rows, crlf, last_newline);
        let expected: Rows =
            rows.iter().map(|row| row.iter().map(|field| field.clone().into_bytes()).collect()).collect();
        for block_bytes in 1..=bytes.len() + 1 {
            let (cut, found) = read_in_blocks(&bytes, block_bytes, read_bytes).unwrap();
            prop_assert_eq!(&found, &expected, "blocks of {}", block_bytes);
            let mut at = cut.header_end;
            for range in &cut.ranges {
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > range.start);
                at = range.end;
            }
            prop_assert_eq!(at, bytes.len() as u64);
        }
    }

    #[test]
    fn any_bytes_give_the_same_rows_for_every_block_size_or_an_error_for_every_one(
        text in "[a\"\n\r,]{1,24}",
    ) {
        let bytes = text.as_bytes();
        let whole = read_in_blocks(bytes, bytes.len(), 1024);
        for block_bytes in 1..=bytes.len() {
            let cut = read_in_blocks(bytes, block_bytes, 7);
            match (&whole, cut) {
                (Ok((_, expected)), Ok((_, found))) => {
                    prop_assert_eq!(&found, expected);
                    // Where this reader accepts, it agrees with the csv crate.
                    prop_assert_eq!(&found, &oracle(bytes));
                }
                (Err(_), Err(_)) => {}
                (whole, cut) => prop_assert!(false, "whole {:?}, blocks of {} {:?}", whole, block_bytes, cut),
            }
        }
    }
}

#[test]
fn a_record_that_spans_many_blocks_leaves_no_range_for_them() {
    let body = "x,\n\"\"".repeat(100);
    let bytes = format!("id,body\n1,\"{body}\"\n2,b\n");
    let (cut, rows) = read_in_blocks(bytes.as_bytes(), 16, 5).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1][1], "x,\n\"".repeat(100).as_bytes());
    assert!(cut.ranges.len() <= 2, "{cut:?}");
}

#[test]
fn a_record_longer_than_the_read_buffer_is_read() {
    let body = "y\"\"\n".repeat(300_000);
    let bytes = format!("id,body\n1,\"{body}\"\n2,b\n");
    let (_, rows) = read_in_blocks(bytes.as_bytes(), 1 << 20, 1 << 16).unwrap();
    assert_eq!(rows[1][1].len(), 900_000);
    assert_eq!(rows[2], [b"2", b"b"]);
}

#[test]
fn only_wanted_columns_are_given_and_empty_fields_stay() {
    let bytes = b"1,,c\r\n2,\"b\"\"\",c\n\n3,b,\n";
    let only = |numbers: &[u32]| rows_of(bytes, 0, Some(Columns::some(3, numbers))).unwrap();
    assert_eq!(only(&[1]), [[b"".to_vec()], [b"b\"".to_vec()], [b"b".to_vec()]]);
    assert_eq!(only(&[0, 2]), [[b"1", b"c".as_slice()], [b"2", b"c"], [b"3", b""]]);
    let mut records = Records::new(&bytes[..], 0, Some(Columns::some(3, &[])));
    let mut count = 0;
    while records.advance().unwrap() {
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn a_field_that_begins_like_a_byte_order_mark_is_kept() {
    let bytes = "\u{feff}a,b\n".as_bytes();
    assert_eq!(rows_of(bytes, 9, Some(Columns::all(2))).unwrap()[0][0], "\u{feff}a".as_bytes());
}

fn fault(bytes: &[u8]) -> (u64, Fault) {
    let malformed = rows_of(bytes, 100, Some(Columns::all(2))).unwrap_err();
    (malformed.offset, malformed.fault)
}

#[test]
fn what_rfc_4180_does_not_allow_is_an_error_at_its_place() {
    assert!(matches!(fault(b"1,a\n2,a\"b\n"), (107, Fault::StrayQuote)));
    assert!(matches!(fault(b"1,\"a\"b\n"), (105, Fault::StrayQuote)));
    assert!(matches!(fault(b"1,a\n2,\"b\n"), (106, Fault::Unclosed)));
    assert!(matches!(fault(b"1,a\rb\n"), (103, Fault::BareReturn)));
    assert!(matches!(fault(b"1,a\n2,b,c\n"), (104, Fault::FieldCount { expected: 2, found: 3 })));
}

#[test]
fn an_odd_number_of_quotes_is_an_error_of_the_split() {
    let bytes = b"a,b\n1,\"x\n2,y\n";
    assert!(matches!(read_in_blocks(bytes, 4, 4), Err(Broken::Odd)));
}

#[test]
fn a_copy_that_kept_whole_seconds_is_the_same_file_and_an_older_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv").display().to_string();
    fs::write(&path, "a\n1\n").unwrap();
    let set = |nanos| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        FileStamp::of(path.clone()).unwrap()
    };
    let (second, fine, whole) = (1_700_000_000_000_000_000, 1_700_000_000_123_456_789, 1_700_000_000_000_000_000);
    let found = set(fine);
    assert!(found.open(0, 1).is_ok());
    // The worker's copy has whole seconds, or the finder's.
    set(whole);
    assert!(found.open(0, 1).is_ok());
    let found = set(second);
    set(fine);
    assert!(found.open(0, 1).is_ok());
    for other in [1_700_000_001_000_000_000, 1_699_999_999_999_999_999] {
        set(other);
        let error = found.open(0, 1).unwrap_err().to_string();
        assert!(error.contains("is not the file that was found"), "{error}");
    }
    // Two fine times differ although their seconds do not.
    let found = set(fine);
    set(fine + 1);
    assert!(found.open(0, 1).is_err());
    // Where nodes' copies are known to have several times, up to the newest.
    let found = FileStamp { or_older: true, ..set(fine) };
    set(fine - 5_000_000_000);
    assert!(found.open(0, 1).is_ok());
    set(fine + 1);
    assert!(found.open(0, 1).is_err());
}

#[test]
fn the_real_posts_are_read_exactly_whatever_the_block_size() {
    let Some((_, bytes)) = real_posts() else { return };
    let expected = oracle(&bytes);
    assert_eq!(expected.len(), 2062);
    for block_bytes in [1 << 10, 4099, 1 << 16, 1 << 20, bytes.len(), 1 << 30] {
        let (_, rows) = read_in_blocks(&bytes, block_bytes, 1 << 16).unwrap();
        assert!(rows == expected, "blocks of {block_bytes}");
    }
}
