//! `node actors`: the actors that hold names in a running cluster.

use clap::Args;
use serde::Serialize;
use starling_actors::{ActorState, ActorStatus};

use super::ask::connect;
use super::connection::ConnectionOptions;
use super::listing::{Align, Output, table};
use super::{CliError, block_on, print_text};

/// Which cluster, and how its actors are listed.
#[derive(Debug, Args)]
pub(super) struct ActorsOptions {
    /// How they are printed: for people, or as an object a line.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
}

/// An actor, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    node: Option<String>,
    node_name: Option<&'a str>,
    state: &'static str,
    restarts: u32,
    problem: Option<&'a str>,
}

/// Prints the actors.
pub(super) fn actors(options: &ActorsOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let listed = cluster.actors_list().await;
        cluster.shutdown().await;
        print_text(&show(&listed?, options.output)?)
    })
}

/// The actors, as they are printed, with the last line's end.
fn show(actors: &[ActorStatus], output: Output) -> Result<String, CliError> {
    match output {
        Output::Json => actors.iter().map(|actor| Ok(json(actor)? + "\n")).collect(),
        Output::Table if actors.is_empty() => Ok("no actor holds a name\n".to_owned()),
        Output::Table => Ok(table_of(actors)),
    }
}

fn json(actor: &ActorStatus) -> Result<String, CliError> {
    let shown = Shown {
        name: &actor.name,
        type_name: &actor.type_name,
        node: actor.node.map(|node| node.hex()),
        node_name: actor.node_name.as_deref(),
        state: state(actor.state),
        restarts: actor.restarts,
        problem: actor.problem.as_deref(),
    };
    serde_json::to_string(&shown).map_err(|error| CliError::Print(error.into()))
}

fn table_of(actors: &[ActorStatus]) -> String {
    use Align::{Left, Right};
    let columns =
        [("NAME", Left), ("TYPE", Left), ("NODE", Left), ("STATE", Left), ("RESTARTS", Right), ("PROBLEM", Left)];
    let rows: Vec<[String; 6]> = actors
        .iter()
        .map(|actor| {
            let id = actor.node.map(|node| node.to_string()).unwrap_or_default();
            let node = actor.node_name.clone().filter(|name| !name.is_empty()).unwrap_or(id);
            let (state, restarts) = (state(actor.state).to_owned(), actor.restarts.to_string());
            let problem = actor.problem.clone().unwrap_or_default();
            [actor.name.clone(), actor.type_name.clone(), node, state, restarts, problem]
        })
        .collect();
    table(columns, &rows)
}

fn state(state: ActorState) -> &'static str {
    match state {
        ActorState::Registered => "registered",
        ActorState::Starting => "starting",
        ActorState::Running => "running",
        ActorState::Waiting => "waiting",
        ActorState::Stopping => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::NodeId;

    use super::*;

    fn actor(name: &str, state: ActorState) -> ActorStatus {
        ActorStatus {
            name: name.to_owned(),
            type_name: "my::Counter".to_owned(),
            node: Some(NodeId([0xab; 32])),
            node_name: Some("rack1-a".to_owned()),
            state,
            restarts: 0,
            problem: None,
        }
    }

    #[test]
    fn actors_are_listed_with_their_types_and_nodes() {
        let waiting = ActorStatus {
            node: None,
            node_name: None,
            restarts: 12,
            problem: Some("it\npanicked".to_owned()),
            ..actor("b", ActorState::Waiting)
        };
        let actors = [actor("hits", ActorState::Running), waiting];
        let expected = "\
NAME  TYPE         NODE     STATE    RESTARTS  PROBLEM
hits  my::Counter  rack1-a  running         0
b     my::Counter           waiting        12  it\u{fffd}panicked
";
        assert_eq!(show(&actors, Output::Table).unwrap(), expected);
        let lines = show(&actors, Output::Json).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = serde_json::json!({
            "name": "hits", "type": "my::Counter", "node": "ab".repeat(32), "node_name": "rack1-a", "state": "running",
            "restarts": 0, "problem": null
        });
        assert_eq!(lines[0], expected);
        assert_eq!((lines.len(), &lines[1]["node"]), (2, &serde_json::Value::Null));
    }

    #[test]
    fn no_actors_are_a_sentence_for_people_and_nothing_for_programs() {
        assert_eq!(show(&[], Output::Table).unwrap(), "no actor holds a name\n");
        assert_eq!(show(&[], Output::Json).unwrap(), "");
    }
}
