//! Who is let in, who is not, and what a stranger gets: nothing.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::Swarm;
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use starling_runtime::mesh::{MeshError, MeshEvent, MeshLimits, Refusal, peer_of};
use starling_runtime::secret::ClusterSecret;

use crate::common::{Node, Setup, cluster, until, within};

const ADMIT: StreamProtocol = StreamProtocol::new("/starling/admit/1");

async fn refused(joiner: Setup, at: &mut Node) -> (Refusal, String, Refusal) {
    let joiner = joiner.start().await;
    let error = joiner.mesh.join(&at.addr()).await.unwrap_err();
    let text = error.to_string();
    let MeshError::Refused { refusal, .. } = error else { panic!("{error:?}") };
    let theirs = at
        .event(|event| match event {
            MeshEvent::Refused { refusal, .. } => Some(refusal),
            _ => None,
        })
        .await;
    assert_eq!(joiner.mesh.members().len(), 1);
    (refusal, text, theirs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_a_secret_form_a_cluster() {
    let secret = ClusterSecret::generate();
    let setups = vec![Setup::scheduler(), Setup::default(), Setup::dial_out_only()];
    cluster(setups.into_iter().map(|setup| setup.secret(&secret)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_refused_and_the_error_says_what_to_copy() {
    let mut node = Setup::scheduler().secret(&ClusterSecret::generate()).start().await;
    let (ours, text, theirs) = refused(Setup::default().secret(&ClusterSecret::generate()), &mut node).await;
    assert_eq!((ours, theirs), (Refusal::WrongSecret, Refusal::Unproven));
    assert!(text.contains("scp user@scheduler:~/.config/starling/secret ~/.config/starling/secret"), "{text}");
    assert_eq!(node.mesh.members().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insecure_and_secret_do_not_mix_and_the_error_says_so() {
    let secret = ClusterSecret::generate();
    let mut node = Setup::scheduler().secret(&secret).start().await;
    let (ours, text, theirs) = refused(Setup::default(), &mut node).await;
    assert_eq!((ours, theirs), (Refusal::SecretNeeded, Refusal::TheyAreInsecure));
    assert!(text.contains("--insecure") && text.contains("scp"), "{text}");
    let mut node = Setup::scheduler().start().await;
    let (ours, text, theirs) = refused(Setup::default().secret(&secret), &mut node).await;
    assert_eq!((ours, theirs), (Refusal::TheyAreInsecure, Refusal::SecretNeeded));
    assert!(text.contains("--insecure"), "{text}");
}

/// A libp2p program that is no starling node.
struct Stranger {
    control: libp2p_stream::Control,
    peer: PeerId,
    closed: tokio::sync::watch::Receiver<bool>,
}

impl Stranger {
    async fn connect(addr: &Multiaddr, peer: PeerId) -> Stranger {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        let control = swarm.behaviour().new_control();
        swarm.dial(addr.clone()).unwrap();
        let (connected, connection) = tokio::sync::oneshot::channel();
        let (tell, closed) = tokio::sync::watch::channel(false);
        let mut connected = Some(connected);
        tokio::spawn(async move {
            loop {
                match swarm.select_next_some().await {
                    libp2p::swarm::SwarmEvent::ConnectionEstablished { .. } => {
                        connected.take().map(|connected| connected.send(()));
                    }
                    libp2p::swarm::SwarmEvent::ConnectionClosed { .. } => drop(tell.send(true)),
                    _ => {}
                }
            }
        });
        within("a connection", connection).await.unwrap();
        Stranger { control, peer, closed }
    }

    async fn open(&mut self, protocol: &'static str) -> Result<libp2p::Stream, libp2p_stream::OpenStreamError> {
        within(protocol, self.control.open_stream(self.peer, StreamProtocol::new(protocol))).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_served_nothing_and_is_disconnected() {
    let limits = MeshLimits { handshake_timeout: Duration::from_millis(1500), ..MeshLimits::default() };
    for secret in [Some(ClusterSecret::generate()), None] {
        let setup = Setup { secret: secret.clone(), limits: limits.clone(), ..Setup::scheduler() };
        let node = setup.start().await;
        let mut stranger = Stranger::connect(&node.addr(), peer_of(&node.id()).unwrap()).await;
        for protocol in ["/starling/link/1", "/starling/bulk/1", "/starling/relay/1", "/starling/gossip/1", "/other"] {
            let error = stranger.open(protocol).await.unwrap_err();
            assert!(matches!(error, libp2p_stream::OpenStreamError::UnsupportedProtocol(_)), "{protocol}: {error}");
        }
        // When it begins the handshake with rubbish it gets no byte, and the connection ends.
        let mut stream = stranger.open("/starling/admit/1").await.unwrap();
        let rubbish = stream.write_all(&[b'x'; 4096]).await;
        let mut heard = Vec::new();
        let ended = within("the end", stream.read_to_end(&mut heard)).await;
        assert!(heard.is_empty(), "{rubbish:?} {ended:?}: it was told {heard:?}");
        within("the disconnect", stranger.closed.wait_for(|closed| *closed)).await.unwrap();
        assert_eq!(node.mesh.members().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_says_nothing_is_disconnected_in_time() {
    let limits = MeshLimits { handshake_timeout: Duration::from_millis(300), ..MeshLimits::default() };
    let node = Setup { limits, ..Setup::scheduler() }.start().await;
    let mut stranger = Stranger::connect(&node.addr(), peer_of(&node.id()).unwrap()).await;
    within("the disconnect", stranger.closed.wait_for(|closed| *closed)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_bounded_in_number_and_members_get_in_once_they_are_gone() {
    let limits =
        MeshLimits { strangers_max: 4, handshake_timeout: Duration::from_millis(1000), ..MeshLimits::default() };
    let node = Setup { limits, ..Setup::scheduler() }.start().await;
    let port = node.addr().to_string().rsplit('/').next().unwrap().parse::<u16>().unwrap();
    // Given sockets that say nothing at all, more than may wait.
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // Then all are closed in time, those beyond the bound at once.
    for mut socket in sockets {
        let mut byte = [0; 64];
        within("the end of a silent socket", async {
            while tokio::io::AsyncReadExt::read(&mut socket, &mut byte).await.is_ok_and(|count| count > 0) {}
        })
        .await;
    }
    let member = Setup::default().start().await;
    member.join(&node).await;
    until("the member", || node.mesh.members().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_sends_much_is_disconnected_before_its_time_is_up() {
    let limits = MeshLimits { handshake_timeout: Duration::from_secs(600), ..MeshLimits::default() };
    let node = Setup { limits, ..Setup::scheduler() }.start().await;
    let mut stranger = Stranger::connect(&node.addr(), peer_of(&node.id()).unwrap()).await;
    let mut streams = Vec::new();
    // Given streams on which it may send 256 KiB each before anybody reads.
    while let Ok(mut stream) = stranger.control.open_stream(stranger.peer, ADMIT).await {
        let sent = tokio::time::timeout(Duration::from_millis(100), stream.write_all(&[0; 40_000])).await;
        drop(sent);
        streams.push(stream);
        assert!(streams.len() < 100, "a stranger could send 100 times 40 kB");
    }
    within("the disconnect", stranger.closed.wait_for(|closed| *closed)).await.unwrap();
}
