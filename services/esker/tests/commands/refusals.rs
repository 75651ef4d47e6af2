//! Exit codes, and what is said.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::server::{Running, Server, esker};

fn case(server: &Server, code: i32, args: &[&str], words: &[&str]) {
    let output = server.run(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{args:?} does not say `{word}`: {said}"
        );
    }
    if code == 1 {
        assert!(said.starts_with("esker: "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn what_is_refused_is_said_in_one_line_with_what_to_do() {
    let server = Server::start("refusals");
    server.create_topic("t", 2);
    let short = server.file("short", b"fine\n");
    for (args, words) in [
        (
            &["produce", "nope", &short][..],
            &["UNKNOWN_TOPIC", "topic create nope"][..],
        ),
        (
            &["consume", "nope"],
            &["UNKNOWN_TOPIC", "topic create nope"],
        ),
        (&["replay", "nope"], &["UNKNOWN_TOPIC", "topic create nope"]),
        (
            &["produce", "t", &short, "--partition", "9"],
            &["UNKNOWN_PARTITION", "topic describe t"],
        ),
        (
            &["consume", "t", "--partition", "9"],
            &["UNKNOWN_PARTITION", "topic describe t"],
        ),
        (
            &["consume", "t", "--partition", "0", "--from", "5"],
            &["OFFSET_OUT_OF_RANGE", "earliest"],
        ),
        (
            &["produce", "t", "/no/such/file"],
            &["/no/such/file: No such file"],
        ),
        (&["produce", "t", "/"], &["/: is a directory"]),
        (
            &["topic", "create", "t", "--partitions", "3"],
            &["TOPIC_EXISTS"],
        ),
    ] {
        case(&server, 1, args, words);
    }
    for (args, words) in [
        (
            &["consume", "t", "--from", "5"][..],
            &["--from 5", "--partition"][..],
        ),
        (&["replay", "t", "--to", "5"], &["--to 5", "--partition"]),
        (
            &["consume", "t", "--from", "yesterday"],
            &["`yesterday` is no time", "-2h"],
        ),
        (
            &["replay", "t", "--from", "2026-13-01T00:00:00Z"],
            &["is no time"],
        ),
        (
            &["consume", "t", "--follow", "--until", "end"],
            &["--until"],
        ),
        (&["produce", "t", "--batch-bytes", "much"], &["256KiB"]),
        (
            &["produce", "t", "--format", "json", "--key-separator", "="],
            &["--key-separator"],
        ),
        (&["topic", "delete", "t"], &["--yes"]),
        (
            &["topic", "truncate", "t", "--partition", "0"],
            &["all records of partition 0 of topic t", "--yes", "--before"],
        ),
        (
            &["produce", "t", "--key-separator", r"\q"],
            &["--key-separator", "a tab"],
        ),
        (
            &["consume", "t", "--from", "2026-11-21T23:00:00"],
            &["has no zone", "2026-11-21T23:00:00Z"],
        ),
        (&["fly"], &["fly"]),
    ] {
        case(&server, 2, args, words);
    }
    assert_eq!(
        server.out(&["consume", "t"]),
        b"",
        "nothing of all this was written"
    );
}

#[test]
fn what_is_asked_backwards_is_usage_and_nothing_found_is_said() {
    let mut server = Server::start("nothing");
    server.create_topic("t", 2);
    for args in [
        &["replay", "t", "--from", "-1h", "--to", "-2h"][..],
        &[
            "replay",
            "t",
            "--partition",
            "0",
            "--from",
            "5",
            "--to",
            "4",
        ],
        &[
            "consume",
            "t",
            "--from",
            "2026-02-01",
            "--until",
            "2026-01-31",
        ],
        &["consume", "t", "--from", "end", "--until", "earliest"],
    ] {
        case(&server, 2, args, &["--from lies behind"]);
    }
    let out = server.path("out");
    for (args, words) in [
        (&["consume", "t"][..], "no records in topic t\n"),
        (&["replay", "t"], "no records in topic t\n"),
        (&["replay", "t", "--out", &out], "no records in topic t\n"),
        (
            &["consume", "t", "--partition", "1", "--from", "2026-01-31"],
            "no records in partition 1 of topic t between these places",
        ),
    ] {
        case(&server, 0, args, &[words]);
    }
    // A server that has topics suggests one of those.
    server.kill();
    let said = server.again();
    assert!(said.contains("topic list --endpoint"), "{said}");
    assert!(said.contains("consume t --endpoint"), "{said}");
    assert!(!said.contains("create"), "{said}");
}

#[test]
fn a_setting_is_written_and_shown_as_people_do() {
    let server = Server::start("settings");
    server.out(&["topic", "create", "t", "--set", "retention.ms=7d"]);
    let shown = String::from_utf8(server.out(&["topic", "describe", "t"])).unwrap();
    for words in ["604800000 (7 d)", "-1 (unlimited)", "1048576 (1 MiB)"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    server.out(&["topic", "alter", "t", "--set", "retention.ms=forever"]);
    let shown = String::from_utf8(server.out(&["topic", "describe", "t"])).unwrap();
    assert!(shown.contains("-1 (forever)"), "{shown}");
}

#[test]
fn arguments_that_are_refused_are_told_a_program() {
    for (args, words) in [
        (
            &["fly", "--json"][..],
            &["unrecognized subcommand 'fly'"][..],
        ),
        (&["--json", "topic", "create"], &["required", "<NAME>"]),
        (
            &["consume", "t", "--json", "--limit", "x"],
            &["'x'", "--limit"],
        ),
        (&["--json"], &["requires a subcommand"]),
        (&["--json", "topic"], &["command is missing"]),
    ] {
        let output = esker(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(said["error"]["code"], "USAGE");
        let message = said["error"]["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{args:?}: {message}");
        }
        assert!(!message.contains("Usage:"), "{message}");
    }
    let help = esker(&["--json", "--help"]).output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty());
}

#[test]
fn a_line_that_is_no_json_is_named_once_with_what_to_do() {
    let server = Server::start("no-json");
    server.create_topic("t", 1);
    let file = server.file("plain", b"{}\n{}\nhello\n");
    let args = ["produce", "t", &file, "--format", "json"];
    let place = format!("line 3 of {file} is no record: expected value, at column 1");
    let next = "; to append the lines as they are, leave out --format json";
    case(&server, 1, &args, &[&place, "durable: 2 records", next]);
    let said = String::from_utf8(server.run(&args).stderr).unwrap();
    assert_eq!(said.matches("line 3").count(), 1, "{said}");
    assert!(!said.contains("line 1"), "{said}");

    let tabs = server.file("tabs", b"k\tv\nno tab\n");
    let args = ["produce", "t", &tabs, "--key-separator", r"\t"];
    case(&server, 1, &args, &[r"there is no separator `\t` in it"]);
    let printed = server.out(&["consume", "t", "--json-records", "--from", "-1h"]);
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains(r#""key":"k","value":"v""#), "{printed}");
}

#[test]
fn positions_that_could_not_be_kept_are_refused_before_anything_is_printed() {
    let server = Server::start("unkept");
    server.create_topic("t", 1);
    let file = server.file("line", b"a line\n");
    server.out(&["produce", "t", &file]);
    let nowhere = server.path("nowhere/positions");
    let output = server.run(&["consume", "t", "--offsets-file", &nowhere]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("{nowhere} cannot be written")),
        "{said}"
    );
    assert_eq!(output.stdout, b"");

    let positions = server.path("positions");
    let from = [
        "consume",
        "t",
        "--from",
        "-1h",
        "--offsets-file",
        &positions,
    ];
    assert_eq!(server.out(&from), b"a line\n");
    case(
        &server,
        2,
        &from,
        &["says where to go on: leave out --from"],
    );

    // Who wants none is not told that there are none.
    let output = server.run(&["consume", "t", "--limit", "0"]);
    assert!(output.status.success());
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
}

#[test]
fn a_truncate_says_how_many_offsets_it_dropped() {
    let server = Server::start("truncate");
    server.create_topic("t", 1);
    let file = server.file("three", b"a\nb\nc\n");
    server.out(&["produce", "t", &file]);
    let truncate = |more: &[&str]| {
        let args = [&["topic", "truncate", "t", "--partition", "0"], more].concat();
        String::from_utf8(server.out(&args)).unwrap()
    };
    let said = truncate(&["--before", "1"]);
    assert!(said.contains("1 offset dropped"), "{said}");
    let said = truncate(&["--before", "1"]);
    assert!(said.contains("nothing was dropped"), "{said}");
    let said = truncate(&["--yes"]);
    assert!(said.contains("2 offsets dropped"), "{said}");
    let said = truncate(&["--yes", "--json"]);
    assert!(said.contains(r#""dropped":0"#), "{said}");
}

/// Pages of keyed records do not leave in the order of lines.
#[test]
fn what_waits_for_its_page_to_fill_is_not_called_durable() {
    let server = Server::start("waits");
    server.create_topic("t", 2);
    let line = |key, time, bytes| {
        let value = "x".repeat(bytes);
        format!("{{\"key\":\"{key}\",\"value\":\"{value}\",\"timestamp\":{time}}}\n")
    };
    // The second line fails its page, which is full long before that of the first line.
    let text = line("a", 1, 1) + &line("d", i64::MAX, 1) + &line("d", 1, 1000).repeat(2000);
    let file = server.file("waits", text.as_bytes());
    let words = [
        "is beyond",
        "nothing is known to be durable",
        "go on with line 1 of",
    ];
    case(
        &server,
        1,
        &["produce", "t", &file, "--format", "json"],
        &words,
    );
    assert_eq!(server.out(&["consume", "t"]), b"");

    // What is durable already is not to be sent again.
    let text = line("a", 1, 1) + &line("d", 1, 1000).repeat(2000) + &line("d", i64::MAX, 1);
    let file = server.file(
        "waits",
        (text + &line("d", 1, 1000).repeat(2000)).as_bytes(),
    );
    let words = ["nothing is known to be durable", "some of what follows"];
    case(
        &server,
        1,
        &["produce", "t", &file, "--format", "json"],
        &words,
    );
    assert!(server.out(&["consume", "t"]).starts_with(b"xxx"));
}

#[test]
fn a_line_that_is_too_long_is_named_and_what_stood_before_it_is_durable() {
    let server = Server::start("too-long");
    server.out(&["topic", "create", "t", "--set", "max_batch_bytes=65536"]);
    let good = "good\n".repeat(3000);
    let text = format!("{good}{}\nnever\n", "x".repeat(70_000));
    let file = server.file("long", text.as_bytes());
    let line = format!("line 3001 of {file} has 70000 bytes");
    let words = [&line, "65536", "durable: 3,000 records", "max_batch_bytes="];
    case(&server, 1, &["produce", "t", &file], &words);
    assert_eq!(server.out(&["consume", "t"]), good.as_bytes());

    let output = server.run(&["produce", "t", &file, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let error = &said["error"];
    assert_eq!(
        (&error["limit"], &error["value"]),
        (&65536.into(), &70_000.into())
    );
    assert_eq!(
        (&error["line"], &error["source"]),
        (&3001.into(), &file.into())
    );
    assert_eq!(error["written"]["partitions"][0]["next_offset"], 6000);
    // One that has no end is refused before it fills the memory.
    let file = server.file("endless", &vec![b'x'; 4 << 20]);
    case(
        &server,
        1,
        &["produce", "t", &file],
        &["line 1", "more than", "nothing was written"],
    );
}

#[test]
fn a_server_that_is_not_there_is_said_with_how_to_start_one() {
    // A port that nobody listens at: bound, and given back.
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let endpoint = format!("http://127.0.0.1:{port}");
    for args in [
        &["status"][..],
        &["topic", "list"],
        &["produce", "t"],
        &["consume", "t"],
        &["replay", "t"],
        &["verify"],
    ] {
        let output = esker(args)
            .args(["--endpoint", &endpoint])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains(&format!("no connection to {endpoint}")),
            "{said}"
        );
        assert!(said.contains("esker dev`"), "{said}");
        assert_eq!(said.matches("refused").count(), 1, "{said}");
    }
    let output = esker(&["status", "--json", "--endpoint", &endpoint])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["error"]["code"], "UNAVAILABLE");
    assert_eq!(said["error"]["durability"], "NOT_WRITTEN");
}

/// `esker dev ARGS`, which does not start: its exit code and what it said.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = esker(&["dev", "--data-dir"]).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_second_server_hears_what_is_taken() {
    let server = Server::start("taken");
    let (data, other) = (server.path("data"), server.path("other"));
    let (_, public) = server.endpoint().rsplit_once('/').unwrap();
    // Both are taken: the directory is what matters.
    let (code, said) = refused(&[&data, "--listen", public]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("another process uses {data}")),
        "{said}"
    );
    assert!(!said.contains("listen"), "{said}");

    let (code, said) = refused(&[&other, "--listen", public]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(public) && said.contains("--listen HOST:PORT"),
        "{said}"
    );

    // The one below the taken one may be taken by anybody: then that is what is said.
    let port: u16 = public.rsplit(':').next().unwrap().parse().unwrap();
    let below = format!("localhost:{}", port - 1);
    let (code, said) = refused(&[&other, "--listen", &below]);
    assert_eq!(code, Some(1), "{said}");
    let derived = ["one port above the public API", "--metrics HOST:PORT"];
    let derived = derived.iter().all(|word| said.contains(word));
    assert!(derived || said.contains("--listen HOST:PORT"), "{said}");
}

#[test]
fn a_configuration_that_is_refused_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esker.toml");
    std::fs::write(&path, "[wal]\ndisk = \"4MiB\"\n[flush]\nage = \"2h\"\n").unwrap();
    let path = path.to_str().unwrap();
    for (args, words) in [
        (&["serve"][..], &["--config is missing"][..]),
        (
            &["serve", "--config", "/no/such/file"],
            &["/no/such/file cannot be read: No such file"],
        ),
        (
            &["serve", "--config", path],
            &[
                "2 things are wrong",
                "esker.toml, line 2: `wal.disk` is 4 MiB; it may be 512 MiB or more",
                "esker.toml, line 4: `flush.age` is 2 h; it may be 10 ms to 1 h",
            ],
        ),
        (
            &["dev", "--listen", "here"],
            &[
                "--listen: `listen.public`",
                "127.0.0.1:7070, localhost:7070 or 7070",
            ],
        ),
        (&["demo", "--bytes", "much"], &["--bytes much"]),
    ] {
        let output = esker(args).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{args:?} does not say `{word}`: {said}"
            );
        }
    }
}

#[test]
fn a_variable_that_is_all_but_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = esker(&["dev", "--data-dir", folder.path().to_str().unwrap()])
        .env("ESKER_WAL_DSIK", "2GiB")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in ["`ESKER_WAL_DSIK` sets no key", "ESKER_WAL_DISK"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn other_shards_than_there_are_is_said() {
    let mut server = Server::start("shards");
    server.kill();
    let data = server.path("data");
    let mut command = esker(&[
        "dev",
        "--listen",
        "0",
        "--metrics",
        "0",
        "--data-dir",
        &data,
    ]);
    command.env("ESKER_CLUSTER_DATA_SHARDS", "2");
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    let line = lines.find(|line| line.contains("cluster.data_shards"));
    let line = line.unwrap();
    assert!(
        line.contains("is 2 in") && line.contains("founded with 4"),
        "{line}"
    );
}

#[test]
fn a_bucket_that_is_not_there_is_not_made_by_who_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/typo", folder.path().display());
    let key = "00000000000000000001/shards/1";
    for args in [
        &["consume", "t", "--direct"][..],
        &["replay", "t", "--direct"],
        &["topic", "list", "--direct"],
        &["inspect", "segment", key],
    ] {
        let output = esker(args).args(["--object-store", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}: {said}");
        assert!(
            said.contains("there is no folder") || args[0] == "inspect",
            "{said}"
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{args:?}"
        );
    }
}

#[test]
fn what_answers_and_is_no_agent_is_said() {
    let server = Server::start("no-agent");
    let metrics = server.metrics().to_owned();
    let below: u16 = metrics.rsplit(':').next().unwrap().parse().unwrap();
    let hint = format!("try {}", below - 1);
    let file = server.file("line", b"a line\n");
    for args in [
        &["status"][..],
        &["topic", "create", "t"],
        &["produce", "t", &file],
        &["consume", "t"],
        &["replay", "t"],
        &["verify"],
    ] {
        let output = server.command(args).args(["--endpoint", &metrics]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        for word in [&metrics, "speaks HTTP/1", "not Esker's gRPC API", &hint] {
            assert!(
                said.contains(word),
                "{args:?} does not say `{word}`: {said}"
            );
        }
        assert!(!said.contains("UNKNOWN"), "nothing was sent: {said}");
    }
}

#[test]
fn a_server_that_is_silent_is_waited_for_aloud() {
    let server = Server::start("silent");
    server.freeze();
    let mut child = server.command(&["consume", "t"]);
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(
        line.starts_with("esker: waiting for http://127.0.0.1:"),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines.next().is_none(), "once");
}
