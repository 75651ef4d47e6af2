use esker_record::ZstdLevel;
use esker_types::{Offset, OffsetRange};

use super::*;

const ZSTD: Compression = Compression::Zstd(ZstdLevel::FAST);

fn batch(compression: Compression, values: impl IntoIterator<Item = Vec<u8>>) -> ReadBatch {
    let mut builder = Builder::new(compression, 64 << 20);
    let mut count = 0;
    for value in values {
        let header = RecordHeader {
            key: b"h",
            value: Some(&value[..value.len().min(3)]),
        };
        let empty = RecordHeader {
            key: b"",
            value: None,
        };
        let record = NewRecord {
            timestamp: Timestamp(7),
            key: (count % 2 == 0).then_some(&b"key"[..]),
            value: Some(&value),
            headers: &[header, empty],
        };
        builder.push(&record).unwrap();
        count += 1;
    }
    let bytes = builder.finish(None).unwrap().into_bytes();
    read(1000, count, bytes)
}

fn read(start: u64, count: u64, bytes: Bytes) -> ReadBatch {
    let start = Offset::new(start).unwrap();
    ReadBatch {
        range: OffsetRange::from_count(start, count).unwrap(),
        leader_epoch: None,
        bytes,
    }
}

fn parts(unpacking: &mut Unpacking, wanted: Range<u64>, let_go: bool) -> Vec<Part> {
    let scratches = Scratches::default();
    let mut parts = Vec::new();
    while !unpacking.is_done() {
        parts.push(unpacking.part(&wanted, &scratches).unwrap());
        if let_go {
            unpacking.let_go();
            assert_eq!(unpacking.holds(), 0);
        }
    }
    parts
}

fn value(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap(); number % 997]
}

#[test]
fn parts_together_are_the_batch_whether_or_not_it_is_decoded_again() {
    let count = 3000;
    for compression in [Compression::None, ZSTD] {
        for let_go in [false, true] {
            let mut unpacking = Unpacking::new(batch(compression, (0..count).map(value)));
            let parts = parts(&mut unpacking, 0..u64::MAX, let_go);
            assert_eq!(parts.len(), 2, "1.5 MB in all");
            let records: Vec<_> = parts.into_iter().flatten().collect();
            assert_eq!(records.len(), count);
            for (number, (stored, bytes)) in records.into_iter().enumerate() {
                assert_eq!(bytes, esker_proto::encoded_bytes(&stored));
                assert_eq!(stored.offset, 1000 + number as u64);
                let record = stored.record.unwrap();
                assert_eq!(record.value.as_deref(), Some(&value(number)[..]));
                let key = (number % 2 == 0).then_some(&b"key"[..]);
                assert_eq!(record.key.as_deref(), key);
                let (first, second) = (&record.headers[0], &record.headers[1]);
                let head = &value(number)[..value(number).len().min(3)];
                assert_eq!(
                    (first.key.as_str(), first.value.as_deref()),
                    ("h", Some(head))
                );
                assert_eq!((second.key.as_str(), second.value.as_deref()), ("", None));
            }
        }
    }
}

#[test]
fn a_part_is_bounded_in_records_and_only_what_is_wanted_is_in_it() {
    let count = 2 * READ_REPLY_RECORDS_MAX + 100;
    let batch = batch(ZSTD, (0..count).map(|_| Vec::new()));
    let sizes = |wanted: Range<u64>| {
        let parts = parts(&mut Unpacking::new(batch.clone()), wanted, false);
        parts.iter().map(Vec::len).collect::<Vec<_>>()
    };
    let most = READ_REPLY_RECORDS_MAX;
    assert_eq!(sizes(0..u64::MAX), [most, most, 100]);
    assert_eq!(sizes(1500..1510), [10]);
    assert_eq!(sizes(0..1000), [0]);
    assert_eq!(sizes(1001..1001 + most as u64), [most, 0]);
}

#[test]
fn what_is_decoded_is_known_before_and_told_after() {
    let plain = Unpacking::new(batch(Compression::None, (0..10).map(value)));
    assert!(plain.is_small());
    assert_eq!(plain.needs(), 0);
    let mut packed = Unpacking::new(batch(ZSTD, (0..3000).map(value)));
    assert!(!packed.is_small());
    let needs = packed.needs();
    packed.part(&(0..u64::MAX), &Scratches::default()).unwrap();
    let holds = packed.holds();
    assert!((1 << 20..=needs).contains(&holds), "{holds} of {needs}");
    assert_eq!(packed.needs(), 0);
}

#[test]
fn damage_far_behind_is_told_before_any_record_is() {
    let mut bytes = batch(Compression::None, (0..3000).map(value))
        .bytes
        .to_vec();
    // The last record's header count.
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    let crc = crc_of(&bytes);
    bytes[17..21].copy_from_slice(&crc);
    let mut unpacking = Unpacking::new(read(0, 3000, bytes.into()));
    let scratches = Scratches::default();
    assert!(unpacking.part(&(0..u64::MAX), &scratches).is_err());
}

#[test]
fn a_record_wanted_out_of_many_does_not_keep_them_all() {
    for compression in [Compression::None, ZSTD] {
        let batch = batch(compression, (0..900).map(|_| vec![7; 1000]));
        let mut unpacking = Unpacking::new(batch);
        let mut parts = parts(&mut unpacking, 1000..1001, false);
        drop(unpacking);
        let (stored, _) = parts[0].swap_remove(0);
        let value = stored.record.unwrap().value.unwrap();
        let memory = value.try_into_mut().expect("nobody else has it");
        assert!(memory.capacity() < 2000, "{} bytes", memory.capacity());
    }
}

/// CRC-32C, bit by bit.
fn crc_of(batch: &[u8]) -> [u8; 4] {
    let crc = batch[21..].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    (!crc).to_be_bytes()
}

#[test]
fn a_record_of_headers_alone_is_not_made_if_no_message_holds_it() {
    let header = RecordHeader {
        key: b"",
        value: None,
    };
    let headers = vec![header; MESSAGE_BYTES_MAX / 2 + 1];
    let mut builder = Builder::new(ZSTD, 64 << 20);
    let record = NewRecord {
        timestamp: Timestamp(7),
        key: None,
        value: None,
        headers: &headers,
    };
    builder.push(&record).unwrap();
    let bytes = builder.finish(None).unwrap().into_bytes();
    let mut unpacking = Unpacking::new(read(0, 1, bytes));
    let parts = parts(&mut unpacking, 0..u64::MAX, false);
    let (stored, bytes) = &parts[0][0];
    assert_eq!(stored.record, None);
    assert!(*bytes > MESSAGE_BYTES_MAX);
}
