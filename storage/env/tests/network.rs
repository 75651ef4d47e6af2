//! The network, both twins: what holds for one holds for the other, and what a test does to the
//! simulated one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::time::Duration;

use esker_env::sim::{BACKLOG_MAX, PIPE_BYTES, SimNetwork};
use esker_env::{Connection, Listener, Network, Tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOUR: Duration = Duration::from_secs(3600);

async fn pair(network: &dyn Network) -> (Box<dyn Listener>, Connection, Connection) {
    let mut listener = network.listen("127.0.0.1:0").await.unwrap();
    let near = network.connect(listener.address()).await.unwrap();
    let far = listener.accept().await.unwrap();
    (listener, near, far)
}

async fn conforms(network: &dyn Network) {
    let (listener, mut near, mut far) = pair(network).await;
    near.write_all(b"there").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
    assert_eq!(near.peer(), listener.address());
    assert!(!far.peer().is_empty());

    far.write_all(b"and back").await.unwrap();
    far.shutdown().await.unwrap();
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"and back");

    let taken = network.listen(listener.address()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(taken.to_string().contains(listener.address()), "{taken}");

    let address = listener.address().to_owned();
    drop(listener);
    let refused = network.connect(&address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains(&address), "{refused}");
    let again = network.listen(&address).await.unwrap();
    assert_eq!(again.address(), address);
}

#[tokio::test]
async fn the_simulated_network_conforms() {
    conforms(&SimNetwork::new()).await;
}

#[tokio::test]
async fn tcp_conforms() {
    conforms(&Tcp).await;
}

#[tokio::test]
async fn an_address_that_is_none_is_an_error_that_names_it() {
    let error = Tcp.listen("nowhere").await.unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn an_accept_that_is_dropped_loses_no_connection() {
    let network = SimNetwork::new();
    let mut listener = network.listen("node:1").await.unwrap();
    drop(listener.accept());
    let near = network.connect("node:1").await.unwrap();
    assert_eq!(near.peer(), "node:1");
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_cut_ends_both_sides_even_while_they_wait() {
    let network = SimNetwork::new();
    let (listener, mut near, mut far) = pair(&network).await;
    let address = listener.address().to_owned();
    let mut full = network.connect(&address).await.unwrap();
    let reader = tokio::spawn(async move { near.read_u8().await.unwrap_err().kind() });
    let other_side = tokio::spawn(async move { far.read_u8().await.unwrap_err().kind() });
    let writer = tokio::spawn(async move {
        let more_than_fits = vec![0; PIPE_BYTES + 1];
        full.write_all(&more_than_fits).await.unwrap_err().kind()
    });
    tokio::task::yield_now().await;
    assert_eq!(network.cut(&address), 2);
    assert_eq!(reader.await.unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(other_side.await.unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(writer.await.unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(network.cut(&address), 0);
    network
        .connect(&address)
        .await
        .expect("only what was there is cut");
}

#[tokio::test]
async fn refusing_is_for_new_connections_alone() {
    let network = SimNetwork::new();
    let (listener, mut near, mut far) = pair(&network).await;
    network.refuse(listener.address(), true);
    let refused = network.connect(listener.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    near.write_u8(7).await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 7);
    network.refuse(listener.address(), false);
    network.connect(listener.address()).await.unwrap();
    assert_eq!(network.connections(), 2);
}

#[tokio::test]
async fn a_full_backlog_refuses() {
    let network = SimNetwork::new();
    let _listener = network.listen("node:1").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..BACKLOG_MAX {
        held.push(network.connect("node:1").await.unwrap());
    }
    let refused = network.connect("node:1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn networks_do_not_meet() {
    let (one, other) = (SimNetwork::new(), SimNetwork::new());
    let _listener = one.listen("node:1").await.unwrap();
    assert!(one.clone().connect("node:1").await.is_ok());
    assert!(other.connect("node:1").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_arrives_by_a_way_that_is_severed_until_it_is_healed() {
    let network = SimNetwork::new();
    let mut listener = network.listen("b:1").await.unwrap();
    let mut near = network.at("a").connect("b:1").await.unwrap();
    let mut far = listener.accept().await.unwrap();

    network.sever("a", "b");
    near.write_all(b"there").await.unwrap();
    let mut heard = [0; 5];
    let waits = tokio::time::timeout(HOUR, far.read_exact(&mut heard)).await;
    assert!(waits.is_err(), "it arrived: {waits:?}");
    // The other way is open.
    far.write_all(b"back").await.unwrap();
    let mut back = [0; 4];
    near.read_exact(&mut back).await.unwrap();
    // No new connection is made from either side: one needs both ways.
    let here = network.at("a");
    let again = tokio::time::timeout(HOUR, here.connect("b:1")).await;
    assert!(again.is_err(), "a connection was made");
    // Somebody else has a way of his own.
    network.at("c").connect("b:1").await.unwrap();

    let healing = network.clone();
    tokio::spawn(async move {
        tokio::time::sleep(HOUR).await;
        healing.heal("a", "b");
    });
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_paused_hears_and_says_nothing_until_all_is_let_go() {
    let network = SimNetwork::new();
    let mut listener = network.listen("b:1").await.unwrap();
    let mut near = network.at("a").connect("b:1").await.unwrap();
    let mut far = listener.accept().await.unwrap();
    let _c = network.listen("c:1").await.unwrap();

    network.pause("b");
    near.write_all(b"there").await.unwrap();
    far.write_all(b"and back").await.unwrap();
    let (mut heard, mut back) = ([0; 5], [0; 8]);
    let waits = tokio::time::timeout(HOUR, far.read_exact(&mut heard)).await;
    assert!(waits.is_err(), "it hears: {waits:?}");
    let waits = tokio::time::timeout(HOUR, near.read_exact(&mut back)).await;
    assert!(waits.is_err(), "it is heard: {waits:?}");
    for (from, to) in [("a", "b:1"), ("b", "c:1")] {
        let here = network.at(from);
        let again = tokio::time::timeout(HOUR, here.connect(to)).await;
        assert!(again.is_err(), "{from} reached {to}");
    }
    network.at("a").connect("c:1").await.unwrap();

    network.heal_all();
    far.read_exact(&mut heard).await.unwrap();
    near.read_exact(&mut back).await.unwrap();
    assert_eq!((&heard, &back), (b"there", b"and back"));
}

#[tokio::test]
async fn one_connection_breaks_and_the_others_stay() {
    let network = SimNetwork::new();
    assert!(!network.break_one(0), "there is none");
    let mut listener = network.listen("b:1").await.unwrap();
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let near = network.connect("b:1").await.unwrap();
        pairs.push((near, listener.accept().await.unwrap()));
    }
    // On its way when it breaks: lost.
    pairs[1].0.write_all(b"lost").await.unwrap();
    assert!(network.break_one(4));
    let (near, far) = &mut pairs[1];
    for end in [near, far] {
        let broken = end.read_u8().await.unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
        let broken = end.write_u8(1).await.unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    }
    pairs.remove(1);
    for (near, far) in &mut pairs {
        near.write_u8(7).await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7);
    }
    drop(pairs);
    assert!(!network.break_one(0), "nobody has one");
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_delivers_everything_late_and_in_order() {
    let network = SimNetwork::new();
    let mut listener = network.listen("b:1").await.unwrap();
    let mut near = network.at("a").connect("b:1").await.unwrap();
    let mut far = listener.accept().await.unwrap();
    network.delay("a", "b", Duration::from_secs(3));
    let sent: Vec<u8> = (0..=255).cycle().take(3 * PIPE_BYTES).collect();
    let began = tokio::time::Instant::now();
    let (written, heard) = tokio::join!(
        async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        },
        async {
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            heard
        }
    );
    let () = written;
    assert_eq!(heard, sent);
    assert!(
        began.elapsed() >= Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
}
