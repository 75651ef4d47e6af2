//! Records that are not taken, and what became of the others.

use super::case;
use crate::server::Server;

#[test]
fn a_line_that_is_no_json_is_named_once_with_what_to_do() {
    let server = Server::start("no-json");
    server.create_topic("t", 1);
    // A line with nothing on it is no record, and no fault.
    let file = server.file("blank", b"{}\n\n{}\n \r\n");
    server.out(&["produce", "t", &file, "--format", "json"]);
    assert_eq!(server.out(&["consume", "t"]), b"\n\n");
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
    let words = ["is beyond", "nothing was written", "go on with line 1 of"];
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
        &["line 1", "is too long", "nothing was written"],
    );
}
