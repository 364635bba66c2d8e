//! The report against truths that were found otherwise, and the maker of files against itself.

use starling_actors::Cluster;

use super::time::{Moment, Month};
use super::*;
use crate::csv::{CsvFiles, CsvOptions};

fn written(options: &GenerateOptions) -> (Vec<u8>, Facts) {
    let mut bytes = Vec::new();
    let facts = generate(options, &mut bytes).unwrap();
    (bytes, facts)
}

#[test]
fn moments_are_read_and_written() {
    for text in
        ["2014-03-13T20:32:04.033", "1970-01-01T00:00:00.000", "2000-02-29T23:59:59.999", "1969-12-31T23:59:59.001"]
    {
        let moment = Moment::parse(text).unwrap();
        let mut written = Vec::new();
        moment.write(&mut written);
        assert_eq!(written, text.as_bytes());
    }
    assert_eq!(Moment::parse("1970-01-02T00:00:01").unwrap().0, 86_401_000);
    assert_eq!(Moment::parse("2014-03-13T20:32:04.5").unwrap().month(), Month { year: 2014, month: 3 });
    for bad in [
        "",
        "2014-03-13",
        "2014-13-13T20:32:04",
        "2014-03-13 20:32:04",
        "2014-03-13T20:32:04.1234",
        "2014-03-13T20:32:éé",
    ] {
        assert_eq!(Moment::parse(bad), None, "{bad}");
    }
}

#[test]
fn tags_are_taken_from_either_form() {
    assert_eq!(tags("<a><b-2>").collect::<Vec<_>>(), ["a", "b-2"]);
    assert_eq!(tags("|a|b|").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tags("").count(), 0);
}

#[test]
fn the_same_seed_makes_the_same_file_and_another_seed_another() {
    let options = GenerateOptions { size: 1_000_000, ..GenerateOptions::default() };
    let (bytes, facts) = written(&options);
    assert_eq!(written(&options), (bytes.clone(), facts));
    assert_ne!(written(&GenerateOptions { seed: 2, ..options }).0, bytes);
    assert!(bytes.len() >= 1_000_000);
    // What makes such files hard is there.
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\n\n") && text.contains("\"\"") && text.contains(", "));
}

#[test]
fn a_clean_file_has_a_line_for_every_record() {
    let options = GenerateOptions { size: 1_000_000, clean: true, ..GenerateOptions::default() };
    let (bytes, facts) = written(&options);
    assert_eq!(memchr::memchr_iter(b'\n', &bytes).count() as u64, facts.records + 1);
}

#[test]
fn a_cached_file_is_made_once_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = GenerateOptions { size: 100_000, ..GenerateOptions::default() };
    let (path, made) = cached_posts(folder.path(), &options).unwrap();
    assert!(made);
    assert_eq!(std::fs::read(&path).unwrap(), written(&options).0);
    assert_eq!(cached_posts(folder.path(), &options).unwrap(), (path, false));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_finds_what_is_true_of_a_made_file() {
    let cluster = Cluster::local(2).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for clean in [false, true] {
        let options = GenerateOptions { size: 8_000_000, clean, ..GenerateOptions::default() };
        let (path, _) = cached_posts(folder.path(), &options).unwrap();
        let truth = written(&options).1;
        for block_bytes in [100_000, 1 << 20, 16 << 20] {
            let options = ReportOptions { block_bytes, ..ReportOptions::new(path.display().to_string()) };
            let report = report(&cluster, &options).await.unwrap();
            assert_eq!(report.facts, truth, "blocks of {block_bytes}, clean {clean}");
            assert_eq!(report.input_bytes, std::fs::metadata(&path).unwrap().len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_finds_the_truths_of_the_real_posts() {
    let Some((path, _)) = crate::csv::real_posts() else { return };
    let cluster = Cluster::local(2).await.unwrap();
    let facts = report(&cluster, &ReportOptions::new(&path)).await.unwrap().facts;
    assert_eq!(facts.records, 2061);
    assert_eq!(facts.body_utf8_bytes, 2_651_629);
    assert_eq!(facts.answers_with_parent, 1507);
    assert_eq!(facts.top_tags[0], ("undergraduate-education".to_owned(), 117));
    assert_eq!(facts.score_sum_by_post_type[&2], 8687);
    let posts = CsvFiles::new(&cluster, &path, CsvOptions::default()).records::<Post>();
    assert_eq!(posts.take(1).await.unwrap()[0].title.as_deref(), Some("Encouraging class participation"));
}
