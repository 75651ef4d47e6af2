//! Appends, and where they can be read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_log::{Head, HeadError, Place, ReadFrom};
use esker_shard::{AppendBatch, AppendError, AppendOutcome, Command};
use esker_types::limits::BATCH_BYTES_MAX;
use esker_types::{
    Durability, FencingToken, Incarnation, PartitionId, PartitionIndex, ShardId, Timestamp,
    TopicId, TopicVersion,
};
use tokio::time::timeout;

use crate::site::{HEAD_BYTES, SHARD, accepted, batch, make_partition, offset, range, stamp};

super::conform!(
    an_append_is_answered_by_apply,
    what_apply_rejects_comes_back_as_it_said,
    appends_are_proposed_in_the_order_of_the_calls,
    an_append_whose_answer_nobody_awaits_is_made_all_the_same,
    what_was_appended_is_read_back,
    reads_are_bounded_and_hold_one_batch,
    what_is_not_there_is_none,
    a_time_is_found,
    whoever_waits_hears_of_the_next_append,
    a_full_head_refuses_and_says_so,
    what_no_shard_can_take_is_refused,
);

async fn append(head: &dyn Head, batch: (AppendBatch, Bytes)) -> Result<AppendOutcome, HeadError> {
    head.append(SHARD, batch.0, batch.1).await?.await
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn an_append_is_answered_by_apply(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let first = batch(partition, 3, bytes("abc"), Some(stamp(1, 0)));
    let outcome = append(&*head, first.clone()).await.expect("there is room");
    assert_eq!(accepted(&outcome), range(0, 3));
    let outcome = append(&*head, first).await;
    assert_eq!(outcome, Ok(AppendOutcome::Duplicate { range: range(0, 3) }));
    let next = batch(partition, 2, bytes("de"), Some(stamp(1, 3)));
    let outcome = append(&*head, next).await.expect("there is room");
    assert_eq!(accepted(&outcome), range(3, 5));
    let bounds = head.bounds(SHARD, partition).await.expect("it answers");
    let bounds = bounds.expect("it is there");
    assert_eq!((bounds.log_start, bounds.end), (offset(0), offset(5)));
    assert_eq!(bounds.place(offset(4)), Place::Head);
}

async fn what_apply_rejects_comes_back_as_it_said(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let rejected = async |(mut append_batch, bytes), change: fn(&mut AppendBatch)| {
        change(&mut append_batch);
        match append(&*head, (append_batch, bytes)).await {
            Ok(AppendOutcome::Rejected(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let some = || batch(partition, 1, bytes("a"), None);
    let error = rejected(some(), |batch| batch.partition.index = PartitionIndex(99)).await;
    assert_eq!(error, AppendError::UnknownPartition);
    let error = rejected(some(), |batch| batch.records = 0).await;
    assert_eq!(error, AppendError::RecordCount { records: 0 });
    let error = rejected(some(), |batch| batch.expected_end = Some(offset(7))).await;
    assert_eq!(error, AppendError::ExpectedEnd { actual: offset(0) });
    let gap = batch(partition, 1, bytes("a"), Some(stamp(3, 0)));
    append(&*head, gap).await.expect("there is room");
    let gap = batch(partition, 1, bytes("b"), Some(stamp(3, 5)));
    let error = rejected(gap, |_| {}).await;
    assert_eq!(
        error,
        AppendError::SequenceGap {
            expected: stamp(3, 1).sequence
        }
    );
    let (mut fenced, payload) = some();
    fenced.fencing = Some(FencingToken(9));
    append(&*head, (fenced, payload))
        .await
        .expect("it has room");
    let error = rejected(some(), |batch| batch.fencing = Some(FencingToken(8))).await;
    let current = FencingToken(9);
    assert_eq!(error, AppendError::Fenced { current });
}

async fn appends_are_proposed_in_the_order_of_the_calls(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let mut answers = Vec::new();
    for number in 0..500u32 {
        let (batch, bytes) = batch(partition, 1 + number % 3, Bytes::from(vec![7; 50]), None);
        let queued = head.append(SHARD, batch, bytes).await;
        answers.push((number, queued.expect("there is room")));
    }
    let mut end = 0;
    for (number, answer) in answers {
        let next = end + u64::from(1 + number % 3);
        let outcome = answer.await.expect("it leads");
        assert_eq!(accepted(&outcome), range(end, next));
        end = next;
    }
}

async fn an_append_whose_answer_nobody_awaits_is_made_all_the_same(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    for _ in 0..3 {
        let (batch, bytes) = batch(partition, 1, bytes("a"), None);
        let answer = head.append(SHARD, batch, bytes).await;
        drop(answer.expect("there is room"));
    }
    let last = batch(partition, 1, bytes("b"), None);
    let outcome = append(&*head, last).await.expect("there is room");
    assert_eq!(accepted(&outcome), range(3, 4));
}

async fn what_was_appended_is_read_back(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    for text in ["one", "two", "three"] {
        let some = batch(partition, 2, bytes(text), None);
        append(&*head, some).await.expect("there is room");
    }
    let seen = head.read_index(SHARD).await.expect("it is led");
    let read = async |from, who| {
        let read = head
            .read(SHARD, partition, offset(from), 1 << 20, who)
            .await;
        let read = read.expect("it answers").expect("it is there");
        let batches = read.batches.iter();
        let found: Vec<_> = batches.map(|it| (it.range, it.bytes.clone())).collect();
        (found, read.bounds.end)
    };
    let all = [
        (range(0, 2), bytes("one")),
        (range(2, 4), bytes("two")),
        (range(4, 6), bytes("three")),
    ];
    for who in [ReadFrom::Leader, ReadFrom::Follower { seen }] {
        assert_eq!(read(0, who).await, (all.to_vec(), offset(6)));
        assert_eq!(read(3, who).await, (all[1..].to_vec(), offset(6)));
        assert_eq!(read(6, who).await, (Vec::new(), offset(6)));
    }
}

async fn reads_are_bounded_and_hold_one_batch(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    for _ in 0..20 {
        let some = batch(partition, 1, Bytes::from(vec![1; 1000]), None);
        append(&*head, some).await.expect("there is room");
    }
    let count = async |bytes_max| {
        let read = head
            .read(SHARD, partition, offset(2), bytes_max, ReadFrom::Leader)
            .await;
        read.expect("it answers")
            .expect("it is there")
            .batches
            .len()
    };
    assert_eq!(count(0).await, 1);
    assert_eq!(count(5000).await, 5);
    assert_eq!(count(usize::MAX).await, 18);
    let large = batch(partition, 1, Bytes::from(vec![2; 1 << 20]), None);
    append(&*head, large).await.expect("there is room");
    let read = head
        .read(SHARD, partition, offset(20), 10, ReadFrom::Leader)
        .await;
    let read = read.expect("it answers").expect("it is there");
    assert_eq!(read.batches[0].bytes.len(), 1 << 20);
}

async fn what_is_not_there_is_none(head: Arc<dyn Head>) {
    let known = make_partition(&*head).await;
    let unknown = PartitionId {
        topic: TopicId::new(Incarnation::FIRST, 999).expect("small"),
        index: PartitionIndex(0),
    };
    assert_eq!(head.bounds(SHARD, unknown).await, Ok(None));
    let seen = head.read_index(SHARD).await.expect("it is led");
    for who in [ReadFrom::Leader, ReadFrom::Follower { seen }] {
        let read = head.read(SHARD, unknown, offset(0), 100, who).await;
        assert!(read.expect("it answers").is_none());
    }
    let found = head.by_time(SHARD, known, Timestamp(0), offset(0)).await;
    assert_eq!(found, Ok(None));
    let seen = head.bounds(SHARD, known).await.expect("it answers");
    let seen = seen.expect("it is there");
    assert_eq!(head.past(SHARD, unknown, seen).await, Ok(None));
    let nowhere = ShardId(77);
    let error = head.progress(nowhere).await.expect_err("no such shard");
    assert_eq!(error, HeadError::NoShard { shard: nowhere });
    let error = head
        .bounds(nowhere, known)
        .await
        .expect_err("no such shard");
    assert_eq!(error, HeadError::NoShard { shard: nowhere });
}

async fn a_time_is_found(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    for number in 0..4 {
        let (mut some, bytes) = batch(partition, 2, bytes("ab"), None);
        some.max_timestamp = Timestamp(100 * (number + 1));
        append(&*head, (some, bytes)).await.expect("there is room");
    }
    let find = |time, from| head.by_time(SHARD, partition, Timestamp(time), offset(from));
    assert_eq!(find(0, 0).await, Ok(Some(offset(0))));
    assert_eq!(find(150, 0).await, Ok(Some(offset(2))));
    assert_eq!(find(150, 5).await, Ok(Some(offset(5))));
    assert_eq!(find(401, 0).await, Ok(None));
}

async fn whoever_waits_hears_of_the_next_append(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let seen = head.bounds(SHARD, partition).await.expect("it answers");
    let seen = seen.expect("it is there");
    let waiting = Arc::clone(&head);
    let waiting = tokio::spawn(async move { waiting.past(SHARD, partition, seen).await });
    // Longer than a node lets anybody wait for one answer.
    tokio::time::sleep(Duration::from_secs(23)).await;
    assert!(!waiting.is_finished());
    let some = batch(partition, 2, bytes("ab"), None);
    append(&*head, some).await.expect("there is room");
    let past = timeout(Duration::from_secs(5), waiting).await;
    let past = past.expect("it hears").expect("no panic");
    let past = past.expect("it answers").expect("it is there");
    assert_eq!(past.end, offset(2));
    // It was so before it was asked for.
    let again = head.past(SHARD, partition, seen).await;
    assert_eq!(again.map(|it| it.map(|it| it.end)), Ok(Some(offset(2))));
    let (topic, version) = (partition.topic, TopicVersion(2));
    let waiting = Arc::clone(&head);
    let waiting = tokio::spawn(async move { waiting.past(SHARD, partition, past).await });
    let end = Command::EndTopic { topic, version };
    let _ = head.propose(SHARD, end).await.expect("it is proposed");
    let ended = timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(ended.expect("it hears").expect("no panic"), Ok(None));
}

async fn a_full_head_refuses_and_says_so(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let mut taken = 0;
    let error = loop {
        let some = batch(partition, 1, Bytes::from(vec![3; 1 << 20]), None);
        match append(&*head, some).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= HEAD_BYTES >> 20, "it takes more than it may");
    };
    let HeadError::HeadFull { limit, held, .. } = error else {
        panic!("{error:?}");
    };
    assert!(held >= limit && limit <= HEAD_BYTES, "{held} of {limit}");
    assert_eq!(error.durability(), Durability::NotWritten);
    let bounds = head.bounds(SHARD, partition).await.expect("it answers");
    assert_eq!(bounds.map(|bounds| bounds.end), Some(offset(taken)));
}

async fn what_no_shard_can_take_is_refused(head: Arc<dyn Head>) {
    let partition = make_partition(&*head).await;
    let large = || {
        batch(
            partition,
            1,
            Bytes::from(vec![0; BATCH_BYTES_MAX + 1]),
            None,
        )
    };
    let error = append(&*head, large()).await.expect_err("too large");
    assert!(matches!(error, HeadError::Refused { .. }), "{error:?}");
    let shard = ShardId::CATALOG;
    let (some, bytes) = batch(partition, 1, bytes("a"), None);
    let queued = head.append(shard, some, bytes).await;
    let error = queued.err().expect("the catalog takes none");
    assert_eq!(error, HeadError::NoShard { shard });
    let end = head.bounds(SHARD, partition).await.expect("it answers");
    assert_eq!(end.map(|bounds| bounds.end), Some(offset(0)));
}
