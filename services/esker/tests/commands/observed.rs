//! Metrics and health over HTTP.

use std::time::{Duration, Instant};

use crate::server::{Running, Server};

/// The figure of `name`, labels included, in a text of metrics.
fn figure(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.ok_or_else(|| format!("no {name} in {text}"));
    line.unwrap().parse().unwrap()
}

#[test]
fn what_went_through_is_counted_and_a_server_that_serves_is_ready() {
    let server = Server::start("observed");
    assert_eq!(server.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(server.get("/elsewhere").0, 404);
    server.create_topic("hello", 1);
    let lines = server.file("lines", &b"a line of gravel\n".repeat(1000));
    server.out(&["produce", "hello", &lines]);
    server.out(&["consume", "hello"]);
    server.out(&["cluster", "flush"]);
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let appended = figure(&text, "esker_append_batches_total{result=\"Appended\"}");
    assert!(appended >= 1.0);
    assert_eq!(
        figure(&text, "esker_append_latency_seconds_count"),
        appended
    );
    assert!(figure(&text, "esker_appended_bytes_total") > 0.0);
    assert!(figure(&text, "esker_read_bytes_total") > 0.0);
    assert_eq!(figure(&text, "esker_reads_open"), 0.0);
    assert!(
        figure(&text, "esker_bucket_done_total{verb=\"put\"}") >= 2.0,
        "probe, segment"
    );
    assert!(figure(&text, "esker_wal_groups_total") > 0.0);
    assert!(figure(&text, "esker_wal_room_bytes") > 0.0);
    assert!(figure(&text, "esker_resident_bytes") > 1e6);
    let shards =
        (1..=4).map(|shard| figure(&text, &format!("esker_shard_segments{{shard=\"{shard}\"}}")));
    assert_eq!(shards.sum::<f64>(), 1.0);
    let leads = |shard| figure(&text, &format!("esker_replica_leads{{shard=\"{shard}\"}}"));
    assert_eq!((0..=4).map(leads).sum::<f64>(), 5.0);
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("esker_build_info{{version=\"{version}\"}}");
    assert_eq!(figure(&text, &build), 1.0);
    assert_eq!(
        figure(&text, "esker_append_batches_total{result=\"Unknown\"}"),
        0.0
    );
    assert_eq!(figure(&text, "esker_shard_reachable{shard=\"1\"}"), 1.0);
    assert!(text.ends_with("# EOF\n"));
}

/// Lines that compress to half at best, each of 64 digits.
fn noise(lines: u64) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state
    };
    let line = |_| {
        format!(
            "{:016x}{:016x}{:016x}{:016x}\n",
            next(),
            next(),
            next(),
            next()
        )
    };
    (0..lines).map(line).collect::<String>().into_bytes()
}

#[test]
fn a_server_whose_head_is_full_reads_and_says_what_it_refuses() {
    let server = Server::start_with("full", &[("ESKER_WAL_HEAD", "8MiB")]);
    server.create_topic("hello", 1);
    let few = server.file("few", &noise(100));
    server.out(&["produce", "hello", &few]);
    assert_eq!(server.get("/readyz"), (200, "ready\n".to_owned()));
    // A bucket that takes nothing any more.
    let bucket = server.path("data/bucket");
    std::fs::remove_dir_all(&bucket).unwrap();
    std::fs::write(&bucket, "in the way").unwrap();
    let many = server.file("many", &noise(400_000));
    let mut producing = server.command(&["produce", "hello", &many]);
    let _producing = Running(producing.spawn().unwrap());
    let began = Instant::now();
    let said = loop {
        let (status, said) = server.get("/readyz");
        assert_eq!(status, 200, "{said}");
        if said != "ready\n" {
            break said;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "it has room");
        std::thread::sleep(Duration::from_millis(50));
    };
    let (first, second) = said.split_once('\n').unwrap();
    assert_eq!(first, "ready");
    assert!(second.starts_with("appends to shard "), "{said}");
    assert!(second.contains("(its share of wal.head)"), "{said}");
    let (_, text) = server.get("/metrics");
    let full = (1..=4).map(|n| figure(&text, &format!("esker_shard_head_full{{shard=\"{n}\"}}")));
    assert_eq!(full.sum::<f64>(), 1.0);
    let read = server.out(&[
        "consume",
        "hello",
        "--partition",
        "0",
        "--from",
        "0",
        "--until",
        "100",
    ]);
    assert_eq!(read, noise(100));
}
