//! What a running engine does by itself: checkpoints, retention and collection, and the time they go
//! by.

use std::time::Duration;

use esker_client::Client;
use esker_log::{Chore, ReadError};
use esker_object::faults::{Fault, Rule};
use esker_object::{Key, Prefix, Verb};
use esker_segment::Depth;
use esker_shard::{ConfigChange, TopicConfig};
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::{Incarnation, PartitionIndex, RaftIndex, SegmentId, ShardId};
use tokio::sync::mpsc;

const HOUR: Duration = Duration::from_secs(3600);

fn kept_for(time: Duration) -> TopicConfig {
    let config = TopicConfig::default().with(&ConfigChange::Retention(Some(time)));
    config.expect("within bounds")
}

/// A topic of one partition with ten records, all in the bucket.
async fn tiered(whole: &Whole, name: &str, config: TopicConfig) {
    whole.create_with(name, 1, config).await;
    let values = vec![vec![7; 100]; 10];
    whole.append(name, 0, &values, None).await.expect("durable");
    whole.engine.flush_now().await.expect("flushed");
}

/// Time passes, in steps that let everything have its turn; most of each at once, so that timers
/// of raft do not go off for every moment of it.
async fn pass(time: Duration) {
    let step = Duration::from_secs(60);
    for _ in 0..time.as_secs() / step.as_secs() {
        tokio::time::advance(step - Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn log_start(whole: &Whole, name: &str) -> u64 {
    let index = PartitionIndex(0);
    let found = whole.engine.topics().partition(&topic(name), index).await;
    let (_, shard, partition) = found.expect("it is there");
    let bounds = whole.engine.head().bounds(shard, partition).await;
    let bounds = bounds.expect("it answers").expect("it is there");
    bounds.log_start.get()
}

async fn segments(whole: &Whole) -> usize {
    let mut segments = 0;
    for shard in whole.engine.head().shards() {
        let prefix = Prefix::Flushed(Incarnation::FIRST, shard);
        segments += whole
            .engine
            .store()
            .list_all(prefix)
            .await
            .expect("listed")
            .0
            .len();
    }
    segments
}

#[test]
fn an_idle_topic_grows_old_and_leaves_log_and_bucket() {
    run(async {
        let mut site = Site::new(51);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(2 * HOUR)).await;
        tiered(&whole, "long", TopicConfig::default()).await;
        assert_eq!(segments(&whole).await, 2);
        pass(HOUR).await;
        assert_eq!(log_start(&whole, "short").await, 0);
        pass(2 * HOUR).await;
        assert_eq!(log_start(&whole, "short").await, 10);
        assert_eq!(log_start(&whole, "long").await, 0);
        assert_eq!(segments(&whole).await, 1, "past the grace");
        assert_eq!(whole.read("long", 0, 0).await.len(), 10);
    });
}

#[test]
fn a_clock_that_jumps_trims_nothing_until_somebody_accepts_it() {
    run(async {
        let mut site = Site::new(52);
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        tiered(&whole, "short", kept_for(2 * HOUR)).await;
        whole.clock.jump_wall(48 * 3_600_000);
        pass(HOUR / 2).await;
        assert_eq!(log_start(&whole, "short").await, 0);
        let apart = skews(&client).await;
        assert!(
            apart.iter().all(|skew| *skew == Some(48 * 3_600_000)),
            "{apart:?}"
        );
        // Appends go on all the same, and the answer names a time.
        whole
            .append("short", 0, &[vec![1]], None)
            .await
            .expect("durable");
        let status = client.admin().cluster_status().await.expect("it answers");
        for shard in &status.shards {
            let clock = shard.leader_clock.as_ref().expect("it stands still");
            assert_eq!((clock.node.as_str(), clock.ahead), ("n1.1", true));
            assert!(clock.wall_ms > shard.time_ms + 48 * 3_600_000 - 60_000);
        }
        // Of those that are named, and of no other.
        let accept = async |shards: &[u32]| client.admin().accept_time(shards).await;
        let refused = accept(&[1, 9]).await.expect_err("there are two");
        assert!(refused.to_string().contains("no data shard 9"), "{refused}");
        assert!(skews(&client).await.iter().all(Option::is_some));
        assert_eq!(accept(&[2, 2]).await.expect("accepted"), 1);
        let stand: Vec<_> = skews(&client).await.iter().map(Option::is_some).collect();
        assert_eq!(stand, [true, false]);
        assert_eq!(accept(&[]).await.expect("accepted"), 1);
        assert!(skews(&client).await.iter().all(Option::is_none));
        assert_eq!(accept(&[]).await.expect("accepted"), 0);
        pass(HOUR / 2).await;
        let kept = log_start(&whole, "short").await;
        assert_eq!(kept, 11, "two days are over for what was appended before");
    });
}

/// How far each shard says that its clocks are apart.
async fn skews(client: &Client) -> Vec<Option<u64>> {
    let status = client.admin().cluster_status().await.expect("it answers");
    let skews = status.shards.iter().map(|shard| shard.clock_skew_ms);
    skews.collect()
}

#[test]
fn a_start_with_a_clock_far_ahead_trims_nothing_until_somebody_accepts_it() {
    run(async {
        let mut site = Site::new(54);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(2 * HOUR)).await;
        whole.close().await;

        // Seventy years: a clock that was set wrong.
        site.wall_ahead = 70 * 365 * 24 * HOUR;
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        pass(HOUR).await;
        assert_eq!(log_start(&whole, "short").await, 0);
        let stand = skews(&client).await;
        let stand = stand.iter().filter(|skew| skew.is_some()).count();
        assert_eq!(
            stand, 2,
            "the other shard has no time yet, and goes by this one"
        );
        let done = whole.append("short", 0, &[vec![1]], None).await;
        done.expect("appends go on");
        drop(client);
        whole.close().await;

        // Right again: an hour is nothing to ask about.
        site.wall_ahead = HOUR;
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        assert!(skews(&client).await.iter().all(Option::is_none));
        pass(HOUR / 2).await;
        assert_eq!(log_start(&whole, "short").await, 0);
        drop(client);
        whole.close().await;

        // Three weeks at rest: true, but only an operator can tell.
        site.wall_ahead = 21 * 24 * HOUR;
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        pass(HOUR / 2).await;
        assert_eq!(log_start(&whole, "short").await, 0);
        assert_eq!(client.admin().accept_time(&[]).await.expect("accepted"), 2);
        assert!(skews(&client).await.iter().all(Option::is_none));
        pass(HOUR / 2).await;
        assert_eq!(log_start(&whole, "short").await, 11);
    });
}

#[test]
fn a_clock_set_right_after_a_start_far_ahead_is_told_about() {
    run(async {
        let mut site = Site::new(58);
        // The very first start, by a clock that stands at 2090: there is nothing to hold it against.
        site.wall_ahead = 64 * 365 * 24 * HOUR;
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(2 * HOUR)).await;
        whole.close().await;

        site.wall_ahead = Duration::ZERO;
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        let apart = skews(&client).await;
        let years = |skew: &Option<u64>| skew.is_some_and(|ms| ms > 63 * 365 * 24 * 3_600_000);
        assert!(apart.iter().all(years), "{apart:?}");
        let refused = client.admin().accept_time(&[]).await.expect_err("behind");
        assert!(refused.to_string().contains("never goes back"), "{refused}");
        assert!(skews(&client).await.iter().all(Option::is_some));
        let done = whole.append("short", 0, &[vec![1]], None).await;
        done.expect("appends go on");
        assert_eq!(whole.read("short", 0, 0).await.len(), 11);
    });
}

#[test]
fn a_shard_that_lost_its_last_segment_keeps_up_with_time_for_the_next_start() {
    run(async {
        let mut site = Site::new(55);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(2 * HOUR)).await;
        pass(4 * HOUR).await;
        assert_eq!(segments(&whole).await, 0);
        tokio::time::advance(26 * HOUR).await;
        pass(HOUR / 2).await;
        whole.close().await;
        site.wall_ahead = 31 * HOUR;
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        assert!(skews(&client).await.iter().all(Option::is_none));
    });
}

#[test]
fn every_shard_has_one_checkpoint_in_the_bucket_and_a_deleted_topic_leaves_nothing_else() {
    run(async {
        let mut site = Site::new(53);
        let whole = site.start().await.expect("started");
        tiered(&whole, "gone", TopicConfig::default()).await;
        let mut reader = whole.reader("gone", 0, 0).await;
        let topics = whole.engine.topics();
        topics.delete(&topic("gone")).await.expect("deleted");
        pass(HOUR).await;
        assert!(matches!(
            reader.step().await,
            Err(ReadError::UnknownPartition { .. })
        ));
        let (objects, _) = whole
            .engine
            .store()
            .list_all(Prefix::All)
            .await
            .expect("listed");
        let mut shards = Vec::new();
        for object in objects {
            match object.key {
                Key::Checkpoint { shard, .. } => shards.push(shard),
                Key::Cluster { .. } => {}
                other => unreachable!("{other} is left behind"),
            }
        }
        shards.sort_unstable();
        assert_eq!(shards, [ShardId(0), ShardId(1), ShardId(2)]);
    });
}

#[test]
fn a_bucket_that_knows_more_than_the_head_is_in_the_status() {
    run(async {
        let mut site = Site::new(57);
        let whole = site.start().await.expect("started");
        tiered(&whole, "kept", TopicConfig::default()).await;
        pass(HOUR).await;
        let ahead = |shard| Key::Checkpoint {
            incarnation: Incarnation::FIRST,
            shard,
            index: RaftIndex(1 << 40),
            id: SegmentId(1),
        };
        let store = whole.engine.store().clone();
        let put = store.put(&ahead(ShardId(1)), vec![]).await;
        put.expect("put");
        whole.close().await;
        let whole = site.start().await.expect("started");
        pass(HOUR).await;
        let trouble = |shard| whole.engine.flush_trouble(ShardId(shard));
        let told = trouble(1).expect("it is told");
        assert!(told.contains("older than the bucket"), "{told}");
        assert_eq!(trouble(2), None, "of the shard that it is true of");
        let listed = store.list_all(Prefix::Checkpoints(Incarnation::FIRST, ShardId(1)));
        assert_eq!(listed.await.expect("listed").0.len(), 2, "both are kept");
    });
}

#[test]
fn what_retention_removes_while_the_bucket_is_verified_is_no_finding() {
    run(async {
        let mut site = Site::new(54);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", TopicConfig::default()).await;
        for _ in 0..9 {
            let line = [vec![7; 100]];
            whole
                .append("short", 0, &line, None)
                .await
                .expect("durable");
            whole.engine.flush_now().await.expect("flushed");
        }
        assert_eq!(segments(&whole).await, 10);
        // It waits for somebody to hear of the first segments.
        let (tell, mut told) = mpsc::channel(1);
        let engine = whole.engine.clone();
        let verify = tokio::spawn(async move { engine.verify(Depth::Content, tell).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (topics, name) = (whole.engine.topics(), topic("short"));
        let all = topics.truncate(&name, PartitionIndex(0), None).await;
        assert_eq!(all.expect("trimmed").get(), 19);
        pass(3 * HOUR).await;
        assert_eq!(segments(&whole).await, 0);
        let mut done = false;
        while let Some(report) = told.recv().await {
            assert!(report.found.is_empty(), "{:?}", report.found);
            done = report.done;
        }
        assert!(done);
        verify.await.expect("no panic").expect("it is told");
    });
}

/// Upkeep that fails, by chore.
fn failing(whole: &Whole) -> Vec<(&'static str, u64)> {
    let all = Chore::ALL.map(|chore| (chore.name(), whole.engine.failing(chore)));
    all.into_iter().filter(|(_, shards)| *shards > 0).collect()
}

#[test]
fn upkeep_that_fails_is_counted_as_long_as_it_does() {
    run(async {
        let mut site = Site::new(56);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(HOUR / 2)).await;
        pass(HOUR / 4).await;
        assert_eq!(failing(&whole), []);

        // A bucket that takes everything and deletes nothing: the older checkpoint has to go first.
        let undeletable = Rule::new(Fault::FailBefore).on(Verb::Delete).always();
        whole.faults.script(undeletable);
        tiered(&whole, "more", TopicConfig::default()).await;
        pass(HOUR).await;
        let stays = failing(&whole);
        let names: Vec<_> = stays.iter().map(|(chore, _)| *chore).collect();
        assert_eq!(names, ["checkpoint", "collection"], "{stays:?}");
        whole.faults.calm();
        pass(HOUR / 4).await;
        assert_eq!(failing(&whole), []);

        // One that is away: what reads nothing of it goes on.
        whole.faults.away(true);
        pass(HOUR / 4).await;
        let away = failing(&whole);
        assert!(away.contains(&("claim", 1)), "{away:?}");
        assert!(away.contains(&("collection", 1)), "{away:?}");
        assert!(away.iter().all(|(chore, _)| *chore != "topics"), "{away:?}");
        whole.faults.away(false);
        pass(HOUR / 4).await;
        assert_eq!(failing(&whole), []);
    });
}

/// Segments that may go and stay, of a bucket that lets only checkpoints be deleted.
#[test]
fn a_bucket_that_deletes_nothing_is_told_of() {
    run(async {
        let mut site = Site::new(57);
        let whole = site.start().await.expect("started");
        tiered(&whole, "short", kept_for(HOUR / 2)).await;
        for shard in whole.engine.head().shards() {
            let rule = Rule::new(Fault::FailBefore).on(Verb::Delete);
            let under = Prefix::Flushed(Incarnation::FIRST, shard);
            whole.faults.script(rule.under(under).always());
        }
        pass(2 * HOUR).await;
        assert_eq!(segments(&whole).await, 1);
        assert_eq!(failing(&whole), [("collection", 1)]);
        whole.faults.calm();
        pass(HOUR / 2).await;
        assert_eq!(segments(&whole).await, 0);
        assert_eq!(failing(&whole), []);
    });
}
