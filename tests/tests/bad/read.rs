//! Reads with odd bounds, and many that nobody waits for.

use std::time::Duration;

use esker_proto::v1::position::At;
use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;

use crate::batch::case;
use crate::world::{TOPIC, World, is_told, plain, told};

fn request() -> v1::ReadRequest {
    v1::ReadRequest {
        topic: TOPIC.into(),
        ..v1::ReadRequest::default()
    }
}

#[test]
fn odd_bounds_are_clamped_or_refused() {
    run(async {
        let world = World::new(3501).await;
        for _ in 0..3 {
            world.is_well().await;
        }
        // Beyond the end, before the beginning, before `from`: what there is, and the end.
        for (until, batches) in [(i64::MAX.cast_unsigned(), 3), (3, 3), (1, 1), (0, 0)] {
            case(&until.to_string());
            let request = v1::ReadRequest {
                until: Some(At::Offset(until).into()),
                ..request()
            };
            let mut stream = world
                .log()
                .read(request)
                .await
                .expect("opened")
                .into_inner();
            let mut seen = 0;
            while let Some(reply) = stream.message().await.expect("readable") {
                seen += reply.batches.len();
            }
            assert_eq!(seen, batches);
        }
        let refused = [
            (
                v1::ReadRequest {
                    format: 99,
                    ..request()
                },
                "format 99",
            ),
            (
                v1::ReadRequest {
                    format: -1,
                    ..request()
                },
                "format -1",
            ),
            (
                v1::ReadRequest {
                    preference: 2,
                    ..request()
                },
                "preference 2",
            ),
            (
                v1::ReadRequest {
                    from: Some(At::Edge(7).into()),
                    ..request()
                },
                "edge 7",
            ),
            (
                v1::ReadRequest {
                    until: Some(At::Offset(u64::MAX).into()),
                    ..request()
                },
                "9223372036854775807",
            ),
            (
                v1::ReadRequest {
                    follow: true,
                    until: Some(At::Offset(1).into()),
                    ..request()
                },
                "`until`",
            ),
            (
                v1::ReadRequest {
                    mark: Some(v1::Mark {
                        incarnation: 0,
                        index: 9,
                    }),
                    ..request()
                },
                "mark.incarnation",
            ),
        ];
        for (request, word) in refused {
            case(word);
            let (code, error) = told(&world.log().read(request).await.expect_err("refused"));
            assert_eq!(code, tonic::Code::InvalidArgument);
            is_told(
                &error,
                Code::InvalidRequest,
                Durability::NotWritten,
                &[word],
            );
        }
        let verify = v1::VerifyRequest { depth: 9 };
        let (code, _) = told(&world.admin().verify(verify).await.expect_err("no depth"));
        assert_eq!(code, tonic::Code::InvalidArgument);
        world.is_well().await;
    });
}

#[test]
fn ten_thousand_cancelled_followers_leave_nothing_behind() {
    run(async {
        let world = World::new(3502).await;
        world.is_well().await;
        let settle = || async {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let before = settle().await;
        for round in 0..10_000u32 {
            let follow = v1::ReadRequest {
                follow: true,
                ..request()
            };
            let mut stream = world.log().read(follow).await.expect("opened").into_inner();
            // Cancelled before anything was read, after the first reply, or while it waits.
            for _ in 0..round % 3 {
                assert!(stream.message().await.expect("readable").is_some());
            }
        }
        assert!(world.reads_open() > 0, "the gauge counts nothing");
        let after = settle().await;
        assert_eq!(world.reads_open(), 0);
        assert!(after <= before + 1, "{before} tasks before, {after} after");
        world.is_well().await;
    });
}

#[test]
fn cancelled_appends_leave_nothing_behind_and_nothing_undecided() {
    run(async {
        let world = World::new(3503).await;
        world.is_well().await;
        let end = world.end().await;
        let before = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        for _ in 0..500 {
            let requests = futures::stream::iter([plain(&["left"])]);
            let stream = world.log().append(requests).await.expect("a stream");
            drop(stream);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert!(after <= before + 1, "{before} tasks before, {after} after");
        assert!(world.end().await <= end + 500);
        world.is_well().await;
    });
}

#[test]
fn a_reader_that_reads_nothing_is_let_go_and_can_go_on() {
    run(async {
        let world = World::new(3504).await;
        let value = "x".repeat(200 << 10);
        for _ in 0..100 {
            world.append(plain(&[&value])).await.expect("appended");
        }
        let mut builder = h2::client::Builder::new();
        // Room for the first reply and no more.
        builder.initial_window_size(1000);
        let mut wire = crate::wire::Wire::with(&world, &builder).await;
        wire.ready().await.expect("open");
        let body = crate::wire::framed(&prost::Message::encode_to_vec(&request()));
        let head = crate::wire::head("Log/Read", &[]);
        let (response, mut sending) = wire.requests.send_request(head, false).expect("sent");
        sending.send_data(body.into(), true).expect("sent");
        let mut receiving = response.await.expect("a stream").into_body();
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        tokio::time::sleep(Duration::from_secs(50)).await;
        let reading = tasks();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(tasks() < reading, "what reads for it goes on");
        // What waited comes, and then why there is no more.
        let mut bytes = 0;
        while let Some(data) = receiving.data().await {
            let data = data.expect("the connection lives");
            bytes += data.len();
            receiving
                .flow_control()
                .release_capacity(data.len())
                .expect("taken");
        }
        assert!(bytes < 8 << 20, "{bytes} bytes waited");
        let trailers = receiving
            .trailers()
            .await
            .expect("the stream ended")
            .expect("told");
        let status = tonic::Status::from_header_map(&trailers).expect("a status");
        let (code, error) = told(&status);
        assert_eq!(code, tonic::Code::ResourceExhausted);
        is_told(
            &error,
            Code::Overloaded,
            Durability::Durable,
            &["60 s", "next_offset"],
        );
        assert!(error.retriable);
        world.is_well().await;
    });
}
