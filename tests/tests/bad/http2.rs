//! Calls that are sound, in an HTTP/2 that is not: too many headers, streams, resets, odd timeouts.

use std::time::Duration;

use esker_object::faults::{Fault, Rule};
use esker_proto::tuning;
use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tonic::codegen::http::StatusCode;

use crate::batch::case;
use crate::wire::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Wire, block, frame,
    framed, head, literal, opening, until_closed,
};
use crate::world::{SECRET, TOPIC, World, is_told, resident_kib, told};

const PATIENCE: Duration = Duration::from_secs(120);

fn offsets() -> Vec<u8> {
    let request = v1::OffsetsRequest {
        topic: TOPIC.into(),
        ..v1::OffsetsRequest::default()
    };
    framed(&request.encode_to_vec())
}

async fn works(wire: &mut Wire) {
    let answer = wire
        .call("Log/Offsets", &[], offsets())
        .await
        .expect("answered");
    assert_eq!(answer.status.expect("told").code(), tonic::Code::Ok);
    let reply = v1::OffsetsReply::decode(&answer.body[5..]).expect("a reply");
    assert_eq!(reply.partitions.len(), 2);
}

#[test]
fn metadata_has_a_bound_and_headers_another() {
    run(async {
        let world = World::new(3601).await;
        let mut wire = Wire::open(&world).await;
        let value = SECRET.repeat(1000);
        for method in ["Log/Offsets", "Log/Append", "Admin/Flush"] {
            let answer = wire.call(method, &[("x-note", &value)], offsets()).await;
            let (code, error) = told(&answer.expect("answered").status.expect("told"));
            assert_eq!(code, tonic::Code::InvalidArgument);
            let words = ["metadata", "8192", "not begun"];
            is_told(&error, Code::InvalidRequest, Durability::NotWritten, &words);
            assert_eq!(error.limit, Some(8192));
            assert!(error.value > Some(9000), "{error:?}");
        }
        works(&mut wire).await;
        // Beyond what HTTP/2 itself takes, no service is asked.
        let value = "y".repeat(20 << 10);
        let answer = wire
            .call("Log/Offsets", &[("x-note", &value)], offsets())
            .await;
        match answer {
            Ok(answer) => assert_eq!(answer.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Err(error) => assert!(error.is_reset(), "{error:?}"),
        }
        works(&mut wire).await;
        world.is_well().await;
    });
}

#[test]
fn timeouts_are_read_as_grpc_means_them() {
    run(async {
        let world = World::new(3602).await;
        let mut wire = Wire::open(&world).await;
        for timeout in [
            "",
            "S",
            "10",
            "1x",
            "-1S",
            "123456789S",
            "1.5S",
            "18446744073709551615n",
        ] {
            case(timeout);
            let answer = wire
                .call("Log/Offsets", &[("grpc-timeout", timeout)], offsets())
                .await;
            let (code, error) = told(&answer.expect("answered").status.expect("told"));
            assert_eq!(code, tonic::Code::InvalidArgument);
            let words = ["grpc-timeout", "8 digits", "not begun"];
            is_told(&error, Code::InvalidRequest, Durability::NotWritten, &words);
        }
        let twice = [("grpc-timeout", "1S"), ("grpc-timeout", "2S")];
        let answer = wire
            .call("Log/Offsets", &twice, offsets())
            .await
            .expect("answered");
        let (_, error) = told(&answer.status.expect("told"));
        is_told(
            &error,
            Code::InvalidRequest,
            Durability::NotWritten,
            &["2 times", "limit is 1"],
        );
        assert_eq!((error.limit, error.value), (Some(1), Some(2)));

        // Eleven thousand years.
        let answer = wire
            .call("Log/Offsets", &[("grpc-timeout", "99999999H")], offsets())
            .await;
        assert_eq!(
            answer.expect("answered").status.expect("told").code(),
            tonic::Code::Ok
        );
        works(&mut wire).await;
        world.is_well().await;
    });
}

#[test]
fn a_call_that_is_out_of_time_may_be_done() {
    run(async {
        let world = World::new(3603).await;
        world.is_well().await;
        world.whole.stop_flushing();
        let mut wire = Wire::open(&world).await;
        for (timeout, millis) in [("0S", 0), ("2S", 2000), ("1500m", 1500)] {
            case(timeout);
            let slow = Fault::Slow(Duration::from_secs(10));
            world.whole.faults.script(Rule::new(slow));
            let began = tokio::time::Instant::now();
            let answer = wire
                .call("Admin/Flush", &[("grpc-timeout", timeout)], framed(&[]))
                .await;
            let (code, error) = told(&answer.expect("answered").status.expect("told"));
            assert_eq!(code, tonic::Code::DeadlineExceeded, "{error:?}");
            is_told(
                &error,
                Code::OutcomeUnknown,
                Durability::Unknown,
                &["may be done"],
            );
            assert_eq!(error.limit, Some(millis));
            assert!(began.elapsed() <= Duration::from_millis(millis + 100));
            world.whole.faults.calm();
            world.is_well().await;
        }
    });
}

#[test]
fn streams_of_a_connection_are_counted() {
    run(async {
        let world = World::new(3604).await;
        let mut wire = Wire::open(&world).await;
        works(&mut wire).await;
        let mut open = Vec::new();
        for _ in 0..tuning::STREAMS_MAX {
            wire.ready().await.expect("below the limit");
            let sent = wire.requests.send_request(head("Log/Append", &[]), false);
            open.push(sent.expect("below the limit"));
        }
        // One more waits.
        let more = tokio::time::timeout(Duration::from_secs(5), async {
            wire.ready().await?;
            let (response, sending) = wire.requests.send_request(head("Log/Append", &[]), false)?;
            wire.ready().await?;
            drop(sending);
            response.await
        });
        assert!(
            !matches!(more.await, Ok(Ok(_))),
            "more streams than there may be"
        );
        drop(open);
        world.is_well().await;

        // Who does not care is refused stream by stream, or thrown out.
        let mut bytes = opening();
        for stream in 0..1000u32 {
            let flags = END_HEADERS;
            bytes.extend(frame(HEADERS, flags, 2 * stream + 1, &block("Log/Append")));
        }
        let before = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        let mut connection = world.connection().await;
        let writing = tokio::time::timeout(Duration::from_secs(5), connection.write_all(&bytes));
        let _ = writing.await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            - before;
        assert!(
            tasks < 4 * tuning::STREAMS_MAX as usize,
            "{tasks} tasks for one connection"
        );
        world.is_well().await;
    });
}

#[test]
fn rapid_reset_ends_the_connection_that_does_it() {
    run(async {
        let world = World::new(3605).await;
        let mut bytes = opening();
        for stream in 0..20_000u32 {
            let id = 2 * stream + 1;
            bytes.extend(frame(HEADERS, END_HEADERS, id, &block("Log/Append")));
            bytes.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        }
        let mut connection = world.connection().await;
        let closed = until_closed(&mut connection, &bytes, PATIENCE).await;
        let (answer, _) = closed.expect("it is thrown out");
        // GOAWAY, ENHANCE_YOUR_CALM, as the last thing said, if it was still listened to.
        assert!(answer.len() < 64 << 10, "{} bytes", answer.len());
        world.is_well().await;
    });
}

#[test]
fn floods_of_continuations_pings_and_settings_are_bounded() {
    run(async {
        let world = World::new(3606).await;
        let mut headers = Vec::new();
        for number in 0..200 {
            literal(&mut headers, &format!("x-{number}"), &"z".repeat(90));
        }
        let mut continued = opening();
        continued.extend(frame(HEADERS, 0, 1, &block("Log/Append")));
        for _ in 0..2000 {
            continued.extend(frame(CONTINUATION, 0, 1, &headers));
        }
        let mut empty = opening();
        empty.extend(frame(HEADERS, 0, 1, &block("Log/Append")));
        for _ in 0..100_000 {
            empty.extend(frame(CONTINUATION, 0, 1, &[]));
        }
        let mut pings = opening();
        for _ in 0..100_000 {
            pings.extend(frame(PING, 0, 0, &[7; 8]));
        }
        let mut settings = opening();
        for _ in 0..100_000 {
            settings.extend(frame(SETTINGS, 0, 0, &[]));
        }
        let mut indexed = opening();
        // HPACK: one long header put into the table, then named again and again.
        let mut bomb = block("Log/Append");
        bomb.push(0x40);
        bomb.extend([1, b'x', 120]);
        bomb.extend([b'y'; 120]);
        bomb.extend([0xbe; 12_000]);
        indexed.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
        for (what, bytes) in [
            ("continuations", continued),
            ("empty continuations", empty),
            ("pings", pings),
            ("settings", settings),
            ("an HPACK bomb", indexed),
        ] {
            case(what);
            let before = resident_kib();
            let mut connection = world.connection().await;
            // Whoever floods does not read.
            let writing = connection.write_all(&bytes);
            let _ = tokio::time::timeout(Duration::from_secs(60), writing).await;
            let grown = resident_kib().saturating_sub(before);
            assert!(grown < 200 << 10, "{grown} KiB more for {what}");
            world.is_well().await;
        }
    });
}
