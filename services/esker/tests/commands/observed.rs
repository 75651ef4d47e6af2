//! Metrics and health over HTTP.

use crate::server::Server;

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
    assert!(text.ends_with("# EOF\n"));
}
