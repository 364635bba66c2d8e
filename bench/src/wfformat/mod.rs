//! `bench wfformat FILE`: a workflow instance of WfCommons, replayed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::measure::{Plan, Repeat, median};
use crate::peers::Peer;
use crate::report::{Line, Report, SIZE, STARLING, tell};
use crate::tasks::connected;

mod instance;
mod replay;

use instance::Workflow;
use replay::{Replay, Scale};

/// The subcommand's name in the lines.
const BENCH: &str = "wfformat";
const UNIT: &str = "s";
/// How long all tasks together take, and how much they give, if the command line does not say.
const WORK_S: f64 = 4.0;
const WORK_S_QUICK: f64 = 1.0;
const OUTPUT_BYTES: f64 = 64e6;

/// What is to be replayed, and how large.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) file: PathBuf,
    pub(crate) scale: Option<f64>,
    pub(crate) bytes_scale: Option<f64>,
}

/// Measures the instance.
pub(crate) fn run(plan: &Plan, instance: &Instance, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let file = instance.file.display();
    let workflow = instance::read(&instance.file)?;
    let scale = scale(&workflow, instance, plan.quick);
    let replay = Replay::new(&workflow, scale).with_context(|| file.to_string())?;
    for peer in peers {
        tell(format_args!("{BENCH}: {peer} replays no workflows here"));
    }
    let case = instance.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if !plan.wants(&case) {
        return Ok(());
    }
    tell(format_args!("{BENCH}: {case}: {} tasks, {:.1} s of work", replay.tasks(), replay.work_s()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let line = match runtime.block_on(measure(plan, &case, &replay)) {
        Ok(line) => line.with_figure("scale", scale.time).with_figure("bytes_scale", scale.bytes),
        Err(error) => Line::failed(BENCH, case, STARLING, UNIT, format!("{error:#}")),
    };
    let unsized_files = match workflow.unsized_files {
        0 => String::new(),
        count => format!("{count} output files have no size, and count as empty"),
    };
    report.push(line.note(unsized_files));
    Ok(())
}

/// The scale of the command line, or one that makes the replay some seconds long.
fn scale(workflow: &Workflow, instance: &Instance, quick: bool) -> Scale {
    let work_s: f64 = workflow.tasks.iter().map(|task| task.run_s).sum();
    let nbytes: f64 = workflow.tasks.iter().map(|task| task.nbytes).sum();
    let wanted_s = if quick { WORK_S_QUICK } else { WORK_S };
    let time = instance.scale.unwrap_or(if work_s > 0.0 { wanted_s / work_s } else { 1.0 });
    let bytes = instance.bytes_scale.unwrap_or(if nbytes > OUTPUT_BYTES { OUTPUT_BYTES / nbytes } else { 1.0 });
    Scale { time, bytes }
}

async fn measure(plan: &Plan, case: &str, replay: &Replay) -> anyhow::Result<Line> {
    let bound = replay.lower_bound_s(plan.parallelism());
    let patience = plan.timeout() + Duration::from_secs_f64(4.0 * bound);
    let connected = connected(plan).await?;
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut wrong = None;
    for number in 0.. {
        if !repeat.wants_more() || wrong.is_some() {
            break;
        }
        let run = replay.run(&connected.cluster, plan.workers as usize, number);
        match tokio::time::timeout(patience, run).await {
            Ok(Ok(makespan)) => repeat.add(makespan),
            Ok(Err(error)) => wrong = Some(format!("{error:#}{}", connected.nodes.last_words())),
            Err(_) => wrong = Some(format!("no answer within {} s", patience.as_secs())),
        }
    }
    let measured = repeat.finish();
    let makespan = median(&measured.values);
    let mut line = Line::new(BENCH, case, STARLING, UNIT, &measured)
        .wrong(wrong.is_some())
        .with(SIZE, replay.tasks())
        .with("edges", replay.edges())
        .with_figure("lower_bound", bound)
        .with_figure("critical_path", replay.critical_path_s())
        .with_figure("work", replay.work_s())
        .with_figure("output_mb", replay.nbytes() / 1e6)
        .note("makespan; lower_bound is the greater of critical_path and work / threads")
        .note(wrong.unwrap_or_default());
    if let Some(makespan) = makespan {
        line = line.with_figure("efficiency", bound / makespan);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_scale_makes_seconds_of_work_and_only_shrinks_outputs() {
        let workflow = instance::parse(include_bytes!("../../instances/diamond-1.5.json")).unwrap();
        let mut instance = Instance { file: PathBuf::from("w.json"), scale: None, bytes_scale: None };
        assert_eq!(scale(&workflow, &instance, false), Scale { time: WORK_S / 84.0, bytes: 1.0 });
        assert_eq!(scale(&workflow, &instance, true), Scale { time: WORK_S_QUICK / 84.0, bytes: 1.0 });
        let mut large = workflow.clone();
        large.tasks[0].nbytes = 1e12;
        let bytes = scale(&large, &instance, false).bytes;
        assert!((bytes * 1e12 / OUTPUT_BYTES - 1.0).abs() < 1e-4, "{bytes}");
        let mut idle = workflow.clone();
        idle.tasks.iter_mut().for_each(|task| task.run_s = 0.0);
        assert_eq!(scale(&idle, &instance, false).time, 1.0);
        instance.scale = Some(0.5);
        instance.bytes_scale = Some(2.0);
        assert_eq!(scale(&workflow, &instance, false), Scale { time: 0.5, bytes: 2.0 });
    }
}
