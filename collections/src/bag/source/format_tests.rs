//! Avro and Parquet records, and files that bags write.

use std::fs;

use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use tempfile::TempDir;

use crate::bag::{Bag, Json, JsonOptions, WriteOptions};
use crate::input::Compression;

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

async fn cluster() -> Cluster {
    Cluster::local(2).await.unwrap()
}

fn text(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// All names in a folder, hidden ones too, in order.
fn names(folder: &str) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    number: u64,
    name: Option<String>,
    ratio: f64,
    tags: Vec<String>,
}

fn item(number: u64) -> Item {
    let name = (!number.is_multiple_of(3)).then(|| format!("name {number}"));
    Item { number, name, ratio: number as f64 / 4.0, tags: vec!["a".to_owned(); number as usize % 3] }
}

fn items(count: u64) -> Vec<Item> {
    (0..count).map(item).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_written_a_file_a_partition_and_read_again() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    let bag = Bag::from_sequence(&cluster, lines.clone(), 4).unwrap();
    let out = text(&folder, "new/out");
    let files = bag.to_text_files(&out, WriteOptions::default()).await.unwrap();
    assert_eq!(names(&out), ["00000.txt", "00001.txt", "00002.txt", "00003.txt"]);
    assert_eq!(files.iter().map(|file| file.items).collect::<Vec<_>>(), [250; 4]);
    assert_eq!(files[1].path, format!("{out}/00001.txt"));
    assert_eq!(files[1].nbytes, fs::metadata(&files[1].path).unwrap().len());
    assert_eq!(Bag::read_text(&cluster, format!("{out}/*")).collect().await.unwrap(), lines);
    // Again, with a closure and packed; what was there is replaced.
    for _ in 0..2 {
        let path = text(&folder, "packed/part-*.txt.gz");
        let upper = bag.clone().map(task!(|line: String| line.to_uppercase()));
        upper.to_text_files(&path, WriteOptions::default()).await.unwrap();
        assert_eq!(names(&text(&folder, "packed"))[3], "part-00003.txt.gz");
        let first = Bag::read_text(&cluster, &path).take(2).await.unwrap();
        assert_eq!(first, ["LINE 0", "LINE 1"]);
    }
    let options = WriteOptions { compression: Compression::Gzip };
    bag.to_text_files(&text(&folder, "g"), options).await.unwrap();
    assert_eq!(names(&text(&folder, "g"))[0], "00000.txt.gz");
    let error = bag.to_text_files(&text(&folder, "*/a*"), WriteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("one * in its last part"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_are_written_from_closures_and_from_texts() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let bag = Bag::from_sequence(&cluster, items(100), 3).unwrap();
    let path = text(&folder, "j/*.jsonl");
    let error = bag.to_json_lines(&path, WriteOptions::default()).await.unwrap_err().reason();
    assert!(error.contains("put a map(task!"), "{error}");
    let typed = bag.map(task!(|item: Item| item));
    let files = typed.to_json_lines(&path, WriteOptions::default()).await.unwrap();
    assert_eq!(files.iter().map(|file| file.items).sum::<u64>(), 100);
    let read = Bag::<Item>::read_json_lines(&cluster, &path, JsonOptions::default());
    assert_eq!(read.collect().await.unwrap(), items(100));
    // JSON stays JSON, without a closure too.
    let copy = text(&folder, "copy");
    Bag::<Json>::read_json_lines(&cluster, &path, JsonOptions::default())
        .to_json_lines(&copy, WriteOptions::default())
        .await
        .unwrap();
    let read = Bag::<Item>::read_json_lines(&cluster, format!("{copy}/*.jsonl"), JsonOptions::default());
    assert_eq!(read.collect().await.unwrap(), items(100));
    let words = Bag::from_sequence(&cluster, ["a", "b", "a"].map(str::to_owned).to_vec(), 2).unwrap();
    let counts = text(&folder, "counts");
    words.frequencies().to_json_lines(&counts, WriteOptions::default()).await.unwrap();
    let mut read =
        fs::read_to_string(format!("{counts}/00000.jsonl")).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    read.sort_unstable();
    assert_eq!(read, [r#"["a",2]"#, r#"["b",1]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_half_written_is_left_after_a_failure() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let numbers = Bag::from_sequence(&cluster, (0..100_u64).collect(), 2).unwrap();
    let out = text(&folder, "out");
    fs::create_dir(&out).unwrap();
    let failing =
        numbers.clone().try_map(task!(|n: u64| if n == 99 { Err("no".to_owned()) } else { Ok(n.to_string()) }));
    failing.to_text_files(&out, WriteOptions::default()).await.unwrap_err();
    assert!(names(&out).iter().all(|name| name == "00000.txt"), "{:?}", names(&out));
    // A directory in a file's place.
    let there = text(&folder, "there");
    fs::create_dir_all(format!("{there}/00001.txt")).unwrap();
    let lines = numbers.map(task!(|n: u64| n.to_string()));
    let error = lines.to_text_files(&there, WriteOptions::default()).await.unwrap_err().reason();
    assert!(error.contains("00001.txt cannot be written"), "{error}");
    assert!(names(&there).iter().all(|name| !name.starts_with('.')), "{:?}", names(&there));
}

#[cfg(feature = "avro")]
#[tokio::test(flavor = "multi_thread")]
async fn avro_records_are_written_and_read_again() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let schema = r#"{"type": "record", "name": "item", "fields": [
        {"name": "number", "type": "long"}, {"name": "name", "type": ["null", "string"]},
        {"name": "ratio", "type": "double"}, {"name": "tags", "type": {"type": "array", "items": "string"}}]}"#;
    let bag = Bag::from_sequence(&cluster, items(10_000), 2).unwrap().map(task!(|item: Item| item));
    for (number, compression) in [Compression::ByName, Compression::Gzip, Compression::Zstd].into_iter().enumerate() {
        let out = text(&folder, &format!("a{number}"));
        let files = bag.to_avro(&out, schema, WriteOptions { compression }).await.unwrap();
        assert_eq!(files.iter().map(|file| file.items).sum::<u64>(), 10_000);
        let pattern = format!("{out}/*.avro");
        let read = Bag::<Item>::read_avro(&cluster, &pattern);
        assert!(read.collect().await.unwrap() == items(10_000));
        assert_eq!(read.count().await.unwrap(), 10_000);
        let names = Bag::<Item>::read_avro(&cluster, &pattern).map(task!(|item: Item| item.name.is_some() as u64));
        let named = names.fold(0, task!(|a: u64, b: u64| a + b), task!(|a: u64, b: u64| a + b)).await.unwrap();
        assert_eq!(named, items(10_000).iter().filter(|item| item.name.is_some()).count() as u64);
    }
    // A file without records is one too.
    let none = Bag::from_sequence(&cluster, items(3), 1).unwrap().filter(task!(|item: &Item| item.number > 5));
    none.to_avro(&text(&folder, "none"), schema, WriteOptions::default()).await.unwrap();
    let read = Bag::<Item>::read_avro(&cluster, text(&folder, "none/*"));
    assert_eq!(read.count().await.unwrap(), 0);
    let error = bag.to_avro(&text(&folder, "x"), "{}", WriteOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("the schema is none"), "{error}");
    fs::write(text(&folder, "no.avro"), "no avro").unwrap();
    let error = Bag::<Item>::read_avro(&cluster, text(&folder, "no.avro")).count().await.unwrap_err().reason();
    assert!(error.contains("no.avro cannot be read as Avro"), "{error}");
    let wrong = Bag::<Wrong>::read_avro(&cluster, text(&folder, "a0/*")).map(task!(|wrong: Wrong| wrong.name));
    let error = wrong.collect().await.unwrap_err().reason();
    assert!(error.contains("a0/00000.avro, row 1: field name: "), "{error}");
}

#[cfg(any(feature = "avro", feature = "parquet"))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrong {
    name: u32,
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        number: u64,
        name: Option<String>,
        ratio: f32,
    }

    fn row(number: u64) -> Row {
        Row { number, name: item(number).name, ratio: number as f32 / 4.0 }
    }

    /// So many rows in each group, numbered on from `number`, with a column that nobody wants.
    fn write(path: &str, groups: &[u64], mut number: u64) {
        let schema = "message rows { required int64 number; required binary unwanted (UTF8); optional binary name (UTF8); \
                      required double ratio; }";
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer =
            SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
        for group in groups {
            let rows: Vec<Row> = (number..number + group).map(row).collect();
            number += group;
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let numbers: Vec<i64> = rows.iter().map(|row| row.number as i64).collect();
            column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&vec![ByteArray::from("x"); rows.len()], None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let names: Vec<ByteArray> =
                rows.iter().filter_map(|row| row.name.as_deref()).map(ByteArray::from).collect();
            let there: Vec<i16> = rows.iter().map(|row| i16::from(row.name.is_some())).collect();
            column.typed::<ByteArrayType>().write_batch(&names, Some(&there), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let ratios: Vec<f64> = rows.iter().map(|row| row.ratio.into()).collect();
            column.typed::<DoubleType>().write_batch(&ratios, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parquet_records_are_read_a_partition_a_row_group() {
        let cluster = cluster().await;
        let folder = tempfile::tempdir().unwrap();
        write(&text(&folder, "a.parquet"), &[1000, 500], 0);
        write(&text(&folder, "b.parquet"), &[100], 1500);
        let rows = Bag::<Row>::read_parquet(&cluster, text(&folder, "*.parquet"));
        assert!(rows.collect().await.unwrap() == (0..1600).map(row).collect::<Vec<_>>());
        assert_eq!(rows.count().await.unwrap(), 1600);
        let sum = rows.map(task!(|row: Row| row.number));
        let sum = sum.fold(0, task!(|a: u64, b: u64| a + b), task!(|a: u64, b: u64| a + b)).await.unwrap();
        assert_eq!(sum, (0..1600).sum::<u64>());
        let values = Bag::<Json>::read_parquet(&cluster, text(&folder, "b.parquet"));
        let expected = serde_json::json!({"number": 1500, "unwanted": "x", "name": null, "ratio": 375.0});
        assert_eq!(values.take(1).await.unwrap()[0].0, expected);

        let wrong = Bag::<Wrong>::read_parquet(&cluster, text(&folder, "b.parquet")).filter(task!(|_: &Wrong| true));
        let error = wrong.collect().await.unwrap_err().reason();
        assert!(error.contains("b.parquet, row 1: field name: invalid type"), "{error}");
        let missing = Bag::<Item>::read_parquet(&cluster, text(&folder, "b.parquet")).map(task!(|item: Item| item));
        let error = missing.collect().await.unwrap_err().reason();
        assert!(error.contains("b.parquet, row 1: missing field `tags`"), "{error}");
        fs::write(text(&folder, "no.parquet"), "no parquet").unwrap();
        let error = Bag::<Row>::read_parquet(&cluster, text(&folder, "no.parquet")).count().await.unwrap_err().reason();
        assert!(error.contains("no.parquet cannot be read as Parquet"), "{error}");
    }
}
