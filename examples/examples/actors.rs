//! Actors and tasks in one program: tasks tell an actor what they have found, and the actor has tasks look further.
//!
//! ```text
//! cargo run --release --example actors
//! ```
//!
//! The actor is spawned by the cluster, on one of its nodes, and made anew from its last snapshot if that node is lost.

#![allow(clippy::print_stdout, reason = "what the example shows is its output")]

use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use starling::{ActorEnv, BoxError, Cluster, RemoteActor, RemoteAddr, RemoteError, RemoteMessage, Snapshot};

/// Keeps the number with the longest Collatz sequence that anybody has told it of.
struct Record {
    number: u64,
    steps: u64,
    env: ActorEnv,
}

impl Actor for Record {
    type Context = Context<Record>;
}

#[starling::actor(snapshot)]
impl RemoteActor for Record {
    /// The number to begin with.
    type Args = u64;

    fn create(number: u64, env: &ActorEnv) -> Result<Record, BoxError> {
        Ok(Record { number, steps: steps_from(number), env: env.clone() })
    }
}

impl Snapshot for Record {
    type State = (u64, u64);
    const EVERY: Duration = Duration::from_secs(1);

    fn snapshot(&self) -> (u64, u64) {
        (self.number, self.steps)
    }

    fn restore(_: u64, (number, steps): (u64, u64), env: &ActorEnv) -> Result<Record, BoxError> {
        Ok(Record { number, steps, env: env.clone() })
    }
}

/// "This number takes so many steps." Answered by the longest that is known.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "(u64, u64)")]
#[remote(Record)]
struct Found {
    number: u64,
    steps: u64,
}

impl Handler<Found> for Record {
    type Result = actix::MessageResult<Found>;

    fn handle(&mut self, Found { number, steps }: Found, _: &mut Context<Record>) -> Self::Result {
        if steps > self.steps {
            (self.number, self.steps) = (number, steps);
        }
        actix::MessageResult((self.number, self.steps))
    }
}

/// "How long is the sequence of each of these?" The actor has tasks find out, and answers when they have.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Result<Vec<u64>, String>")]
#[remote(Record)]
struct Steps(Vec<u64>);

impl Handler<Steps> for Record {
    type Result = ResponseFuture<Result<Vec<u64>, String>>;

    fn handle(&mut self, Steps(numbers): Steps, _: &mut Context<Record>) -> Self::Result {
        let env = self.env.clone();
        Box::pin(async move {
            let cluster = env.cluster().await.map_err(|error| error.to_string())?;
            let steps = cluster.map(numbers.into_iter().map(steps_of::task));
            cluster.gather(&steps).await.map_err(|error| error.to_string())
        })
    }
}

fn steps_from(number: u64) -> u64 {
    let mut at = number.max(1);
    let mut steps = 0;
    while at != 1 {
        at = if at.is_multiple_of(2) { at / 2 } else { 3 * at + 1 };
        steps += 1;
    }
    steps
}

#[starling::task]
fn steps_of(number: u64) -> u64 {
    steps_from(number)
}

/// Tells the actor of the longest sequence among these numbers.
#[starling::task]
async fn search(record: RemoteAddr<Record>, first: u64, count: u64) -> Result<(), RemoteError> {
    let longest = (first..first + count).map(|number| (steps_from(number), number)).max();
    if let Some((steps, number)) = longest {
        record.send(Found { number, steps }).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::local(2).await?;
    let record = cluster.spawn::<Record>("record", 1).await?;
    let searches = cluster.map((0..100).map(|part| search::task(record.clone(), 1 + part * 10_000, 10_000)));
    cluster.gather(&searches).await?;
    let (number, steps) = record.send(Found { number: 1, steps: 0 }).await?;
    println!("below a million {number} has the longest sequence: {steps} steps");

    let around = record.send(Steps((number - 1..=number + 1).collect())).await?.map_err(anyhow::Error::msg)?;
    println!("and its neighbours: {around:?}");
    cluster.shutdown().await;
    Ok(())
}
