//! Batches that contradict themselves.

use bytes::Bytes;
use esker_proto::v1::{Code, Record, Records, append_request::Payload};
use esker_shard::TopicConfig;
use esker_tests::node::run;
use esker_tests::whole;
use esker_types::limits::{BATCH_BYTES_DEFAULT, MIB};

use crate::world::{SECRET, World, batch, request};

/// A good batch of three.
pub(crate) fn good() -> Vec<u8> {
    let values = [1, 2, 3].map(|n| format!("{SECRET} {n}").into_bytes());
    whole::batch(&values, None).to_vec()
}

/// `bytes` with a length and a checksum that hold.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 12).expect("small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The header of `good`, over other records.
pub(crate) fn with_records(count: i32, codec: u8, records: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    bytes.truncate(61);
    bytes[22] = codec;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(records);
    sealed(bytes)
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = good();
    change(&mut bytes);
    sealed(bytes)
}

#[test]
fn a_batch_above_the_topics_limit_is_refused_with_both_numbers() {
    run(async {
        let world = World::new(3001).await;
        let value = vec![b'x'; BATCH_BYTES_DEFAULT];
        let large = whole_batch(&value);
        let (limit, bytes) = (BATCH_BYTES_DEFAULT.to_string(), large.len().to_string());
        let words = ["nothing is stored", limit.as_str(), bytes.as_str()];
        let error = world
            .refuses(batch(large.clone()), Code::BatchTooLarge, &words)
            .await;
        let told = (BATCH_BYTES_DEFAULT as u64, large.len() as u64);
        assert_eq!((error.limit, error.value), (Some(told.0), Some(told.1)));

        // As plain records it is no other.
        let record = Record {
            value: Some(value.into()),
            ..Record::default()
        };
        let records = Payload::Records(Records {
            records: vec![record],
        });
        world
            .refuses(request(records), Code::BatchTooLarge, &[&limit])
            .await;
    });
}

fn whole_batch(value: &[u8]) -> Bytes {
    use esker_record::codec::Compression;
    use esker_record::{Builder, NewRecord};
    let mut builder = Builder::new(Compression::None, 8 * MIB);
    let record = NewRecord::value(esker_types::Timestamp(1), value);
    builder.push(&record).expect("it fits");
    builder.finish(None).expect("not empty").into_bytes()
}

#[test]
fn a_batch_that_decodes_to_more_than_any_reader_must_hold_is_refused() {
    run(async {
        let world = World::new(3002).await;
        // 72 MiB of zeros, as one record would have them.
        let zeros = zstd::encode_all(&vec![0; 72 * MIB][..], 1).expect("encoded");
        let words = ["nothing is stored", "67108864"];
        let error = world
            .refuses(
                batch(with_records(1, 4, &zeros)),
                Code::BatchTooLarge,
                &words,
            )
            .await;
        assert_eq!(error.limit, Some(64 << 20));
        assert!(error.value > error.limit, "{error:?}");
    });
}

#[test]
fn a_batch_says_how_many_records_it_has_and_the_bytes_agree() {
    run(async {
        let world = World::new(3003).await;
        let malformed = Code::MalformedBatch;
        let count = |count: i32| {
            changed(|bytes| {
                bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
                bytes[57..61].copy_from_slice(&count.to_be_bytes());
            })
        };
        let at = "malformed batch at byte ";
        for (what, bytes, words) in [
            (
                "more than the bytes hold",
                count(1_000_000),
                vec![at, "1000000"],
            ),
            ("one more", count(4), vec![at]),
            ("one less", count(2), vec![at, "follow the end"]),
            ("none", count(0), vec!["nothing is stored"]),
            ("less than none", count(-5), vec![at, "-5"]),
            ("the most", count(i32::MAX), vec![at, "2147483647"]),
        ] {
            case(what);
            world.refuses(batch(bytes), malformed, &words).await;
        }
        let records = Payload::Records(Records::default());
        let words = ["nothing is stored", "at least 1"];
        world.refuses(request(records), malformed, &words).await;
        world
            .refuses(batch(Bytes::new()), malformed, &["byte 0"])
            .await;
    });
}

/// Shown when the case after it fails.
#[expect(clippy::disallowed_macros, reason = "tests tell which case it was")]
pub(crate) fn case(what: &str) {
    println!("case: {what}");
}

#[test]
fn lengths_varints_and_what_follows_the_end_are_checked() {
    run(async {
        let world = World::new(3004).await;
        let at = "malformed batch at byte ";
        let length = |length: u32| {
            let mut bytes = good();
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes
        };
        let mut trailing = good();
        trailing.extend_from_slice(SECRET.as_bytes());
        let mut two = good();
        two.extend_from_slice(&good());
        let cases = [
            ("a length too long", length(4000), at),
            ("a length of 4 GiB", length(u32::MAX), at),
            ("a length too short", length(20), at),
            ("bytes after the batch", trailing, "follow the end"),
            ("two batches", two, "follow the end"),
            ("cut", good()[..70].to_vec(), at),
            ("only a header's half", good()[..30].to_vec(), at),
            ("magic 1", changed(|bytes| bytes[16] = 1), "magic is 1"),
            ("codec 7", changed(|bytes| bytes[22] = 7), "codec is 7"),
            ("unknown attributes", changed(|bytes| bytes[21] = 0x80), at),
            (
                "a varint without end",
                with_records(1, 0, &[0xff; 24]),
                "varint overflows",
            ),
            (
                "a record longer than the batch",
                with_records(1, 0, &[0x7e; 24]),
                at,
            ),
            (
                "a record of negative length",
                with_records(1, 0, &[0x01; 24]),
                at,
            ),
            (
                "the largest timestamp is another",
                changed(|bytes| bytes[42] ^= 1),
                at,
            ),
            ("half a producer", changed(|bytes| bytes[43] = 0), at),
        ];
        for (what, bytes, word) in cases {
            case(what);
            world
                .refuses(
                    batch(bytes),
                    Code::MalformedBatch,
                    &["nothing is stored", word],
                )
                .await;
        }
        for (what, bit) in [
            ("control", 0x20),
            ("transactions", 0x10),
            ("log append time", 0x08),
        ] {
            let bytes = changed(|bytes| bytes[22] |= bit);
            world
                .refuses(batch(bytes), Code::MalformedBatch, &["batch refused", what])
                .await;
        }
    });
}

#[test]
fn headers_that_count_too_many_are_no_reason_to_allocate() {
    run(async {
        let world = World::new(3005).await;
        // length, attributes, timestamp delta, offset delta, no key, no value, 2^30 headers.
        let mut record = vec![0, 0, 0, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x08];
        record.insert(0, u8::try_from(record.len() * 2).expect("small"));
        let words = ["malformed batch at byte ", "header"];
        world
            .refuses(
                batch(with_records(1, 0, &record)),
                Code::MalformedBatch,
                &words,
            )
            .await;
    });
}

#[test]
fn a_checksum_that_does_not_match_is_a_wrong_request_and_no_loss() {
    run(async {
        let world = World::new(3006).await;
        for at in [30, 61, 70] {
            let mut bytes = good();
            bytes[at] ^= 0x40;
            let words = ["nothing is stored", "batch checksum mismatch"];
            let error = world
                .refuses(batch(bytes), Code::BatchChecksum, &words)
                .await;
            assert_eq!(error.code().to_grpc(), tonic::Code::InvalidArgument);
        }
    });
}

#[test]
fn what_a_shallow_check_lets_in_is_a_readers_error_and_can_be_stepped_over() {
    use esker_proto::v1::{Durability, ReadFormat, ReadRequest};
    run(async {
        let world = World::new(3007).await;
        let config = TopicConfig::default();
        let change = esker_shard::ConfigChange::parse("deep_check", "false").expect("a setting");
        let config = config.with(&change).expect("allowed");
        world.whole.create_with("shallow", 1, config).await;
        let mut bad = batch(with_records(1, 0, &[0x7e; 24]));
        bad.topic = "shallow".into();
        world.append(bad).await.expect("nobody looks");
        let mut good = batch(good());
        good.topic = "shallow".into();
        world.append(good).await.expect("appended");
        let read = |skip_damaged| {
            let mut log = world.log();
            async move {
                let request = ReadRequest {
                    topic: "shallow".into(),
                    format: ReadFormat::Records.into(),
                    skip_damaged,
                    ..ReadRequest::default()
                };
                let mut stream = log.read(request).await.expect("opened").into_inner();
                let (mut records, mut skipped) = (0, 0);
                loop {
                    match stream.message().await {
                        Ok(Some(reply)) => {
                            records += reply.records.len();
                            skipped += usize::from(reply.skipped.is_some());
                        }
                        Ok(None) => return Ok((records, skipped)),
                        Err(status) => return Err(status),
                    }
                }
            }
        };
        let (code, error) = crate::world::told(&read(false).await.expect_err("damaged"));
        assert_eq!(code, tonic::Code::DataLoss);
        crate::world::is_told(&error, Code::DataLoss, Durability::Durable, &["shallow"]);
        assert_eq!(read(true).await.expect("stepped over"), (3, 1));
        world.is_well().await;
    });
}
