//! Where tasks are drawn: each on a lane of its worker, one lane a thread.
//!
//! The scheduler hears of ends, of several at once now and then, and not of threads. So the tasks are laid out from the last to
//! the first: each ends when it was heard of, or when the next on its lane began, whichever is earlier, on the lane where that is
//! latest. Durations are as they were measured.

use std::collections::BTreeMap;

use starling_core::task_stream::TaskOutcome;

use crate::cluster::TaskStream;

/// How many lanes a worker is drawn with at most, however many threads it has.
const LANES_MAX: usize = 256;

/// The timeline's data, as JSON that may stand in a script: `{"kinds": [name], "workers": [[name, lanes]], "tasks":
/// [[worker, lane, start, duration, kind, failed]]}`, times in microseconds since the recording began.
pub(super) fn data(stream: &TaskStream, kinds: &[&str]) -> String {
    let mut lanes: BTreeMap<_, (usize, Vec<u64>)> = BTreeMap::new();
    for (number, (worker, info)) in stream.workers.iter().enumerate() {
        let count = (info.nthreads as usize).clamp(1, LANES_MAX);
        lanes.insert(*worker, (number, vec![u64::MAX; count]));
    }
    let mut tasks = Vec::with_capacity(stream.records.len());
    for record in stream.records.iter().rev() {
        let Some((worker, lanes)) = lanes.get_mut(&record.worker) else { continue };
        let Some((lane, free_until)) =
            lanes.iter_mut().enumerate().max_by_key(|(lane, until)| (**until, usize::MAX - lane))
        else {
            continue;
        };
        let start = record.ended.0.min(*free_until).saturating_sub(record.run_us);
        *free_until = start;
        let since = start.saturating_sub(stream.began_us);
        let kind = kinds.binary_search(&stream.name(record)).unwrap_or_default();
        let failed = u8::from(record.outcome != TaskOutcome::Finished);
        tasks.push(format!("[{worker},{lane},{since},{},{kind},{failed}]", record.run_us));
    }
    let kinds: Vec<String> = kinds.iter().map(|name| quoted(name)).collect();
    let named = stream
        .workers
        .values()
        .map(|worker| format!("[{},{}]", quoted(&worker.name), (worker.nthreads as usize).clamp(1, LANES_MAX)));
    let named: Vec<String> = named.collect();
    let wall_us = stream.ended_us.saturating_sub(stream.began_us);
    format!(
        "{{\"wall\":{wall_us},\"kinds\":[{}],\"workers\":[{}],\"tasks\":[{}]}}",
        kinds.join(","),
        named.join(","),
        tasks.join(",")
    )
}

/// A string of JSON in which nothing ends a script.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
