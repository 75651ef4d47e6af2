//! A bucket of which much is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use esker_client::v1::VerifyDepth;
use esker_log::EngineOptions;
use esker_shard::{MixedSegment, ObjectChecksum, RangesHash, SegmentPlace};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::Site;
use esker_types::limits::{FINDINGS_PER_REPLY_MAX, MESSAGE_BYTES_MAX};
use esker_types::{Incarnation, RaftIndex, RaftRange, SegmentId, ShardId, ShardTime};

use crate::engine_over;

/// The segment of this number, that nobody ever wrote.
fn segment(number: u64) -> MixedSegment {
    let at = |number| RaftIndex(number);
    MixedSegment {
        segment: SegmentId(number.into()),
        incarnation: Incarnation::FIRST,
        raft: RaftRange::new(at(number), at(number + 1)).expect("one entry"),
        length: 1 << 20,
        checksum: ObjectChecksum(number),
        range_count: 1,
        ranges_hash: RangesHash(number.into()),
        newest: ShardTime(0),
        bytes: 1 << 20,
    }
}

/// Segments that a shard says it has.
fn count_of(shard: ShardId) -> u64 {
    match shard {
        ShardId(1) => 30_000,
        _ => 10,
    }
}

fn listed(shard: ShardId, after: Option<SegmentPlace>, count: usize) -> Vec<MixedSegment> {
    let first = after.map_or(0, |after| after.from.0 + 1);
    (first..count_of(shard)).take(count).map(segment).collect()
}

#[test]
fn all_that_is_gone_is_named_however_much_it_is() {
    run(async {
        let mut site = Site::new(81);
        let whole = site.start().await.expect("started");
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        head.listed = Box::new(|shard, after, count| Some(listed(shard, after, count)));
        head.stands = Box::new(|mut progress| {
            progress.flush_position = RaftIndex(1 << 20);
            progress
        });
        let engine = engine_over(&whole, head, EngineOptions::default());
        let client = whole.serve_engine(engine).await;
        let verifying = client.admin().verify(VerifyDepth::Objects).await;
        let mut verifying = verifying.expect("begun");
        let (mut named, mut bytes, mut done) = (BTreeSet::new(), 0, false);
        while let Some(reply) = verifying.next().await.expect("told") {
            let count = reply.found.len();
            assert!(count <= FINDINGS_PER_REPLY_MAX, "{count} in one reply");
            for error in &reply.found {
                bytes += error.message.len();
                assert!(named.insert(error.message.clone()), "twice: {error:?}");
            }
            done = reply.done;
        }
        assert!(done);
        assert_eq!(named.len(), 30_010);
        assert!(
            bytes > MESSAGE_BYTES_MAX / 2,
            "{bytes} bytes, in one message"
        );
    });
}
