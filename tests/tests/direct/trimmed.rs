//! What was trimmed is not lost.

use esker_client::{Code, Detail, From, Until};
use esker_env::sim::SeededEntropy;
use esker_object::Prefix;
use esker_tests::node::run;
use esker_tests::whole::topic;
use esker_types::{Offset, ShardId, Timestamp};

use crate::{
    LIFE, PARTITIONS, TOPIC, busiest, checkpoint, flush, keys, load, of, open, read, reads_alike,
    remove, shard_of, started, trim,
};

#[test]
fn by_segments_alone_the_log_begins_with_the_lowest() {
    run(async {
        let whole = started(47).await;
        let random = SeededEntropy::new(47);
        load(&whole, &random, 60).await;
        flush(&whole).await;
        trim(&whole, &open(&whole).await).await;
        for _ in 0..2 {
            load(&whole, &random, 60).await;
            flush(&whole).await;
        }
        for shard in [ShardId(1), ShardId(2)] {
            let segments = keys(&whole, Prefix::Flushed(LIFE, shard)).await;
            remove(&whole, segments[0]).await;
        }
        let direct = open(&whole).await;
        assert_eq!(direct.notes().len(), 2);
        for offsets in direct.offsets(TOPIC).expect("known") {
            assert!(offsets.log_start > Offset::ZERO);
        }
        reads_alike(&whole, &direct).await;
    });
}

#[test]
fn what_is_trimmed_while_it_is_read_is_out_of_range_and_not_lost() {
    run(async {
        let whole = started(48).await;
        let random = SeededEntropy::new(48);
        load(&whole, &random, 60).await;
        flush(&whole).await;
        let first = open(&whole).await;
        load(&whole, &random, 60).await;
        flush(&whole).await;
        checkpoint(&whole).await;
        let stale = open(&whole).await;
        let ends = stale.offsets(TOPIC).expect("known");
        let segments = busiest(&whole).await;
        let shard = of(&segments[0]);
        remove(&whole, segments[0]).await;
        let lost = async |partition: u32, from| {
            let (values, end) = read(&stale, partition, from, Until::End).await;
            assert!(values.is_empty());
            end.expect_err("its segment is gone")
        };
        let mut concerned = Vec::new();
        for partition in 0..PARTITIONS {
            if shard_of(&whole, partition).await == shard {
                concerned.push(partition);
                let error = lost(partition, From::Earliest).await;
                assert_eq!(error.code(), Code::DataLoss, "nothing says it was trimmed");
            }
        }
        // As retention and the collector do it: trimmed, a checkpoint, and only then removed.
        trim(&whole, &first).await;
        checkpoint(&whole).await;
        let last = *concerned.last().expect("one at least");
        for partition in concerned {
            let at = partition as usize;
            let start = first.offsets(TOPIC).expect("known")[at].end;
            for from in [From::Earliest, From::Time(Timestamp(0))] {
                let error = lost(partition, from).await;
                assert_eq!(error.code(), Code::OffsetOutOfRange, "{error}");
                let Some(Detail::OutOfRange(range)) = error.detail() else {
                    unreachable!("{error}");
                };
                let now = (range.log_start, range.end);
                assert_eq!(now, (start.get(), ends[at].end.get()));
            }
            let (rest, end) = read(&stale, partition, From::Offset(start), Until::End).await;
            end.expect("it is all there");
            assert_eq!(rest, whole.read(TOPIC, partition, start.get()).await);
        }
        let delete = whole.engine.topics().delete(&topic(TOPIC)).await;
        delete.expect("deleted");
        checkpoint(&whole).await;
        let error = lost(last, From::Earliest).await;
        assert_eq!(error.code(), Code::UnknownTopic, "{error}");
    });
}
