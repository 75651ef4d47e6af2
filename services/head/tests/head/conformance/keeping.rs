//! Flushes, checkpoints, time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_log::{Bid, FlushJob, Head, HeadError, Job, ReadFrom, WorkerId};
use esker_shard::checkpoint;
use esker_shard::{
    Command, CommitRefusal, CommitSegment, ObjectChecksum, Outcome, Refusal, ranges_hash,
};
use esker_types::{PartitionId, RaftIndex, RaftRange, SegmentId, ShardId};
use tokio::time::timeout;

use crate::site::{SHARD, batch, make_partition, make_topic, offset, range};

super::conform!(
    a_flush_job_says_what_to_write_and_its_batches_come_in_runs,
    a_committed_segment_is_in_the_manifest_and_its_entries_are_released,
    the_manifest_comes_in_pages,
    a_checkpoint_is_the_state_of_the_shard,
    progress_tells_of_what_is_applied,
    whoever_waits_hears_of_the_next_entry,
    time_passes_and_is_accepted,
    marks_never_go_back,
    a_job_is_for_one_of_those_who_ask_for_it,
);

async fn fill(head: &dyn Head, partition: PartitionId, batches: u32, bytes: usize) {
    for _ in 0..batches {
        let (batch, bytes) = batch(partition, 1, Bytes::from(vec![9; bytes]), None);
        let answer = head.append(SHARD, batch, bytes).await;
        answer.expect("there is room").await.expect("it leads");
    }
}

async fn job(head: &dyn Head) -> FlushJob {
    let job = head.flush_job(SHARD, u64::MAX).await;
    job.expect("it answers").expect("there is something")
}

/// Commits what is there, as if it had been written.
pub(crate) async fn commit(head: &dyn Head, id: u128) -> (FlushJob, Result<Outcome, HeadError>) {
    let job = job(head).await;
    let commit = Command::CommitSegment(CommitSegment {
        segment: SegmentId(id),
        length: 1000,
        checksum: ObjectChecksum(5),
        raft: job.raft,
        ranges: job.ranges.clone(),
    });
    let outcome = head.propose(SHARD, commit).await;
    (job, outcome)
}

async fn a_flush_job_says_what_to_write_and_its_batches_come_in_runs(head: Arc<dyn Head>) {
    let none = head.flush_job(SHARD, u64::MAX).await;
    assert!(none.expect("it answers").is_none(), "nothing is there");
    let partitions = make_topic(&*head, "gravel", 6).await;
    let here = partitions.iter().filter(|(shard, _)| *shard == SHARD);
    let here: Vec<_> = here.map(|(_, partition)| *partition).collect();
    for partition in &here {
        fill(&*head, *partition, 4, 1000).await;
    }
    let job = job(&*head).await;
    let held: Vec<_> = here.iter().map(|id| (*id, range(0, 4))).collect();
    assert_eq!(
        (job.shard, &job.ranges, job.bytes),
        (SHARD, &held, 4000 * 3)
    );
    let named = job
        .partitions
        .iter()
        .map(|facts| (facts.id, facts.topic.as_str()));
    let expected: Vec<_> = here.iter().map(|id| (*id, "gravel")).collect();
    assert_eq!(named.collect::<Vec<_>>(), expected);
    for bytes_max in [0, 2500, usize::MAX] {
        let (mut from, mut batches, mut runs) = (job.raft.from, Vec::new(), 0);
        while from < job.raft.to {
            let rest = RaftRange::new(from, job.raft.to).expect("in order");
            let run = head.accepted(SHARD, rest, bytes_max).await;
            let run = run.expect("it is in the head");
            assert!(run.upto > from, "it gets on");
            batches.extend(run.batches.iter().map(|it| (it.partition, it.range)));
            (from, runs) = (run.upto, runs + 1);
        }
        assert_eq!(batches.len(), 12);
        assert!(batches.iter().all(|(id, _)| here.contains(id)));
        assert_eq!(runs == 1, bytes_max == usize::MAX, "{runs} runs");
    }
}

async fn a_committed_segment_is_in_the_manifest_and_its_entries_are_released(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    fill(&*head, partition, 5, 100).await;
    let (job, outcome) = commit(&*head, 7).await;
    let flush_position = job.raft.to;
    assert_eq!(outcome, Ok(Outcome::SegmentCommitted { flush_position }));
    let page = head.manifest(SHARD, None, 10).await.expect("it answers");
    let [segment] = &page.items[..] else {
        panic!("{page:?}");
    };
    assert_eq!((segment.segment, segment.raft), (SegmentId(7), job.raft));
    assert_eq!(segment.ranges_hash, ranges_hash(&job.ranges));
    let bounds = head.bounds(SHARD, partition).await.expect("it answers");
    let bounds = bounds.expect("it is there");
    assert_eq!(bounds.tiered_end, offset(5));
    assert!(page.mark <= bounds.mark);
    // Nothing of them is in the head.
    let run = head.accepted(SHARD, job.raft, 1 << 20).await;
    assert_eq!(run.expect("it answers").batches.len(), 0);
    let read = head
        .read(SHARD, partition, offset(0), 1 << 20, ReadFrom::Leader)
        .await;
    let read = read.expect("it answers").expect("it is there");
    assert_eq!((read.batches.len(), read.bounds.tiered_end), (0, offset(5)));
    // Whoever comes late is told so.
    let late = Command::CommitSegment(CommitSegment {
        segment: SegmentId(8),
        length: 1,
        checksum: ObjectChecksum(1),
        raft: job.raft,
        ranges: job.ranges,
    });
    let refusal = Refusal::Commit(CommitRefusal::NotNext {
        from: job.raft.from,
        flush_position,
    });
    let outcome = head.propose(SHARD, late).await;
    assert_eq!(outcome, Ok(Outcome::Refused(refusal)));
}

async fn the_manifest_comes_in_pages(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    for id in 1..=5 {
        fill(&*head, partition, 1, 10).await;
        let _ = commit(&*head, id).await.1.expect("it is proposed");
    }
    for count in [1, 2, 5, usize::MAX] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = head.manifest(SHARD, after, count).await;
            let page = page.expect("it answers");
            after = page.items.last().map(|it| it.place());
            found.extend(page.items.iter().map(|it| it.segment.0));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, [1, 2, 3, 4, 5]);
    }
}

async fn a_checkpoint_is_the_state_of_the_shard(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    fill(&*head, partition, 3, 10).await;
    let _ = commit(&*head, 1).await.1.expect("it is proposed");
    fill(&*head, partition, 2, 10).await;
    let checkpoint = head.checkpoint(SHARD).await.expect("it answers");
    let decoded = checkpoint::decode(&checkpoint.chunks.concat()).expect("it is whole");
    let state = decoded.state;
    assert_eq!(state.shard(), SHARD);
    assert_eq!(state.applied().index, checkpoint.mark.index);
    let data = state.data().expect("a data shard");
    assert_eq!(data.segment_count(), 1);
    let catalog = head.checkpoint(ShardId::CATALOG).await.expect("it answers");
    let decoded = checkpoint::decode(&catalog.chunks.concat()).expect("it is whole");
    assert!(decoded.state.catalog().is_some());
}

async fn progress_tells_of_what_is_applied(head: Arc<dyn Head>) {
    assert_eq!(head.shards(), [ShardId(1), ShardId(2)]);
    let partition = make_partition(&*head).await;
    let before = head.progress(SHARD).await.expect("it answers");
    fill(&*head, partition, 3, 100).await;
    let after = head.progress(SHARD).await.expect("it answers");
    assert_eq!(after.mark.index.0, before.mark.index.0 + 3);
    assert_eq!((after.head.bytes, after.head.batches), (300, 3));
    assert_eq!(after.head.oldest.is_some(), before.head.oldest.is_none());
    assert!(after.head_bytes_max > 0 && after.head_batches_max > 0);
    let reached = head.read_index(SHARD).await.expect("it leads");
    assert_eq!(reached, after.mark);
    let catalog = head.progress(ShardId::CATALOG).await.expect("it answers");
    assert_eq!(catalog.head.bytes, 0);
}

async fn whoever_waits_hears_of_the_next_entry(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let seen = head.read_index(SHARD).await.expect("it leads").index;
    // Nothing comes: it says how the shard stands, and no sooner than it was asked to.
    for patience in [0, 300, 12_000].map(Duration::from_millis) {
        let began = tokio::time::Instant::now();
        let same = head.progress_past(SHARD, seen, patience).await;
        assert_eq!(same.expect("it answers").mark.index, seen);
        assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
    }
    let waiting = Arc::clone(&head);
    let patience = Duration::from_secs(60);
    let waiting = tokio::spawn(async move { waiting.progress_past(SHARD, seen, patience).await });
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!waiting.is_finished());
    fill(&*head, partition, 1, 10).await;
    let progress = timeout(Duration::from_secs(5), waiting).await;
    let progress = progress.expect("it hears").expect("no panic");
    assert!(progress.expect("it answers").mark.index > seen);
    let at_once = head.progress_past(SHARD, RaftIndex::ZERO, patience).await;
    assert!(at_once.expect("it answers").mark.index > seen);
}

async fn time_passes_and_is_accepted(head: Arc<dyn Head>) {
    let before = head.progress(SHARD).await.expect("it answers");
    tokio::time::sleep(Duration::from_secs(3)).await;
    head.tick(SHARD).await.expect("it leads");
    let after = head.progress(SHARD).await.expect("it answers");
    assert!(after.time > before.time, "{:?}", after.time);
    assert_eq!(after.clock_skew, None);
    head.accept_time(SHARD).await.expect("it leads");
    head.tick(ShardId::CATALOG)
        .await
        .expect("it has no time of its own");
}

async fn a_job_is_for_one_of_those_who_ask_for_it(head: Arc<dyn Head>) {
    let asks = async |worker, job| {
        let bid = Bid {
            job,
            worker: WorkerId(worker),
            busy: false,
            failed: false,
            again: Duration::from_secs(1),
        };
        head.turn(SHARD, bid).await.expect("it leads")
    };
    for job in [Job::Flush, Job::Checkpoint, Job::Retention] {
        for worker in [1, 2] {
            asks(worker, job).await;
        }
        let (one, two) = (asks(1, job).await, asks(2, job).await);
        assert!(one != two, "{job:?}");
        // Whoever it is, the other one has it once that is gone.
        let other = if one { 2 } else { 1 };
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!asks(other, job).await, "{job:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(asks(other, job).await, "{job:?}");
    }
    let nowhere = Bid {
        job: Job::Collection,
        worker: WorkerId(1),
        busy: false,
        failed: false,
        again: Duration::ZERO,
    };
    let refused = head.turn(ShardId(99), nowhere).await;
    assert!(
        matches!(refused, Err(HeadError::NoShard { .. })),
        "{refused:?}"
    );
}

async fn marks_never_go_back(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let mut mark = head.read_index(SHARD).await.expect("it leads");
    for round in 0..10 {
        fill(&*head, partition, 1 + round % 3, 10).await;
        let bounds = head.bounds(SHARD, partition).await.expect("it answers");
        let page = head.manifest(SHARD, None, 1).await.expect("it answers");
        let progress = head.progress(SHARD).await.expect("it answers");
        let topics = head.shard_topics(SHARD, None, 1).await.expect("it answers");
        let stones = head.tombstones(SHARD, None, 1).await.expect("it answers");
        let marks = [
            bounds.expect("it is there").mark,
            page.mark,
            progress.mark,
            topics.mark,
            stones.mark,
        ];
        for next in marks {
            assert!(next >= mark, "{next:?} after {mark:?}");
            mark = next;
        }
    }
}
