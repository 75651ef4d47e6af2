//! Another implementation of the same layout reads what we write, and we read what it writes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use esker_record::{Codec, Depth, Rules, Scratch, admit};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as Theirs, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};

mod sample;
use sample::Owned;

fn theirs(codec: Codec) -> Theirs {
    match codec {
        Codec::None => Theirs::None,
        Codec::Gzip => Theirs::Gzip,
        Codec::Snappy => Theirs::Snappy,
        Codec::Lz4 => Theirs::Lz4,
        Codec::Zstd => Theirs::Zstd,
    }
}

/// Samples without duplicate header keys, which that implementation keeps in a map.
fn records() -> Vec<Owned> {
    let mut records = sample::records();
    records[0].headers.truncate(2);
    records
}

fn to_theirs((at, record): (usize, &Owned)) -> Record {
    let text = |bytes: &[u8]| StrBytes::from_string(String::from_utf8(bytes.to_vec()).unwrap());
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: i64::try_from(at).unwrap(),
        // It wants sequences to climb with offsets, from the −1 of a batch without a producer.
        sequence: i32::try_from(at).unwrap() - 1,
        timestamp: record.timestamp,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| (text(key), value.clone().map(Bytes::from)))
            .collect::<IndexMap<_, _>>(),
    }
}

fn from_theirs(record: &Record) -> Owned {
    Owned {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| {
                let value = value.as_ref().map(|value| value.to_vec());
                (key.as_bytes().to_vec(), value)
            })
            .collect(),
    }
}

#[test]
fn another_implementation_reads_our_batches() {
    for codec in Codec::ALL {
        let stamp = Some(sample::stamp());
        let batch = sample::build(&records(), sample::compression(codec), stamp);
        assert_eq!(batch.header().attributes.codec(), codec);
        let mut bytes = batch.into_bytes();
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(set.compression, theirs(codec));
        let read: Vec<_> = set.records.iter().map(from_theirs).collect();
        assert_eq!(read, records(), "{codec}");
        let first = &set.records[0];
        assert_eq!((first.producer_epoch, first.sequence), (3, 700));
    }
}

#[test]
fn we_admit_batches_of_another_implementation() {
    let rules = Rules {
        batch_bytes_max: 1 << 20,
        depth: Depth::Deep,
    };
    for codec in Codec::ALL {
        let records = records();
        let all: Vec<_> = records.iter().enumerate().map(to_theirs).collect();
        let options = RecordEncodeOptions {
            version: 2,
            compression: theirs(codec),
        };
        let mut out = BytesMut::new();
        RecordBatchEncoder::encode(&mut out, &all, &options).unwrap();
        let checked = admit(out.freeze(), &rules, &mut Scratch::new(0)).unwrap();
        assert_eq!(sample::read(&checked.batch), records, "{codec}");
        assert_eq!(checked.batch.header().producer, None);
    }
}
