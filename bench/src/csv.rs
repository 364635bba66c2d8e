//! wip
use crate::{measure::Plan, peers::Peer, report::Report};
pub(crate) fn run(_: &Plan, _: &[Peer], _: &mut Report) -> anyhow::Result<()> {
    Ok(())
}
