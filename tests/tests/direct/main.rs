//! History read out of the bucket alone, by the SDK and with no cluster: after a flush it is what a
//! live reader sees, and where the bucket lacks something the read says which offsets.

mod lost; // what is missing or damaged
mod trimmed; // what is not there any more, and is no loss

use std::sync::Arc;

use esker_client::direct::{Direct, StoreOptions};
use esker_client::{Code, Detail, Error, From, Until};
use esker_env::sim::SeededEntropy;
use esker_log::Flusher;
use esker_object::{Key, Prefix};
use esker_record::ZstdLevel;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::{Incarnation, Offset, PartitionIndex, SegmentId, ShardId, Timestamp};

type Values = Vec<(u64, Vec<u8>)>;

const LIFE: Incarnation = Incarnation::FIRST;
const TOPIC: &str = "gravel";
const PARTITIONS: u32 = 3;

/// A running whole with a topic; nothing is flushed but when a test says so.
async fn started(seed: u64) -> Whole {
    let whole = Site::new(seed).start().await.expect("started");
    // Nothing is there to be flushed, but from now on the engine knows whose the bucket is.
    flush(&whole).await;
    whole.stop_flushing();
    whole.create(TOPIC, PARTITIONS).await;
    whole
}

/// Appends `count` batches of a few lines, at random over the partitions.
async fn load(whole: &Whole, random: &SeededEntropy, count: u64) {
    for number in 0..count {
        let partition = u32::try_from(random.below(u64::from(PARTITIONS))).expect("small");
        let line = |at| format!("line {at} of {number}, laid down by the stream. ").repeat(8);
        let lines = 1 + random.below(30);
        let values: Vec<_> = (0..lines).map(|at| line(at).into_bytes()).collect();
        let appended = whole.append(TOPIC, partition, &values, None).await;
        appended.expect("appended");
    }
}

async fn flush(whole: &Whole) {
    whole.engine.flush_now().await.expect("flushed");
}

async fn open(whole: &Whole) -> Direct {
    let store = whole.engine.store().clone();
    Direct::over(store, &whole.env).await.expect("opened")
}

/// What a read gives, and how it ends.
async fn read(
    direct: &Direct,
    partition: u32,
    from: From,
    until: Until,
) -> (Values, Result<(), Error>) {
    let mut values = Values::new();
    let mut reader = match direct.read(TOPIC, partition, from, until).await {
        Ok(reader) => reader,
        Err(error) => return (values, Err(error)),
    };
    loop {
        match reader.next().await {
            Ok(Some(batch)) => {
                let records = batch.records();
                let before = values.len();
                values.extend(records.map(|record| {
                    let value = record.value.expect("a value").to_vec();
                    (record.offset.get(), value)
                }));
                assert_eq!((values.len() - before) as u64, batch.range().len());
                assert_eq!(reader.next_offset(), batch.range().end());
            }
            Ok(None) => return (values, Ok(())),
            Err(error) => {
                let again = reader.next().await;
                assert!(matches!(again, Ok(None)), "nothing comes after an error");
                return (values, Err(error));
            }
        }
    }
}

async fn whole_partition(direct: &Direct, partition: u32) -> Values {
    let (values, end) = read(direct, partition, From::Earliest, Until::End).await;
    end.expect("read to its end");
    values
}

/// The bucket alone reads as the live log does.
async fn reads_alike(whole: &Whole, direct: &Direct) {
    let offsets = direct.offsets(TOPIC).expect("it is there");
    assert_eq!(offsets.len(), PARTITIONS as usize);
    for offsets in offsets {
        let partition = offsets.partition;
        let live = whole.read(TOPIC, partition, offsets.log_start.get()).await;
        assert_eq!(whole_partition(direct, partition).await, live);
        assert_eq!(
            offsets.end.get() - offsets.log_start.get(),
            live.len() as u64
        );
        assert_eq!(offsets.broken, None);
        let middle = offsets.log_start.get() + live.len() as u64 / 2;
        let cut = (live.len() / 2).min(live.len());
        let middle = Offset::new(middle).expect("small");
        let (upper, end) = read(direct, partition, From::Offset(middle), Until::End).await;
        assert!(end.is_ok() && upper == live[cut..], "from {middle}");
        let (lower, end) = read(direct, partition, From::Earliest, Until::Offset(middle)).await;
        assert!(end.is_ok() && lower == live[..cut], "until {middle}");
    }
}

/// Trims every partition up to where `direct` sees its end.
async fn trim(whole: &Whole, direct: &Direct) {
    for offsets in direct.offsets(TOPIC).expect("known") {
        let (name, index) = (topic(TOPIC), PartitionIndex(offsets.partition));
        let trimmed = whole.engine.topics();
        let trimmed = trimmed.truncate(&name, index, Some(offsets.end)).await;
        assert_eq!(trimmed.expect("trimmed"), offsets.end);
    }
}

/// Puts the state of every shard in the bucket, as the keeper of checkpoints does.
async fn checkpoint(whole: &Whole) {
    for shard in (0..=2).map(ShardId) {
        let made = whole.engine.head().checkpoint(shard).await;
        let made = made.expect("a checkpoint");
        let key = Key::Checkpoint {
            incarnation: LIFE,
            shard,
            index: made.mark.index,
            id: SegmentId(whole.env.entropy.next_u128()),
        };
        let put = whole.engine.store().put(&key, made.chunks).await;
        put.expect("put");
    }
}

async fn keys(whole: &Whole, prefix: Prefix) -> Vec<Key> {
    let page = whole.engine.store().list(prefix, None).await;
    let page = page.expect("listed");
    assert!(page.next.is_none());
    page.objects.iter().map(|object| object.key).collect()
}

async fn remove(whole: &Whole, key: Key) {
    for done in whole.engine.store().delete(&[key]).await {
        done.expect("deleted");
    }
}

/// The shard that holds most segments, with their keys by raft index.
async fn busiest(whole: &Whole) -> Vec<Key> {
    let one = keys(whole, Prefix::Flushed(LIFE, ShardId(1))).await;
    let two = keys(whole, Prefix::Flushed(LIFE, ShardId(2))).await;
    if one.len() >= two.len() { one } else { two }
}

fn of(key: &Key) -> ShardId {
    match key {
        Key::FlushedSegment { shard, .. } => *shard,
        other => unreachable!("{other}"),
    }
}

async fn shard_of(whole: &Whole, partition: u32) -> ShardId {
    let (topics, name) = (whole.engine.topics(), topic(TOPIC));
    let found = topics.partition(&name, PartitionIndex(partition));
    found.await.expect("it is there").1
}

#[test]
fn a_bucket_without_any_checkpoint_reads_as_the_live_log_does() {
    run(async {
        let whole = started(41).await;
        let random = SeededEntropy::new(41);
        for _ in 0..5 {
            load(&whole, &random, 60).await;
            flush(&whole).await;
        }
        for shard in (0..=2).map(ShardId) {
            let checkpoints = Prefix::Checkpoints(LIFE, shard);
            assert_eq!(keys(&whole, checkpoints).await, [], "there is none");
        }
        let direct = open(&whole).await;
        assert_eq!(direct.incarnation(), LIFE);
        let topics = direct.topics().map(|topic| (topic.name, topic.partitions));
        assert_eq!(topics.collect::<Vec<_>>(), [(TOPIC, PARTITIONS)]);
        reads_alike(&whole, &direct).await;
        // What is not flushed is not there, and nothing pretends that it is.
        let before = whole_partition(&direct, 0).await;
        load(&whole, &random, 20).await;
        assert_eq!(whole_partition(&open(&whole).await, 0).await, before);
    });
}

#[test]
fn a_checkpoint_and_the_segments_above_it_read_as_the_live_log_does() {
    run(async {
        let whole = started(42).await;
        let random = SeededEntropy::new(42);
        load(&whole, &random, 80).await;
        flush(&whole).await;
        whole.create("empty", 7).await;
        whole.create("gone", 1).await;
        let old = vec![b"of a topic that was deleted".to_vec()];
        whole.append("gone", 0, &old, None).await.expect("appended");
        flush(&whole).await;
        let delete = whole.engine.topics().delete(&topic("gone")).await;
        delete.expect("deleted");
        checkpoint(&whole).await;
        let (name, index, to) = (topic(TOPIC), PartitionIndex(1), Offset::new(40));
        let trimmed = whole.engine.topics().truncate(&name, index, to);
        assert_eq!(trimmed.await.expect("trimmed").get(), 40);
        // A topic that no checkpoint knows, and a log start that only a segment tells.
        whole.create("later", 2).await;
        whole
            .append("later", 1, &old, None)
            .await
            .expect("appended");
        load(&whole, &random, 60).await;
        flush(&whole).await;

        let direct = open(&whole).await;
        let topics: Vec<_> = direct
            .topics()
            .map(|t| (t.name.to_owned(), t.partitions))
            .collect();
        let expected = [("empty", 7), (TOPIC, PARTITIONS), ("later", 2)];
        assert_eq!(
            topics,
            expected.map(|(name, count)| (name.to_owned(), count))
        );
        assert_eq!(direct.offsets(TOPIC).expect("known")[1].log_start.get(), 40);
        assert_eq!(direct.offsets("empty").expect("known")[6].end, Offset::ZERO);
        reads_alike(&whole, &direct).await;

        let unknown = direct.offsets("gone").expect_err("deleted");
        assert_eq!(unknown.code(), Code::UnknownTopic);
        let below = From::Offset(Offset::new(39).expect("small"));
        let (_, end) = read(&direct, 1, below, Until::End).await;
        let error = end.expect_err("it is trimmed");
        assert_eq!(error.code(), Code::OffsetOutOfRange);
        assert!(matches!(error.detail(), Some(Detail::OutOfRange(range)) if range.log_start == 40));
        let none = direct.read("empty", 6, From::Earliest, Until::End).await;
        assert!(
            none.expect("it is there")
                .next()
                .await
                .expect("empty")
                .is_none()
        );
        let beyond = direct.read("empty", 7, From::Earliest, Until::End).await;
        assert_eq!(beyond.expect_err("0 to 6").code(), Code::UnknownPartition);
    });
}

#[test]
fn a_time_finds_what_a_live_reader_finds() {
    run(async {
        let whole = started(43).await;
        load(&whole, &SeededEntropy::new(43), 60).await;
        flush(&whole).await;
        let direct = open(&whole).await;
        let readers = whole.engine.readers();
        // The records of a batch are a millisecond apart, from 1000 on.
        for partition in 0..PARTITIONS {
            let (topics, name) = (whole.engine.topics(), topic(TOPIC));
            let found = topics.partition(&name, PartitionIndex(partition)).await;
            let (_, shard, id) = found.expect("it is there");
            for ms in [0, 1000, 1004, 1017, 1028, 1029, 5000] {
                let live = readers
                    .by_time(shard, id, Timestamp(ms))
                    .await
                    .expect("read");
                let all = whole.read(TOPIC, partition, 0).await;
                let at = live.map_or(all.len(), |o| usize::try_from(o.get()).expect("small"));
                let time = Timestamp(ms);
                let (upper, end) = read(&direct, partition, From::Time(time), Until::End).await;
                assert!(end.is_ok() && upper == all[at..], "{partition} from {ms}");
                let (lower, end) =
                    read(&direct, partition, From::Earliest, Until::Time(time)).await;
                assert!(end.is_ok() && lower == all[..at], "{partition} until {ms}");
            }
        }
    });
}

#[test]
fn orphans_of_flushes_that_lost_add_nothing_and_hide_nothing() {
    run(async {
        let whole = started(44).await;
        let random = SeededEntropy::new(44);
        let flusher = |level| {
            let (head, store) = (
                Arc::clone(whole.engine.head()),
                whole.engine.store().clone(),
            );
            let level = ZstdLevel::new(level).expect("a level");
            Flusher::new(head, store, whole.env.clone(), level)
        };
        let (mut lost, mut shorter_won) = (0, false);
        for round in 0..8 {
            load(&whole, &random, 40).await;
            for shard in [ShardId(1), ShardId(2)] {
                let (short, long) = (flusher(1), flusher(3));
                let (one, other) = if round % 2 == 0 {
                    tokio::join!(
                        short.flush(whole.owner, shard, 20 << 10),
                        long.flush(whole.owner, shard, u64::MAX)
                    )
                } else {
                    let (other, one) = tokio::join!(
                        long.flush(whole.owner, shard, u64::MAX),
                        short.flush(whole.owner, shard, 20 << 10)
                    );
                    (one, other)
                };
                lost += usize::from(one.is_err()) + usize::from(other.is_err());
                shorter_won |= one.is_ok() && other.is_err();
            }
        }
        flush(&whole).await;
        assert!(lost >= 8 && shorter_won, "{lost} orphans, of both kinds");
        reads_alike(&whole, &open(&whole).await).await;
        checkpoint(&whole).await;
        reads_alike(&whole, &open(&whole).await).await;
    });
}

#[test]
fn an_empty_bucket_and_one_that_does_not_answer_are_told_apart() {
    run(async {
        let whole = Site::new(48).start().await.expect("started");
        whole.stop_flushing();
        let claimed = open(&whole).await;
        assert_eq!((claimed.incarnation(), claimed.topics().count()), (LIFE, 0));
        let options = StoreOptions::default();
        let error = Direct::open("memory://empty-48", &options, &whole.env).await;
        let error = error.expect_err("nothing stands there");
        assert_eq!(error.code(), Code::InvalidRequest);
        assert!(error.message().contains("memory://empty-48"), "{error}");
        whole.faults.away(true);
        let error = Direct::over(whole.engine.store().clone(), &whole.env).await;
        let error = error.expect_err("nobody answers");
        assert_eq!(error.code(), Code::BucketUnavailable);
    });
}

#[test]
fn a_bucket_that_lost_its_claim_is_read() {
    run(async {
        let whole = started(49).await;
        load(&whole, &SeededEntropy::new(49), 20).await;
        flush(&whole).await;
        let claim = Key::Cluster {
            incarnation: whole.owner.incarnation,
            cluster: whole.owner.cluster,
        };
        let deleted = whole.engine.store().delete(&[claim]).await;
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let direct = open(&whole).await;
        assert_eq!(direct.incarnation(), LIFE);
        let told = |note: &String| note.contains("no cluster has claimed this bucket");
        assert!(direct.notes().iter().any(told), "{:?}", direct.notes());
        reads_alike(&whole, &direct).await;
    });
}
