//! Messages that are too large, or none.

use bytes::Bytes;
use esker_proto::v1::{self, Code, Durability, append_reply::Result as Reply};
use esker_proto::{encoded_bytes, tuning};
use esker_tests::node::run;
use esker_types::limits::PARTITIONS_PER_TOPIC_MAX;
use tonic::codegen::http::StatusCode;

use crate::batch::case;
use crate::wire::{Wire, framed, head, prefixed};
use crate::world::{SECRET, TOPIC, World, batch, is_told, plain, resident_kib, told};

const UNARY: [&str; 3] = ["Log/Offsets", "Admin/CreateTopic", "Admin/TruncateTopic"];

#[test]
fn a_length_of_4_gib_is_refused_before_anything_is_taken_in() {
    run(async {
        let world = World::new(3301).await;
        let before = resident_kib();
        let mut wire = Wire::open(&world).await;
        for method in UNARY
            .into_iter()
            .chain(["Log/Append", "Log/Read", "Admin/Verify"])
        {
            case(method);
            for length in [u32::MAX, 9_437_185] {
                let body = prefixed(0, length, SECRET.as_bytes());
                let answer = wire.call(method, &[], body).await.expect("answered");
                assert_eq!(answer.http, StatusCode::OK);
                let (code, error) = told(&answer.status.expect("told"));
                assert_eq!(code, tonic::Code::ResourceExhausted);
                let words = [&length.to_string(), "9437184", "nothing is stored"];
                is_told(
                    &error,
                    Code::MessageTooLarge,
                    Durability::NotWritten,
                    &words,
                );
                assert_eq!(error.limit_and_value(), (9_437_184, u64::from(length)));
            }
        }
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 400 << 10, "{grown} KiB more for 48 GiB announced");
        // The connection that said so is as good as ever.
        let request = framed(&encoded(&offsets()));
        let answer = wire
            .call("Log/Offsets", &[], request)
            .await
            .expect("answered");
        assert_eq!(answer.status.expect("told").code(), tonic::Code::Ok);
        world.is_well().await;
    });
}

trait Met {
    fn limit_and_value(&self) -> (u64, u64);
}

impl Met for v1::Error {
    fn limit_and_value(&self) -> (u64, u64) {
        (self.limit.expect("a limit"), self.value.expect("a value"))
    }
}

fn offsets() -> v1::OffsetsRequest {
    v1::OffsetsRequest {
        topic: TOPIC.into(),
        ..v1::OffsetsRequest::default()
    }
}

fn encoded(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    assert_eq!(bytes.len(), encoded_bytes(message));
    bytes
}

#[test]
fn a_message_above_the_limit_ends_its_stream_and_what_came_before_is_answered() {
    run(async {
        let world = World::new(3302).await;
        let large = vec![b'x'; tuning::MESSAGE_BYTES_MAX];
        let requests = futures::stream::iter([plain(&["a"]), plain(&["b"]), batch(large)]);
        // The bad one comes while the others are under way.
        let mut stream = world
            .log()
            .append(requests)
            .await
            .expect("a stream")
            .into_inner();
        for end in [1, 2] {
            let reply = stream
                .message()
                .await
                .expect("answered")
                .expect("not the end");
            let Some(Reply::Appended(appended)) = reply.result else {
                panic!("{reply:?}");
            };
            assert_eq!(appended.end, end);
        }
        let status = stream.message().await.expect_err("too large");
        let (code, error) = told(&status);
        assert_eq!(code, tonic::Code::ResourceExhausted);
        let words = ["9437184", "nothing is stored"];
        is_told(
            &error,
            Code::MessageTooLarge,
            Durability::NotWritten,
            &words,
        );
        world.is_well().await;
    });
}

#[test]
fn bytes_that_are_no_message_are_a_wrong_request() {
    run(async {
        let world = World::new(3303).await;
        let mut wire = Wire::open(&world).await;
        let nested: Vec<u8> = [0x2a, 0x7f].repeat(500);
        let bodies: Vec<(&str, Vec<u8>)> = vec![
            ("no message", Vec::new()),
            ("half a prefix", vec![0, 0]),
            ("a message cut short", prefixed(0, 100, b"\x0a")),
            (
                "a varint that overflows",
                framed(&[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
                ]),
            ),
            ("a field of wire type 7", framed(&[0x0f, 1])),
            ("field 0", framed(&[0x00, 1])),
            ("a name that is no UTF-8", framed(&[0x0a, 2, 0xc3, 0x28])),
            ("a length past the end", framed(&[0x0a, 0x7f, b'x'])),
            ("groups in groups", framed(&[0x0b; 4000])),
            ("messages in messages", framed(&nested)),
            ("compressed, with no codec named", prefixed(1, 1, b"\x0a")),
            ("flag 9", prefixed(9, 1, b"\x0a")),
        ];
        for (what, body) in bodies {
            for method in UNARY.into_iter().chain(["Log/Read", "Log/Append"]) {
                case(&format!("{what}, {method}"));
                // A stream without messages is a stream.
                if method == "Log/Append" && body.is_empty() {
                    continue;
                }
                // Some of it is an unknown field to some of the messages.
                let answer = wire
                    .call(method, &[], body.clone())
                    .await
                    .expect("answered");
                let (code, error) = told(&answer.status.expect("told"));
                if what == "messages in messages" && code == tonic::Code::NotFound {
                    continue;
                }
                assert_eq!(code, tonic::Code::InvalidArgument, "{error:?}");
                assert_eq!(error.code(), Code::InvalidRequest);
                assert_eq!(error.durability(), Durability::NotWritten);
            }
        }
        world.is_well().await;
    });
}

#[test]
fn an_append_without_a_payload_or_with_two_producers_is_refused() {
    run(async {
        let world = World::new(3304).await;
        let mut none = plain(&[SECRET]);
        none.payload = None;
        let words = ["nothing is stored", "neither `batch` nor `records`"];
        world.refuses(none, Code::InvalidRequest, &words).await;
        let mut two = batch(crate::batch::good());
        two.producer = Some(v1::Producer::default());
        world
            .refuses(
                two,
                Code::InvalidRequest,
                &["nothing is stored", "`producer`"],
            )
            .await;
        for (producer, word) in [
            (
                v1::Producer {
                    id: u64::MAX,
                    epoch: 0,
                    sequence: 0,
                },
                "producer.id",
            ),
            (
                v1::Producer {
                    id: 1 << 40,
                    epoch: u32::MAX,
                    sequence: 0,
                },
                "4294967295",
            ),
            (
                v1::Producer {
                    id: 1 << 40,
                    epoch: 0,
                    sequence: u32::MAX,
                },
                "4294967295",
            ),
        ] {
            let mut request = plain(&[SECRET]);
            request.producer = Some(producer);
            world.refuses(request, Code::InvalidRequest, &[word]).await;
        }
    });
}

#[test]
fn a_list_of_partitions_has_a_bound() {
    run(async {
        let world = World::new(3305).await;
        let many = PARTITIONS_PER_TOPIC_MAX as usize + 1;
        let mut request = offsets();
        request.partitions = vec![0; many];
        let status = world.log().offsets(request).await.expect_err("too many");
        let words = ["100001", "100000"];
        is_told(
            &told(&status).1,
            Code::InvalidRequest,
            Durability::NotWritten,
            &words,
        );
        let truncations = vec![v1::Truncation::default(); many];
        let request = v1::TruncateTopicRequest {
            name: TOPIC.into(),
            truncations,
            topic_id: None,
        };
        let status = world
            .admin()
            .truncate_topic(request)
            .await
            .expect_err("too many");
        is_told(
            &told(&status).1,
            Code::InvalidRequest,
            Durability::NotWritten,
            &words,
        );
        world.is_well().await;
    });
}

#[test]
fn methods_and_services_that_are_not_there_are_unimplemented() {
    run(async {
        let world = World::new(3306).await;
        let mut wire = Wire::open(&world).await;
        for method in [
            "Log/Forget",
            "Nothing/At/All",
            "../../etc/passwd",
            "Log/append",
        ] {
            let answer = wire.call(method, &[], framed(&[])).await.expect("answered");
            let status = answer.status.expect("told");
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{method}");
            assert!(answer.body.is_empty());
        }
        // Not gRPC at all.
        wire.ready().await.expect("open");
        let mut request = head("Log/Offsets", &[]);
        *request.method_mut() = tonic::codegen::http::Method::GET;
        let (response, _) = wire.requests.send_request(request, true).expect("sent");
        let response = response.await.expect("answered");
        assert!(response.status() == StatusCode::OK || response.status().is_client_error());
        world.is_well().await;
    });
}

#[test]
fn a_stream_that_is_cut_within_a_message_keeps_what_was_answered() {
    run(async {
        let world = World::new(3307).await;
        let mut wire = Wire::open(&world).await;
        wire.ready().await.expect("open");
        let request = head("Log/Append", &[]);
        let (response, mut sending) = wire.requests.send_request(request, false).expect("sent");
        let whole = framed(&encoded(&plain(&["whole"])));
        let half = whole[..whole.len() - 2].to_vec();
        sending
            .send_data(Bytes::from([whole, half].concat()), false)
            .expect("sent");
        let mut receiving = response.await.expect("a stream").into_body();
        assert!(receiving.data().await.expect("a reply").is_ok());
        sending.send_reset(h2::Reason::CANCEL);
        assert_eq!(world.end().await, 1);
        world.is_well().await;
    });
}
