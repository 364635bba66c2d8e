use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;

use super::replay::Replay;
use super::*;
use crate::failure::{FailureCause, TaskFailure};
use crate::scheduler::{Effects, TaskState};
use crate::spec::PartOf;
use crate::wire::{ResultAt, ToClient, ToWorker, WorkerInfo, WorkerStatus};

/// What arguments and results are made of here, to be looked for where they must not be.
const DATA: &[u8] = b"somebody's data";

fn kinds() -> Vec<KindInfo> {
    let kind = |kind, name: &str| KindInfo { kind: KindId(kind), name: name.into(), signature: "fn()".into() };
    vec![kind(1 << 60, "work"), kind(2 << 60, "other")]
}

fn header() -> Header {
    let config = Config { kinds: kinds(), allowed_failures: 1, tasks_max: 60, ..Config::default() };
    Header { config, term: Term(3), first_job: JobId(u32::MAX), has_ledger: false, started_unix_ms: 1_700_000_000_000 }
}

fn data(length: usize) -> Bytes {
    DATA.iter().copied().cycle().take(length).collect()
}

/// A scheduler whose peers are played, with what came to it and what it did.
#[derive(Debug)]
struct History {
    scheduler: Scheduler,
    now: Time,
    events: Vec<(Time, Event)>,
    effects: Vec<Effects>,
    /// The assignments that are under way.
    under_way: Vec<(WorkerId, TaskId, Attempt)>,
    submitted: u32,
}

impl History {
    fn begin() -> History {
        History::begin_with(header().config)
    }

    fn begin_with(config: Config) -> History {
        let mut history = History {
            scheduler: Header { config, ..header() }.scheduler(),
            now: Time(10),
            events: Vec::new(),
            effects: Vec::new(),
            under_way: Vec::new(),
            submitted: 0,
        };
        history.event(Event::ClientJoined { client: ClientId(0) });
        history.client(FromClient::OpenJob { name: "job".into(), token: 0 });
        history.join(0);
        history
    }

    fn event(&mut self, event: Event) {
        let mut effects = Effects::default();
        self.events.push((self.now, event.clone()));
        self.scheduler.handle(self.now, event, &mut effects);
        for (worker, message) in &effects.to_workers {
            if let ToWorker::Compute(assignment) = message {
                self.under_way.push((*worker, assignment.task, assignment.attempt));
            }
        }
        self.effects.push(effects);
    }

    fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient { client: ClientId(0), message });
    }

    fn join(&mut self, worker: u32) {
        let info = WorkerInfo { name: format!("w{worker}"), nthreads: 2, ..WorkerInfo::default() };
        self.event(Event::WorkerJoined { worker: WorkerId(worker), info });
    }

    fn submit(&mut self, count: u32, choice: u8) {
        let tasks = (self.submitted..self.submitted + count).map(|index| TaskSpec {
            task: task(index),
            kind: kinds()[usize::from(choice % 2)].kind,
            payload: data(usize::from(choice)),
            inputs: (1..=u32::from(choice % 4)).filter_map(|back| index.checked_sub(back)).collect(),
            options: TaskOptions {
                wanted: !choice.is_multiple_of(5),
                retries: u16::from(choice % 3),
                part: NonZeroU32::new(u32::from(choice % 4)).map(|of| PartOf { index: of.get() - 1, of, from: 0 }),
                ..TaskOptions::default()
            },
        });
        let tasks = tasks.collect();
        self.submitted += count;
        self.client(FromClient::Submit { job: JobId(u32::MAX), token: 7, kinds: kinds(), tasks });
    }

    fn finish(&mut self, choice: u8) {
        let Some((worker, task, attempt)) = self.pick(choice) else { return };
        let inline = match choice % 5 {
            0 => None,
            1 => Some(Bytes::new()),
            2 => Some(data(INLINE_RESULT_BYTES_MAX)),
            3 => Some(data(INLINE_RESULT_BYTES_MAX + 1)),
            _ => Some(data(40)),
        };
        let (nbytes, run_us) = (u64::from(choice) * 100, u64::from(choice) * 1000);
        let message = FromWorker::Finished { task, attempt, nbytes, run_us, inline };
        self.event(Event::FromWorker { worker, message });
    }

    fn fail(&mut self, choice: u8) {
        let Some((worker, task, attempt)) = self.pick(choice) else { return };
        let cause = FailureCause::Error { message: "it broke".into(), sources: vec![] };
        let failure = TaskFailure { task, name: "work".into(), node: None, cause };
        self.event(Event::FromWorker { worker, message: FromWorker::Failed { task, attempt, failure } });
    }

    fn pick(&mut self, choice: u8) -> Option<(WorkerId, TaskId, Attempt)> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.swap_remove(usize::from(choice) % count))
    }

    fn choose(&mut self, (what, choice): (u8, u8)) {
        self.now.0 += u64::from(choice) * u64::from(choice);
        let some = task(u32::from(choice) % self.submitted.max(1));
        let client = ClientId(u32::from(choice % 2));
        match what % 13 {
            0 | 1 => self.submit(u32::from(choice % 7), choice),
            2..=5 => self.finish(choice),
            6 => self.fail(choice),
            7 => self.client(FromClient::Release { tasks: vec![some, task(some.index + 1), task(1)] }),
            8 => self.event(Event::WorkerLost { worker: WorkerId(u32::from(choice % 3)) }),
            9 => self.join(u32::from(choice % 3)),
            10 => self.worker_says(some, choice),
            11 => self.client_asks(some, choice),
            _ if choice % 3 == 0 => self.event(Event::ClientLost { client }),
            _ => self.event(Event::Tick),
        }
    }
}

impl History {
    /// One of the rarer things that a worker says, mostly of an assignment that it has.
    fn worker_says(&mut self, task: TaskId, choice: u8) {
        let (worker, attempt) =
            self.scheduler.processing_on(task).unwrap_or((WorkerId(u32::from(choice % 2)), Attempt(1)));
        let message = match choice % 9 {
            0 => FromWorker::Replica { task, attempt, frees_heard: 0 },
            1 => FromWorker::Status(WorkerStatus { paused: choice.is_multiple_of(2), ..WorkerStatus::default() }),
            2 => FromWorker::InputsMissing { task, attempt, missing: vec![] },
            3 => FromWorker::StealAnswer { task, attempt, given: true },
            4 => FromWorker::StealAnswer { task, attempt, given: false },
            5 => FromWorker::Suspended { task, attempt },
            6 => FromWorker::Resumed { task, attempt },
            7 => FromWorker::NotAcquired { task },
            _ => FromWorker::Leaving,
        };
        self.event(Event::FromWorker { worker, message });
    }

    fn client_asks(&mut self, task: TaskId, choice: u8) {
        let (token, tasks) = (u64::from(choice), vec![task]);
        self.client(match choice % 8 {
            0 => FromClient::Cancel { tasks },
            1 => FromClient::CancelJob { job: task.job },
            2 => FromClient::Explain { token, task },
            3 => FromClient::Replicate { token, tasks, copies: 2 },
            4 => FromClient::Rebalance { token },
            5 => FromClient::Retire { token, workers: vec![WorkerId(u32::from(choice % 3))] },
            6 => FromClient::WhoHas { token, tasks },
            _ => FromClient::Scattered { job: task.job, values: vec![(self.submitted, token, vec![WorkerId(0)])] },
        });
        self.submitted += u32::from(choice % 8 == 7);
    }
}

fn task(index: u32) -> TaskId {
    TaskId::new(JobId(u32::MAX), index)
}

fn history() -> impl Strategy<Value = History> {
    vec(any::<(u8, u8)>(), 0..80).prop_map(|choices| {
        let mut history = History::begin();
        choices.into_iter().for_each(|choice| history.choose(choice));
        history
    })
}

/// The recording, with a block for each so many events.
fn recorded(events: &[(Time, Event)], events_a_block: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(&header(), u64::MAX);
    let (mut recording, mut block) = (Vec::new(), Vec::new());
    for events in events.chunks(events_a_block) {
        for (now, event) in events {
            assert_eq!(encoder.record(*now, event), None);
        }
        encoder.take(&mut block);
        recording.append(&mut block);
    }
    encoder.end(Time(u64::MAX), Ending::Stopped);
    encoder.take(&mut block);
    recording.append(&mut block);
    recording
}

/// Everything that can be read, and the error that ended it, if one did.
fn read(recording: &[u8]) -> (Vec<Item>, Option<ReadError>) {
    let reader = match Reader::open(recording) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut items = Vec::new();
    for item in reader {
        match item {
            Ok(item) => items.push(item),
            Err(error) => return (items, Some(error)),
        }
    }
    (items, None)
}

/// The event without what is not recorded.
fn stripped(event: &Event) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::FromClient { message: FromClient::Submit { tasks, .. }, .. } => {
            tasks.iter_mut().for_each(|spec| spec.payload.clear());
        }
        Event::FromWorker { message: FromWorker::Finished { inline, .. }, .. } => {
            *inline = inline.take().filter(|bytes| bytes.len() <= INLINE_RESULT_BYTES_MAX).map(|_| Bytes::new());
        }
        _ => {}
    }
    event
}

/// The effects without bytes that only pass through the scheduler.
fn without_data(mut effects: Effects) -> Effects {
    for (_, message) in &mut effects.to_workers {
        if let ToWorker::Compute(assignment) = message {
            assignment.payload.clear();
        }
    }
    for (_, message) in &mut effects.to_clients {
        if let ToClient::Finished { result: ResultAt::Inline(bytes), .. } = message {
            bytes.clear();
        }
    }
    effects
}

fn holds(recording: &[u8], bytes: &[u8]) -> bool {
    recording.windows(bytes.len()).any(|window| window == bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_was_recorded_is_read_without_anybodys_data_and_has_the_same_effects(
        history in history(),
        events_a_block in 1..20_usize,
    ) {
        let recording = recorded(&history.events, events_a_block);
        prop_assert!(!holds(&recording, DATA));
        let (mut items, error) = read(&recording);
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(items.pop(), Some(Item::Ended(Time(u64::MAX), Ending::Stopped)));
        prop_assert_eq!(items.len(), history.events.len());

        let mut replay = Replay::new(Reader::open(recording.as_slice()).unwrap().header());
        for ((item, (now, event)), effects) in items.into_iter().zip(history.events).zip(history.effects) {
            prop_assert_eq!(&item, &Item::Event(now, stripped(&event)));
            let Item::Event(now, event) = item else { unreachable!() };
            replay.step(now, event);
            prop_assert_eq!(without_data(replay.effects().clone()), without_data(effects));
        }
        prop_assert_eq!(replay.scheduler().counts(), history.scheduler.counts());
        prop_assert_eq!(replay.scheduler().workers(), history.scheduler.workers());
        prop_assert_eq!(replay.scheduler().jobs(), history.scheduler.jobs());
    }

    #[test]
    fn of_a_recording_that_is_cut_anywhere_the_beginning_is_read(
        history in history(),
        events_a_block in 1..5_usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let recording = recorded(&history.events, events_a_block);
        let (whole, _) = read(&recording);
        let cut = cut.index(recording.len());
        let (items, error) = read(&recording[..cut]);
        prop_assert!(whole.starts_with(&items));
        prop_assert!(items.len() < whole.len());
        match error {
            Some(ReadError::NotARecording) => prop_assert!(cut < MAGIC.len()),
            Some(ReadError::Cut { at }) => prop_assert!(at <= cut as u64, "cut at {cut}, said {at}"),
            Some(error) => prop_assert!(false, "{error:?}"),
            // Between two blocks.
            None => prop_assert!(items.len().is_multiple_of(events_a_block) || items.len() + 1 == whole.len()),
        }
    }

    #[test]
    fn a_recording_with_a_wrong_byte_is_read_up_to_that_block(
        history in history(),
        at in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
    ) {
        let recording = recorded(&history.events, 3);
        let (whole, _) = read(&recording);
        let mut damaged = recording.clone();
        let at = at.index(recording.len());
        damaged[at] ^= flip;
        let (items, error) = read(&damaged);
        prop_assert!(error.is_some(), "byte {at} was not missed");
        prop_assert!(whole.starts_with(&items));
        let start = recorded(&[], 1);
        if at >= start.len() {
            prop_assert!(read(&recording[..at]).0.len() == items.len());
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), is_headed in any::<bool>()) {
        let (items, error) = read(&bytes);
        prop_assert!(items.is_empty() && error.is_some());

        // With a good header and a good checksum, so that the records themselves are looked at.
        let mut recording = recorded(&[], 1);
        if !is_headed {
            recording.truncate(16);
        }
        recording.truncate(recording.len() - if is_headed { ending_block().len() } else { 0 });
        recording.extend_from_slice(&block(&bytes));
        if let Ok(reader) = Reader::open(recording.as_slice()) {
            let mut replay = Replay::new(reader.header());
            for item in reader.flatten() {
                if let Item::Event(now, event) = item {
                    replay.step(now, event);
                }
            }
        }
    }
}

fn block(records: &[u8]) -> Vec<u8> {
    let mut block = (records.len() as u32).to_le_bytes().to_vec();
    block.extend_from_slice(&crc32fast::hash(records).to_le_bytes());
    block.extend_from_slice(records);
    block
}

fn ending_block() -> Vec<u8> {
    let mut records = Vec::new();
    append(&mut records, &(u64::MAX, Entry::Ended(Ending::Stopped)));
    block(&records)
}

#[test]
fn a_length_that_nothing_follows_is_a_cut_and_one_too_long_is_damage() {
    let mut recording = recorded(&[], 1);
    let begins = recording.len() - ending_block().len();
    recording.truncate(begins);
    for (length, is_cut) in [(BLOCK_BYTES_MAX as u32, true), (BLOCK_BYTES_MAX as u32 + 1, false), (0, false)] {
        let mut hostile = recording.clone();
        hostile.extend_from_slice(&length.to_le_bytes());
        hostile.extend_from_slice(&[0; 20]);
        match read(&hostile) {
            (items, Some(ReadError::Cut { at })) => assert!(is_cut && items.is_empty() && at == begins as u64),
            (items, Some(ReadError::Damaged { at, .. })) => assert!(!is_cut && items.is_empty() && at == begins as u64),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_recording_of_another_version_says_which() {
    let mut recording = recorded(&[], 1);
    recording[8] += 1;
    let (_, Some(error)) = read(&recording) else { panic!("no error") };
    let text = error.to_string();
    assert!(text.contains("format 3") && text.contains("with a node of the version that wrote it"), "{text}");
}

#[test]
fn at_the_limit_a_recording_ends_and_says_so() {
    let mut history = History::begin();
    history.submit(50, 6);
    while !history.under_way.is_empty() {
        history.finish(4);
    }
    let unlimited = recorded(&history.events, usize::MAX).len() as u64;
    let start = recorded(&[], 1).len() as u64;
    for limit in [ENDING_BYTES_MAX, 200, 500, unlimited - start] {
        let mut encoder = Encoder::new(&header(), limit);
        let endings: Vec<Ending> =
            history.events.iter().filter_map(|(now, event)| encoder.record(*now, event)).collect();
        assert_eq!(endings, [Ending::LimitReached]);
        assert!(encoder.has_ended());
        encoder.end(Time(0), Ending::Stopped);
        let mut recording = Vec::new();
        encoder.take(&mut recording);
        assert!(recording.len() as u64 <= start + limit);
        let (items, error) = read(&recording);
        assert!(error.is_none());
        let (Some(Item::Ended(_, Ending::LimitReached)), events) = (items.last(), &items[..items.len() - 1]) else {
            panic!("{items:?}")
        };
        assert!(events.len() < history.events.len());
        assert!(read(&recorded(&history.events, 1)).0.starts_with(events));
        // What was taken counts, and nothing comes after the end.
        encoder.take(&mut recording);
        assert!(recording.is_empty());
    }
}

#[test]
fn an_event_that_is_too_large_ends_the_recording() {
    let mut encoder = Encoder::new(&header(), u64::MAX);
    let name = "x".repeat(BLOCK_BYTES_MAX);
    let large = Event::FromClient { client: ClientId(0), message: FromClient::OpenJob { name, token: 0 } };
    assert_eq!(encoder.record(Time(1), &Event::Tick), None);
    assert_eq!(encoder.record(Time(2), &large), Some(Ending::TooLarge));
    assert_eq!(encoder.record(Time(3), &Event::Tick), None);
    let mut recording = Vec::new();
    encoder.take(&mut recording);
    let (items, error) = read(&recording);
    assert!(error.is_none());
    assert_eq!(items, [Item::Event(Time(1), Event::Tick), Item::Ended(Time(2), Ending::TooLarge)]);
}

#[test]
fn a_task_takes_few_bytes() {
    const TASKS: u32 = 2000;
    let mut history = History::begin_with(Config { tasks_max: 0, ..header().config });
    // Each has the one before it as its input.
    history.submit(TASKS, 1);
    while !history.under_way.is_empty() {
        history.now.0 += 100;
        history.finish(4);
        let done = history.events.len() as u32;
        history.client(FromClient::Release { tasks: vec![task(done / 2)] });
    }
    assert!(history.events.len() as u32 > 2 * TASKS);
    let bytes = recorded(&history.events, usize::MAX).len();
    assert!(bytes < 40 * TASKS as usize, "{} bytes a task", bytes / TASKS as usize);
}

#[test]
fn a_story_tells_of_every_change_with_its_worker_and_attempt() {
    let mut history = History::begin();
    let at = |history: &mut History, now| history.now = Time(now);
    at(&mut history, 1_000_000);
    history.submit(1, 1);
    at(&mut history, 1_500_000);
    history.event(Event::WorkerLost { worker: WorkerId(0) });
    history.under_way.clear();
    at(&mut history, 1_600_000);
    history.join(1);
    at(&mut history, 1_700_000);
    history.fail(0);
    at(&mut history, 2_345_678);
    history.fail(0);
    at(&mut history, 2_400_000);
    history.submit(1, 4);
    at(&mut history, 2_500_000);
    history.finish(4);
    at(&mut history, 3_000_000);
    history.client(FromClient::Release { tasks: vec![task(0)] });

    let recording = recorded(&history.events, 4);
    let reader = Reader::open(recording.as_slice()).unwrap();
    let mut replay = Replay::new(reader.header()).watching(task(0));
    let mut story = Vec::new();
    for item in reader {
        if let Item::Event(now, event) = item.unwrap() {
            story.extend(replay.step(now, event).map(|moment| moment.to_string()));
        }
    }
    assert_eq!(replay.kind_name(), "other");
    let expected = "     1.000000 s  client 0 submitted 1 task of job 4294967295
                -> processing on w0 (worker 0), attempt 1
                   w0 (worker 0) is given attempt 1
     1.500000 s  w0 (worker 0) was lost
                -> no-worker
     1.600000 s  w1 (worker 1) joined
                -> processing on w1 (worker 1), attempt 2
                   w1 (worker 1) is given attempt 2
     1.700000 s  w1 (worker 1) says: 4294967295.0 failed: it broke, attempt 2
                -> processing on w1 (worker 1), attempt 3
                   w1 (worker 1) is given attempt 3
     2.345678 s  w1 (worker 1) says: 4294967295.0 failed: it broke, attempt 3
                -> erred
                   client 0 is told that it has failed: task work (4294967295.0) on node 000000000000 failed: it broke
     3.000000 s  client 0 released 1 result
                -> forgotten";
    assert_eq!(story.join("\n"), expected);

    let summary = replay.summary().clone();
    assert_eq!((summary.events, summary.last), (history.events.len() as u64, Time(3_000_000)));
    assert_eq!((summary.clients, summary.attempts, summary.results_lost), ((1, 0), (4, 1, 2), 0));
    let (lost, other) = (&summary.workers[&WorkerId(0)], &summary.workers[&WorkerId(1)]);
    assert_eq!((lost.joined, lost.lost), (Time(10), Some(Time(1_500_000))));
    assert_eq!((other.joined, other.lost, other.finished, other.run_us), (Time(1_600_000), None, 1, 4000));
    assert_eq!(summary.jobs[&JobId(u32::MAX)].tasks, 2);
    assert_eq!(summary.failures.len(), 1);
    assert_eq!(summary.failures[&task(0)].1, 1);
    assert_eq!((replay.forgotten(), replay.scheduler().counts().get(TaskState::Memory)), (1, 1));
}

#[test]
fn what_names_the_task_and_changes_nothing_is_told_too() {
    let mut history = History::begin();
    history.submit(1, 1);
    let stale = FromWorker::Finished { task: task(0), attempt: Attempt(9), nbytes: 1, run_us: 1, inline: None };
    history.event(Event::FromWorker { worker: WorkerId(0), message: stale });
    history.event(Event::Tick);
    let mut replay = Replay::new(&header()).watching(task(0));
    let moments: Vec<_> = history.events.iter().filter_map(|(now, event)| replay.step(*now, event.clone())).collect();
    assert_eq!(moments.len(), 2, "{moments:?}");
    assert!(moments[0].is_change && !moments[1].is_change);
    assert!(moments[1].to_string().contains("still processing"), "{}", moments[1]);
    assert_eq!(replay.summary().attempts, (1, 0, 0));
}
