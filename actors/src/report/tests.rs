use starling_core::ids::{Attempt, JobId, KindId, TaskId, Time, WorkerId};
use starling_core::task_stream::{StreamFailure, StreamWorker};

use super::*;

fn record(index: u32, kind: u64, ended: u64, run_us: u64, outcome: TaskOutcome) -> TaskRecord {
    TaskRecord {
        task: TaskId::new(JobId(1), index),
        kind: KindId(kind),
        worker: WorkerId(7),
        attempt: Attempt(1),
        ended: Time(ended),
        run_us,
        nbytes: 1024,
        outcome,
    }
}

fn stream() -> TaskStream {
    let name = |name: &str, nthreads| StreamWorker { worker: WorkerId(7), name: name.to_owned(), nthreads };
    TaskStream {
        records: vec![
            record(0, 1, 1_500, 400, TaskOutcome::Finished),
            record(1, 1, 2_000, 900, TaskOutcome::Finished),
            // Told together.
            record(2, 2, 3_000, 500, TaskOutcome::Finished),
            record(3, 2, 3_000, 600, TaskOutcome::Finished),
            record(4, 2, 3_000, 700, TaskOutcome::Finished),
            record(5, 2, 3_000, 0, TaskOutcome::Failed),
        ],
        kinds: [(KindId(1), "crate::load"), (KindId(2), "</script><b>&\"'")]
            .map(|(kind, name)| (kind, name.to_owned()))
            .into(),
        workers: [(WorkerId(7), name("<worker> {{data}}", 2))].into(),
        failures: vec![StreamFailure { number: 5, message: "task <x> failed: \"no\"".to_owned() }],
        began_us: 1_000,
        ended_us: 3_000,
        ..TaskStream::default()
    }
}

fn data_of(page: &str) -> &str {
    let (_, data) = page.split_once("<script id=\"data\" type=\"application/json\">").unwrap();
    data.split_once("</script>").unwrap().0
}

#[test]
fn a_report_is_one_file_in_which_names_are_only_names() {
    let page = page(&stream());
    assert!(!page.contains("<b>") && !page.contains("<worker>") && !page.contains("<x>"));
    assert!(page.contains("&lt;/script&gt;&lt;b&gt;&amp;&quot;&#39;"));
    // A name that looks like a place is not one.
    assert!(page.contains("&lt;worker&gt; {{data}}"));
    assert_eq!(page.matches("{{").count(), 2, "a place was not filled");
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    assert!(data_of(&page).contains(r#""kinds":["\u003c/script\u003e\u003cb\u003e\u0026\"'","crate::load"]"#));
    assert!(page.contains("task &lt;x&gt; failed: &quot;no&quot;"));
}

#[test]
fn the_figures_are_those_of_the_tasks() {
    let page = page(&stream());
    for fact in ["<dt>Duration</dt><dd>2.00 ms</dd>", "<dt>Tasks</dt><dd>6</dd>", "<dt>Failed tries</dt><dd>1</dd>"] {
        assert!(page.contains(fact), "{fact}");
    }
    // 3.1 ms of work in 2 ms of 2 threads.
    assert!(page.contains("<dt>Busy</dt><dd>78 %</dd>"));
    assert!(page.contains("<th>crate::load</th><td>2</td><td>0</td><td>1.30 ms</td><td>42 %</td><td>650 µs</td><td>900 µs</td><td>2.0 KiB</td>"));
}

#[test]
fn tasks_that_were_told_together_are_laid_one_after_the_other() {
    let page = page(&stream());
    let (_, tasks) = data_of(&page).split_once("\"tasks\":").unwrap();
    // From the last to the first: lane, start, duration.
    let expected = "[[0,0,2000,0,0,1],[0,1,1300,700,0,0],[0,0,1400,600,0,0],[0,0,900,500,0,0],[0,1,100,900,1,0],[0,0,100,400,1,0]]}";
    assert_eq!(tasks, expected);
}

#[test]
fn a_report_of_nothing_is_one_too() {
    let page = page(&TaskStream::default());
    assert!(page.contains("<dt>Busy</dt><dd>-</dd>") && page.matches("<td>none</td>").count() == 3);
    assert_eq!(data_of(&page), r#"{"wall":0,"kinds":[],"workers":[],"tasks":[]}"#);
}

#[test]
fn sizes_are_shown_in_their_units() {
    let shown = [0, 1023, 1024, 1536, 5 << 30].map(|bytes| Bytes(bytes).to_string());
    assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
}
