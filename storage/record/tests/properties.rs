//! What holds of every batch, not only of those somebody thought of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use esker_record::{Batch, Builder, Depth, Records, Rules, Scratch, admit};
use proptest::prelude::*;
use proptest::sample::Index;

mod sample;
use sample::Owned;

const RULES: Rules = Rules {
    batch_bytes_max: 1 << 20,
    depth: Depth::Deep,
};

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

fn record() -> impl Strategy<Value = Owned> {
    let header = (bytes(6), proptest::option::of(bytes(6)));
    (
        -1_000_000_000_000i64..4_000_000_000_000,
        proptest::option::of(bytes(20)),
        proptest::option::of(prop_oneof![
            bytes(80),
            (0..500usize).prop_map(|n| vec![b'z'; n])
        ]),
        proptest::collection::vec(header, 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| Owned {
            timestamp,
            key,
            value,
            headers,
        })
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    proptest::collection::vec(record(), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_was_built_is_admitted_and_read_back(
        records in records(),
        which in 0..5usize,
        stamped in any::<bool>(),
    ) {
        let stamp = stamped.then(sample::stamp);
        let batch = sample::build(&records, sample::compressions()[which], stamp);
        let checked = admit(batch.bytes().clone(), &RULES, &mut Scratch::new(1 << 20)).unwrap();
        prop_assert_eq!(&checked.batch, &batch);
        prop_assert_eq!(batch.header().records as usize, records.len());
        prop_assert_eq!(batch.header().producer, stamp);
        prop_assert_eq!(sample::read(&batch), records);
    }

    #[test]
    fn a_flipped_bit_is_found_or_lies_where_patching_is_allowed(
        records in records(),
        which in 0..5usize,
        at in any::<Index>(),
        bit in 0..8u32,
    ) {
        let batch = sample::build(&records, sample::compressions()[which], None);
        let mut bytes = batch.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let patchable = at < 8 || (12..16).contains(&at);
        match Batch::open(bytes.into()) {
            Err(_) => {}
            Ok(_) => prop_assert!(patchable, "bit {} of byte {} went unseen", bit, at),
        }
    }

    #[test]
    fn a_record_takes_the_bytes_that_the_builder_foretells(record in record()) {
        let builder = Builder::new(sample::compressions()[0], 1 << 20);
        let batch = sample::build(std::slice::from_ref(&record), sample::compressions()[0], None);
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| {
            esker_record::RecordHeader { key, value: value.as_deref() }
        }).collect();
        let foretold = Builder::record_bytes(&esker_record::NewRecord {
            timestamp: esker_types::Timestamp(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
        prop_assert_eq!(builder.plain_bytes() + foretold, batch.bytes().len());
    }

    #[test]
    fn a_builder_that_was_used_builds_what_a_new_one_does(
        first in records(),
        second in records(),
        which in 0..5usize,
        room in 0..1000usize,
    ) {
        let compression = sample::compressions()[which];
        let mut builder = Builder::new(compression, 64 << 20);
        for records in [first, second] {
            builder.reserve(room);
            let built = sample::build_by(&mut builder, &records, None);
            prop_assert_eq!(builder.plain_bytes(), esker_record::HEADER_BYTES);
            let anew = sample::build(&records, compression, None);
            prop_assert_eq!(built.bytes(), anew.bytes());
        }
    }

    #[test]
    fn changed_records_under_a_right_checksum_never_panic(
        records in records(),
        which in 0..5usize,
        edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let batch = sample::build(&records, sample::compressions()[which], None);
        let mut bytes = batch.bytes().to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        sample::seal(&mut bytes);
        let mut scratch = Scratch::new(0);
        // Whatever is admitted must also be readable to its end.
        if let Ok(checked) = admit(bytes.clone().into(), &RULES, &mut scratch) {
            prop_assert_eq!(
                sample::read(&checked.batch).len(),
                checked.batch.header().records as usize
            );
        }
        if let Ok(batch) = Batch::open(bytes.into())
            && let Ok(plain) = scratch.decode(&batch)
        {
            let _ = plain.records().count();
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(front in bytes(100), tail in bytes(100)) {
        let mut run = Bytes::from(front);
        let _ = Batch::split_first(&mut run);
        let batch = sample::build(&sample::records(), sample::compressions()[0], None);
        let records = Records::new(batch.header(), &tail);
        prop_assert!(records.take(1000).filter(Result::is_err).count() <= 1);
    }
}
