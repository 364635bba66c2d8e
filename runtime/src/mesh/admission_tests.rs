//! The handshake over an in-memory pipe: who is admitted, who is not, and what each side says of it.

use std::cell::Cell;

use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;

const DIALER: NodeId = NodeId([1; 32]);
const LISTENER: NodeId = NodeId([2; 32]);

struct Outcome {
    dialer: Result<(), AdmitError>,
    listener: Result<Plane, AdmitError>,
    dialer_admits: bool,
    listener_admits: bool,
}

async fn run(dialer: Option<&ClusterSecret>, listener: Option<&ClusterSecret>, known_as: NodeId) -> Outcome {
    let (near, far) = tokio::io::duplex(64);
    let (mut near, mut far) = (near.compat(), far.compat());
    let (admits, accepts) = (Cell::new(false), Cell::new(false));
    let here = Parties { secret: dialer, me: DIALER, peer: LISTENER };
    let there = Parties { secret: listener, me: LISTENER, peer: known_as };
    let dialing = async {
        let outcome = dial(&mut near, &here, Plane::Bulk, || admits.set(true)).await;
        drop(near);
        outcome
    };
    let listening = async {
        let outcome = listen(&mut far, &there, || accepts.set(true)).await;
        drop(far);
        outcome
    };
    let (dialer, listener) = tokio::join!(dialing, listening);
    Outcome { dialer, listener, dialer_admits: admits.get(), listener_admits: accepts.get() }
}

fn refusal<T: fmt::Debug>(outcome: Result<T, AdmitError>) -> Refusal {
    match outcome {
        Err(AdmitError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn two_that_share_a_secret_admit_each_other_on_the_plane_that_the_dialer_named() {
    let secret = ClusterSecret::generate();
    let outcome = run(Some(&secret), Some(&secret), DIALER).await;
    outcome.dialer.unwrap();
    assert_eq!(outcome.listener.unwrap(), Plane::Bulk);
    assert!(outcome.dialer_admits && outcome.listener_admits);
}

#[tokio::test]
async fn two_without_a_secret_admit_each_other() {
    let outcome = run(None, None, DIALER).await;
    outcome.dialer.unwrap();
    outcome.listener.unwrap();
}

#[tokio::test]
async fn another_secret_is_refused_and_neither_side_admits() {
    let outcome = run(Some(&ClusterSecret::generate()), Some(&ClusterSecret::generate()), DIALER).await;
    assert_eq!(refusal(outcome.dialer), Refusal::WrongSecret);
    assert_eq!(refusal(outcome.listener), Refusal::Unproven);
    assert!(!outcome.dialer_admits && !outcome.listener_admits);
}

#[tokio::test]
async fn a_secret_and_no_secret_do_not_go_together() {
    let secret = ClusterSecret::generate();
    let outcome = run(Some(&secret), None, DIALER).await;
    assert_eq!(refusal(outcome.dialer), Refusal::TheyAreInsecure);
    assert_eq!(refusal(outcome.listener), Refusal::SecretNeeded);
    let outcome = run(None, Some(&secret), DIALER).await;
    assert_eq!(refusal(outcome.dialer), Refusal::SecretNeeded);
    assert_eq!(refusal(outcome.listener), Refusal::TheyAreInsecure);
}

#[tokio::test]
async fn a_proof_made_for_another_identity_is_worth_nothing() {
    // Given a listener to whom the transport says that the dialer is somebody else, as a relayed handshake would be.
    let secret = ClusterSecret::generate();
    let outcome = run(Some(&secret), Some(&secret), NodeId([3; 32])).await;
    assert_eq!(refusal(outcome.listener), Refusal::Unproven);
    assert!(!outcome.listener_admits && !outcome.dialer_admits);
}

#[tokio::test]
async fn a_listener_that_echoes_what_it_hears_is_refused() {
    let secret = ClusterSecret::generate();
    let (near, far) = tokio::io::duplex(1024);
    let mut near = near.compat();
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        drop(tokio::io::copy(&mut read, &mut write).await);
    });
    let parties = Parties { secret: Some(&secret), me: DIALER, peer: LISTENER };
    let outcome = dial(&mut near, &parties, Plane::Control, || panic!("admitted an echo")).await;
    assert_eq!(refusal(outcome), Refusal::Unproven);
    drop(near);
    echo.await.unwrap();
}

#[tokio::test]
async fn a_listener_proves_nothing_to_one_that_has_not_proved_itself() {
    let secret = ClusterSecret::generate();
    let (near, far) = tokio::io::duplex(1024);
    let (mut near, mut far) = (near.compat(), far.compat());
    let listening = tokio::spawn(async move {
        let parties = Parties { secret: Some(&secret), me: LISTENER, peer: DIALER };
        let outcome = listen(&mut far, &parties, || panic!("admitted a stranger")).await;
        drop(far);
        refusal(outcome)
    });
    let hello = Hello { version: PROTOCOL_VERSION, plane: Plane::Control, secret: true, nonce: [7; 32] };
    say_hello(&mut near, &hello).await.unwrap();
    say(&mut near, PROOF, [0; 32]).await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), HELLO_BYTES + 33);
    assert_eq!(heard[HELLO_BYTES], REFUSED);
    assert_eq!(listening.await.unwrap(), Refusal::Unproven);
}

#[tokio::test]
async fn other_versions_are_told_apart_from_other_programs() {
    let hello = Hello { version: PROTOCOL_VERSION + 1, plane: Plane::Control, secret: false, nonce: [7; 32] };
    for (said, expected) in [
        (hello.encode().to_vec(), Refusal::Version { ours: PROTOCOL_VERSION, theirs: PROTOCOL_VERSION + 1 }),
        (vec![b'x'; HELLO_BYTES], Refusal::Malformed),
    ] {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) = (near.compat(), far.compat());
        near.write_all(&said).await.unwrap();
        let parties = Parties { secret: None, me: LISTENER, peer: DIALER };
        assert_eq!(refusal(listen(&mut far, &parties, || ()).await), expected);
    }
}

#[tokio::test]
async fn half_a_hello_is_an_io_error_and_not_a_wait() {
    let (near, far) = tokio::io::duplex(1024);
    let (mut near, mut far) = (near.compat(), far.compat());
    near.write_all(&MAGIC).await.unwrap();
    drop(near);
    let parties = Parties { secret: None, me: LISTENER, peer: DIALER };
    assert!(matches!(listen(&mut far, &parties, || ()).await, Err(AdmitError::Io(_))));
}
