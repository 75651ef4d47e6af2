//! `--direct`: what a cluster has left in its bucket is read without it.

#![expect(clippy::disallowed_methods, reason = "tests look at real files")]

mod server;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use server::{ESKER, Server};

fn esker(args: &[&str]) -> Output {
    // Nobody listens there: whoever asks an agent fails.
    let mut command = Command::new(ESKER);
    command.env("ESKER_ENDPOINT", "http://127.0.0.1:1");
    command.args(args).output().expect("the binary starts")
}

fn direct(url: &str, args: &[&str]) -> Output {
    let bucket = ["--direct", "--object-store", url];
    esker(&[args, &bucket].concat())
}

/// stdout of a command that succeeds.
fn out(url: &str, args: &[&str]) -> String {
    let output = direct(url, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Exit code and stderr of a command that fails.
fn refused(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn lines(name: &str, count: usize) -> String {
    let line = |at| format!("{name} {at}, laid down by the stream\n");
    (0..count).map(line).collect()
}

/// Three partitions, two flushes, and something that was never flushed. Returns what the live
/// cluster says to `queries`.
fn leave_behind(folder: &Path, queries: &[&[&str]]) -> (Server, Vec<String>) {
    let server = Server::start(folder);
    server.run(&["topic", "create", "logs", "--partitions", "3"], "");
    server.run(&["topic", "create", "other"], "");
    for round in ["first", "second"] {
        for partition in ["0", "1", "2"] {
            let name = format!("{round} of {partition}");
            let to = ["produce", "logs", "--partition", partition];
            server.run(&to, &lines(&name, 400));
        }
        server.run(&["produce", "other"], "alone\n");
        server.run(&["cluster", "flush"], "");
    }
    let said = queries.iter().map(|query| server.run(query, "")).collect();
    server.run(&["produce", "logs", "--partition", "0"], "never flushed\n");
    (server, said)
}

#[test]
fn a_bucket_reads_as_its_cluster_did_before_it_was_killed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let queries: &[&[&str]] = &[
        &["consume", "logs"],
        &["consume", "logs", "--partition", "1", "--json-records"],
        &[
            "consume",
            "logs",
            "--partition",
            "2",
            "--from",
            "390",
            "--until",
            "410",
        ],
        &["consume", "logs", "--from", "-1h", "--limit", "7"],
        &["consume", "logs", "--until", "@1000"],
        &["replay", "logs", "--to", "-1h"],
        &["replay", "logs", "--from", "@1000"],
    ];
    let (server, live) = leave_behind(folder.path(), queries);
    drop(server);
    let bucket = folder.path().join("bucket");
    let url = format!("file://{}", bucket.display());
    for (query, live) in queries.iter().zip(&live) {
        assert_eq!(&out(&url, query), live, "{query:?}");
    }
    assert_eq!(live[0].lines().count(), 2400);

    let listed = out(&url, &["topic", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let of = |at: usize, field: &str| listed["topics"][at][field].clone();
    assert_eq!(
        (of(0, "name"), of(0, "partitions"), of(0, "records")),
        ("logs".into(), 3.into(), 2400.into())
    );
    assert_eq!(
        (of(1, "name"), of(1, "records")),
        ("other".into(), 2.into())
    );
    assert!(out(&url, &["topic", "list"]).contains("RECORDS IN BUCKET"));

    let replayed = folder.path().join("replayed");
    let into = ["replay", "logs", "--out", replayed.to_str().expect("UTF-8")];
    out(&url, &into);
    let of = |partition| std::fs::read_to_string(replayed.join(format!("logs-{partition}.log")));
    let all: String = (0..3)
        .map(|partition| of(partition).expect("written"))
        .collect();
    assert_eq!(all, live[0]);

    // Positions are kept as with a cluster.
    let kept = folder.path().join("kept");
    let kept = [
        "consume",
        "logs",
        "--offsets-file",
        kept.to_str().expect("UTF-8"),
    ];
    let first = out(&url, &[&kept[..], &["--limit", "1000"]].concat());
    assert_eq!(first + &out(&url, &kept), live[0]);
    assert_eq!(out(&url, &kept), "");
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_is_stepped_over() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    leave_behind(folder.path(), &[]).0.stop();
    let bucket = folder.path().join("bucket");
    let url = format!("file://{}", bucket.display());
    for (args, code, word) in [
        (
            &["consume", "nothing"][..],
            1,
            "no topic `nothing` in file://",
        ),
        (&["consume", "logs", "--partition", "3"], 1, "0 to 2"),
        (
            &["consume", "logs", "--partition", "0", "--from", "801"],
            1,
            "[0, 800)",
        ),
        (&["consume", "logs", "--follow"], 2, "cannot be used"),
    ] {
        let (found, said) = refused(&direct(&url, args));
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(
            said.contains(word) && !said.contains("topic create"),
            "{said}"
        );
    }
    let (code, said) = refused(&esker(&["consume", "logs", "--direct"]));
    assert!(code == Some(2) && said.contains("--object-store"), "{said}");
    let (code, said) = refused(&direct("file:///nowhere/at/all", &["topic", "list"]));
    assert!(
        code == Some(1) && said.contains("/nowhere/at/all"),
        "{said}"
    );

    // The newest segment of each shard turns into something else.
    let shards = bucket.join("00000000000000000001/shards");
    for shard in std::fs::read_dir(shards).expect("a folder") {
        let segments = shard.expect("an entry").path().join("segments");
        let Ok(segments) = std::fs::read_dir(segments) else {
            continue; // The catalog has none.
        };
        let mut paths: Vec<_> = segments
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        std::fs::write(paths.pop().expect("a segment"), "gone").expect("written");
    }
    for partition in ["0", "1", "2"] {
        let output = direct(&url, &["consume", "logs", "--partition", partition]);
        let (code, said) = refused(&output);
        assert!(code == Some(1) && said.contains("cannot be read"), "{said}");
        assert!(said.contains("DATA_LOSS") && said.contains("400"), "{said}");
        let name = format!("first of {partition}");
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(printed, lines(&name, 400), "what lies before is printed");
    }
}
