//! More at once than an agent has memory for: each has its turn, or is told the limit.

use std::time::Duration;

use bytes::Bytes;
use esker_agent::Budgets;
use esker_object::Verb;
use esker_object::faults::{Fault, Rule};
use esker_proto::tuning::STREAMS_MAX;
use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;
use esker_types::limits::{
    APPEND_STREAMS_MAX, BUDGET_WAIT_MAX, KIB, MIB, READ_REPLY_RECORDS_MAX, READ_STREAMS_MAX,
    REPLY_STALL_MAX,
};
use prost::Message;

use crate::batch::with_records;
use crate::wire::{Wire, framed, head};
use crate::world::{SECRET, TOPIC, World, batch, is_told, plain, told};

const BUDGET: usize = 256 * KIB;
const READ_BUDGET: usize = 3 * MIB;

async fn small(seed: u64) -> World {
    let budgets = Budgets {
        append_bytes: BUDGET,
        read_bytes: READ_BUDGET,
    };
    World::with_budgets(seed, budgets).await
}

fn held(world: &World) -> (u64, u64) {
    let of = |name| world.figure(name);
    (of("append_held_bytes"), of("append_held_most_bytes"))
}

#[test]
fn many_large_appends_all_have_their_turn_and_hold_no_more_than_the_budget() {
    run(async {
        let world = small(3901).await;
        let value = "x".repeat(100 * KIB);
        let appending = (0..40).map(|_| async {
            for tries in 0..100 {
                match world.append(plain(&[&value])).await {
                    Ok(appended) => return (appended.base_offset, tries),
                    Err(error) => {
                        let words = ["nothing is stored", "262144"];
                        is_told(&error, Code::Overloaded, Durability::NotWritten, &words);
                        assert!(error.retriable);
                        assert_eq!(error.limit, Some(BUDGET as u64));
                        assert!(error.value > error.limit, "{error:?}");
                        tokio::time::sleep(Duration::from_millis(7)).await;
                    }
                }
            }
            panic!("it never had its turn");
        });
        let mut offsets = futures::future::join_all(appending).await;
        offsets.sort_unstable();
        let got: Vec<u64> = offsets.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(got, (0..40).collect::<Vec<u64>>());
        let (now, most) = held(&world);
        assert_eq!(now, 0);
        let two = 2 * 100 * KIB as u64;
        assert!((two..=BUDGET as u64).contains(&most), "{most} bytes");
        world.is_well().await;
    });
}

#[test]
fn what_would_not_fit_alone_is_refused_with_both_numbers() {
    run(async {
        let world = small(3902).await;
        let value = SECRET.repeat(40 * KIB);
        let words = ["262144", "agent.append_memory"];
        let error = world
            .refuses(plain(&[&value]), Code::LimitReached, &words)
            .await;
        assert_eq!(error.limit, Some(BUDGET as u64));
        assert!(error.value > Some(9 * 40 * KIB as u64), "{error:?}");

        // So is what is small as it comes, and large once it is decoded.
        let zeros = zstd::encode_all(&vec![0; MIB][..], 1).expect("encoded");
        assert!(zeros.len() < KIB);
        let error = world
            .refuses(
                batch(with_records(1, 4, &zeros)),
                Code::LimitReached,
                &words,
            )
            .await;
        let value = error.value.expect("told");
        assert!((MIB as u64..MIB as u64 + 8192).contains(&value), "{value}");
        // What it would decode to is held only while it is checked.
        let (now, most) = held(&world);
        assert_eq!((now, most < 8192), (0, true), "{most}");
    });
}

#[test]
fn whoever_sends_half_or_nothing_holds_nobody_up() {
    run(async {
        let world = small(3903).await;
        let value = "x".repeat(200 * KIB);
        let whole = framed(&plain(&[&value]).encode_to_vec());
        let mut wires = Vec::new();
        for number in 0..3 {
            let mut wire = Wire::open(&world).await;
            for stream in 0..STREAMS_MAX - 1 {
                wire.ready().await.expect("open");
                let head = head("Log/Append", &[]);
                let (response, mut sending) =
                    wire.requests.send_request(head, false).expect("sent");
                // Nothing at all, the length of a message, or a piece of it.
                let bytes = [0, 5, 4 * KIB][(number + stream as usize) % 3];
                sending
                    .send_data(Bytes::copy_from_slice(&whole[..bytes]), false)
                    .expect("sent");
                wires.push((response, sending));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(held(&world).0, 0);
        let began = tokio::time::Instant::now();
        for _ in 0..20 {
            world.append(plain(&[&value])).await.expect("appended");
        }
        assert!(began.elapsed() < BUDGET_WAIT_MAX);
        world.is_well().await;
        drop(wires);
    });
}

#[test]
fn whoever_takes_no_replies_holds_nothing_and_is_let_go() {
    run(async {
        let world = small(3904).await;
        let mut builder = h2::client::Builder::new();
        // Room for a few replies and no more.
        builder.initial_window_size(100);
        let mut wire = Wire::with(&world, &builder).await;
        wire.ready().await.expect("open");
        let head = head("Log/Append", &[]);
        let (response, mut sending) = wire.requests.send_request(head, false).expect("sent");
        let value = "x".repeat(KIB);
        let message = framed(&plain(&[&value]).encode_to_vec());
        let sent = 2000;
        sending
            .send_data(message.repeat(sent).into(), false)
            .expect("sent");
        let mut receiving = response.await.expect("a stream").into_body();
        tokio::time::sleep(Duration::from_secs(30)).await;
        let stored = world.end().await;
        assert!((256..1500).contains(&stored), "{stored} of {sent} taken in");
        assert_eq!(held(&world).0, 0);
        let large = "x".repeat(200 * KIB);
        world.append(plain(&[&large])).await.expect("appended");

        tokio::time::sleep(REPLY_STALL_MAX).await;
        let mut replies = 0;
        while let Some(data) = receiving.data().await {
            let data = data.expect("the connection lives");
            replies += data.len();
            let control = receiving.flow_control();
            control.release_capacity(data.len()).expect("taken");
        }
        assert!(replies > 256 * 5, "{replies} bytes of replies");
        let trailers = receiving.trailers().await.expect("ended").expect("told");
        let status = tonic::Status::from_header_map(&trailers).expect("a status");
        let (_, error) = told(&status);
        is_told(&error, Code::Overloaded, Durability::Unknown, &["60 s"]);
        // All that was taken in has its reply.
        assert_eq!(world.end().await, stored + 1);
        world.is_well().await;
    });
}

#[test]
fn streams_of_appends_are_counted_and_one_too_many_is_told_so() {
    run(async {
        let world = World::new(3905).await;
        let mut streams = Vec::new();
        let mut wire = Wire::open(&world).await;
        for number in 0..APPEND_STREAMS_MAX {
            if number % (STREAMS_MAX as usize) == 0 {
                wire = Wire::open(&world).await;
            }
            wire.ready().await.expect("open");
            let head = head("Log/Append", &[]);
            let (response, sending) = wire.requests.send_request(head, false).expect("sent");
            let response = response.await.expect("a stream");
            assert!(response.headers().get("grpc-status").is_none());
            streams.push((response, sending));
        }
        let requests = futures::stream::iter([plain(&["more"])]);
        let status = world.log().append(requests).await.expect_err("too many");
        let (code, error) = told(&status);
        assert_eq!(code, tonic::Code::ResourceExhausted);
        let limit = APPEND_STREAMS_MAX as u64;
        let words = [&*format!("{limit} streams of appends"), "not begun"];
        is_told(&error, Code::Overloaded, Durability::NotWritten, &words);
        assert_eq!((error.limit, error.value), (Some(limit), Some(limit + 1)));
        assert!(error.retriable);
        // Whoever goes makes room.
        drop(streams.swap_remove(0));
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.is_well().await;
    });
}

#[test]
fn a_read_for_which_there_is_no_place_looks_nothing_up() {
    run(async {
        let world = World::new(3907).await;
        let following = v1::ReadRequest {
            topic: TOPIC.to_owned(),
            follow: true,
            ..v1::ReadRequest::default()
        };
        let body = Bytes::from(framed(&following.encode_to_vec()));
        let (mut streams, mut wires) = (Vec::new(), Vec::new());
        let mut wire = Wire::open(&world).await;
        for number in 0..READ_STREAMS_MAX {
            if number % (STREAMS_MAX as usize) == 0 {
                wires.push(std::mem::replace(&mut wire, Wire::open(&world).await));
            }
            wire.ready().await.expect("open");
            let head = head("Log/Read", &[]);
            let (response, mut sending) = wire.requests.send_request(head, false).expect("sent");
            sending.send_data(body.clone(), true).expect("sent");
            let response = response.await.expect("a stream");
            assert!(response.headers().get("grpc-status").is_none());
            streams.push(response);
        }
        // A look would find that there is none.
        let unknown = v1::ReadRequest {
            topic: "nobodys".to_owned(),
            ..v1::ReadRequest::default()
        };
        let status = world
            .log()
            .read(unknown.clone())
            .await
            .expect_err("too many");
        let (_, error) = told(&status);
        let limit = READ_STREAMS_MAX as u64;
        let words = [&*format!("{limit} streams of reads"), "not begun"];
        is_told(&error, Code::Overloaded, Durability::NotWritten, &words);
        assert_eq!((error.limit, error.value), (Some(limit), Some(limit + 1)));
        drop(streams.swap_remove(0));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let status = world
            .log()
            .read(unknown)
            .await
            .expect_err("none of that name");
        assert_eq!(told(&status).1.code(), Code::UnknownTopic);
    });
}

#[test]
fn one_verification_is_under_way_and_another_is_told_so() {
    run(async {
        let world = World::new(3908).await;
        world.is_well().await;
        let flushed = world.admin().flush(v1::FlushRequest::default()).await;
        assert!(flushed.expect("flushed").into_inner().segments > 0);
        let verify = || v1::VerifyRequest::default();
        let slow = Rule::new(Fault::Slow(Duration::from_secs(10))).on(Verb::Get);
        world.whole.faults.script(slow.times(1));
        let mut first = Wire::open(&world).await;
        first.ready().await.expect("open");
        let head = head("Admin/Verify", &[]);
        let (response, mut sending) = first.requests.send_request(head, false).expect("sent");
        let body = framed(&verify().encode_to_vec());
        sending.send_data(body.into(), true).expect("sent");
        let response = response.await.expect("a stream");
        let begun = world.whole.env.clock.monotonic();
        let status = world.admin().verify(verify()).await.map(drop);
        let status = match status {
            Err(status) => status,
            Ok(()) => unreachable!("the first has ended, or two are under way"),
        };
        let (code, error) = told(&status);
        assert_eq!(code, tonic::Code::ResourceExhausted);
        let words = ["1 is under way", "not begun"];
        is_told(&error, Code::Overloaded, Durability::NotWritten, &words);
        assert_eq!((error.limit, error.value), (Some(1), Some(2)));
        assert!(error.retriable);
        let took = world.whole.env.clock.monotonic().since(begun);
        assert!(took < Duration::from_secs(1), "at once, not after {took:?}");
        // Whoever goes makes room, whatever it waited for.
        drop((response, sending, first));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut next = world
            .admin()
            .verify(verify())
            .await
            .expect("begun")
            .into_inner();
        let mut done = false;
        while let Some(so_far) = next.message().await.expect("told") {
            done = so_far.done;
        }
        assert!(done);
    });
}

#[test]
fn a_name_that_is_too_long_is_not_kept_and_told_with_both_numbers() {
    run(async {
        let world = small(3906).await;
        let request = |id: u64, topic: String| v1::AppendRequest {
            request_id: id,
            topic,
            ..plain(&["a"])
        };
        let mut requests = vec![request(0, TOPIC.to_owned())];
        requests.extend((1..50).map(|id| request(id, SECRET.repeat(50_000))));
        requests.push(request(50, TOPIC.to_owned()));
        let mut replies = world.appends(requests).await;
        replies.sort_by_key(|(id, _)| *id);
        assert_eq!(replies.len(), 51);
        for (id, reply) in replies {
            if id % 50 == 0 {
                reply.expect("appended");
                continue;
            }
            let error = reply.expect_err("no name");
            let words = ["450000 bytes", "249"];
            is_told(&error, Code::InvalidRequest, Durability::NotWritten, &words);
            assert_eq!((error.limit, error.value), (Some(249), Some(450_000)));
        }
        assert_eq!(held(&world).0, 0);
    });
}

#[test]
fn whoever_reads_nothing_holds_no_other_reader_up() {
    run(async {
        let world = small(3907).await;
        let value = "x".repeat(200 * KIB);
        for _ in 0..60 {
            world.append(plain(&[&value])).await.expect("appended");
        }
        let request = v1::ReadRequest {
            topic: TOPIC.into(),
            ..v1::ReadRequest::default()
        };
        let body = framed(&request.encode_to_vec());
        let mut wires = Vec::new();
        for _ in 0..20 {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1000);
            let mut wire = Wire::with(&world, &builder).await;
            wire.ready().await.expect("open");
            let head = head("Log/Read", &[]);
            let (response, mut sending) = wire.requests.send_request(head, false).expect("sent");
            sending.send_data(body.clone().into(), true).expect("sent");
            wires.push((wire, response.await.expect("a stream")));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let of = |name| world.figure(name);
        // As many replies wait as half of the budget has shares for; the others wait alone, and the
        // other half is there for whoever decodes.
        let (now, most) = (of("read_held_bytes"), of("read_held_most_bytes"));
        let half = (READ_BUDGET / 2) as u64;
        assert!((half / 2..=half).contains(&now), "{now} bytes held");
        assert!(most <= half, "{most} bytes at most");

        let began = tokio::time::Instant::now();
        let mut stream = world
            .log()
            .read(request)
            .await
            .expect("opened")
            .into_inner();
        let mut records = 0;
        while let Some(reply) = stream.message().await.expect("readable") {
            records += reply.batches.len();
        }
        assert_eq!(records, 60);
        assert!(began.elapsed() < BUDGET_WAIT_MAX);
        assert_eq!(world.reads_open(), 20);
        drop(wires);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((world.reads_open(), of("read_held_bytes")), (0, 0));
        world.is_well().await;
    });
}

#[test]
fn records_of_a_batch_that_grows_come_in_parts_and_hold_no_more_than_the_budget() {
    use esker_record::codec::Compression;
    use esker_record::{Builder, NewRecord, ZstdLevel};
    run(async {
        let world = World::with_budgets(
            3908,
            Budgets {
                read_bytes: READ_BUDGET,
                ..Budgets::default()
            },
        )
        .await;
        let large = |count: usize, value: &[u8]| {
            let mut builder = Builder::new(Compression::Zstd(ZstdLevel::FAST), 8 * MIB);
            let record = NewRecord::value(esker_types::Timestamp(1), value);
            for _ in 0..count {
                builder.push(&record).expect("it fits");
            }
            batch(builder.finish(None).expect("not empty").into_bytes())
        };
        // 2.9 MB of records each.
        let count = 60_000;
        for _ in 0..2 {
            world
                .append(large(count, &[0; 40]))
                .await
                .expect("appended");
        }
        let request = || v1::ReadRequest {
            topic: TOPIC.into(),
            format: v1::ReadFormat::Records.into(),
            ..v1::ReadRequest::default()
        };
        let mut stream = world
            .log()
            .read(request())
            .await
            .expect("opened")
            .into_inner();
        let (mut next, mut replies) = (0, 0);
        while let Some(reply) = stream.message().await.expect("readable") {
            assert!(reply.records.len() <= READ_REPLY_RECORDS_MAX);
            for record in &reply.records {
                assert_eq!(record.offset, next);
                next += 1;
            }
            assert_eq!(reply.next_offset, next);
            replies += 1;
        }
        assert_eq!(next, 2 * count as u64);
        assert!(replies > 2 * count / READ_REPLY_RECORDS_MAX, "{replies}");
        let most = world.figure("read_held_most_bytes");
        let budget = READ_BUDGET as u64;
        assert!((2 * MIB as u64..=budget).contains(&most), "{most} bytes");
        assert_eq!(world.figure("read_held_bytes"), 0);

        // One that would not fit alone, and then the way on.
        world
            .append(large(1, &[0; 4 * MIB]))
            .await
            .expect("appended");
        let mut stream = world
            .log()
            .read(request())
            .await
            .expect("opened")
            .into_inner();
        let status = loop {
            match stream.message().await {
                Ok(reply) => next = reply.expect("not the end").next_offset,
                Err(status) => break status,
            }
        };
        let (_, error) = told(&status);
        let words = ["agent.read_memory", "BATCHES", "nothing is lost"];
        is_told(&error, Code::LimitReached, Durability::Durable, &words);
        assert_eq!(error.limit, Some(budget));
        assert!(error.value > error.limit, "{error:?}");
        assert_eq!(next, 2 * count as u64);
        world.is_well().await;
    });
}
