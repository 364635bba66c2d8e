//! Tests of the runner and of how it renders.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, TimestampNanosecondArray};
use datafusion::arrow::array::{
    Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int32Array, ListArray, RecordBatch, StringArray,
    StringViewArray,
};
use datafusion::arrow::datatypes::{DataType, Int32Type};

use super::*;

fn rendered(column: impl datafusion::arrow::array::Array + 'static) -> Vec<String> {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::new(column) as ArrayRef, true)]).unwrap();
    render::rows(&[batch], None).unwrap().into_iter().map(|row| row.join(" ")).collect()
}

#[test]
fn values_look_as_in_datafusions_files() {
    assert_eq!(rendered(Int32Array::from(vec![Some(-7), None])), ["-7", "NULL"]);
    assert_eq!(rendered(StringViewArray::from(vec!["", " a ", "b\n"])), ["(empty)", " a ", "b"]);
    let floats = [0.1 + 0.2, 1e15, 1e-13, -1e-13, 2.5e-12, f64::NAN, f64::NEG_INFINITY, 1.999_999_999_999_9, -0.0];
    let texts = ["0.3", "1000000000000000", "0", "0", "0.000000000002", "NaN", "-Infinity", "2", "0"];
    assert_eq!(rendered(Float64Array::from(floats.to_vec())), texts);
    assert_eq!(rendered(Float32Array::from(vec![0.1, 1.5e10])), ["0.1", "15000000000"]);
    let decimals = Decimal128Array::from(vec![11_000, -5, 0]).with_precision_and_scale(10, 3).unwrap();
    assert_eq!(rendered(decimals), ["11", "-0.005", "0"]);
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("")].into_iter().collect();
    assert_eq!(rendered(dictionary), ["a", "NULL", "(empty)"]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    assert_eq!(rendered(lists), ["[1, NULL]", "NULL"]);
    assert_eq!(rendered(TimestampNanosecondArray::from(vec![1_000_000_000])), ["1970-01-01T00:00:01"]);
}

#[test]
fn a_last_cell_of_several_lines_goes_on_in_numbered_rows() {
    assert_eq!(rendered(StringArray::from(vec!["A\n  B"])), ["", "01)A", "02)--B"]);
}

#[test]
fn the_folder_is_told_as_the_workspaces_root() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["files: [home/x/a.csv]"]));
    let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
    assert_eq!(render::rows(&[batch], Some("home/x")).unwrap(), [["files: [WORKSPACE_ROOT/a.csv]"]]);
}

#[test]
fn an_ignored_part_may_be_anything_but_not_what_stands_around_it() {
    let same = |actual: &[&str], expected: &[&str]| {
        let actual: Vec<Vec<String>> = actual.iter().map(|line| vec![(*line).to_owned()]).collect();
        let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        render::same_rows(render::without_trailing_blanks, &actual, &expected)
    };
    assert!(same(&["a  "], &["a"]));
    assert!(!same(&["a", "b"], &["a"]));
    assert!(same(&["took 5 ms", "end"], &["took <slt:ignore> ms", "end"]));
    assert!(!same(&["it took 5 ms"], &["took <slt:ignore> ms"]));
    assert!(!same(&["took 5 s"], &["took <slt:ignore> ms"]));
}

#[test]
fn columns_have_the_letters_of_the_files() {
    let letters = |data_type: DataType| sqllogictest::ColumnType::to_char(&ColumnKind::of(&data_type));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let kinds = [DataType::Boolean, DataType::UInt8, DataType::Decimal128(5, 2), DataType::Date32, dictionary];
    assert_eq!(kinds.map(letters), ['B', 'I', 'R', 'D', 'T']);
    assert_eq!(letters(DataType::Binary), '?');
}

#[test]
fn only_what_plain_datafusion_passes_can_fail() {
    let fail = || Outcome::Fail("why".into());
    let sqls = ["select 1", "select 2", "select 3", " explain select 4", "", "select 6"];
    let plain = [Outcome::Pass, Outcome::Pass, fail(), Outcome::Pass, Outcome::Nothing, fail()];
    let own = [Outcome::Pass, fail(), fail(), fail(), Outcome::Nothing, Outcome::Pass];
    let counts = Counts::of(&sqls, &plain, &own);
    assert_eq!((counts.pass, counts.fail, counts.unsupported), (1, 1, 3));
    assert_eq!(counts.first_failure.as_deref(), Some("why"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_includes_conditions_errors_and_a_wrong_answer_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("part.slt.part", "query I\nselect count(*) from t\n----\n2\n");
    let text = "statement ok
create table t as values (1, 'a'), (2, null)

include ./part.slt.part

query IT rowsort
select column1, column2 from t
----
1 a
2 NULL

onlyif mysql
query I
select 1
----
2

statement error No field named nothing
select nothing from t

query I
select 1
----
2
";
    write("a.slt", text);
    let files = files(&[folder.path().to_owned()]).unwrap();
    assert_eq!(files, [folder.path().join("a.slt")]);
    let counts = run_file(&files[0], None).await.unwrap();
    assert_eq!((counts.pass, counts.fail, counts.unsupported), (4, 0, 1));
    let cluster = Cluster::local(2).await.unwrap();
    let counts = run_file(&files[0], Some(&cluster)).await.unwrap();
    assert_eq!((counts.pass, counts.fail, counts.unsupported), (4, 0, 1));
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    assert!(files(&[PathBuf::from("no/such/file.slt")]).is_err());
}
