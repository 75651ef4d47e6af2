//! Exit codes, and what is said.

mod elsewhere; // agents and buckets that are not there, or are none
mod records; // records that are not taken, and what became of the others
mod start; // servers that do not start as they are told

use crate::server::{Server, esker};

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
