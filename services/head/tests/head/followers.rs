//! Who does not lead answers with what it has, once that is no less than its reader was told.

use std::sync::Arc;

use bytes::Bytes;
use esker_head::Calling;
use esker_log::{Head, HeadError, HeadRead, Mark, ReadFrom};
use esker_shard::Outcome;
use esker_types::limits::{
    ELECTION_MAX, HEAD_CALLS_MAX, HEAD_FOLLOWER_BEHIND_MAX, HEAD_FOLLOWER_CALL_MAX,
    HEAD_FOLLOWER_REST, HEAD_PATIENCE, HEARTBEAT,
};
use esker_types::{Durability, PartitionId, PartitionIndex};
use futures::FutureExt as _;
use futures::future::{join, join_all};
use tokio::time::{Instant, sleep};

use crate::conformance::keeping::commit;
use crate::posed::Posed;
use crate::site::{CLUSTER, SHARD, SHARDS, Site, batch, make_partition, offset, run};
use crate::trio::{NODES, Trio, address};

/// Batches of one record each.
const BATCHES: u64 = 20;

async fn append(head: &dyn Head, partition: PartitionId, batches: u64) {
    for _ in 0..batches {
        let (batch, bytes) = batch(partition, 1, Bytes::from_static(b"gravel"), None);
        let answer = head.append(SHARD, batch, bytes).await;
        let outcome = answer.expect("there is room").await;
        outcome.expect("it is led");
    }
}

/// A caller that knows who leads and one that follows, of three with [`BATCHES`] in `partition`.
struct Asked {
    trio: Trio,
    calling: Calling,
    partition: PartitionId,
    leader: u64,
    follower: u64,
    third: u64,
    /// With all that was appended.
    mark: Mark,
}

impl Asked {
    async fn begin(seed: u64) -> Self {
        let trio = Trio::found(seed).await;
        let all = NODES.map(address).to_vec();
        let calling = Calling::new(&trio.env("agent"), CLUSTER, SHARDS, all);
        let partition = make_partition(&calling).await;
        append(&calling, partition, BATCHES).await;
        let leader = trio.leader().expect("somebody leads");
        let mut others = NODES.into_iter().filter(|node| *node != leader);
        let (follower, third) = (others.next().expect("three"), others.next().expect("three"));
        let nodes = vec![address(leader), address(follower)];
        let calling = Calling::new(&trio.env("agent"), CLUSTER, SHARDS, nodes);
        let mark = calling.read_index(SHARD).await.expect("it is led");
        Self {
            trio,
            calling,
            partition,
            leader,
            follower,
            third,
            mark,
        }
    }

    async fn read(&self, from: u64, seen: Mark) -> Result<HeadRead, HeadError> {
        let who = ReadFrom::Follower { seen };
        let (partition, from) = (self.partition, offset(from));
        let read = self.calling.read(SHARD, partition, from, 1 << 20, who);
        read.await.map(|read| read.expect("it is there"))
    }

    /// Who reads `follower` hears nothing of the others.
    fn cut_off(&self) {
        let follower = format!("n{}", self.follower);
        for other in [self.leader, self.third].map(|other| format!("n{other}")) {
            self.trio.network.sever(&follower, &other);
            self.trio.network.sever(&other, &follower);
        }
    }
}

fn count(read: &HeadRead) -> (bool, usize, u64) {
    (read.by_follower, read.batches.len(), read.bounds.end.get())
}

#[test]
fn a_follower_gives_what_it_has_and_says_of_nothing_that_it_is_not_there() {
    run(async {
        let asked = Asked::begin(1).await;
        let read = asked.read(3, asked.mark).await.expect("it is there");
        assert_eq!(count(&read), (true, 17, BATCHES));
        assert!(read.bounds.mark >= asked.mark);
        let led = asked
            .calling
            .read(SHARD, asked.partition, offset(3), 1 << 20, ReadFrom::Leader);
        let led = led.await.expect("it is led").expect("it is there");
        assert_eq!(count(&led), (false, 17, BATCHES));
        let bytes = |read: HeadRead| read.batches.into_iter().map(|it| (it.range, it.bytes));
        assert!(bytes(led).eq(bytes(read)));

        // The end is told by who leads.
        let end = asked.read(BATCHES, asked.mark).await.expect("it is led");
        assert_eq!(count(&end), (false, 0, BATCHES));
        let head = asked.trio.nodes[&asked.follower].0.head();
        let unknown = PartitionId {
            index: PartitionIndex(999),
            ..asked.partition
        };
        let seen = asked.mark;
        for (partition, from, who) in [
            (asked.partition, BATCHES, ReadFrom::Follower { seen }),
            (asked.partition, BATCHES + 1, ReadFrom::Follower { seen }),
            (unknown, 0, ReadFrom::Follower { seen }),
            (asked.partition, 0, ReadFrom::Leader),
        ] {
            let read = head.read(SHARD, partition, offset(from), 1 << 20, who);
            let error = read.await.expect_err("it does not lead");
            let HeadError::NotLeader { leader, .. } = error else {
                panic!("{error:?}");
            };
            let leader = leader.expect("it knows who does").address;
            assert_eq!(leader, address(asked.leader));
        }
    });
}

#[test]
fn a_follower_that_is_behind_what_its_reader_was_told_gives_nothing() {
    run(async {
        let asked = Asked::begin(2).await;
        let before = asked.mark;
        asked.read(0, before).await.expect("it has heard of it");
        asked.cut_off();
        append(&asked.calling, asked.partition, 10).await;
        let bounds = asked.calling.bounds(SHARD, asked.partition).await;
        let told = bounds.expect("it is led").expect("it is there");
        assert_eq!(told.end, offset(BATCHES + 10));
        // Whoever was told no more than it knows reads it there.
        let read = asked.read(0, before).await.expect("it is there");
        assert_eq!(count(&read), (true, 20, BATCHES));

        let began = Instant::now();
        let read = asked.read(0, told.mark).await.expect("it is led");
        let took = began.elapsed();
        assert_eq!(count(&read), (false, 30, BATCHES + 10));
        assert!(read.bounds.mark >= told.mark);
        let once = HEAD_FOLLOWER_BEHIND_MAX..2 * HEAD_FOLLOWER_BEHIND_MAX;
        assert!(once.contains(&took), "{took:?}");
        // It is not asked again at once.
        let began = Instant::now();
        let read = asked.read(0, told.mark).await.expect("it is led");
        assert_eq!(count(&read), (false, 30, BATCHES + 10));
        assert!(began.elapsed() < HEAD_FOLLOWER_BEHIND_MAX / 2);

        asked.trio.network.heal_all();
        sleep(HEAD_FOLLOWER_REST + 10 * ELECTION_MAX).await;
        let read = asked.read(0, told.mark).await.expect("it is there");
        assert_eq!(count(&read), (true, 30, BATCHES + 10));
    });
}

#[test]
fn what_is_committed_is_read_while_nobody_leads() {
    run(async {
        let mut asked = Asked::begin(3).await;
        sleep(3 * HEARTBEAT).await;
        asked.trio.kill(asked.leader).await;
        asked.trio.kill(asked.third).await;
        for from in [0, 7, BATCHES - 1] {
            let read = asked.read(from, asked.mark).await.expect("one has it");
            let left = usize::try_from(BATCHES - from).expect("small");
            assert_eq!(count(&read), (true, left, BATCHES));
        }
        let began = Instant::now();
        let error = asked.read(BATCHES, asked.mark).await;
        let error = error.expect_err("nobody knows where it ends");
        assert_eq!(error.durability(), Durability::NotWritten);
        assert!(began.elapsed() <= HEAD_PATIENCE, "{:?}", began.elapsed());
    });
}

/// Who leads, and `beside`, in front of the same head; a partition with one batch.
async fn posed(
    beside: impl FnOnce(&Arc<dyn Head>) -> Arc<Posed>,
) -> (Calling, Arc<Posed>, PartitionId) {
    let site = Site::start(1).await;
    let partition = make_partition(&*site.head()).await;
    append(&*site.head(), partition, 1).await;
    let follower = beside(&site.head());
    site.serve("leads:7072", site.head()).await;
    site.serve("follows:7072", Arc::<Posed>::clone(&follower) as _)
        .await;
    let calling = site.calling(&["follows:7072", "leads:7072"]);
    // This shard begins with the second of them: from then on it knows who leads.
    calling.bounds(SHARD, partition).await.expect("it is led");
    (calling, follower, partition)
}

async fn read_often(calling: &Calling, partition: PartitionId) {
    let seen = calling.mark(SHARD).expect("it was asked");
    for _ in 0..10 {
        let who = ReadFrom::Follower { seen };
        let read = calling.read(SHARD, partition, offset(0), 100, who).await;
        let read = read.expect("it is led").expect("it is there");
        assert_eq!(count(&read), (false, 1, 1));
    }
}

#[test]
fn one_that_does_not_answer_is_left_alone_for_a_while() {
    run(async {
        // As a node of an older version does, which knows of no follower that answers.
        let (calling, follower, partition) = posed(|head| Posed::following(head, None)).await;
        let before = follower.calls();
        for rests in 1..=3 {
            let began = Instant::now();
            read_often(&calling, partition).await;
            assert!(began.elapsed() < HEAD_FOLLOWER_BEHIND_MAX);
            assert_eq!(follower.calls(), before + rests);
            sleep(HEAD_FOLLOWER_REST).await;
        }
    });
}

#[test]
fn one_that_hangs_is_waited_for_once_and_not_for_long() {
    run(async {
        let hangs = |head: &Arc<dyn Head>| Posed::new(head, |_| std::future::pending().boxed());
        let (calling, follower, partition) = posed(hangs).await;
        let before = follower.calls();
        let began = Instant::now();
        read_often(&calling, partition).await;
        let took = began.elapsed();
        let once = HEAD_FOLLOWER_CALL_MAX..HEAD_FOLLOWER_CALL_MAX + HEAD_FOLLOWER_CALL_MAX / 2;
        assert!(once.contains(&took), "{took:?}");
        assert_eq!(follower.calls(), before + 1);
    });
}

#[test]
fn who_waits_for_one_that_hangs_keeps_nobody_from_who_leads_and_one_finds_out_how_it_is() {
    run(async {
        let hangs = |head: &Arc<dyn Head>| Posed::new(head, |_| std::future::pending().boxed());
        let (calling, follower, partition) = posed(hangs).await;
        let seen = calling.mark(SHARD).expect("it was asked");
        let crowd = |readers: usize| {
            let reads = (0..readers).map(|_| {
                let calling = calling.clone();
                async move {
                    let who = ReadFrom::Follower { seen };
                    let read = calling.read(SHARD, partition, offset(0), 100, who).await;
                    assert_eq!(
                        count(&read.expect("it is led").expect("it is there")),
                        (false, 1, 1)
                    );
                }
            });
            join_all(reads)
        };
        let others = async {
            tokio::task::yield_now().await;
            let began = Instant::now();
            calling.bounds(SHARD, partition).await.expect("it is led");
            began.elapsed()
        };
        let (_, took) = join(crowd(2 * HEAD_CALLS_MAX), others).await;
        assert!(took < HEAD_FOLLOWER_CALL_MAX / 5, "{took:?}");
        sleep(HEAD_FOLLOWER_REST).await;
        let before = follower.calls();
        crowd(100).await;
        assert_eq!(follower.calls(), before + 1);
    });
}

#[test]
fn what_was_flushed_meanwhile_a_follower_says_itself() {
    run(async {
        let asked = Asked::begin(4).await;
        let (job, committed) = commit(&asked.calling, 1).await;
        let flush_position = job.raft.to;
        assert_eq!(committed, Ok(Outcome::SegmentCommitted { flush_position }));
        let mark = asked.calling.read_index(SHARD).await.expect("it is led");
        sleep(3 * HEARTBEAT).await;
        let read = asked.read(3, mark).await.expect("it is in the bucket");
        assert_eq!(count(&read), (true, 0, BATCHES));
        assert_eq!(read.bounds.tiered_end, offset(BATCHES));
        // It goes on answering.
        append(&asked.calling, asked.partition, 1).await;
        let mark = asked.calling.read_index(SHARD).await.expect("it is led");
        sleep(3 * HEARTBEAT).await;
        let read = asked.read(BATCHES, mark).await.expect("it is there");
        assert_eq!(count(&read), (true, 1, BATCHES + 1));
    });
}
