//! Segments that are lost or damaged: what they do not hold is read all the same, and what they
//! hold is named.

use bytes::Bytes;
use esker_cache::{BlockCache, BlockKey};
use esker_log::{Damages, Engine, EngineOptions, ReadError, Reader};
use esker_object::Verb;
use esker_object::faults::{Fault, Rule};
use esker_tests::node::{SHARD, World, run};
use esker_types::limits::MIB;
use esker_types::{Lane, Offset, PartitionId, Timestamp};

use super::{Kept, at, engine, key_of, start};

fn offset(at: u64) -> Offset {
    Offset::new(at).expect("small")
}

async fn reader(kept: &Kept, partition: PartitionId, from: u64) -> Reader {
    let readers = kept.engine.readers();
    let opened = readers.open(SHARD, partition, offset(from), Lane::Tail);
    opened.await.expect("in range")
}

/// Reads on until the end or an error, which must not move the reader; where it stands then.
async fn read_on(reader: &mut Reader) -> (u64, Option<ReadError>) {
    loop {
        let position = reader.position();
        match reader.step().await {
            Ok(chunk) if chunk.batches.is_empty() => return (position.get(), None),
            Ok(chunk) => assert_eq!(chunk.batches[0].range.start(), position),
            Err(error) => {
                assert_eq!(reader.position(), position);
                return (position.get(), Some(error));
            }
        }
    }
}

/// Three segments, the one in the middle of `second` alone; each has 10 records of a partition.
async fn three(kept: &Kept, first: PartitionId, second: PartitionId) {
    kept.put_topic(1, 1, &[]).await;
    for round in 0..3 {
        if round != 1 {
            kept.append(first, 10).await;
        }
        kept.append(second, 10).await;
        kept.flush().await;
    }
}

#[test]
fn a_lost_segment_takes_nothing_with_it_but_what_it_holds_and_that_is_named() {
    run(async {
        let kept = start(&mut World::new(31), "damage-1").await;
        let (first, second) = (at(1, 0), at(1, 1));
        three(&kept, first, second).await;
        let lost = key_of(&kept.manifest()[1]);
        for gone in kept.store.delete(&[lost]).await {
            gone.expect("deleted");
        }
        // Of the one partition it held nothing.
        for from in [0, 5, 10, 15] {
            assert!(matches!(
                read_on(&mut reader(&kept, first, from).await).await,
                (20, None)
            ));
        }
        // Of the other it held what is named, wherever the reader comes from.
        for from in [0, 10, 15] {
            let mut reader = reader(&kept, second, from).await;
            let (stopped, error) = read_on(&mut reader).await;
            assert_eq!(stopped, from.max(10));
            let Some(ReadError::Lost { range, .. }) = &error else {
                unreachable!("{error:?}")
            };
            assert!(
                (range.start().get(), range.end().get()) == (10, 20),
                "{range}"
            );
            reader.skip_to(range.end());
            assert!(matches!(read_on(&mut reader).await, (30, None)));
        }
        let mut beyond = reader(&kept, second, 20).await;
        assert!(matches!(read_on(&mut beyond).await, (30, None)));
        // Every record is of time 1000.
        let readers = kept.engine.readers();
        let late = readers.by_time(SHARD, first, Timestamp(1001)).await;
        assert_eq!(late.expect("it holds nothing of it"), None);
        let late = readers.by_time(SHARD, second, Timestamp(1001)).await;
        let error = late.expect_err("it may have held one");
        assert!(matches!(error, ReadError::Lost { .. }), "{error}");
    });
}

#[test]
fn a_rotten_block_names_its_offsets_and_can_be_stepped_over() {
    run(async {
        let kept = start(&mut World::new(32), "damage-2").await;
        let (first, second) = (at(1, 0), at(1, 1));
        three(&kept, first, second).await;
        let segment = kept.manifest()[1].clone();
        let key = key_of(&segment);
        let bytes = kept.store.get_range(&key, 0..segment.length, Lane::Tail);
        let mut bytes = Vec::from(bytes.await.expect("there"));
        bytes[20] ^= 1;
        for gone in kept.store.delete(&[key]).await {
            gone.expect("deleted");
        }
        let put = kept.store.put(&key, vec![Bytes::from(bytes)]).await;
        put.expect("put");
        let mut reader = reader(&kept, second, 0).await;
        let (stopped, error) = read_on(&mut reader).await;
        let Some(ReadError::Lost { range, .. }) = &error else {
            unreachable!("{error:?}")
        };
        assert_eq!((stopped, range.end().get()), (10, 20));
        let told = Damages { again: 1, lost: 1 };
        assert_eq!(kept.engine.readers().damages(), told);
        reader.skip_to(range.end());
        assert!(matches!(read_on(&mut reader).await, (30, None)));
    });
}

#[test]
fn an_answer_that_was_damaged_on_its_way_is_asked_for_again() {
    run(async {
        let kept = start(&mut World::new(33), "damage-3").await;
        let partition = at(1, 0);
        kept.put_topic(1, 1, &[]).await;
        // Its index is larger than what is read when the segment is opened.
        kept.append(partition, 6000).await;
        kept.flush().await;
        let mut damaged = 0;
        for after in 0..6 {
            // With nothing in its caches yet.
            let engine = engine(&kept.node, &kept.store);
            let faults = &kept.faults;
            faults.script(Rule::new(Fault::CorruptBody).on(Verb::Get).after(after));
            let readers = engine.readers();
            let opened = readers.open(SHARD, partition, Offset::ZERO, Lane::Tail);
            let (end, error) = read_on(&mut opened.await.expect("open")).await;
            assert!(
                end == 6000 && error.is_none(),
                "{after}: {error:?} at {end}"
            );
            faults.calm();
            let Damages { again, lost } = readers.damages();
            assert!(again <= 1 && lost == 0, "{after}: {again}, {lost}");
            damaged += again;
        }
        assert!(damaged > 1, "{damaged} answers were damaged");
    });
}

#[test]
fn a_time_is_looked_for_again_if_an_answer_was_damaged_on_its_way() {
    run(async {
        let kept = start(&mut World::new(34), "damage-4").await;
        let partition = at(1, 0);
        kept.put_topic(1, 1, &[]).await;
        kept.append(partition, 6000).await;
        kept.flush().await;
        let mut damaged = 0;
        for after in 0..4 {
            let engine = engine(&kept.node, &kept.store);
            let faults = &kept.faults;
            faults.script(Rule::new(Fault::CorruptBody).on(Verb::Get).after(after));
            let readers = engine.readers();
            let found = readers.by_time(SHARD, partition, Timestamp(1000)).await;
            assert_eq!(found.expect("read"), Some(Offset::ZERO), "{after}");
            faults.calm();
            assert_eq!(readers.damages().lost, 0);
            damaged += readers.damages().again;
        }
        assert!(damaged > 1, "{damaged} answers were damaged");
    });
}

#[test]
fn what_rots_in_the_cache_is_read_from_the_bucket_and_only_what_rots_there_is_lost() {
    run(async {
        let kept = start(&mut World::new(35), "damage-5").await;
        let (first, second) = (at(1, 0), at(1, 1));
        three(&kept, first, second).await;
        let segment = kept.manifest()[1].segment;
        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let key = BlockKey { segment, block: 0 };
        let rotten = async || {
            blocks.forget(key);
            let bytes = Bytes::from(vec![7; 4000]);
            let load = move || async move { Ok(bytes) };
            blocks
                .get_or_load(key, Lane::Tail, load)
                .await
                .expect("kept");
        };
        let (store, env) = (kept.store.clone(), kept.node.env.clone());
        let head = kept.node.head();
        let engine = Engine::new(head, store, env, blocks.clone(), EngineOptions::default());
        rotten().await;
        let readers = engine.readers();
        let open = || readers.open(SHARD, second, Offset::ZERO, Lane::Tail);
        for again in 1..3 {
            let (end, error) = read_on(&mut open().await.expect("open")).await;
            assert!(end == 30 && error.is_none(), "{error:?} at {end}");
            assert_eq!(readers.damages(), Damages { again, lost: 0 });
            // What came from the bucket is cached now.
            let (end, _) = read_on(&mut open().await.expect("open")).await;
            assert_eq!((end, readers.damages().again), (30, again));
            rotten().await;
        }
        // The bucket's copy comes damaged, too: it was asked for twice, and the loss is told.
        let corrupt = Rule::new(Fault::CorruptBody).on(Verb::Get);
        kept.faults.script(corrupt);
        let before = kept.store.counters().get.done;
        let (stopped, error) = read_on(&mut open().await.expect("open")).await;
        assert!(error.is_some_and(|error| error.is_loss()));
        assert_eq!(stopped, 10);
        assert_eq!(kept.store.counters().get.done, before + 1);
        assert_eq!(readers.damages(), Damages { again: 3, lost: 1 });
    });
}
