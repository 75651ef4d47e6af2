//! How long appends stand still: for each shard somebody appends a record, and the next as soon as it
//! is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use esker_client::{Client, ProducerOptions, Record};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clients::{SOON, connect, stop};

/// A topic that no history is kept of.
const TOPIC: &str = "pulse";
/// Rest between an answer and the next append: longer would blur the figure.
const REST: Duration = Duration::from_millis(2);

/// One who appends, for each shard.
pub(crate) struct Probes {
    heard: Arc<Heard>,
    tasks: JoinSet<()>,
    shards: BTreeSet<u32>,
}

#[derive(Default)]
struct Heard {
    round: Mutex<Option<Round>>,
    more: Notify,
    /// The longest that an append took, since it was asked for last.
    longest: Mutex<Duration>,
}

/// From one blow on.
struct Round {
    from: Instant,
    /// When the first append was answered that began after the blow, by shard.
    first: BTreeMap<u32, Duration>,
}

impl Probes {
    /// Makes a topic with a partition on each of `shards`, and starts to append.
    pub(crate) async fn come(endpoints: &[String], shards: u32) -> Self {
        let client = connect(&endpoints[0]).await;
        let (admin, settings) = (client.admin(), BTreeMap::new());
        let topic = admin.create_topic(TOPIC, shards * 2, &settings).await;
        topic.expect("a topic");
        let (_, partitions) = admin.describe_topic(TOPIC).await.expect("the topic");
        let of: BTreeMap<_, _> = partitions
            .iter()
            .map(|partition| (partition.shard, partition.partition))
            .collect();
        assert_eq!(of.len(), shards as usize, "every shard has a partition");
        let (heard, mut tasks) = (Arc::<Heard>::default(), JoinSet::new());
        let turns = endpoints.iter().cycle();
        for ((shard, partition), endpoint) in of.iter().zip(turns) {
            let client = connect(endpoint).await;
            tasks.spawn(append(client, *shard, *partition, Arc::clone(&heard)));
        }
        Self {
            heard,
            tasks,
            shards: of.into_keys().collect(),
        }
    }

    /// How long after `from`, which is now, every shard has acknowledged an append that began later.
    pub(crate) async fn all_acked_since(&self, from: Instant) -> Duration {
        self.listen(from);
        let all = async {
            loop {
                let more = self.heard.more.notified();
                if let Some(round) = &*self.heard.round()
                    && round.first.len() == self.shards.len()
                {
                    return *round.first.values().max().expect("there are shards");
                }
                more.await;
            }
        };
        let all = tokio::time::timeout(SOON, all).await;
        let round = self.heard.round();
        let first = round.as_ref().map(|round| &round.first);
        all.unwrap_or_else(|_| panic!("in {SOON:?}, of {:?} came {first:?}", self.shards))
    }

    /// From `from` on, which is now, it is noted who is acknowledged what began later.
    pub(crate) fn listen(&self, from: Instant) {
        let first = BTreeMap::new();
        *self.heard.round() = Some(Round { from, first });
    }

    /// Shards that have acknowledged an append since, and how long after.
    pub(crate) fn heard(&self) -> BTreeMap<u32, Duration> {
        let round = self.heard.round();
        round.as_ref().expect("it listens").first.clone()
    }

    /// The longest that any shard's append took since this was asked last: appends to it stood still as
    /// long, and a rest.
    pub(crate) fn longest(&self) -> Duration {
        std::mem::take(&mut *self.heard.longest())
    }

    /// Ends them, none of which was refused anything.
    pub(crate) async fn end(self) {
        stop(self.tasks).await;
    }
}

async fn append(client: Client, shard: u32, partition: u32, heard: Arc<Heard>) {
    let options = ProducerOptions {
        linger: Duration::ZERO,
        delivery_timeout: 2 * SOON,
        ..ProducerOptions::default()
    };
    let producer = client.producer(TOPIC, options).await.expect("a producer");
    loop {
        let began = Instant::now();
        let record = vec![Record::value("a beat")];
        let sent = producer.send_together(Some(partition), record).await;
        sent.expect("taken").await.expect("acknowledged");
        {
            let mut longest = heard.longest();
            *longest = began.elapsed().max(*longest);
        }
        if let Some(round) = &mut *heard.round()
            && began >= round.from
        {
            round
                .first
                .entry(shard)
                .or_insert_with(|| round.from.elapsed());
        }
        heard.more.notify_waiters();
        tokio::time::sleep(REST).await;
    }
}

impl Heard {
    fn round(&self) -> std::sync::MutexGuard<'_, Option<Round>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn longest(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What share `of` a hundred of `times` does not exceed, and the longest.
pub(crate) fn percentile(times: &[Duration], of: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * of).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or_default()
}
