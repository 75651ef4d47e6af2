//! Whatever was written is found again, byte for byte.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use esker_record::{Compression, ZstdLevel};
use esker_segment::Depth;
use proptest::prelude::*;

mod sample;
use sample::{PartitionPlan, Plan};

fn plan() -> impl Strategy<Value = Plan> {
    let compression = prop_oneof![
        4 => Just(Compression::None),
        1 => Just(Compression::Lz4),
        1 => Just(Compression::Snappy),
        1 => Just(Compression::Zstd(ZstdLevel::DEFAULT)),
    ];
    let value_bytes = prop_oneof![8 => 0..300usize, 1 => 200_000..400_000usize];
    let times = 1_600_000_000_000i64..1_800_000_000_000;
    (1..8u32, value_bytes, compression, times, any::<bool>()).prop_map(
        |(records, value_bytes, compression, timestamp, shallow)| Plan {
            // Few records where they are large: the batch stays small enough for a debug build.
            records: if value_bytes > 1000 { 1 } else { records },
            value_bytes,
            compression,
            epoch: 1,
            timestamp,
            shallow,
        },
    )
}

fn partitions() -> impl Strategy<Value = Vec<PartitionPlan>> {
    let partition = (
        0..1u64 << 45,
        0..3u32,
        proptest::collection::vec(plan(), 1..12),
    );
    proptest::collection::vec(partition, 1..7).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(at, (start, rise, mut batches))| {
                let at = at as u64;
                for (n, batch) in batches.iter_mut().enumerate() {
                    batch.epoch = 1 + rise * u32::try_from(n).unwrap();
                }
                let index = u32::try_from(at % 3).unwrap();
                PartitionPlan {
                    facts: sample::facts(1 + at / 3, index, start),
                    batches,
                }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_batch_is_found_by_offset_and_the_whole_verifies(plans in partitions()) {
        let written = sample::write(&plans);
        sample::assert_reads_back(&written);
        let verified = sample::verify(&written.bytes, Depth::Content).unwrap();
        prop_assert_eq!(&verified.ranges, &written.summary.ranges);
        prop_assert_eq!(verified.checksum, written.summary.checksum);
        prop_assert_eq!(verified.length, written.summary.length);
        let batches = plans.iter().map(|plan| plan.batches.len() as u64).sum::<u64>();
        prop_assert_eq!(verified.batches, batches);
        let deep = plans.iter().flat_map(|plan| &plan.batches).filter(|b| !b.shallow);
        prop_assert_eq!(verified.hashes, deep.count() as u64);
        prop_assert_eq!(written.bytes, sample::write(&plans).bytes, "writing is deterministic");
    }
}
