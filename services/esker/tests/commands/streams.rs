//! Pipes, following, signals, positions.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use crate::server::{Running, Server, wait_until};

fn numbered(count: usize) -> Vec<u8> {
    let lines = (0..count).map(|n| format!("line {n}\n"));
    lines.collect::<String>().into_bytes()
}

#[test]
fn a_consumer_that_was_killed_goes_on_where_it_was() {
    let server = Server::start("killed");
    server.create_topic("t", 1);
    let file = server.file("first", &numbered(1000));
    server.out(&["produce", "t", &file]);
    let positions = server.path("positions");
    let follow = ["consume", "t", "--follow", "--offsets-file", &positions];
    let mut running = Running(
        server
            .command(&follow)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut out = BufReader::new(running.0.stdout.take().unwrap());
    let mut printed = Vec::new();
    for _ in 0..1000 {
        out.read_until(b'\n', &mut printed).unwrap();
    }
    assert_eq!(printed, numbered(1000));
    let kept = || std::fs::read_to_string(&positions).unwrap_or_default();
    wait_until("the position is kept", || kept().contains("\"0\":1000"));
    running.0.kill().unwrap();
    running.0.wait().unwrap();

    server.out(&["produce", "t", &file]);
    let go_on = ["consume", "t", "--offsets-file", &positions];
    assert_eq!(server.out(&go_on), numbered(1000));
    assert_eq!(server.out(&go_on), b"");
    // A part at a time, each from where the last one ended.
    server.out(&["produce", "t", &file]);
    let part = [
        "consume",
        "t",
        "--offsets-file",
        &positions,
        "--limit",
        "300",
    ];
    let parts: Vec<_> = (0..4).map(|_| server.out(&part)).collect();
    assert_eq!(parts.concat(), numbered(1000));

    server.out(&["topic", "delete", "t", "--yes"]);
    server.create_topic("t", 1);
    let output = server.run(&go_on);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("an earlier topic t"), "{said}");
}

#[test]
fn a_consumer_whose_next_records_are_gone_goes_on_with_the_first_kept_if_it_is_told_to() {
    let server = Server::start("passed-over");
    server.create_topic("t", 2);
    let ten = server.file("ten", &numbered(10));
    let positions = server.path("positions");
    let go_on = ["consume", "t", "--offsets-file", &positions];
    let produce = |partition| {
        server.out(&["produce", "t", &ten, "--partition", partition]);
    };
    let truncate = |before| {
        let truncate = ["topic", "truncate", "t", "--partition", "0", "--before"];
        server.out(&[&truncate[..], &[before, "--yes"]].concat());
    };
    produce("0");
    server.out(&[&go_on[..], &["--limit", "3"]].concat());
    produce("1");
    truncate("7");

    let output = server.run(&go_on);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    for word in ["3 is out of range", &positions, "with `--from earliest`"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");

    let passing = [&go_on[..], &["--from", "earliest"]].concat();
    let output = server.run(&passing);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let told = "esker: partition 0 goes on at 7, not at 3: 4 records are gone\n";
    assert_eq!(said, told);
    let printed = [&b"line 7\nline 8\nline 9\n"[..], &numbered(10)].concat();
    assert_eq!(output.stdout, printed);

    // Where nothing is gone, the file says where to go on.
    produce("1");
    let output = server.run(&passing);
    assert_eq!((output.stdout, output.stderr.len()), (numbered(10), 0));

    // All that was left: what is kept is where that ended.
    produce("0");
    truncate("20");
    let output = server.run(&passing);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert!(
        said.contains("goes on at 20, not at 10: 10 records"),
        "{said}"
    );
    assert_eq!(server.out(&go_on), b"");
}

#[test]
fn what_is_followed_comes_as_it_is_written_until_a_signal() {
    let server = Server::start("followed");
    server.create_topic("t", 3);
    let follow = ["consume", "t", "--follow", "--json"];
    let mut command = server.command(&follow);
    let mut reader = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(reader.spawn().unwrap());
    let mut out = BufReader::new(running.0.stdout.take().unwrap());
    // A pipe that stays open holds nothing back.
    let produce = ["produce", "t", "--json"];
    let mut command = server.command(&produce);
    reader = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut writer = Running(reader.spawn().unwrap());
    let mut input = writer.0.stdin.take().unwrap();
    for n in 0..5 {
        writeln!(input, "line {n}").unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, format!("line {n}\n"));
    }
    // Nothing that was acknowledged is unknown to who is interrupted.
    writer.terminate();
    let mut said = String::new();
    let mut errors = writer.0.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(writer.0.wait().unwrap().code(), Some(1));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["error"]["message"], "interrupted");
    assert_eq!(said["error"]["written"]["records"], 5);

    running.terminate();
    let mut said = String::new();
    let mut errors = running.0.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["records"], 5);
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let server = Server::start("pipe");
    server.create_topic("t", 1);
    let lines = server.out(&["bench", "lines", "--bytes", "1MiB"]);
    let file = server.file("lines", &lines);
    server.out(&["produce", "t", &file]);
    for args in [
        &["consume", "t"][..],
        &["consume", "t", "--json-records"],
        &["replay", "t", "--json"],
        &["bench", "lines", "--bytes", "100MiB"],
    ] {
        let mut command = server.command(args);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let mut some = [0; 100];
        let mut out = running.0.stdout.take().unwrap();
        out.read_exact(&mut some).unwrap();
        drop(out);
        let mut said = String::new();
        let mut errors = running.0.stderr.take().unwrap();
        errors.read_to_string(&mut said).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(0), "{args:?}");
        assert_eq!(said, "", "{args:?}");
    }
}

#[test]
fn a_signal_is_heeded_although_nobody_reads() {
    let server = Server::start("unread");
    server.create_topic("t", 1);
    let lines = server.out(&["bench", "lines", "--bytes", "1MiB"]);
    let file = server.file("lines", &lines);
    server.out(&["produce", "t", &file]);
    let mut command = server.command(&["consume", "t", "--follow"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut out = running.0.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    running.terminate();
    let mut said = String::new();
    let mut errors = running.0.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    assert!(said.contains("nobody reads stdout"), "{said}");
}

/// Lines of stderr, as they come.
fn said(running: &mut Running) -> impl FnMut() -> String + use<> {
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    move || lines.next().unwrap().unwrap()
}

#[test]
fn a_producer_whose_server_keeps_silent_says_so_and_that_it_goes_on() {
    let server = Server::start("kept-silent");
    server.create_topic("t", 1);
    let mut command = server.command(&["produce", "t"]);
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut input = running.0.stdin.take().unwrap();
    writeln!(input, "line 0").unwrap();
    wait_until("the first line is there", || {
        server.out(&["consume", "t"]) == b"line 0\n"
    });
    server.freeze();
    writeln!(input, "line 1\nline 2").unwrap();
    let mut next = said(&mut running);
    let line = next();
    let expected = format!("esker: no answer from {} for ", server.endpoint());
    assert!(line.starts_with(&expected), "{line}");
    assert!(line.ends_with("trying on; 2 records wait"), "{line}");
    server.thaw();
    let line = next();
    assert!(line.contains("answers again"), "{line}");
    drop(input);
    assert!(running.0.wait().unwrap().success());
    assert_eq!(server.out(&["consume", "t"]), numbered(3));
}

#[test]
fn who_follows_a_server_that_goes_away_says_why_nothing_comes() {
    let mut server = Server::start("gone-away");
    server.create_topic("t", 1);
    let file = server.file("lines", &numbered(1));
    server.out(&["produce", "t", &file]);
    let follow = |more: &[&str]| {
        let mut command = server.command(&[&["consume", "t", "--follow"], more].concat());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let mut out = BufReader::new(running.0.stdout.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), "line 0");
        running
    };
    let (mut person, mut program) = (follow(&[]), follow(&["--json"]));
    server.kill();
    let line = said(&mut person)();
    for words in [
        "esker: nothing gets on with",
        server.endpoint(),
        "UNAVAILABLE",
    ] {
        assert!(line.contains(words), "{line}");
    }
    let line = said(&mut program)();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["waiting_for"], server.endpoint());
    assert_eq!(told["last_error"]["code"], "UNAVAILABLE");
}
