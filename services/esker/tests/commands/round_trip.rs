//! What goes in comes out, by every way out.

use std::collections::BTreeMap;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::server::{Server, esker, used};

/// Lines of every kind but the usual one; the last one has no newline.
const ODD: &[u8] = b"\n\nplain\r\n\r\n\xff\xfe\x00\n  two  words \n\xe2\x98\x83\nlast";

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counted(text: &[u8]) -> BTreeMap<&[u8], usize> {
    let mut lines = BTreeMap::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        *lines.entry(line).or_default() += 1;
    }
    lines
}

#[test]
fn what_is_produced_is_consumed_partition_by_partition() {
    let server = Server::start("round-trip");
    server.create_topic("logs", 4);
    let lines = server.out(&["bench", "lines", "--bytes", "3MiB", "--seed", "7"]);
    assert_eq!(
        lines,
        server.out(&["bench", "lines", "--bytes", "3MiB", "--seed", "7"])
    );
    let files = [server.file("lines", &lines), server.file("odd", ODD)];
    let produced = server.tally(&["produce", "logs", &files[0], &files[1]]);
    assert_eq!(used(&produced).len(), 4, "{produced}");

    let (text, consumed) = server.text_and_tally(&["consume", "logs"]);
    assert_eq!(used(&produced), used(&consumed));
    let all = [&lines, ODD, b"\n"].concat();
    assert_eq!(counted(&text), counted(&all));
    assert_eq!(produced["records"], counted(&all).values().sum::<usize>());

    let mut in_order = Vec::new();
    for partition in used(&produced) {
        let number = partition["partition"].to_string();
        let of = ["consume", "logs", "--partition", &number, "--until", "end"];
        let (text, alone) = server.text_and_tally(&of);
        assert_eq!(used(&alone), std::slice::from_ref(&partition));
        assert_eq!(partition["sha256"], sha256(&text));
        in_order.extend(text);
    }
    assert!(in_order == text, "partitions come in ascending order");

    // From the bucket, into files.
    server.out(&["cluster", "flush"]);
    let directory = server.path("replayed");
    let replayed = server.tally(&["replay", "logs", "--out", &directory]);
    assert_eq!(used(&replayed), used(&produced));
    for partition in used(&produced) {
        let path = format!("{directory}/logs-{}.log", partition["partition"]);
        assert_eq!(partition["sha256"], sha256(&std::fs::read(path).unwrap()));
    }
    let (text, replayed) = server.text_and_tally(&["replay", "logs"]);
    assert!(text == in_order);
    assert_eq!(used(&replayed), used(&produced));
}

#[test]
fn lines_are_what_stands_between_newlines_whatever_they_hold() {
    let server = Server::start("odd");
    server.create_topic("odd", 3);
    let file = server.file("odd", ODD);
    let whole = [ODD, b"\n"].concat();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let pinned = [
            "produce",
            "odd",
            &file,
            "--partition",
            "2",
            "--compression",
            codec,
        ];
        let produced = server.tally(&pinned);
        assert_eq!(produced["partitions"][0]["sha256"], sha256(&whole));
        assert_eq!(produced["records"], 8);
    }
    assert_eq!(server.out(&["consume", "odd"]), whole.repeat(5));
    let three = [
        "consume",
        "odd",
        "--partition",
        "2",
        "--from",
        "2",
        "--until",
        "5",
    ];
    assert_eq!(server.out(&three), b"plain\r\n\r\n\xff\xfe\x00\n");
    let limited = ["consume", "odd", "--limit", "3"];
    assert_eq!(server.out(&limited), b"\n\nplain\r\n");
    // JSON says the same, and is taken back.
    let objects = server.out(&["consume", "odd", "--json-records"]);
    let file = server.file("objects", &objects);
    server.create_topic("again", 1);
    server.out(&["produce", "again", &file, "--format", "json"]);
    assert_eq!(server.out(&["consume", "again"]), whole.repeat(5));
}

#[test]
fn a_named_pipe_is_a_file_too() {
    let server = Server::start("fifo");
    server.create_topic("t", 1);
    let fifo = server.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut command = server.command(&["bench", "lines", "--bytes", "300KiB"]);
    let writer = {
        let fifo = fifo.clone();
        // Opening it waits for who reads.
        std::thread::spawn(move || {
            let out = std::fs::File::options().write(true).open(fifo).unwrap();
            command.stdout(out).status().unwrap()
        })
    };
    let produced = server.tally(&["produce", "t", &fifo]);
    assert!(writer.join().unwrap().success());
    let lines = server.out(&["bench", "lines", "--bytes", "300KiB"]);
    assert_eq!(produced["partitions"][0]["sha256"], sha256(&lines));
}

#[test]
fn keys_pick_partitions_and_times_pick_records() {
    let server = Server::start("keys");
    server.create_topic("keyed", 3);
    let file = server.file("keyed", b"a=1\nb=2\na=3=\n=4\n");
    let produced = server.tally(&["produce", "keyed", &file, "--key-separator", "="]);
    assert_eq!(
        (&produced["records"], &produced["bytes"]),
        (&4.into(), &5.into())
    );
    let objects = server.out(&["consume", "keyed", "--json-records"]);
    let objects: Vec<serde_json::Value> = objects
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let of_a: Vec<_> = objects
        .iter()
        .filter(|object| object["key"] == "a")
        .collect();
    assert_eq!(
        (&of_a[0]["value"], &of_a[1]["value"]),
        (&"1".into(), &"3=".into())
    );
    assert_eq!(of_a[0]["partition"], of_a[1]["partition"]);
    assert!(objects.iter().any(|o| o["key"] == "" && o["value"] == "4"));

    // All in one batch: times cut between its records.
    server.create_topic("timed", 1);
    let timed = |ms: u64| format!("{{\"value\":\"at {ms}\",\"timestamp\":{ms}}}\n");
    let text: String = [1000, 2000, 3000, 2500, 4000].map(timed).concat();
    let file = server.file("timed", text.as_bytes());
    server.out(&["produce", "timed", &file, "--format", "json"]);
    for (from, until, expected) in [
        ("@2000", "@3000", "at 2000\n"),
        ("@2001", "end", "at 3000\nat 2500\nat 4000\n"),
        ("1970-01-01T00:00:04Z", "-1s", "at 4000\n"),
        ("earliest", "@1", ""),
        ("@4001", "end", ""),
    ] {
        let consume = ["consume", "timed", "--from", from, "--until", until];
        assert_eq!(server.out(&consume), expected.as_bytes(), "{from} {until}");
        let replay = ["replay", "timed", "--from", from, "--to", until];
        assert_eq!(server.out(&replay), expected.as_bytes(), "{from} {until}");
    }
}

#[test]
fn the_demo_tells_a_program_once_it_is_over() {
    let output = esker(&["demo", "--json", "--bytes", "300KiB"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let partitions = told["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 4);
    for partition in partitions {
        assert_eq!(partition["next_offset"], partition["records"]);
    }
    // A line is counted with its newline where it is made, without it where it is kept.
    let [records, bytes] = ["records", "bytes"].map(|name| told[name].as_u64().unwrap());
    assert!(bytes + records >= 300 << 10, "{told}");
    assert!(told["bucket"]["gets"].as_u64() > Some(0), "{told}");
}
