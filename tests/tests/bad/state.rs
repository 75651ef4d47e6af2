//! Requests that expect the log in another state than it is in.

use esker_proto::v1::error::Detail;
use esker_proto::v1::position::At;
use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;

use crate::batch::case;
use crate::world::{TOPIC, World, is_told, plain, told};

async fn producer(world: &World) -> u64 {
    let request = v1::AllocateProducerRequest::default();
    let allocated = world.log().allocate_producer(request).await;
    allocated.expect("allocated").into_inner().producer_id
}

fn by(id: u64, epoch: u32, sequence: u32, values: &[&str]) -> v1::AppendRequest {
    let mut request = plain(values);
    request.producer = Some(v1::Producer {
        id,
        epoch,
        sequence,
    });
    if let Some(v1::append_request::Payload::Records(records)) = &mut request.payload {
        for record in &mut records.records {
            record.timestamp_ms = Some(7);
        }
    }
    request
}

#[test]
fn offsets_outside_the_log_are_told_with_its_bounds() {
    run(async {
        let world = World::new(3401).await;
        for _ in 0..5 {
            world.is_well().await;
        }
        let truncation = v1::Truncation {
            partition: 0,
            before: Some(2),
        };
        let request = v1::TruncateTopicRequest {
            name: TOPIC.into(),
            truncations: vec![truncation],
            topic_id: None,
        };
        world
            .admin()
            .truncate_topic(request)
            .await
            .expect("trimmed");
        let read = |offset| {
            let mut log = world.log();
            async move {
                let request = v1::ReadRequest {
                    topic: TOPIC.into(),
                    from: Some(At::Offset(offset).into()),
                    ..v1::ReadRequest::default()
                };
                match log.read(request).await {
                    Err(status) => Err(status),
                    Ok(stream) => stream.into_inner().message().await,
                }
            }
        };
        for offset in [0, 1, 6, 1 << 40, i64::MAX.cast_unsigned()] {
            case(&offset.to_string());
            let (code, error) = told(&read(offset).await.expect_err("out of range"));
            assert_eq!(code, tonic::Code::OutOfRange);
            let value = offset.to_string();
            is_told(
                &error,
                Code::OffsetOutOfRange,
                Durability::Durable,
                &["gravel", &value, "2", "5"],
            );
            let bounds = v1::OffsetOutOfRange {
                log_start: 2,
                end: 5,
            };
            assert_eq!(error.detail, Some(Detail::OutOfRange(bounds)));
        }
        // No offset at all: bounded by what an offset may be.
        for offset in [i64::MAX.cast_unsigned() + 1, u64::MAX] {
            let (code, error) = told(&read(offset).await.expect_err("no offset"));
            assert_eq!(code, tonic::Code::InvalidArgument);
            let value = offset.to_string();
            let words = [value.as_str(), "0 to 9223372036854775807"];
            is_told(&error, Code::InvalidRequest, Durability::NotWritten, &words);
        }
        for (before, wanted) in [
            (6, Code::OffsetOutOfRange),
            (u64::MAX, Code::InvalidRequest),
        ] {
            let truncation = v1::Truncation {
                partition: 0,
                before: Some(before),
            };
            let truncations = vec![truncation];
            let request = v1::TruncateTopicRequest {
                name: TOPIC.into(),
                truncations,
                topic_id: None,
            };
            let status = world
                .admin()
                .truncate_topic(request)
                .await
                .expect_err("above the end");
            let value = before.to_string();
            is_told(&told(&status).1, wanted, Durability::NotWritten, &[&value]);
        }
        world.is_well().await;
    });
}

async fn id(world: &World) -> u64 {
    let request = v1::DescribeTopicRequest { name: TOPIC.into() };
    let described = world.admin().describe_topic(request).await;
    let topic = described.expect("told").into_inner().topic;
    topic.expect("it is there").id
}

#[test]
fn a_topic_made_anew_is_not_the_one_that_was_seen() {
    run(async {
        let world = World::new(3411).await;
        world.is_well().await;
        let first = id(&world).await;
        // Read to its end, and more is waited for.
        let read = |follow| v1::ReadRequest {
            topic: TOPIC.into(),
            follow,
            topic_id: Some(first),
            ..v1::ReadRequest::default()
        };
        let stream = world.log().read(read(true)).await.expect("it is this one");
        let mut stream = stream.into_inner();
        while stream
            .message()
            .await
            .expect("records")
            .expect("more")
            .next_offset
            < 1
        {}
        let delete = v1::DeleteTopicRequest { name: TOPIC.into() };
        world.admin().delete_topic(delete).await.expect("deleted");
        world.whole.create(TOPIC, 2).await;
        world.is_well().await;
        let second = id(&world).await;
        assert_ne!(first, second);

        let ended = stream.message().await.expect_err("its topic is gone");
        case(ended.message());
        let status = world.log().read(read(false)).await.expect_err("another");
        let words = ["gravel", "made anew"];
        let not = Durability::NotWritten;
        is_told(&told(&status).1, Code::UnknownTopic, not, &words);

        let truncate = |topic_id, before| v1::TruncateTopicRequest {
            name: TOPIC.into(),
            truncations: vec![v1::Truncation {
                partition: 0,
                before,
            }],
            topic_id,
        };
        let mut admin = world.admin();
        for before in [None, Some(1)] {
            let refused = admin.truncate_topic(truncate(Some(first), before));
            let status = refused.await.expect_err("another");
            let words = ["gravel", "made anew", "nothing was trimmed"];
            is_told(&told(&status).1, Code::UnknownTopic, not, &words);
        }
        let status = admin.truncate_topic(truncate(Some(7), None)).await;
        let words = ["topic_id", "7"];
        let error = told(&status.expect_err("no id")).1;
        is_told(&error, Code::InvalidRequest, not, &words);
        let offsets = v1::OffsetsRequest {
            topic: TOPIC.into(),
            ..v1::OffsetsRequest::default()
        };
        let offsets = world.log().offsets(offsets).await.expect("told");
        let offsets = offsets.into_inner().partitions;
        let all = offsets.iter().map(|of| (of.topic_id, of.log_start, of.end));
        let all: Vec<_> = all.collect();
        assert_eq!(all, [(Some(second), 0, 1), (Some(second), 0, 0)]);
        let trimmed = admin.truncate_topic(truncate(Some(second), None));
        let trimmed = trimmed
            .await
            .expect("it is this one")
            .into_inner()
            .truncated;
        assert_eq!(trimmed[0].log_start, 1);
    });
}

#[test]
fn an_append_at_another_end_is_told_the_end() {
    run(async {
        let world = World::new(3402).await;
        world.is_well().await;
        for expected in [0, 2, i64::MAX.cast_unsigned()] {
            let mut request = plain(&["late"]);
            request.expected_end = Some(expected);
            let end = world.end().await;
            if end == expected {
                continue;
            }
            let (at, value) = (end.to_string(), expected.to_string());
            let words = ["nothing is stored", at.as_str(), value.as_str()];
            let error = world.refuses(request, Code::ExpectedEnd, &words).await;
            assert_eq!(error.detail, Some(Detail::End(end)));
            assert_eq!(error.code().to_grpc(), tonic::Code::FailedPrecondition);
        }
        let mut request = plain(&["late"]);
        request.expected_end = Some(u64::MAX);
        let words = ["18446744073709551615", "expected_end"];
        world.refuses(request, Code::InvalidRequest, &words).await;
    });
}

#[test]
fn a_fenced_writer_is_told_the_token_it_lost_to() {
    run(async {
        let world = World::new(3403).await;
        let fenced = |token| {
            let mut request = plain(&["owned"]);
            request.fencing_token = Some(token);
            request
        };
        world.append(fenced(9)).await.expect("appended");
        // Without a token, it asks for nothing.
        world.is_well().await;
        for token in [0, 8] {
            let value = token.to_string();
            let words = ["nothing is stored", "fenced", "9", &value];
            let error = world.refuses(fenced(token), Code::Fenced, &words).await;
            assert_eq!(error.detail, Some(Detail::FencingToken(9)));
            assert_eq!((error.limit, error.value), (Some(9), Some(token)));
        }
        world.append(fenced(u64::MAX)).await.expect("appended");
        world
            .refuses(
                fenced(u64::MAX - 1),
                Code::Fenced,
                &["18446744073709551615"],
            )
            .await;
    });
}

#[test]
fn sequences_are_checked_by_what_was_stored() {
    run(async {
        let world = World::new(3405).await;
        let id = producer(&world).await;
        // Nobody knows what became of the sequences before.
        let error = world
            .append(by(id, 0, 5, &["x"]))
            .await
            .expect_err("unknown");
        is_told(
            &error,
            Code::DuplicateExpired,
            Durability::Unknown,
            &["no longer known", "5"],
        );
        assert_eq!(world.end().await, 0);
        let first = world
            .append(by(id, 0, 0, &["a", "b"]))
            .await
            .expect("appended");
        // Sent again, it is known.
        let again = world
            .append(by(id, 0, 0, &["a", "b"]))
            .await
            .expect("known");
        assert!(again.duplicate);
        assert_eq!(again.base_offset, first.base_offset);

        let words = ["nothing is stored", "2 was due", "5"];
        let error = world
            .refuses(by(id, 0, 5, &["x"]), Code::SequenceGap, &words)
            .await;
        assert_eq!(error.detail, Some(Detail::ExpectedSequence(2)));
        assert_eq!(error.code().to_grpc(), tonic::Code::FailedPrecondition);

        // The same sequence, other bytes; and the same bytes cut otherwise.
        for values in [&["a", "quartzite"][..], &["a"], &["a", "b", "c"]] {
            let words = ["nothing is stored", "used for other records"];
            let error = world
                .refuses(by(id, 0, 0, values), Code::SequenceReused, &words)
                .await;
            assert_eq!(error.code().to_grpc(), tonic::Code::InvalidArgument);
        }

        world
            .append(by(id, 3, 0, &["c"]))
            .await
            .expect("a new epoch");
        let words = ["nothing is stored", "epoch is 3"];
        let error = world
            .refuses(by(id, 2, 2, &["d"]), Code::StaleProducerEpoch, &words)
            .await;
        assert_eq!(error.detail, Some(Detail::ProducerEpoch(3)));
        assert_eq!((error.limit, error.value), (Some(3), Some(2)));

        // Older than what is remembered.
        for sequence in 1..20 {
            world
                .append(by(id, 3, sequence, &["e"]))
                .await
                .expect("appended");
        }
        let end = world.end().await;
        let error = world
            .append(by(id, 3, 1, &["e"]))
            .await
            .expect_err("forgotten");
        is_told(
            &error,
            Code::DuplicateExpired,
            Durability::Unknown,
            &["no longer known", "1"],
        );
        assert_eq!(world.end().await, end);
        world.is_well().await;
    });
}

#[test]
fn timestamps_of_any_time_are_kept_and_move_nobody_elses_retention() {
    run(async {
        let world = World::new(3406).await;
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            let mut request = plain(&["when"]);
            if let Some(v1::append_request::Payload::Records(records)) = &mut request.payload {
                records.records[0].timestamp_ms = Some(ms);
            }
            world.append(request).await.expect("kept as it is");
        }
        // Too far apart for one batch's differences.
        let mut request = plain(&["early", "late"]);
        if let Some(v1::append_request::Payload::Records(records)) = &mut request.payload {
            records.records[0].timestamp_ms = Some(i64::MIN);
            records.records[1].timestamp_ms = Some(i64::MAX);
        }
        let words = ["nothing is stored", "9223372036854775807"];
        world.refuses(request, Code::MalformedBatch, &words).await;
        for ms in [i64::MIN, -1, 5, i64::MAX] {
            let request = v1::OffsetsRequest {
                topic: TOPIC.into(),
                partitions: vec![0],
                at: Some(At::TimestampMs(ms).into()),
            };
            let told = world
                .log()
                .offsets(request)
                .await
                .expect("told")
                .into_inner();
            let found = told.partitions[0].found.expect("looked up");
            assert!(found <= told.partitions[0].end, "{ms}: {found}");
        }
        let flushed = world.admin().flush(v1::FlushRequest::default()).await;
        flushed.expect("flushed");
        assert_eq!(world.end().await, 5);
        world.is_well().await;
    });
}
