//! Records that every test of this crate agrees on.
#![expect(dead_code, reason = "each test binary uses its part of the samples")]

use esker_record::{Batch, Builder, Codec, Compression, NewRecord, RecordHeader, ZstdLevel};
use esker_types::{Incarnation, ProducerEpoch, ProducerId, ProducerStamp, Sequence, Timestamp};

/// A record that owns what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(crate) fn compressions() -> [Compression; 5] {
    [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(ZstdLevel::DEFAULT),
    ]
}

pub(crate) fn compression(codec: Codec) -> Compression {
    compressions()[usize::from(codec.number())]
}

pub(crate) fn stamp() -> ProducerStamp {
    ProducerStamp {
        id: ProducerId::new(Incarnation::FIRST, 42).unwrap(),
        epoch: ProducerEpoch::from_i16(3).unwrap(),
        sequence: Sequence::from_i32(700).unwrap(),
    }
}

/// Nulls, empties, duplicates, times that go back, and enough of the same for every codec to pay.
pub(crate) fn records() -> Vec<Owned> {
    let mut records = vec![
        Owned {
            timestamp: 1_700_000_000_000,
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![
                (b"trace".to_vec(), Some(b"1".to_vec())),
                (b"".to_vec(), None),
                (b"trace".to_vec(), Some(b"2".to_vec())),
            ],
        },
        Owned {
            timestamp: 1_699_999_999_000,
            key: None,
            value: None,
            headers: vec![],
        },
        Owned {
            timestamp: 1_700_000_000_500,
            key: Some(vec![]),
            value: Some(vec![]),
            headers: vec![],
        },
    ];
    records.extend((0..40).map(|n| Owned {
        timestamp: 1_700_000_000_100 + n,
        key: None,
        value: Some(format!("what flowed becomes a record that lasts, line {n}").into_bytes()),
        headers: vec![],
    }));
    records
}

pub(crate) fn build(
    records: &[Owned],
    compression: Compression,
    stamp: Option<ProducerStamp>,
) -> Batch {
    build_by(&mut Builder::new(compression, 64 << 20), records, stamp)
}

pub(crate) fn build_by(
    builder: &mut Builder,
    records: &[Owned],
    stamp: Option<ProducerStamp>,
) -> Batch {
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| RecordHeader {
                key,
                value: value.as_deref(),
            })
            .collect();
        builder
            .push(&NewRecord {
                timestamp: Timestamp(record.timestamp),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })
            .unwrap();
    }
    builder.finish(stamp).unwrap()
}

pub(crate) fn read(batch: &Batch) -> Vec<Owned> {
    let mut scratch = esker_record::Scratch::new(0);
    let plain = scratch.decode(batch).unwrap();
    plain
        .records()
        .map(|record| {
            let record = record.unwrap();
            Owned {
                timestamp: record.timestamp.0,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            }
        })
        .collect()
}

/// Sets the CRC of a batch that a test has changed.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}
