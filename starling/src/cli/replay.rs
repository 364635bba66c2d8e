//! `node replay`: what a record tells.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use clap::Args;
use starling_core::ids::{TaskId, Time};
use starling_core::record::replay::Replay;
use starling_core::record::{Ending, Header, Item, ReadError, Reader};
use starling_core::scheduler::TaskState;

use super::CliError;
use super::parse::parse_task;

/// How many workers, jobs and failures are listed; of others the number is given.
const LISTED_MAX: usize = 50;

/// What to read, and whose story to tell.
#[derive(Debug, Args)]
pub(super) struct ReplayOptions {
    /// The record.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The task whose story is told, as it is printed; without it, what the record holds.
    #[arg(value_name = "TASK", value_parser = parse_task)]
    task: Option<TaskId>,
}

/// How a record ends.
enum End {
    Recorded(Ending),
    /// Without a word.
    Open,
    /// In the middle.
    Error(ReadError),
}

/// Reads the record and tells.
pub(super) fn replay(options: &ReplayOptions) -> Result<(), CliError> {
    let failed = |error| CliError::Record { file: options.file.clone(), error };
    let file = File::open(&options.file).map_err(|error| failed(error.into()))?;
    let reader = Reader::open(BufReader::new(file)).map_err(failed)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let end = match options.task {
        None => tell_summary(reader, &mut out),
        Some(task) => tell_story(reader, task, &mut out)?,
    };
    match end.and_then(|end| out.flush().map(|()| end)) {
        // A scheduler that was killed leaves its record cut, which is what records are for.
        Ok(End::Recorded(_) | End::Open | End::Error(ReadError::Cut { .. })) => Ok(()),
        Ok(End::Error(error)) => Err(failed(error)),
        // Whoever read this has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CliError::Print(error)),
    }
}

fn tell_summary(reader: Reader<impl io::Read>, out: &mut impl Write) -> io::Result<End> {
    let header = reader.header().clone();
    let mut replay = Replay::new(&header);
    let end = run(reader, |now, event| {
        replay.step(now, event);
        Ok(())
    })?;
    write_summary(out, &header, &mut replay, &end)?;
    Ok(end)
}

/// The first error is that the task is not there, the second that nothing can be written.
fn tell_story(reader: Reader<impl io::Read>, task: TaskId, out: &mut impl Write) -> Result<io::Result<End>, CliError> {
    let mut replay = Replay::new(reader.header()).watching(task);
    let mut is_known = false;
    let end = run(reader, |now, event| {
        let Some(moment) = replay.step(now, event) else { return Ok(()) };
        if !is_known {
            is_known = true;
            match replay.kind_name() {
                "" => writeln!(out, "task {task}")?,
                name => writeln!(out, "task {name} ({task})")?,
            }
        }
        writeln!(out, "{moment}")
    });
    if !is_known && end.is_ok() {
        return Err(CliError::NotRecorded(task));
    }
    Ok(end.and_then(|end| {
        writeln!(out, "{:>13} s  {end}", Seconds(replay.summary().last).to_string())?;
        writeln!(out, "{}", replay.scheduler().explain(task))?;
        Ok(end)
    }))
}

/// Gives each event to `step`, as far as the record can be read.
fn run(
    reader: Reader<impl io::Read>,
    mut step: impl FnMut(Time, starling_core::scheduler::Event) -> io::Result<()>,
) -> io::Result<End> {
    for item in reader {
        match item {
            Ok(Item::Event(now, event)) => step(now, event)?,
            Ok(Item::Ended(_, ending)) => return Ok(End::Recorded(ending)),
            Err(error) => return Ok(End::Error(error)),
        }
    }
    Ok(End::Open)
}

fn write_summary(out: &mut impl Write, header: &Header, replay: &mut Replay, end: &End) -> io::Result<()> {
    let forgotten = replay.forgotten();
    let counts = replay.scheduler().counts();
    let summary = replay.summary();
    write!(out, "recorded: {} events in {} s", summary.events, Seconds(summary.last))?;
    if header.started_unix_ms > 0 {
        write!(out, " from {}", Utc(header.started_unix_ms))?;
    }
    writeln!(out, "\nends:     {end}")?;

    let gone = summary.workers.values().filter(|worker| worker.lost.is_some()).count();
    writeln!(out, "workers:  {} joined, {gone} lost or left", summary.workers.len())?;
    for (id, worker) in summary.workers.iter().take(LISTED_MAX) {
        write!(out, "  worker {}: {}, node {}, {} threads, ", id.0, worker.name, worker.node, worker.nthreads)?;
        match worker.lost {
            Some(lost) => write!(out, "from {} s to {} s", Seconds(worker.joined), Seconds(lost))?,
            None => write!(out, "from {} s", Seconds(worker.joined))?,
        }
        writeln!(out, ", {} results in {} s", worker.finished, Seconds(Time(worker.run_us)))?;
    }
    write_more(out, summary.workers.len())?;

    let (connected, gone) = summary.clients;
    writeln!(out, "clients:  {connected} connected, {gone} gone")?;
    writeln!(out, "jobs:     {} opened, {} submissions refused", summary.jobs.len(), summary.submissions_refused)?;
    for (id, job) in summary.jobs.iter().take(LISTED_MAX) {
        writeln!(out, "  job {}: {}, client {}, {} tasks", id.0, job.name, job.client.0, job.tasks)?;
    }
    write_more(out, summary.jobs.len())?;

    write!(out, "tasks:    {} submitted; at the end ", counts.total() + forgotten)?;
    for state in STATES {
        if counts.get(state) > 0 {
            write!(out, "{} {state}, ", counts.get(state))?;
        }
    }
    writeln!(out, "{forgotten} forgotten")?;
    let (given, finished, failed) = summary.attempts;
    writeln!(out, "attempts: {given} given to workers, {finished} finished, {failed} failed")?;
    writeln!(out, "lost:     {} results that a client held, and that were computed again", summary.results_lost)?;
    writeln!(out, "failures: {} tasks", summary.failures.len() as u64 + summary.failures_more)?;
    for (failure, told) in summary.failures.values().take(LISTED_MAX) {
        writeln!(out, "  {failure} ({told} results)")?;
    }
    write_more(out, summary.failures.len() + summary.failures_more as usize)
}

/// All states that are counted.
const STATES: [TaskState; 7] = [
    TaskState::Released,
    TaskState::Waiting,
    TaskState::Queued,
    TaskState::NoWorker,
    TaskState::Processing,
    TaskState::Memory,
    TaskState::Erred,
];

fn write_more(out: &mut impl Write, count: usize) -> io::Result<()> {
    if count > LISTED_MAX { writeln!(out, "  and {} more", count - LISTED_MAX) } else { Ok(()) }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Recorded(ending) => write!(f, "{ending}"),
            End::Open => write!(f, "without an end: the scheduler was killed, or still runs"),
            End::Error(error) => write!(f, "{error}; this is what came before"),
        }
    }
}

/// A time since the scheduler's start, in seconds.
struct Seconds(Time);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.0 / 1_000_000, self.0.0 % 1_000_000)
    }
}

/// Milliseconds since 1970 as a date and a time of day.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400_000, self.0 / 1000 % 86_400);
        // Years begin in March here, so that the day that some have more is the last.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_a_date() {
        for (millis, date) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_732_550_413_000, "2024-11-25 16:00:13 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(millis).to_string(), date);
        }
    }
}
