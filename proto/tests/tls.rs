//! Connections that prove who is there: what is let in, and what is not, whatever it does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use esker_env::sim::SimClock;
use esker_env::{Connection, Env, Listener, Network, OpenMode, Pending, replace_file};
use esker_proto::tls::{
    Connecting, HANDSHAKE_MAX, HANDSHAKES_MAX, Handshakes, Outcome, Own, RENEW_PERIOD, Secure,
    Secured, Serving, TlsError,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const AT: &str = "node:7072";

/// Machines that share a disk and a network.
struct World {
    env: Env,
    clock: Arc<SimClock>,
}

/// A CA of its own.
struct Ca {
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let (mut env, _, _) = Env::simulated(1);
        let clock = Arc::new(SimClock::following_tokio());
        env.clock = Arc::<SimClock>::clone(&clock);
        env.files.create_dir_all(Path::new("/tls")).unwrap();
        Self { env, clock }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = Path::new("/tls").join(name);
        replace_file(&*self.env.files, &path, &[IoSlice::new(text.as_bytes())]).unwrap();
        path
    }

    fn ca(&self, name: &'static str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        Ca { name, issuer }
    }

    /// A certificate of `ca` for `names`, valid in `years`, in files that begin with `file`.
    fn own(&self, ca: &Ca, file: &str, names: &[&str], years: (i32, i32)) -> Own {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca.issuer).unwrap();
        Own {
            certificate: self.write(&format!("{file}.pem"), &certificate.pem()),
            key: self.write(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    /// A listener that asks for certificates of `ca`, and what comes of its handshakes: it answers
    /// each connection with the names that it proved.
    async fn listen(&self, own: Own, ca: Option<&Ca>) -> (JoinHandle<()>, Arc<Handshakes>) {
        let listener = self.env.network.listen(AT).await.unwrap();
        let client_ca = ca.map(|ca| Path::new("/tls").join(ca.name));
        let serving = Serving { own, client_ca };
        let mut secured = Secured::new(listener, serving, &self.env).unwrap();
        let handshakes = secured.handshakes();
        let answering = tokio::spawn(async move {
            loop {
                let mut connection = secured.accept().await.unwrap();
                let names = connection.names().map(|names| names.join(" "));
                let names = names.unwrap_or_else(|| "nobody was asked".to_owned());
                tokio::spawn(async move {
                    connection.write_all(names.as_bytes()).await.unwrap();
                    connection.shutdown().await.unwrap();
                });
            }
        });
        (answering, handshakes)
    }

    fn secure(&self, own: Option<Own>, ca: &Ca) -> Secure {
        let ca = Some(Path::new("/tls").join(ca.name));
        Secure::new(&self.env, Connecting { own, ca }).unwrap()
    }
}

/// What the listener says at `AT`. Whatever it is, the listener has counted it by then.
async fn told(network: &dyn Network) -> io::Result<String> {
    let asked = async {
        let mut connection = network.connect(AT).await?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await?;
        Ok(text)
    };
    let told = asked.await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    told
}

fn failed(handshakes: &Handshakes) -> Vec<(&'static str, u64)> {
    let counts = Outcome::ALL.map(|outcome| (outcome.name(), handshakes.count(outcome)));
    counts
        .into_iter()
        .filter(|(name, count)| *count > 0 && *name != "done")
        .collect()
}

/// Handshakes that the other side has ended, whether it said so or not.
fn given_up(handshakes: &Handshakes) -> u64 {
    handshakes.count(Outcome::RefusedUs) + handshakes.count(Outcome::Broken)
}

const YEARS: (i32, i32) = (2025, 2027);

#[tokio::test(start_paused = true)]
async fn who_shows_a_certificate_goes_by_its_names() {
    let world = World::new();
    let ca = world.ca("ca.pem");
    let node = world.own(&ca, "node", &["node-2.esker", "node.esker"], YEARS);
    let agent = world.own(&ca, "agent", &["Agent.esker", "10.0.0.1"], YEARS);
    let (_answering, handshakes) = world.listen(node, Some(&ca)).await;
    let secure = world.secure(Some(agent), &ca);
    assert_eq!(*secure.names(), ["agent.esker"]);
    for name in ["node-2.esker", "node.esker"] {
        let said = told(&secure.to(name).unwrap()).await.unwrap();
        assert_eq!(said, "agent.esker");
    }
    assert_eq!(handshakes.count(Outcome::Done), 2);
    // Another node listens there than is meant; the address itself is no name of it.
    for secure in [secure.to("node-3.esker").unwrap(), secure] {
        let error = told(&secure).await.unwrap_err().to_string();
        assert!(error.starts_with("no TLS with node:7072: "), "{error}");
        assert!(error.contains("not valid for name"), "{error}");
    }
    assert_eq!(given_up(&handshakes), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_no_ca_is_said() {
    let world = World::new();
    let (ca, other) = (world.ca("ca.pem"), world.ca("other.pem"));
    let own = world.own(&ca, "agent", &["node"], YEARS);
    let (_answering, handshakes) = world.listen(own, None).await;
    let said = told(&world.secure(None, &ca)).await.unwrap();
    assert_eq!(said, "nobody was asked");
    let error = told(&world.secure(None, &other)).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(given_up(&handshakes), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_of_the_ca_is_not_let_in() {
    let world = World::new();
    let (ca, other) = (world.ca("ca.pem"), world.ca("other.pem"));
    let node = world.own(&ca, "node", &["node"], (2025, 2030));
    let (_answering, handshakes) = world.listen(node, Some(&ca)).await;

    assert!(told(&world.secure(None, &ca)).await.is_err());
    assert_eq!(failed(&handshakes), [("no_certificate", 1)]);

    // It names itself a node, by the word of another CA.
    let forged = world.own(&other, "forged", &["node-1.esker"], YEARS);
    // What it believes itself is its own matter.
    world.write(
        "both.pem",
        &(read(&world, "ca.pem") + &read(&world, "other.pem")),
    );
    let forged = Connecting {
        own: Some(forged),
        ca: Some("/tls/both.pem".into()),
    };
    let forged = Secure::new(&world.env, forged).unwrap();
    assert!(told(&forged).await.is_err());
    assert_eq!(
        failed(&handshakes),
        [("no_certificate", 1), ("untrusted", 1)]
    );

    let agent = world.own(&ca, "agent", &["agent.esker"], YEARS);
    let agent = world.secure(Some(agent), &ca);
    told(&agent).await.unwrap();
    world.clock.jump_wall(2 * 365 * 86_400_000);
    assert!(told(&agent).await.is_err());
    assert_eq!(handshakes.count(Outcome::Expired), 1);
    assert_eq!(handshakes.count(Outcome::Done), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_is_ended_at_once() {
    let world = World::new();
    let ca = world.ca("ca.pem");
    let own = world.own(&ca, "agent", &["node"], YEARS);
    let (_answering, handshakes) = world.listen(own, None).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0";
    for (at, words) in [&preface[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 64 << 10]]
        .into_iter()
        .enumerate()
    {
        let began = Instant::now();
        let mut connection = world.env.network.connect(AT).await.unwrap();
        // It is closed before all of that is taken.
        let _ = connection.write_all(words).await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(failed(&handshakes), [("plaintext", at as u64 + 1)]);
    }
    // The other way round.
    let mut plain = world.env.network.listen("node:1").await.unwrap();
    tokio::spawn(async move {
        let mut connection = plain.accept().await.unwrap();
        connection.write_all(b"HTTP/1.1 400 Bad").await.unwrap();
    });
    let secure = world.secure(None, &ca);
    let error = secure.connect("node:1").await.unwrap_err().to_string();
    let words = "no TLS with node:1: what answers there speaks no TLS";
    assert_eq!(error, words);
}

/// Bytes that a connection has given, counted.
struct Counted(Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = buffer.remaining();
        buffer.put_slice(&vec![b'G'; bytes]);
        self.0.fetch_add(bytes, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Hands out one connection, and then none.
#[derive(Debug)]
struct Once(Option<Connection>);

impl Listener for Once {
    fn address(&self) -> &str {
        AT
    }

    fn accept(&mut self) -> Pending<'_, Connection> {
        match self.0.take() {
            Some(connection) => Box::pin(async { Ok(connection) }),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn little_is_read_of_what_is_no_tls() {
    let world = World::new();
    let ca = world.ca("ca.pem");
    let own = world.own(&ca, "agent", &["node"], YEARS);
    let read = Arc::default();
    let endless = Connection::new(Counted(Arc::clone(&read)), "endless");
    let serving = Serving {
        own,
        client_ca: None,
    };
    let listener = Box::new(Once(Some(endless)));
    let mut secured = Secured::new(listener, serving, &world.env).unwrap();
    let handshakes = secured.handshakes();
    let none = tokio::time::timeout(HANDSHAKE_MAX, secured.accept()).await;
    assert!(none.is_err());
    assert_eq!(failed(&handshakes), [("plaintext", 1)]);
    let read = read.load(Ordering::SeqCst);
    assert!((1..=4096).contains(&read), "{read} bytes");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_keeps_nobody_waiting() {
    let world = World::new();
    let ca = world.ca("ca.pem");
    let own = world.own(&ca, "agent", &["node"], YEARS);
    let (_answering, handshakes) = world.listen(own, None).await;
    let secure = world.secure(None, &ca);
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 50 {
        silent.push(world.env.network.connect(AT).await.unwrap());
        tokio::task::yield_now().await;
    }
    // The oldest of them makes room.
    told(&secure).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(failed(&handshakes), [("crowded", 51)]);
    let mut last = silent.pop().unwrap();
    assert_eq!(last.read(&mut [0; 1]).await.unwrap(), 0, "it is closed");
    assert_eq!(began.elapsed(), HANDSHAKE_MAX);
    tokio::task::yield_now().await;
    let late = HANDSHAKES_MAX as u64 - 1;
    assert_eq!(failed(&handshakes), [("late", late), ("crowded", 51)]);
}

#[tokio::test(start_paused = true)]
async fn certificates_are_replaced_without_a_restart() {
    let world = World::new();
    let (old, new) = (world.ca("ca.pem"), world.ca("new.pem"));
    let own = |ca| world.own(ca, "agent", &["node", "agent.esker"], YEARS);
    let (_answering, _handshakes) = world.listen(own(&old), None).await;
    let (by_old, by_new) = (world.secure(None, &old), world.secure(None, &new));
    told(&by_old).await.unwrap();

    own(&new);
    // Not looked at yet.
    told(&by_old).await.unwrap();
    world.clock.advance(RENEW_PERIOD);
    told(&by_new).await.unwrap();
    told(&by_old).await.unwrap_err();

    // What cannot be used, or is somebody else's, leaves what was.
    let spoilt = ["no certificate".to_owned(), String::new()];
    for text in spoilt {
        world.write("agent.pem", &text);
        world.clock.advance(RENEW_PERIOD);
        told(&by_new).await.unwrap();
    }
    world.own(&new, "agent", &["node", "node-1.esker"], YEARS);
    world.clock.advance(RENEW_PERIOD);
    told(&by_new).await.unwrap();
    // Made again from what lies there in the end: its key has changed with it.
    own(&old);
    world.clock.advance(RENEW_PERIOD);
    told(&by_old).await.unwrap();

    // The same on the side that connects: it comes to believe another CA.
    world.write("ca.pem", &read(&world, "new.pem"));
    world.clock.advance(RENEW_PERIOD);
    told(&by_old).await.unwrap_err();
}

/// Whether somebody connects meanwhile or not.
#[tokio::test(start_paused = true)]
async fn it_is_told_when_what_is_shown_next_expires() {
    let end_of = |year| rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
    let world = World::new();
    let ca = world.ca("ca.pem");
    let own = |end| world.own(&ca, "node", &["node"], (2025, end));
    let listener = world.env.network.listen(AT).await.unwrap();
    let (own_of_both, client_ca) = (own(2030), None);
    let serving = Serving {
        own: own_of_both.clone(),
        client_ca,
    };
    let serves = Secured::new(listener, serving, &world.env)
        .unwrap()
        .showing();
    let connects = world.secure(Some(own_of_both), &ca).showing();
    let ends = async || [serves.not_after().await, connects.not_after().await];
    assert_eq!(ends().await, [Some(end_of(2030)); 2]);
    own(2031);
    world.clock.advance(RENEW_PERIOD);
    assert_eq!(ends().await, [Some(end_of(2031)); 2]);
    // What cannot be used is not shown.
    world.write("node.key", "no key");
    world.clock.advance(RENEW_PERIOD);
    assert_eq!(ends().await, [Some(end_of(2031)); 2]);
    assert_eq!(world.secure(None, &ca).showing().not_after().await, None);
}

/// What cannot be used yet is tried again, though nobody touches the files.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_begins_later_is_used_then() {
    let world = World::new();
    let ca = world.ca("ca.pem");
    let node = world.own(&ca, "node", &["node"], (2025, 2030));
    let (_answering, handshakes) = world.listen(node, Some(&ca)).await;
    let own = |years| world.own(&ca, "agent", &["agent.esker"], years);
    let agent = world.secure(Some(own((2025, 2027))), &ca);
    told(&agent).await.unwrap();
    own((2027, 2029));
    for _ in 0..2 {
        world.clock.advance(RENEW_PERIOD);
        told(&agent).await.unwrap();
    }
    world.clock.jump_wall(2 * 365 * 86_400_000);
    world.clock.advance(RENEW_PERIOD);
    told(&agent).await.unwrap();
    assert_eq!(handshakes.count(Outcome::Done), 4);
    assert_eq!(failed(&handshakes), []);
}

fn read(world: &World, name: &str) -> String {
    let path = Path::new("/tls").join(name);
    let file = world.env.files.open(&path, OpenMode::Read).unwrap();
    let mut text = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(&mut text, 0).unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let world = World::new();
    let (ca, _) = (world.ca("ca.pem"), world.ca("other.pem"));
    let (one, two) = (
        world.own(&ca, "one", &["one"], YEARS),
        world.own(&ca, "two", &["two"], YEARS),
    );
    let expired = world.own(&ca, "expired", &["node"], (2024, 2025));
    let refused = |own: Own, ca: &str| {
        let ca = Some(Path::new("/tls").join(ca));
        let own = Some(own);
        let refused = Secure::new(&world.env, Connecting { own, ca });
        refused.unwrap_err()
    };
    let of = |certificate: &Own, key: &Own| Own {
        certificate: certificate.certificate.clone(),
        key: key.key.clone(),
    };
    let mixed = refused(of(&one, &two), "ca.pem");
    assert!(matches!(mixed, TlsError::Unfit { .. }), "{mixed}");
    let stranger = refused(one.clone(), "other.pem");
    assert!(matches!(stranger, TlsError::Stranger { .. }), "{stranger}");
    let late = refused(expired, "ca.pem").to_string();
    assert!(
        late.contains("expired.pem is refused by /tls/ca.pem"),
        "{late}"
    );
    let none = refused(one.clone(), "none.pem").to_string();
    assert!(none.starts_with("/tls/none.pem cannot be read: "), "{none}");
    let swapped = Own {
        certificate: one.key.clone(),
        key: one.certificate.clone(),
    };
    let swapped = refused(swapped, "ca.pem").to_string();
    assert!(
        swapped.contains("one.key is no PEM file with certificates"),
        "{swapped}"
    );
    world.write("long.pem", &"x".repeat((1 << 20) + 1));
    let long = refused(one, "long.pem");
    assert!(
        matches!(
            long,
            TlsError::TooLong {
                bytes: 1_048_577,
                ..
            }
        ),
        "{long}"
    );
}

#[tokio::test]
async fn nobody_listens_on_a_network_that_connects() {
    let world = World::new();
    let secure = world.secure(None, &world.ca("ca.pem"));
    let error = secure.listen(AT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
