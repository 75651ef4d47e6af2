//! Hostile and wrong batches get the answer that is due, with the byte or both numbers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use esker_record::{
    Batch, Builder, Checked, Codec, Compression, Depth, Error, Fault, FieldName, NewRecord,
    Refusal, Rules, Scratch, ZstdLevel, admit,
};
use esker_types::Timestamp;
use esker_types::limits::BATCH_DECODED_BYTES_MAX;

mod sample;

const RULES: Rules = Rules {
    batch_bytes_max: 1 << 20,
    depth: Depth::Deep,
};

fn check(bytes: Vec<u8>) -> Result<Checked, Error> {
    admit(bytes.into(), &RULES, &mut Scratch::new(1 << 20))
}

/// A plain batch of one small record, changed by `edit`, with its checksum set right again.
fn edited(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut builder = Builder::new(Compression::None, 1024);
    builder
        .push(&NewRecord {
            timestamp: Timestamp(1000),
            key: Some(b"k"),
            value: Some(b"value"),
            headers: &[],
        })
        .unwrap();
    let mut bytes = builder.finish(None).unwrap().bytes().to_vec();
    edit(&mut bytes);
    sample::seal(&mut bytes);
    bytes
}

fn malformed(at: usize, fault: Fault) -> Result<Checked, Error> {
    Err(Error::Malformed { at, fault })
}

fn malformed_record(at: usize, fault: Fault) -> Result<Checked, Error> {
    Err(Error::MalformedRecords { at, fault })
}

#[test]
fn a_good_batch_is_admitted_and_its_hash_does_not_depend_on_the_codec() {
    let hashes: Vec<_> = Codec::ALL
        .map(|codec| {
            let batch = sample::build(&sample::records(), sample::compression(codec), None);
            let checked = check(batch.bytes().to_vec()).unwrap();
            assert_eq!(checked.batch, batch);
            (checked.hash, checked.decoded_bytes.unwrap())
        })
        .to_vec();
    assert!(
        hashes.windows(2).all(|pair| pair[0] == pair[1]),
        "{hashes:?}"
    );
    assert_eq!(hashes[0].0.as_checksum(), None);
    let mut later = sample::records();
    for record in &mut later {
        record.timestamp += 1;
    }
    let later = sample::build(&later, Compression::None, None);
    let later = check(later.bytes().to_vec()).unwrap();
    assert_ne!(later.hash, hashes[0].0, "the base timestamp is content");
}

#[test]
fn a_shallow_check_takes_a_bad_record_and_marks_its_hash() {
    let bytes = edited(|bytes| *bytes.last_mut().unwrap() = 9);
    let shallow = Rules {
        depth: Depth::Shallow,
        ..RULES
    };
    let checked = admit(bytes.clone().into(), &shallow, &mut Scratch::new(0)).unwrap();
    let crc = checked.batch.header().crc;
    assert_eq!(checked.hash.as_checksum(), Some(crc));
    assert_eq!(checked.decoded_bytes, None);
    assert!(check(bytes).is_err());
}

#[test]
fn a_batch_over_its_limit_is_refused_with_both_numbers() {
    let rules = Rules {
        batch_bytes_max: 70,
        ..RULES
    };
    let bytes = edited(|_| ());
    let len = bytes.len();
    let error = admit(bytes.into(), &rules, &mut Scratch::new(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("batch has {len} bytes, the limit is 70")
    );
}

#[test]
fn frames_that_contradict_themselves_are_refused_at_their_byte() {
    let good = edited(|_| ());
    let len = good.len();
    let short = |needed, left| Fault::Short { needed, left };
    assert_eq!(check(vec![]), malformed(0, short(61, 0)));
    assert_eq!(check(good[..60].to_vec()), malformed(60, short(61, 60)));
    let cut = good[..len - 1].to_vec();
    assert_eq!(check(cut), malformed(len - 1, short(len, len - 1)));
    let long = [&good[..], b"xx"].concat();
    assert_eq!(check(long), malformed(len, Fault::Trailing { bytes: 2 }));
    let magic = edited(|bytes| bytes[16] = 1);
    assert_eq!(check(magic), malformed(16, Fault::Magic(1)));
    let huge = edited(|bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes()));
    assert!(matches!(check(huge), Err(Error::TooLarge { .. })));
    let negative = edited(|bytes| bytes[8] = 0xff);
    assert!(matches!(
        check(negative),
        Err(Error::Malformed { at: 8, .. })
    ));
    let before_zero = edited(|bytes| bytes[0] = 0x80);
    assert!(matches!(
        check(before_zero),
        Err(Error::Malformed { at: 0, .. })
    ));
    let past_the_end = edited(|bytes| bytes[..8].copy_from_slice(&i64::MAX.to_be_bytes()));
    assert!(matches!(
        check(past_the_end),
        Err(Error::Malformed { at: 0, .. })
    ));
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused_before_the_records_are_read() {
    let empty = edited(|bytes| bytes[57..61].fill(0));
    assert_eq!(check(empty), Err(Error::Empty));
    let many = edited(|bytes| bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes()));
    let expected = Fault::Count {
        of: FieldName::Record,
        declared: i32::MAX.into(),
        limit: 1,
    };
    assert_eq!(check(many), malformed(57, expected));
    let delta = edited(|bytes| bytes[26] = 1);
    let expected = Fault::LastOffsetDelta {
        delta: 1,
        records: 1,
    };
    assert_eq!(check(delta), malformed(23, expected));
}

#[test]
fn what_only_a_coordinator_may_set_is_refused() {
    for (bit, refusal) in [
        (3, Refusal::LogAppendTime),
        (4, Refusal::Transactional),
        (5, Refusal::Control),
        (6, Refusal::DeleteHorizon),
    ] {
        let bytes = edited(|bytes| bytes[22] |= 1 << bit);
        assert_eq!(check(bytes), Err(Error::Refused(refusal)));
    }
    let unknown = edited(|bytes| bytes[22] |= 1 << 7);
    assert_eq!(check(unknown), malformed(21, Fault::AttributeBits(0x80)));
    let codec = edited(|bytes| bytes[22] |= 5);
    assert_eq!(check(codec), malformed(22, Fault::Codec(5)));
}

#[test]
fn a_producer_is_there_whole_or_not_at_all() {
    for edit in [43..51, 51..53, 53..57] {
        let half = edited(|bytes| bytes[edit].fill(0));
        assert_eq!(check(half), malformed(43, Fault::HalfProducer));
    }
    let nobody = edited(|bytes| bytes[43..57].fill(0));
    assert_eq!(check(nobody), malformed(43, Fault::ProducerId(0)));
}

#[test]
fn a_wrong_checksum_is_told_with_both_values() {
    let mut bytes = edited(|_| ());
    *bytes.last_mut().unwrap() ^= 1;
    let Err(Error::Checksum { declared, computed }) = check(bytes) else {
        panic!("a flipped bit was admitted");
    };
    assert_ne!(declared, computed);
}

#[test]
fn records_that_contradict_themselves_are_refused_at_their_byte() {
    // Record of the sample: length 26 (13), attributes, delta, offset delta, key "k", value, 0.
    let at = |n: usize, byte: u8| edited(|bytes| bytes[61 + n] = byte);
    let length = Fault::Length {
        of: FieldName::Record,
        declared: 14,
        left: 12,
    };
    assert_eq!(check(at(0, 28)), malformed_record(0, length));
    assert!(matches!(
        check(at(0, 22)),
        Err(Error::MalformedRecords { .. })
    ));
    let offset = Fault::OffsetDelta {
        found: 1,
        expected: 0,
    };
    assert_eq!(check(at(3, 2)), malformed_record(3, offset));
    let key = Fault::Length {
        of: FieldName::Key,
        declared: -2,
        left: 8,
    };
    assert_eq!(check(at(4, 3)), malformed_record(4, key));
    let headers = Fault::Count {
        of: FieldName::Header,
        declared: -1,
        limit: 0,
    };
    assert_eq!(check(at(12, 1)), malformed_record(12, headers));
    for (edited, declared, found) in [(at(2, 2), 1000, 1001), (at(2, 1), 1000, 999)] {
        let max = Fault::MaxTimestamp { declared, found };
        assert_eq!(check(edited), malformed(35, max));
    }
    let trailing = edited(|bytes| {
        bytes.push(0);
        bytes[8..12].copy_from_slice(&(49 + 14u32).to_be_bytes());
    });
    assert_eq!(
        check(trailing),
        malformed_record(13, Fault::Trailing { bytes: 1 })
    );
}

#[test]
fn a_timestamp_past_64_bits_is_refused() {
    let bytes = edited(|bytes| {
        bytes[27..35].copy_from_slice(&i64::MAX.to_be_bytes());
        bytes[63] = 2;
    });
    let overflow = Fault::TimestampOverflow {
        delta: 1,
        base: i64::MAX,
    };
    assert_eq!(check(bytes), malformed_record(0, overflow));
}

#[test]
fn a_bomb_in_a_batch_stops_at_the_cap_and_leaves_little_memory_behind() {
    let plain = vec![0; BATCH_DECODED_BYTES_MAX + 1];
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
        let mut payload = Vec::new();
        esker_record::codec::Encoder::new()
            .encode(sample::compression(codec), &plain, &mut payload)
            .unwrap();
        let mut bytes = edited(|_| ());
        bytes.truncate(61);
        bytes.extend_from_slice(&payload);
        bytes[22] = codec.number();
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        sample::seal(&mut bytes);
        let rules = Rules {
            batch_bytes_max: 8 << 20,
            ..RULES
        };
        let mut scratch = Scratch::new(1 << 20);
        let error = admit(bytes.into(), &rules, &mut scratch).unwrap_err();
        let stopped = matches!(error, Error::DecodedTooLarge { at_least, limit }
            if at_least > limit && limit == BATCH_DECODED_BYTES_MAX);
        assert!(stopped, "{codec}: {error}");
        assert!(scratch.retained_bytes() <= 1 << 20, "{codec}");
    }
}

#[test]
fn a_scratch_keeps_its_buffer_within_its_bound_and_no_further() {
    let big = sample::Owned {
        timestamp: 0,
        key: None,
        value: Some(vec![b'x'; 300_000]),
        headers: vec![],
    };
    let batch = sample::build(&[big], Compression::Lz4, None);
    for (bound, kept) in [(1 << 20, true), (100_000, false)] {
        let mut scratch = Scratch::new(bound);
        assert!(scratch.decode(&batch).unwrap().len() > 300_000);
        assert_eq!(scratch.retained_bytes() > 0, kept);
        assert!(scratch.retained_bytes() <= bound);
    }
}

#[test]
fn a_builder_refuses_what_no_batch_may_hold_and_starts_afresh() {
    let mut builder = Builder::new(Compression::Zstd(ZstdLevel::DEFAULT), 100);
    assert_eq!(builder.finish(None), Err(Error::Empty));
    let noise: Vec<u8> = (0..200u32).map(|n| (n * n % 251) as u8).collect();
    builder
        .push(&NewRecord::value(Timestamp(5), &noise))
        .unwrap();
    let late = builder.push(&NewRecord::value(Timestamp(i64::MIN), b""));
    assert!(matches!(late, Err(Error::TimestampSpread { .. })));
    assert_eq!(builder.records(), 1);
    let error = builder.finish(None).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { limit: 100, .. }),
        "{error}"
    );
    builder
        .push(&NewRecord::value(Timestamp(6), b"small"))
        .unwrap();
    let batch = builder.finish(None).unwrap();
    assert_eq!(batch.header().base_timestamp, Timestamp(6));
    assert_eq!(
        batch.header().attributes.codec(),
        Codec::None,
        "did not pay"
    );
}

#[test]
fn a_run_of_batches_comes_apart_at_its_seams() {
    let one = sample::build(&sample::records(), Compression::Lz4, None);
    let two = sample::build(&sample::records()[..1], Compression::None, None);
    let mut run = Bytes::from([&one.bytes()[..], two.bytes()].concat());
    assert_eq!(Batch::split_first(&mut run), Ok(Some(one)));
    let mut cut = run.slice(..run.len() - 1);
    assert!(Batch::split_first(&mut cut).is_err());
    assert_eq!(cut.len(), run.len() - 1, "an error takes nothing");
    assert_eq!(Batch::split_first(&mut run), Ok(Some(two)));
    assert_eq!(Batch::split_first(&mut run), Ok(None));
}
