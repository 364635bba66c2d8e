//! Where rows and fields are.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field};
use proptest::prelude::*;

use super::super::cuts::Cuts;
use super::super::options::Format;
use super::super::reader::{BatchReader, FaultKind, Origin, Progress, Reading};
use super::*;
use crate::csv::{BlockScan, Marks};
use crate::stackexchange::{GenerateOptions, generate};

type Rows = Vec<Vec<Option<String>>>;

fn format() -> Format {
    Format { has_header: false, truncated_rows: true, ..Format::of(&CsvReadOptions::default()) }
}

/// The rows of bytes that begin at `offset` in their file, given `piece` bytes at a time.
fn read(format: &Format, bytes: &[u8], offset: u64, columns: usize, piece: usize) -> Result<Rows, FaultKind> {
    let fields: Vec<Field> = (0..columns).map(|n| Field::new(format!("c{n}"), DataType::Utf8, true)).collect();
    let reading = Reading {
        format,
        columns,
        schema: Arc::new(Schema::new(fields)),
        origins: (0..columns).map(Origin::File).collect(),
        batch_size: 3,
        limit: usize::MAX,
        offset,
        counts_lines: false,
    };
    // A fresh buffer for each of very many readings would take most of the time.
    thread_local!(static BUFFER: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) });
    let mut reader = BatchReader::new(reading, BUFFER.take()).unwrap();
    let mut rest = bytes;
    let mut rows = Rows::new();
    loop {
        match reader.next().map_err(|fault| fault.kind)? {
            Progress::Done => {
                BUFFER.set(reader.into_buffer());
                return Ok(rows);
            }
            Progress::More => {
                let room = reader.room();
                let nbytes = piece.min(rest.len()).min(room.len());
                room[..nbytes].copy_from_slice(&rest[..nbytes]);
                rest = &rest[nbytes..];
                reader.filled(nbytes);
            }
            Progress::Batch(batch) => {
                for row in 0..batch.num_rows() {
                    let value = |column: &datafusion::arrow::array::ArrayRef| {
                        let column = column.as_string::<i32>();
                        column.is_valid(row).then(|| column.value(row).to_owned())
                    };
                    rows.push(batch.columns().iter().map(value).collect());
                }
            }
        }
    }
}

/// What the csv crate makes of bytes, an empty field being NULL and missing ones too.
fn oracle(bytes: &[u8], columns: usize) -> Rows {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let records = reader.byte_records().map(|record| {
        let record = record.unwrap();
        let text = |n| Some(String::from_utf8(record.get(n)?.to_vec()).unwrap()).filter(|text| !text.is_empty());
        (0..columns).map(text).collect()
    });
    records.collect()
}

fn cut(bytes: &[u8], block_bytes: usize, piece: usize) -> Cuts {
    let marks = Marks::default();
    let scans: Vec<BlockScan> = bytes
        .chunks(block_bytes)
        .map(|block| {
            let mut scan = BlockScan::default();
            for (number, piece_bytes) in block.chunks(piece).enumerate() {
                scan.update(marks, (number * piece) as u64, piece_bytes);
            }
            scan
        })
        .collect();
    Cuts::of("bytes", marks, block_bytes as u64, &scans)
}

/// The rows of all pieces of a file, and into how many it was cut.
fn read_in_pieces(bytes: &[u8], block_bytes: usize, piece: usize, columns: usize) -> (usize, Result<Rows, FaultKind>) {
    let cuts = cut(bytes, block_bytes, piece);
    let pieces: Vec<_> = cuts.pieces(0, bytes.len() as u64).collect();
    let mut rows = Rows::new();
    for part in &pieces {
        let bytes = &bytes[part.start as usize..part.end as usize];
        match read(&format(), bytes, part.start, columns, piece) {
            Ok(more) => rows.extend(more),
            Err(kind) => return (pieces.len(), Err(kind)),
        }
    }
    (pieces.len(), Ok(rows))
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
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_table_gives_the_csv_crates_rows_wherever_it_is_cut(
        rows in prop::collection::vec(prop::collection::vec("[a\"\n\r,é]{0,9}", 3), 1..12),
        crlf in any::<bool>(),
        last_newline in any::<bool>(),
        piece in 1_usize..40,
    ) {
        let bytes = written(&rows, crlf, last_newline);
        let expected = oracle(&bytes, 3);
        prop_assert_eq!(expected.len(), rows.len());
        for block_bytes in 1..=bytes.len() + 1 {
            let (_, found) = read_in_pieces(&bytes, block_bytes, piece, 3);
            let found = found.map_err(|kind| TestCaseError::fail(format!("blocks of {block_bytes}: {kind:?}")))?;
            prop_assert_eq!(&found, &expected, "blocks of {}", block_bytes);
        }
        prop_assert!(cut(&bytes, 4, piece).warning.is_none(), "a well-formed file is cut");
    }

    #[test]
    fn any_bytes_give_the_csv_crates_rows_or_an_unclosed_quote_wherever_they_are_cut(
        text in "[ab\"\n\r,]{1,32}",
        piece in 1_usize..9,
    ) {
        let bytes = text.as_bytes();
        let columns = oracle(bytes, 40).iter().map(Vec::len).max().unwrap_or(1);
        let expected = oracle(bytes, columns);
        let whole = read(&format(), bytes, 0, columns, 1024);
        match &whole {
            Ok(rows) => prop_assert_eq!(rows, &expected),
            Err(kind) => prop_assert!(matches!(kind, FaultKind::Unclosed), "{:?}", kind),
        }
        for block_bytes in 1..=bytes.len() {
            let (pieces, found) = read_in_pieces(bytes, block_bytes, piece, columns);
            match (&whole, &found) {
                (Ok(expected), Ok(found)) => prop_assert_eq!(found, expected, "blocks of {}", block_bytes),
                (Err(_), Err(_)) => prop_assert_eq!(pieces, 1),
                other => prop_assert!(false, "blocks of {}: {:?}", block_bytes, other),
            }
        }
    }

    #[test]
    fn escapes_give_the_csv_crates_rows(text in "[a\\\\\"\n,]{1,24}", piece in 1_usize..9) {
        let bytes = text.as_bytes();
        let format = Format { escape: Some(b'\\'), ..format() };
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).escape(Some(b'\\')).from_reader(bytes);
        let records: Vec<csv::ByteRecord> = reader.byte_records().map(Result::unwrap).collect();
        let columns = records.iter().map(csv::ByteRecord::len).max().unwrap_or(1);
        let text = |record: &csv::ByteRecord, n| {
            Some(String::from_utf8(record.get(n)?.to_vec()).unwrap()).filter(|text| !text.is_empty())
        };
        let expected: Rows = records.iter().map(|record| (0..columns).map(|n| text(record, n)).collect()).collect();
        match read(&format, bytes, 0, columns, piece) {
            Ok(rows) => prop_assert_eq!(rows, expected),
            Err(kind) => prop_assert!(matches!(kind, FaultKind::Unclosed), "{:?}", kind),
        }
    }
}

#[test]
fn a_record_longer_than_the_buffer_is_read() {
    let body = "y\"\"\n".repeat(300_000);
    let bytes = format!("1,\"{body}\"\n2,b\n");
    let (_, rows) = read_in_pieces(bytes.as_bytes(), 1 << 20, 1 << 16, 2);
    let rows = rows.unwrap();
    assert_eq!(rows[0][1].as_ref().map(String::len), Some(900_000));
    assert_eq!(rows[1], [Some("2".to_owned()), Some("b".to_owned())]);
}

#[test]
fn stray_quotes_and_only_they_keep_a_file_in_one_piece() {
    let filler = "1,\"a \"\"b\"\" c,\n\"\n".repeat(20);
    let is_cut = |middle: &str| {
        let text = format!("{filler}{middle}{filler}");
        // Blocks of every size: the quote is in the middle of some, and at the edges of others.
        let cuts: Vec<bool> =
            (1..80).map(|block_bytes| cut(text.as_bytes(), block_bytes, 7).warning.is_none()).collect();
        assert!(cuts.iter().all(|cut| *cut == cuts[0]), "{middle}: it does not depend on where blocks begin");
        cuts[0]
    };
    for fine in ["", "\"\",\"\"\n", "\"\"\"\",x\n", "x,\"\"\"\"\"\"\r\n", "\"a\"\"\n\",\"\"\"\"\n", "\n\n"] {
        assert!(is_cut(fine), "{fine}");
    }
    // Pairs, so that parity alone shows nothing.
    for stray in ["a\"b,c\"d\n", "\"a\"b,\"c\"d\n", "5\",6\"\n", "\"\"a,\"b\"\n", "\"a\\\"b\\\"\",c\n", " \"a\",b\n"] {
        assert!(!is_cut(stray), "{stray}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_are_read_as_datafusion_reads_them_in_any_number_of_partitions() {
    let bench = Bench::new().await;
    for clean in [false, true] {
        let mut bytes = Vec::new();
        generate(&GenerateOptions { size: 2_000_000, clean, ..GenerateOptions::default() }, &mut bytes).unwrap();
        let path = bench.write(&format!("posts-{clean}.csv"), &bytes);
        // More records than are looked at for types, and columns in which nothing is at first.
        let expected = theirs_of_any(&path).await;
        let table = bench.open(&path, CsvReadOptions { schema_infer_max_rec: 1_000_000, ..fine() }).await;
        for partitions in [1, 2, 7, 64] {
            let context = context(partitions);
            let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
            let scan = scan_of(&plan);
            assert_eq!(scan.properties().partitioning.partition_count(), partitions);
            let even = bytes.len() as u64 / partitions as u64;
            assert!((0..partitions).all(|number| scan.nbytes(number).abs_diff(even) < 40_000), "{scan:?}");
            assert_same(&rows(&context, plan).await.unwrap(), &expected, &format!("{clean}, {partitions}"));
        }
        assert_eq!(table.warnings(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_posts_are_read_as_datafusion_reads_them() {
    let Some((path, bytes)) = crate::csv::real_posts() else { return };
    let bench = Bench::new().await;
    let expected = theirs_of_any(&path).await;
    let table = bench.open(&path, CsvReadOptions { schema_infer_max_rec: 1_000_000, ..fine() }).await;
    for partitions in [1, 5] {
        assert_same(&bench.read(&table, partitions).await.unwrap(), &expected, &path);
    }
    assert_eq!(table.nbytes(), bytes.len() as u64);
}
