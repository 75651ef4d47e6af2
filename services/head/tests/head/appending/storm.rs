//! Everything breaks, at random: what has a producer is there once, dense and in order, and what has
//! none is there at most once; what was answered is where the answer says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_env::Entropy;
use esker_env::sim::SeededEntropy;
use esker_head::Calling;
use esker_log::{Head, HeadError, ReadFrom};
use esker_shard::AppendOutcome;
use esker_types::limits::PRODUCER_WINDOW;
use esker_types::{OffsetRange, PartitionId, ProducerStamp};
use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::posed::{Posed, Step, elsewhere};
use crate::site::{SHARD, Site, batch, make_partition, offset, run, stamp};

const NODES: [&str; 3] = ["node1:7072", "node2:7072", "node3:7072"];
const PRODUCERS: u64 = 20;
const EACH: u32 = 50;
const SEEDS: u64 = 24;

/// What a batch says: who sent it, and which it is.
fn text(producer: u64, sequence: u32) -> Bytes {
    Bytes::from(format!("{producer}:{sequence}"))
}

struct Storm {
    entropy: Arc<SeededEntropy>,
    leads: Arc<AtomicUsize>,
}

impl Storm {
    fn draw(&self, below: u64) -> u64 {
        self.entropy.next_u64() % below
    }

    /// The head of node `at`: it leads or names who does, and sometimes keeps quiet, or does not know.
    fn pose(&self, head: &Arc<dyn Head>, at: usize) -> Arc<dyn Head> {
        let (entropy, leads) = (Arc::clone(&self.entropy), Arc::clone(&self.leads));
        Posed::new(head, move |step| {
            let leader = leads.load(Ordering::Relaxed);
            let drawn = entropy.next_u64() % 1000;
            let named = (drawn % 3 > 0).then(|| NODES[leader]);
            let error = match step {
                Step::Appended if drawn < 1 => return std::future::pending().boxed(),
                Step::Appended if drawn < 4 => Some(HeadError::Unknown {
                    shard: SHARD,
                    what: "leadership was lost".into(),
                }),
                Step::Append | Step::Taken if drawn >= 997 => Some(elsewhere(None)),
                Step::Appended | Step::Taken | Step::Proposed => None,
                _ => (leader != at).then(|| elsewhere(named)),
            };
            let wait = Duration::from_micros(drawn * 20);
            async move {
                if drawn.is_multiple_of(41) {
                    sleep(wait).await;
                }
                error
            }
            .boxed()
        })
    }

    async fn rage(&self, site: &Site) {
        loop {
            sleep(Duration::from_millis(1 + self.draw(40))).await;
            let node = NODES[usize::try_from(self.draw(3)).expect("three")];
            match self.draw(4) {
                0 => {
                    let next = usize::try_from(self.draw(3)).expect("three");
                    self.leads.store(next, Ordering::Relaxed);
                }
                1 => {
                    site.network.refuse(node, true);
                    site.network.cut(node);
                    sleep(Duration::from_millis(self.draw(300))).await;
                    site.network.refuse(node, false);
                }
                _ => {
                    site.network.cut(node);
                }
            }
        }
    }
}

type Told = (u32, Result<OffsetRange, HeadError>);

/// Appends of one producer, as many at a time as a window tells apart; plain ones if it has no stamp.
async fn produce(head: Calling, partition: PartitionId, producer: u64, plain: bool) -> Vec<Told> {
    let mut told = Vec::new();
    let mut under_way = std::collections::VecDeque::new();
    for sequence in 0..EACH {
        let stamp: Option<ProducerStamp> = (!plain).then(|| stamp(producer, sequence));
        let (batch, bytes) = batch(partition, 1, text(producer, sequence), stamp);
        let answer = head
            .append(SHARD, batch, bytes)
            .await
            .expect("it is queued");
        under_way.push_back((sequence, answer));
        if under_way.len() == PRODUCER_WINDOW {
            let (sequence, answer) = under_way.pop_front().expect("five");
            told.push((sequence, found(answer.await)));
        }
    }
    for (sequence, answer) in under_way {
        told.push((sequence, found(answer.await)));
    }
    told
}

fn found(outcome: Result<AppendOutcome, HeadError>) -> Result<OffsetRange, HeadError> {
    match outcome? {
        AppendOutcome::Accepted { range, .. } | AppendOutcome::Duplicate { range } => Ok(range),
        rejected => panic!("{rejected:?}"),
    }
}

/// Everything that is in the partition: what is said at each offset.
async fn read(site: &Site, partition: PartitionId) -> BTreeMap<u64, Bytes> {
    let (mut all, mut from) = (BTreeMap::new(), 0);
    loop {
        let read = site
            .head()
            .read(SHARD, partition, offset(from), 1 << 20, ReadFrom::Leader)
            .await;
        let read = read.expect("it leads").expect("it is there");
        if read.batches.is_empty() {
            return all;
        }
        for batch in read.batches {
            assert_eq!(batch.range.start().get(), from, "it is dense");
            all.insert(from, batch.bytes);
            from = batch.range.end().get();
        }
    }
}

async fn weather(seed: u64) {
    let site = Site::start(seed).await;
    let partition = make_partition(&*site.head()).await;
    let storm = Storm {
        entropy: Arc::new(SeededEntropy::new(seed << 8)),
        leads: Arc::default(),
    };
    for (at, node) in NODES.iter().enumerate() {
        site.serve(node, storm.pose(&site.head(), at)).await;
    }
    let calling = site.calling(&NODES);
    let began = Instant::now();
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let plain = producer % 10 == 9;
        let produced = produce(calling.clone(), partition, producer, plain);
        producers.spawn(async move { (producer, plain, produced.await) });
    }
    let told = tokio::select! {
        () = storm.rage(&site) => unreachable!("it never ends"),
        told = producers.join_all() => told,
    };
    let took = began.elapsed();
    // What has no answer yet is under way nowhere by then.
    sleep(Duration::from_secs(1)).await;
    let all = read(&site, partition).await;
    let mut unknown = 0;
    for (producer, plain, told) in told {
        let mine = all.iter().filter(|(_, said)| {
            let said = std::str::from_utf8(said).expect("it is text");
            said.split(':').next() == Some(producer.to_string().as_str())
        });
        let mine: Vec<_> = mine.map(|(at, said)| (*at, said.clone())).collect();
        for (sequence, answer) in &told {
            let copies = mine
                .iter()
                .filter(|(_, said)| *said == text(producer, *sequence));
            let copies: Vec<_> = copies.map(|(at, _)| *at).collect();
            match answer {
                Ok(range) => assert_eq!(copies, [range.start().get()], "seed {seed}"),
                Err(HeadError::Unknown { .. }) if plain => {
                    assert!(copies.len() <= 1, "seed {seed}: {copies:?}");
                    unknown += 1;
                }
                Err(HeadError::NotLeader { .. }) if plain => {
                    assert_eq!(copies.len(), 0, "seed {seed}: it was not written");
                }
                Err(error) => panic!("seed {seed}, producer {producer}, {sequence}: {error}"),
            }
        }
        let order: Vec<_> = mine.iter().map(|(_, said)| said.clone()).collect();
        let mut due = (0..EACH).map(|sequence| text(producer, sequence));
        let in_order = order.iter().all(|said| due.any(|due| due == *said));
        assert!(in_order, "seed {seed}, producer {producer}: {order:?}");
    }
    assert!(took > Duration::from_millis(100), "no storm: {took:?}");
    assert!(unknown < 2 * EACH, "seed {seed}: of none it was known");
}

#[test]
fn a_thousand_appends_come_through() {
    let more = std::env::var("ESKER_SEEDS").ok();
    let seeds = more.map_or(SEEDS, |more| more.parse().expect("a number of seeds"));
    for seed in 1..=seeds {
        run(weather(seed));
    }
}
