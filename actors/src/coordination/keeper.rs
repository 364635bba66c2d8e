//! Keeps a session at whoever holds the scheduler: one link after the other, until the client goes or nobody is found.

use std::sync::Arc;
use std::time::Duration;

use starling_core::coordination::{SessionId, ToSession};
use starling_core::ids::Term;
use starling_runtime::mesh::{Link, MeshError};
use tokio::time::{Instant, sleep, sleep_until};

use super::CoordinationError;
use super::session::{Session, Way};
use crate::link::{Hello, MessageReceiver, Welcome, frame_with};

/// How long it takes until a scheduler is looked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long one try to find it may take.
const TRY: Duration = Duration::from_secs(1);
/// How long the scheduler may take to let a session in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps it for as long as it lasts.
pub(super) async fn keep(session: Arc<Session>, id: SessionId, way: Way) {
    let ends = EndsWith(session);
    let session = &ends.0;
    let error = tokio::select! {
        error = keep_links(session, id, &way) => error,
        error = watch_leases(session) => error,
    };
    session.end(error);
}

/// A session ends with its keeper, also when the runtime does.
struct EndsWith(Arc<Session>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.end(CoordinationError::SchedulerLost("the client's runtime has ended".to_owned()));
    }
}

async fn watch_leases(session: &Session) -> CoordinationError {
    loop {
        match session.end_leases() {
            Some(next) => tokio::select! {
                () = sleep_until(next) => {}
                () = session.leases_changed.notified() => {}
            },
            None => session.leases_changed.notified().await,
        }
    }
}

/// Why a link is served no longer.
enum Over {
    /// Another one is needed.
    Link(String),
    /// None is.
    Session(CoordinationError),
}

/// A link to the node in office.
struct Opened {
    link: Link,
    term: Term,
    /// When the scheduler was asked to open it.
    asked_at: Instant,
}

async fn keep_links(session: &Session, id: SessionId, way: &Way) -> CoordinationError {
    // Until the session was told once that it is open, nothing was done for it.
    let mut is_new = true;
    let mut reason = "none was found".to_owned();
    loop {
        let opened = match connect(session, id, is_new, way, &reason).await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        match serve(session, opened, &mut is_new, way).await {
            Over::Link(why) => reason = why,
            Over::Session(error) => return error,
        }
        tracing::debug!(reason, "the link over which a client coordinates is lost");
    }
}

async fn connect(
    session: &Session,
    id: SessionId,
    is_new: bool,
    way: &Way,
    reason: &str,
) -> Result<Opened, CoordinationError> {
    let deadline = Instant::now() + way.patience;
    let hello = Hello::Session { session: id, is_new };
    let lost = |why: &str| CoordinationError::SchedulerLost(format!("{reason}, and {why}"));
    let mut why = "the mesh has no other".to_owned();
    loop {
        let asked_at = Instant::now();
        match way.leaders.open(&way.mesh, &hello, TRY.min(deadline.saturating_duration_since(asked_at))).await {
            Ok(Some((link, Welcome::Session { term }))) => return Ok(Opened { link, term, asked_at }),
            Ok(Some((_, Welcome::Refused(refusal)))) => why = refusal.to_string(),
            Ok(Some((_, Welcome::Client { .. } | Welcome::Worker { .. } | Welcome::Directory { .. }))) => {
                why = "it took it for another".to_owned()
            }
            Ok(None) => {}
            Err(error) => why = error.to_string(),
        }
        if way.mesh.is_closed() {
            return Err(lost(&MeshError::Closed.to_string()));
        }
        if way.leaders.have_left(&way.mesh) {
            return Err(lost("the cluster was shut down"));
        }
        if session.is_leaving() || Instant::now() >= deadline {
            return Err(lost(&why));
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Both directions of a link to its end.
async fn serve(session: &Session, opened: Opened, is_new: &mut bool, way: &Way) -> Over {
    let Opened { link, term, asked_at } = opened;
    let mut messages = MessageReceiver::<ToSession>::new(link.rx, term);
    let mut is_open = false;
    let mut next = Instant::now() + OPEN_TIMEOUT;
    loop {
        if is_open {
            let (to_say, at) = session.take_queue();
            next = at;
            for message in to_say {
                let sent = match frame_with(term, &message) {
                    Ok(frame) => link.tx.send(frame).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(why) = sent {
                    return Over::Link(why);
                }
            }
        }
        if session.is_leaving() {
            return Over::Session(CoordinationError::SchedulerLost("the client has gone".to_owned()));
        }
        tokio::select! {
            heard = messages.recv(link.peer) => {
                let heard = match heard {
                    Ok(Some(heard)) => heard,
                    Ok(None) => return Over::Link("its link is closed".to_owned()),
                    Err(error) => return Over::Link(error.to_string()),
                };
                for message in heard {
                    if message == ToSession::Opened && !is_open {
                        (is_open, *is_new) = (true, false);
                        session.link_opened(asked_at);
                    }
                    if let Err(error) = session.hear(message) {
                        return Over::Session(error);
                    }
                }
            }
            () = session.to_say.notified() => {}
            () = sleep_until(next) => {
                if !is_open {
                    return Over::Link("it did not let the client in in time".to_owned());
                }
            }
            () = way.leaders.later_than(term) => return Over::Link("another scheduler has taken over".to_owned()),
        }
    }
}
