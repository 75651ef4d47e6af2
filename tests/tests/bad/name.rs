//! Names that are none: refused wherever a name is taken, and never part of an object's key.

use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;

use crate::batch::case;
use crate::world::{SECRET, World, is_told, plain, told};

fn hostile() -> Vec<(String, &'static str)> {
    let s = SECRET;
    vec![
        (String::new(), "empty"),
        ("x".repeat(250), "250 bytes, the limit is 249"),
        (s.repeat(100_000), "900000 bytes, the limit is 249"),
        (".".into(), "reserved"),
        ("..".into(), "reserved"),
        (format!("../{s}"), "U+002F at byte 2"),
        (format!("{s}/b"), "U+002F"),
        (format!("{s}\\b"), "U+005C"),
        (format!("{s}\0"), "U+0000"),
        (format!("{s}\n"), "U+000A"),
        (format!("{s}\u{7f}"), "U+007F"),
        // Right to left, zero width, not composed, look-alike.
        (format!("\u{202e}{s}"), "U+202E at byte 0"),
        (format!("{s}\u{200b}"), "U+200B"),
        (format!("{s}e\u{301}"), "U+0301"),
        ("gr\u{430}vel".into(), "U+0430 at byte 2"),
        (format!("{s} b"), "U+0020"),
        (format!("{s}%2f"), "U+0025"),
    ]
}

#[test]
fn hostile_names_are_refused_everywhere_and_not_repeated() {
    run(async {
        let world = World::new(3201).await;
        for (name, word) in hostile() {
            case(word);
            let mut statuses = Vec::new();
            let create = v1::CreateTopicRequest {
                name: name.clone(),
                partitions: 1,
                ..v1::CreateTopicRequest::default()
            };
            statuses.push(
                world
                    .admin()
                    .create_topic(create)
                    .await
                    .expect_err("no name"),
            );
            let describe = v1::DescribeTopicRequest { name: name.clone() };
            statuses.push(
                world
                    .admin()
                    .describe_topic(describe)
                    .await
                    .expect_err("no name"),
            );
            let delete = v1::DeleteTopicRequest { name: name.clone() };
            statuses.push(
                world
                    .admin()
                    .delete_topic(delete)
                    .await
                    .expect_err("no name"),
            );
            let read = v1::ReadRequest {
                topic: name.clone(),
                ..v1::ReadRequest::default()
            };
            statuses.push(world.log().read(read).await.expect_err("no name"));
            let offsets = v1::OffsetsRequest {
                topic: name.clone(),
                ..v1::OffsetsRequest::default()
            };
            statuses.push(world.log().offsets(offsets).await.expect_err("no name"));
            for status in &statuses {
                let (code, error) = told(status);
                assert_eq!(code, tonic::Code::InvalidArgument);
                is_told(
                    &error,
                    Code::InvalidRequest,
                    Durability::NotWritten,
                    &[word],
                );
            }
            let mut append = plain(&["value"]);
            append.topic = name;
            let error = world.append(append).await.expect_err("no name");
            is_told(
                &error,
                Code::InvalidRequest,
                Durability::NotWritten,
                &[word],
            );
        }
        world.is_well().await;
    });
}

#[test]
fn a_topic_or_partition_that_is_not_there_is_named() {
    run(async {
        let world = World::new(3202).await;
        let mut append = plain(&["value"]);
        append.topic = "sand".into();
        let error = world.append(append).await.expect_err("unknown");
        is_told(
            &error,
            Code::UnknownTopic,
            Durability::NotWritten,
            &["no topic sand"],
        );
        for asked in [2, u32::MAX] {
            let mut append = plain(&["value"]);
            append.partition = asked;
            let error = world.append(append).await.expect_err("unknown");
            let value = asked.to_string();
            is_told(
                &error,
                Code::UnknownPartition,
                Durability::NotWritten,
                &["2 partitions", &value],
            );
            assert_eq!((error.limit, error.value), (Some(2), Some(asked.into())));
            let read = v1::ReadRequest {
                topic: "gravel".into(),
                partition: asked,
                ..v1::ReadRequest::default()
            };
            let (code, error) = told(&world.log().read(read).await.expect_err("unknown"));
            assert_eq!(
                (code, error.code()),
                (tonic::Code::NotFound, Code::UnknownPartition)
            );
        }
        world.is_well().await;
    });
}

#[test]
fn settings_that_are_none_are_named_and_nothing_is_made() {
    run(async {
        let world = World::new(3203).await;
        for (key, value, word) in [
            ("max_batch_bytes", "0", "max_batch_bytes"),
            ("max_batch_bytes", "-1", "max_batch_bytes"),
            ("max_batch_bytes", "99999999999999999999", "max_batch_bytes"),
            ("retention.ms", "soon", "retention.ms"),
            ("compression", SECRET, "compression"),
            (SECRET, "1", "setting"),
        ] {
            case(&format!("{key}={value}"));
            let create = v1::CreateTopicRequest {
                name: "sand".into(),
                partitions: 1,
                settings: [(key.to_owned(), value.to_owned())].into(),
                ..v1::CreateTopicRequest::default()
            };
            let status = world
                .admin()
                .create_topic(create)
                .await
                .expect_err("no setting");
            let (code, error) = told(&status);
            assert_eq!(code, tonic::Code::InvalidArgument);
            assert_eq!(error.durability(), Durability::NotWritten);
            assert!(error.message.contains(word), "{}", error.message);
        }
        let create = v1::CreateTopicRequest {
            name: "sand".into(),
            partitions: 1,
            request_id: vec![1, 2, 3].into(),
            ..v1::CreateTopicRequest::default()
        };
        let status = world
            .admin()
            .create_topic(create)
            .await
            .expect_err("a short id");
        is_told(
            &told(&status).1,
            Code::InvalidRequest,
            Durability::NotWritten,
            &["3 bytes", "16"],
        );
        let describe = v1::DescribeTopicRequest {
            name: "sand".into(),
        };
        let status = world
            .admin()
            .describe_topic(describe)
            .await
            .expect_err("never made");
        assert_eq!(status.code(), tonic::Code::NotFound);
        world.is_well().await;
    });
}
