//! Peers that speak something else, slowly, or nothing.

use std::time::Duration;

use esker_proto::tuning;
use esker_tests::node::run;
use esker_types::limits::{ACCEPT_REST, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, REPLY_STALL_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::batch::case;
use crate::wire::{
    DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, block, frame, opening, until_closed,
};
use crate::world::{World, run_live};

const PATIENCE: Duration = Duration::from_secs(300);

/// Who is asked whether it is there, and does not answer, is gone after this.
const KEEPALIVE: Duration =
    Duration::from_secs(tuning::KEEPALIVE_INTERVAL.as_secs() + tuning::KEEPALIVE_TIMEOUT.as_secs());

fn strangers() -> Vec<(&'static str, Vec<u8>)> {
    // A TLS 1.2 record with a ClientHello's beginning.
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    hello.extend([0x5a; 506]);
    let random = (0..4096u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).expect("eight bits"))
        .collect();
    vec![
        (
            "HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
        ),
        (
            "HTTP/1.1 POST",
            b"POST /esker.v1.Log/Append HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        ),
        (
            "HTTP/1.1, asking to go on in HTTP/2",
            b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_vec(),
        ),
        ("TLS", hello),
        (
            "Kafka",
            vec![
                0, 0, 0, 35, 0, 18, 0, 3, 0, 0, 0, 1, 0, 7, b'c', b'l', b'i', b'e', b'n', b't',
                b's',
            ],
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.7\r\n".to_vec()),
        ("bytes", random),
        ("zeros", vec![0; 4096]),
        (
            "half a preface, then junk",
            [&PREFACE[..12], b"junk junk junk"].concat(),
        ),
        ("a preface, then junk", [PREFACE, &[0xff; 64]].concat()),
        (
            "a frame of 16 MiB",
            [&opening()[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        ),
        (
            "data on a stream that is not open",
            [&opening()[..], &frame(DATA, 0, 9, &[0; 40])].concat(),
        ),
        (
            "settings of five bytes",
            [PREFACE, &frame(SETTINGS, 0, 0, &[0; 5])].concat(),
        ),
    ]
}

#[test]
fn who_speaks_something_else_is_closed_at_once() {
    run(async {
        let world = World::new(3701).await;
        for (what, bytes) in strangers() {
            case(what);
            let mut connection = world.connection().await;
            let closed = until_closed(&mut connection, &bytes, PATIENCE).await;
            let (answer, took) = closed.expect("closed");
            assert!(took <= Duration::from_secs(1), "after {took:?}");
            assert!(answer.len() < 256, "{} bytes of answer", answer.len());
            world.is_well().await;
        }
    });
}

#[test]
fn the_same_over_tcp_and_a_port_scan() {
    run_live(async {
        let world = World::on_tcp(3702).await;
        for (what, bytes) in strangers() {
            case(what);
            let mut connection = world.connection().await;
            let closed = until_closed(&mut connection, &bytes, Duration::from_secs(20)).await;
            assert!(closed.is_some(), "it stays open");
        }
        for _ in 0..200 {
            drop(world.connection().await);
        }
        world.is_well().await;
    });
}

#[test]
fn who_says_nothing_or_only_half_is_closed_in_time() {
    run(async {
        let world = World::new(3703).await;
        let second = Duration::from_secs(1);
        let cases: Vec<(&str, Vec<u8>, Duration)> = vec![
            ("nothing", vec![], HANDSHAKE_TIMEOUT),
            ("half a preface", PREFACE[..20].to_vec(), HANDSHAKE_TIMEOUT),
            ("a preface", PREFACE.to_vec(), HANDSHAKE_TIMEOUT),
            (
                "half of the first frame",
                [PREFACE, &[0, 0, 6, 4, 0, 0]].concat(),
                HANDSHAKE_TIMEOUT,
            ),
            ("an opening and silence", opening(), KEEPALIVE),
            (
                "half of a call's headers",
                [
                    &opening()[..],
                    &frame(HEADERS, END_HEADERS, 1, &block("Log/Append"))[..30],
                ]
                .concat(),
                KEEPALIVE,
            ),
            (
                "a call without its end",
                [
                    &opening()[..],
                    &frame(HEADERS, END_HEADERS, 1, &block("Log/Append")),
                ]
                .concat(),
                KEEPALIVE,
            ),
            (
                "half of a message",
                [
                    &opening()[..],
                    &frame(HEADERS, END_HEADERS, 1, &block("Log/Append")),
                    &frame(DATA, 0, 1, &[0, 0, 0, 4, 0, 1, 2, 3]),
                ]
                .concat(),
                KEEPALIVE,
            ),
        ];
        for (what, bytes, bound) in cases {
            case(what);
            let mut connection = world.connection().await;
            let closed = until_closed(&mut connection, &bytes, PATIENCE).await;
            let (_, took) = closed.expect("closed");
            assert!(
                took <= bound + second,
                "after {took:?}, the bound is {bound:?}"
            );
            world.is_well().await;
        }
    });
}

#[test]
fn who_drips_is_closed_in_time() {
    run(async {
        let world = World::new(3704).await;
        let headers = frame(HEADERS, END_HEADERS, 1, &block("Log/Append"));
        let cases = [
            ("the preface", vec![], opening(), HANDSHAKE_TIMEOUT),
            ("a call's headers", opening(), headers, KEEPALIVE),
        ];
        for (what, at_once, dripped, bound) in cases {
            case(what);
            let mut connection = world.connection().await;
            connection.write_all(&at_once).await.expect("open");
            let began = tokio::time::Instant::now();
            let mut closed = false;
            for byte in dripped {
                let mut answer = [0; 4096];
                let waited =
                    tokio::time::timeout(Duration::from_secs(3), connection.read(&mut answer));
                // An answer is read and not acted on; an end is an end.
                if matches!(waited.await, Ok(Ok(0) | Err(_))) {
                    closed = true;
                    break;
                }
                if connection.write_all(&[byte]).await.is_err() {
                    closed = true;
                    break;
                }
            }
            let took = began.elapsed();
            assert!(closed, "it drips for {took:?}");
            assert!(took <= bound + Duration::from_secs(7), "after {took:?}");
            world.is_well().await;
        }
    });
}

#[test]
fn who_takes_nothing_off_its_socket_is_closed_in_time() {
    use esker_proto::v1::ReadRequest;
    use prost::Message;
    run(async {
        let world = World::new(3705).await;
        let value = "x".repeat(200 << 10);
        for _ in 0..40 {
            world
                .append(crate::world::plain(&[&value]))
                .await
                .expect("appended");
        }
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = tasks();
        let request = ReadRequest {
            topic: "gravel".into(),
            follow: true,
            ..ReadRequest::default()
        };
        let message = crate::wire::framed(&request.encode_to_vec());
        let bytes = [
            PREFACE.to_vec(),
            // A stream may send 16 MiB before it is asked to wait.
            frame(SETTINGS, 0, 0, &[0, 4, 1, 0, 0, 0]),
            frame(
                crate::wire::WINDOW_UPDATE,
                0,
                0,
                &(16u32 << 20).to_be_bytes(),
            ),
            frame(HEADERS, END_HEADERS, 1, &block("Log/Read")),
            frame(DATA, crate::wire::END_STREAM, 1, &message),
        ];
        let mut connections = Vec::new();
        for _ in 0..20 {
            let mut connection = world.connection().await;
            connection.write_all(&bytes.concat()).await.expect("open");
            connections.push(connection);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(tasks() >= before + 20, "nobody reads for them");
        tokio::time::sleep(KEEPALIVE + REPLY_STALL_MAX + Duration::from_secs(5)).await;
        assert!(
            tasks() <= before + 1,
            "{before} tasks before, {} after",
            tasks()
        );
        world.is_well().await;
        drop(connections);
    });
}

#[test]
fn connections_are_counted_and_one_too_many_is_closed() {
    run(async {
        let world = World::new(3706).await;
        let mut connections = Vec::new();
        // One is the client's own. The simulated backlog is short: let it be emptied.
        for _ in 1..CONNECTIONS_MAX {
            let mut connection = world.connection().await;
            connection.write_all(&opening()).await.expect("open");
            connections.push(connection);
            tokio::task::yield_now().await;
        }
        let mut more = world.connection().await;
        let closed = until_closed(&mut more, &opening(), Duration::from_secs(1)).await;
        let (answer, _) = closed.expect("one too many");
        assert!(answer.is_empty());
        world.is_well().await;
        // Whoever goes makes room; those who stay silent are made to go.
        tokio::time::sleep(KEEPALIVE + Duration::from_secs(5)).await;
        let mut next = world.connection().await;
        next.write_all(&opening()).await.expect("open");
        let mut answer = [0; 9];
        next.read_exact(&mut answer).await.expect("there is room");
        world.is_well().await;
        drop(connections);
    });
}

#[test]
fn a_want_of_descriptors_ends_nobody() {
    run(async {
        let world = World::new(3707).await;
        world.is_well().await;
        world.starve(1000);
        // The one that the listener waits for already, and one that it cannot take.
        let _first = world.connection().await;
        let mut second = world.connection().await;
        second.write_all(&opening()).await.expect("it waits");
        tokio::time::sleep(ACCEPT_REST * 900).await;
        assert!((1..200).contains(&world.starves()), "{}", world.starves());
        world.is_well().await;
        let mut answer = [0; 9];
        second
            .read_exact(&mut answer)
            .await
            .expect("its turn comes");
        assert_eq!(world.starves(), 0);
        world.is_well().await;
    });
}
