//! Where the bucket lacks something, or has it damaged, a read says which offsets that touches.

use bytes::Bytes;
use esker_client::{Code, Detail, From, Until};
use esker_env::sim::SeededEntropy;
use esker_object::{Key, Prefix};
use esker_tests::node::run;
use esker_types::{Lane, Offset};

use crate::{
    LIFE, PARTITIONS, TOPIC, busiest, checkpoint, flush, keys, load, of, open, read, reads_alike,
    remove, shard_of, started,
};

/// Without a checkpoint nobody can tell what was trimmed from what is lost: where offsets do not go
/// on it is a loss, and where nothing follows there may be one.
#[test]
fn a_missing_segment_is_named_and_what_lies_around_it_is_read() {
    run(async {
        let whole = started(45).await;
        let random = SeededEntropy::new(45);
        for _ in 0..4 {
            load(&whole, &random, 60).await;
            flush(&whole).await;
        }
        let segments = busiest(&whole).await;
        assert_eq!(segments.len(), 4);
        let shard = of(&segments[0]);
        let entries = |key: &Key| match key {
            Key::FlushedSegment { range, .. } => range.to_string(),
            other => unreachable!("{other}"),
        };
        let before = open(&whole).await;
        assert_eq!(before.notes(), [] as [String; 0]);
        let ends = before.offsets(TOPIC).expect("known");
        for (missing, follows) in [(segments[2], true), (segments[3], false)] {
            remove(&whole, missing).await;
            let direct = open(&whole).await;
            let notes = direct.notes().concat();
            // Behind the last one there is nothing to see it by.
            assert_eq!(notes.contains(&entries(&missing)), follows, "{notes}");
            let mut broken = 0;
            for partition in 0..PARTITIONS {
                let (values, end) = read(&direct, partition, From::Earliest, Until::End).await;
                if shard_of(&whole, partition).await != shard {
                    end.expect("the other shard is whole");
                    continue;
                }
                broken += 1;
                let whole_end = ends[partition as usize].end.get();
                assert!(!values.is_empty() && (values.len() as u64) < whole_end);
                let offsets = &direct.offsets(TOPIC).expect("known")[partition as usize];
                if !follows {
                    end.expect("what is not there is not known of");
                    assert_eq!(offsets.end.get(), values.len() as u64);
                    continue;
                }
                let error = end.expect_err("a segment is missing");
                assert_eq!(error.code(), Code::DataLoss);
                let Some(Detail::Damage(damage)) = error.detail() else {
                    unreachable!("{error}");
                };
                assert_eq!(damage.start, values.len() as u64);
                assert_eq!(offsets.end.get(), whole_end);
                // Behind it everything is there, and so is what was asked for below it.
                let behind = From::Offset(Offset::new(damage.end).expect("small"));
                let (rest, end) = read(&direct, partition, behind, Until::End).await;
                assert!(end.is_ok() && rest.len() as u64 == whole_end - damage.end);
                let until = Until::Offset(Offset::new(damage.start).expect("small"));
                let (again, end) = read(&direct, partition, From::Earliest, until).await;
                assert!(end.is_ok() && again == values);
            }
            assert!(broken > 0);
        }
    });
}

#[test]
fn a_partition_that_ends_before_a_hole_may_go_on_in_it() {
    run(async {
        let whole = started(49).await;
        let line = vec![b"gravel".to_vec()];
        let mut shard = None;
        let mut all = Vec::new();
        for partition in [0, 1, 2] {
            all.push(shard_of(&whole, partition).await);
        }
        // Two of three partitions lie in one of two shards.
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            if all[one] == all[other] {
                shard.get_or_insert((all[one], one, other));
            }
        }
        let (shard, idle, busy) = shard.expect("by the number of shards");
        let append = async |partition: usize| {
            let partition = u32::try_from(partition).expect("small");
            let appended = whole.append(TOPIC, partition, &line, None).await;
            appended.expect("appended");
        };
        for last in [false, false, true] {
            append(busy).await;
            if !last {
                append(idle).await;
            }
            flush(&whole).await;
        }
        let segments = keys(&whole, Prefix::Flushed(LIFE, shard)).await;
        assert_eq!(segments.len(), 3);
        remove(&whole, segments[1]).await;
        let direct = open(&whole).await;
        let offsets = direct.offsets(TOPIC).expect("known");
        let why = offsets[idle].broken.as_ref().expect("it may go on");
        assert!(why.contains("no checkpoint to tell"), "{why}");
        assert_eq!(offsets[busy].broken, None);
        for partition in [idle, busy] {
            let partition = u32::try_from(partition).expect("small");
            let (values, end) = read(&direct, partition, From::Earliest, Until::End).await;
            assert_eq!(values.len(), 1);
            assert_eq!(end.expect_err("something lacks").code(), Code::DataLoss);
        }
    });
}

#[test]
fn a_segment_that_the_checkpoint_names_and_the_bucket_lacks_ends_the_read() {
    run(async {
        let whole = started(46).await;
        let random = SeededEntropy::new(46);
        for _ in 0..3 {
            load(&whole, &random, 60).await;
            flush(&whole).await;
        }
        checkpoint(&whole).await;
        let segments = busiest(&whole).await;
        remove(&whole, segments[1]).await;
        let direct = open(&whole).await;
        let mut lost = 0;
        for offsets in direct.offsets(TOPIC).expect("known") {
            let partition = offsets.partition;
            let (values, end) = read(&direct, partition, From::Earliest, Until::End).await;
            match end {
                Ok(()) => assert_eq!(values.len() as u64, offsets.end.get()),
                Err(error) => {
                    let Some(Detail::Damage(damage)) = error.detail() else {
                        unreachable!("{error}");
                    };
                    assert_eq!(damage.start, values.len() as u64, "up to the gap");
                    assert!(damage.end > damage.start && damage.end < offsets.end.get());
                    assert!(
                        error.message().contains(&segments[1].to_string()),
                        "{error}"
                    );
                    // Behind it everything is there.
                    let behind = From::Offset(Offset::new(damage.end).expect("small"));
                    let (rest, end) = read(&direct, partition, behind, Until::End).await;
                    assert!(end.is_ok());
                    assert_eq!(rest.len() as u64, offsets.end.get() - damage.end);
                    lost += 1;
                }
            }
        }
        assert!(lost > 0);
    });
}

#[test]
fn damage_is_an_error_that_names_object_and_offsets_wherever_it_lies() {
    run(async {
        let whole = started(47).await;
        load(&whole, &SeededEntropy::new(47), 200).await;
        flush(&whole).await;
        let key = busiest(&whole).await[0];
        let store = whole.engine.store();
        let length = store.head(&key).await.expect("there");
        let bytes = store
            .get_range(&key, 0..length, Lane::Tail)
            .await
            .expect("read");
        let mut places: Vec<_> = (16..length)
            .step_by(usize::try_from(length / 60).expect("small"))
            .collect();
        places.push(length - 1);
        let mut errors = 0;
        let mut all = Vec::new();
        for partition in 0..PARTITIONS {
            all.push(whole.read(TOPIC, partition, 0).await);
        }
        for place in places {
            let mut damaged = bytes.to_vec();
            damaged[usize::try_from(place).expect("small")] ^= 0x10;
            store
                .put(&key, vec![Bytes::from(damaged)])
                .await
                .expect("put");
            let direct = open(&whole).await;
            if let Err(error) = direct.offsets(TOPIC) {
                assert_eq!(error.code(), Code::DataLoss, "{error}");
                continue;
            }
            for offsets in direct.offsets(TOPIC).expect("known") {
                let partition = offsets.partition;
                if shard_of(&whole, partition).await != of(&key) {
                    continue;
                }
                let (values, end) = read(&direct, partition, From::Earliest, Until::End).await;
                let live = &all[partition as usize];
                assert_eq!(values, live[..values.len()], "what comes is right");
                match end {
                    Err(error) => {
                        assert_eq!(error.code(), Code::DataLoss, "{error}");
                        assert!(error.message().contains("segment"), "{error}");
                        errors += 1;
                    }
                    // The damage lies in another partition's part.
                    Ok(()) => assert_eq!(values.len(), live.len()),
                }
            }
        }
        assert!(errors >= 50, "{errors}");
        store.put(&key, vec![bytes]).await.expect("put");
        reads_alike(&whole, &open(&whole).await).await;
    });
}
