//! Who calls: writers, who tails, who looks. They outlive the processes that they call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use esker_checker::Session;
use esker_client::{Client, Error, Options, ProducerOptions};
use esker_env::Env;
use esker_env::sim::SeededEntropy;
use tokio::task::{JoinHandle, JoinSet};

use crate::claimant::Claimant;
use crate::pen::Pen;
use crate::reader::{follow, look_about};
use crate::writer::{Load, Reins, Writer, Written};

pub(crate) const TOPIC: &str = "gravel";
pub(crate) const PARTITIONS: u32 = 4;
/// Time for anything that must happen once all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Sessions of those who tail, of those who look, and of those who claim; below are writers, above
/// who reads everything at the end.
const TAILING: u64 = 100;
const LOOKING: u64 = 200;
const CLAIMING: u64 = 250;
/// How many write: two of each partition.
const WRITERS: u64 = PARTITIONS as u64 * 2;
/// How many look.
const LOOKERS: u64 = 2;

/// Who calls, over all lives of those who are called.
pub(crate) struct Clients {
    pub(crate) reins: Arc<Reins>,
    writers: Vec<(bool, JoinHandle<Written>)>,
    followers: Vec<(Arc<AtomicU64>, JoinHandle<Error>)>,
    looking: Vec<JoinHandle<()>>,
    claiming: Vec<JoinHandle<()>>,
    /// Which of the endpoints each calls.
    calls: BTreeMap<Session, usize>,
    stop: Arc<AtomicBool>,
}

/// A client of the server at `endpoint`, which is there.
pub(crate) async fn connect(endpoint: &str) -> Client {
    let client = Client::connect(endpoint, Options::default(), &Env::real()).await;
    client.expect("the server is ready")
}

/// Ends `tasks`, which never end by themselves; one that has panicked fails the test.
pub(crate) async fn stop(mut tasks: JoinSet<()>) {
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Clients {
    /// Makes the topic, and starts to call: everybody one of `endpoints`, in turn.
    pub(crate) async fn come(endpoints: &[String], random: &Arc<SeededEntropy>, pen: &Pen) -> Self {
        let (client, settings) = (connect(&endpoints[0]).await, BTreeMap::new());
        let admin = client.admin();
        let topic = admin.create_topic(TOPIC, PARTITIONS, &settings).await;
        topic.expect("a topic");
        let mut clients = Self {
            reins: Arc::default(),
            writers: Vec::new(),
            followers: Vec::new(),
            looking: Vec::new(),
            claiming: Vec::new(),
            calls: BTreeMap::new(),
            stop: Arc::default(),
        };
        let mut turns = endpoints.iter().enumerate().cycle();
        let mut next = || turns.next().expect("there is one");
        for number in 0..WRITERS {
            let (at, endpoint) = next();
            clients.calls.insert(Session(number), at);
            let writer = writer(number, random, pen);
            let idempotent = writer.options.idempotent;
            let reins = Arc::clone(&clients.reins);
            let task = tokio::spawn(writer.run(connect(endpoint).await, TOPIC, reins));
            clients.writers.push((idempotent, task));
        }
        next();
        for partition in 0..PARTITIONS {
            let come = Arc::<AtomicU64>::default();
            let session = Session(TAILING + u64::from(partition));
            let (at, endpoint) = next();
            clients.calls.insert(session, at);
            let (client, pen, to) = (connect(endpoint).await, pen.clone(), Arc::clone(&come));
            let task = tokio::spawn(follow(client, TOPIC, partition, session, pen, to));
            clients.followers.push((come, task));
        }
        for session in (LOOKING..LOOKING + LOOKERS).map(Session) {
            let (at, endpoint) = next();
            clients.calls.insert(session, at);
            let (client, pen) = (connect(endpoint).await, pen.clone());
            let (random, stop) = (Arc::clone(random), Arc::clone(&clients.stop));
            let looking = look_about(client, TOPIC, PARTITIONS, session, pen, random, stop);
            clients.looking.push(tokio::spawn(looking));
        }
        clients
    }

    /// Has some append on condition, too: each the only one of its number, at one of `endpoints`.
    pub(crate) async fn claim(
        &mut self,
        endpoints: &[String],
        random: &Arc<SeededEntropy>,
        pen: &Pen,
    ) {
        for (number, (at, endpoint)) in (CLAIMING..).zip(endpoints.iter().enumerate()) {
            self.calls.insert(Session(number), at);
            let claimant = Claimant {
                number,
                endpoint: endpoint.clone(),
                client: connect(endpoint).await,
                random: Arc::clone(random),
                pen: pen.clone(),
            };
            let claiming = claimant.run(TOPIC, PARTITIONS, Arc::clone(&self.stop));
            self.claiming.push(tokio::spawn(claiming));
        }
    }

    /// Who calls the endpoint at `at`, and no other.
    pub(crate) fn of(&self, at: usize) -> BTreeSet<Session> {
        let of = self.calls.iter().filter(|(_, called)| **called == at);
        of.map(|(session, _)| *session).collect()
    }

    /// Ends what they do, once everybody is well: all that is open is settled, who tails has come to
    /// the end. Returns what idempotent producers were told instead of an acknowledgement: a retry
    /// resolves all.
    pub(crate) async fn settle(self, client: &Client) -> Vec<Error> {
        let mut unresolved = Vec::new();
        self.reins.stop.store(true, Ordering::Relaxed);
        for (idempotent, task) in self.writers {
            let written = task.await.expect("a writer");
            if idempotent {
                unresolved.extend(written.errors);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        for task in self.looking.into_iter().chain(self.claiming) {
            task.await.expect("who looks, or claims");
        }
        let ends = client.offsets(TOPIC, &[], None).await.expect("offsets");
        for (end, (come, task)) in ends.iter().zip(self.followers) {
            let caught_up = async {
                while come.load(Ordering::Relaxed) < end.end && !task.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let caught_up = tokio::time::timeout(SOON, caught_up).await.is_ok();
            if task.is_finished() {
                panic!("who tails was told: {}", task.await.expect("no panic"));
            }
            assert!(caught_up, "who tails is behind at {come:?} of {}", end.end);
            task.abort();
            let ended = task.await.expect_err("it never ends by itself");
            assert!(ended.is_cancelled());
        }
        unresolved
    }
}

/// One of two for each partition; one in four takes no producer id.
fn writer(number: u64, random: &Arc<SeededEntropy>, pen: &Pen) -> Writer {
    let idempotent = number % 4 != 3;
    Writer {
        number,
        partition: u32::try_from(number).expect("a few") % PARTITIONS,
        options: ProducerOptions {
            idempotent,
            linger: Duration::ZERO,
            delivery_timeout: 2 * SOON,
            ..ProducerOptions::default()
        },
        load: Load {
            window: if idempotent { 6 } else { 2 },
            records: 6,
            bytes: 1000,
            pause: 60,
        },
        random: Arc::clone(random),
        pen: pen.clone(),
    }
}
