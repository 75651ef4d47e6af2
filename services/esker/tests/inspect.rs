//! `esker inspect` over what a server has left behind.

#![expect(clippy::disallowed_methods, reason = "tests look at real files")]

mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use esker_object::Key;
use esker_shard::checkpoint::{self, Scope};
use esker_shard::{Genesis, State};
use esker_types::{Incarnation, LeaderEpoch, RaftIndex, SegmentId, ShardId};
use serde_json::Value;
use server::{ESKER, Server};

/// Values of the two partitions: enough for several blocks and index entries.
fn lines(partition: u32, count: usize) -> Vec<String> {
    let line = |at| {
        format!(
            "{partition}: line {at} of the bed, {}",
            "gravel ".repeat(30)
        )
    };
    (0..count).map(line).collect()
}

fn produce(server: &Server, partition: u32, lines: &[String]) {
    let partition = partition.to_string();
    let input = lines.join("\n");
    server.run(&["produce", "clicks", "--partition", &partition], &input);
}

fn inspect(args: &[&str]) -> Output {
    let inspect = Command::new(ESKER).arg("inspect").args(args).output();
    inspect.expect("the binary starts")
}

/// What it says to a program, and whether it is content.
fn json(args: &[&str]) -> (Value, bool) {
    let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
    let output = inspect(&args);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let last = text.lines().last().unwrap_or_default();
    let value = serde_json::from_str(last);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(value.is_ok(), "{args:?}: {text} {said}");
    let value = value.expect("JSON");
    let quiet = said.is_empty() || said.contains("a process uses");
    assert_eq!(output.status.code() == Some(0), quiet, "{said}");
    (value, output.status.success())
}

/// Files below `folder` with this suffix, sorted.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| own == suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A copy of `path` with one bit turned over, under the same name in another folder.
fn damaged(path: &Path, at: usize) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 4;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let copy = folder.path().join(path.file_name().expect("a name"));
    std::fs::write(&copy, bytes).expect("written");
    (folder, copy)
}

#[test]
fn a_log_says_what_it_still_holds_until_it_is_flushed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let data = text(folder.path());
    let server = Server::start(folder.path());
    server.run(&["topic", "create", "clicks", "--partitions", "2"], "");
    let values = lines(0, 300);
    produce(&server, 0, &values);
    let payload: usize = values.iter().map(String::len).sum();

    let (report, content) = json(&["wal", data]);
    assert!(content && report["in_use"] == true, "{report}");
    assert!(report["payload_frames_held"].as_u64() > Some(0));
    drop(server);

    // Killed: what was acknowledged is in the files, and no checkpoint knows of it.
    let (report, content) = json(&["wal", data]);
    assert!(content && report["in_use"] == false, "{report}");
    let said = String::from_utf8(inspect(&["wal", data]).stdout).expect("UTF-8");
    let none = report["checkpoints"].as_array().is_some_and(Vec::is_empty);
    assert_eq!(said.contains("\nno checkpoint yet\n"), none, "{said}");
    assert_eq!(said.contains("CHECKPOINT AT"), !none, "{said}");
    let held = report["payload_frames_held"].as_u64().expect("a number");
    let bytes = report["payload_bytes_held"].as_u64().expect("a number");
    assert!(
        held > 0 && bytes > 0 && bytes < 2 * payload as u64,
        "{report}"
    );
    let kinds = |report: &Value| -> Vec<String> {
        let frames = report["frames"].as_array().expect("a list").iter();
        frames
            .map(|line| line["kind"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert!(kinds(&report).contains(&"vote".to_owned()));
    assert!(kinds(&report).contains(&"entry".to_owned()));

    let server = Server::start(folder.path());
    server.run(&["cluster", "flush"], "");
    server.stop();
    let (report, content) = json(&["wal", data]);
    assert!(content && report["payload_frames_held"] == 0, "{report}");
    assert_eq!(report["checkpoints"].as_array().expect("a list").len(), 5);
    assert!(report["torn_tail"].is_null());
    let said = inspect(&["wal", data]);
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    assert!(said.contains("payload frames held: 0 (0 B)"), "{said}");

    // One file alone has no checkpoints beside it.
    let file = files(&folder.path().join("wal"), "wal").remove(0);
    let (report, content) = json(&["wal", text(&file)]);
    assert!(
        content && report["payload_frames_held"].is_null(),
        "{report}"
    );
    let end = report["files"][0]["end"].as_u64().expect("a number");
    assert!(report["files"][0]["groups"].as_u64() > Some(3), "{report}");

    // A byte in the middle: later groups say that it was synced.
    let at = usize::try_from(end / 2).expect("small") / 4096 * 4096;
    let (_folder, copy) = damaged(&file, at + 20);
    let (report, content) = json(&["wal", text(&copy)]);
    let said = report["damage"][0].as_str().expect("said").to_owned();
    assert!(!content && said.contains("was synced"), "{report}");
    assert!(
        said.contains(text(&copy)) && said.contains("at byte "),
        "{said}"
    );
}

#[test]
fn a_segment_shows_what_it_holds_and_every_flipped_bit() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start(folder.path());
    server.run(&["topic", "create", "clicks", "--partitions", "2"], "");
    for partition in [0, 1] {
        produce(&server, partition, &lines(partition, 1500));
    }
    server.run(&["cluster", "flush"], "");
    server.stop();

    let bucket = folder.path().join("bucket");
    let url = format!("file://{}", text(&bucket));
    let segments = files(&bucket, "seg");
    let mut records = BTreeMap::new();
    for path in &segments {
        let (report, content) = json(&["segment", text(path)]);
        assert!(content && report["damage_total"] == 0, "{report}");
        assert_eq!(
            report["length"],
            std::fs::metadata(path).expect("there").len()
        );
        for partition in report["partitions"].as_array().expect("a list") {
            let number = partition["partition"].as_u64().expect("a number");
            assert_eq!(partition["topic"], "clicks");
            let (start, end) = (&partition["start"], &partition["end"]);
            let count = end.as_u64().expect("a number") - start.as_u64().expect("a number");
            *records.entry(number).or_insert(0) += count;
        }
        // The same by its key.
        let key = text(path.strip_prefix(&bucket).expect("below it"));
        let (by_key, content) = json(&["segment", key, "--object-store", &url]);
        assert!(content && by_key == report, "{by_key}");
        // And under any name.
        let other = folder.path().join("other");
        std::fs::copy(path, &other).expect("copied");
        assert_eq!(json(&["segment", text(&other)]).0, report);
    }
    assert_eq!(records, BTreeMap::from([(0, 1500), (1, 1500)]));
    every_record_is_listed(&segments);
    flipped_bits_are_found(&segments[0]);
}

fn every_record_is_listed(segments: &[PathBuf]) {
    let mut values = Vec::new();
    for path in segments {
        let listed = inspect(&["segment", text(path), "--records", "--json"]).stdout;
        let listed = String::from_utf8(listed).expect("UTF-8");
        for line in listed.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if let Some(value) = line["value"].as_str() {
                let place = (line["partition"].as_u64(), line["offset"].as_u64());
                values.push((place, value.to_owned()));
            }
        }
        let batches = inspect(&["segment", text(path), "--batches"]).stdout;
        let batches = String::from_utf8(batches).expect("UTF-8");
        assert!(batches.starts_with("clicks/"), "{batches}");
        assert!(batches.contains("every part is right"), "{batches}");
    }
    values.sort();
    let all = lines(0, 1500).into_iter().chain(lines(1, 1500));
    assert!(values.iter().map(|(_, value)| value.clone()).eq(all));
}

fn flipped_bits_are_found(path: &Path) {
    let length = usize::try_from(std::fs::metadata(path).expect("there").len());
    let length = length.expect("small");
    for at in (0..length).step_by(length / 25).chain([length - 1]) {
        let (_folder, copy) = damaged(path, at);
        let output = inspect(&["segment", text(&copy), "--json"]);
        assert_eq!(output.status.code(), Some(1), "byte {at}");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(
            said.contains("damage") || said.contains("version"),
            "{at}: {said}"
        );
    }
    // Blocks are damaged one by one, and each is told.
    let (_folder, copy) = damaged(path, 100);
    let (report, content) = json(&["segment", text(&copy)]);
    let said = report["damage"][0].as_str().expect("said");
    assert!(!content && said.contains("block 0"), "{report}");
    assert!(said.contains("touches offsets [0, "), "{said}");
}

#[test]
fn a_checkpoint_shows_the_state_of_its_shard() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start(folder.path());
    server.run(&["topic", "create", "clicks", "--partitions", "2"], "");
    produce(&server, 1, &lines(1, 40));
    server.run(&["cluster", "flush"], "");
    server.stop();
    let checkpoints = files(&folder.path().join("checkpoints"), "ckp");
    assert_eq!(checkpoints.len(), 5);
    let mut ends = Vec::new();
    let mut segments = 0;
    for (shard, path) in checkpoints.iter().enumerate() {
        let args = ["checkpoint", text(path), "--partitions", "--segments"];
        let (report, content) = json(&args);
        assert!(content && report["scope"] == "node", "{report}");
        assert_eq!(report["shard"], shard);
        if shard == 0 {
            assert_eq!(report["topics"][0]["name"], "clicks");
            assert_eq!(report["topics"][0]["partitions"], 2);
            continue;
        }
        assert_eq!(report["head_batches"], 0);
        for partition in report["partitions"].as_array().expect("a list") {
            ends.push((
                partition["partition"].as_u64(),
                partition["tiered_end"].as_u64(),
            ));
        }
        for segment in report["segments"].as_array().expect("a list") {
            let key = segment["key"].as_str().expect("a key");
            assert!(folder.path().join("bucket").join(key).exists(), "{key}");
            segments += 1;
        }
        let said = inspect(&args).stdout;
        let said = String::from_utf8(said).expect("UTF-8");
        assert!(said.starts_with("checkpoint of s"), "{said}");
    }
    ends.sort_unstable();
    assert_eq!(ends, [(Some(0), Some(0)), (Some(1), Some(40))]);
    assert_eq!(segments, 1);

    let (_folder, copy) = damaged(&checkpoints[0], 60);
    let output = inspect(&["checkpoint", text(&copy)]);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("damaged") && said.contains(text(&copy)),
        "{said}"
    );
}

#[test]
fn a_checkpoint_of_the_bucket_is_read_by_its_key() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let shard = ShardId(3);
    let state = State::new(Genesis {
        shard,
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards: 4,
    });
    let mut bytes = Vec::new();
    let encoded = checkpoint::encode::<()>(&state, Scope::Bucket, |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok(())
    });
    encoded.expect("memory takes it");
    let key = Key::Checkpoint {
        incarnation: Incarnation::FIRST,
        shard,
        index: RaftIndex(0),
        id: SegmentId(9),
    };
    let (key, url) = (key.to_string(), format!("file://{}", text(folder.path())));
    let path = folder.path().join(&key);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(&path, &bytes).expect("written");
    let (report, content) = json(&["checkpoint", &key, "--object-store", &url]);
    assert!(content && report["scope"] == "bucket", "{report}");
    let found = (&report["shard"], &report["segment_count"]);
    assert_eq!(found, (&3.into(), &0.into()));
    assert_eq!(json(&["checkpoint", text(&path)]).0, report);

    let output = inspect(&["checkpoint", &key]);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        output.status.code() == Some(1) && said.contains("--object-store"),
        "{said}"
    );
}

#[test]
fn what_another_command_reads_is_said_with_that_command() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let kinds = [
        ("ESKERSEG", "a segment", "segment"),
        ("ESKERLCP", "a checkpoint of a node", "checkpoint"),
        ("ESKERCKP", "a checkpoint of the bucket", "checkpoint"),
        ("ESKERWAL", "a file of a node's log", "wal"),
    ];
    for (magic, what, reads) in kinds {
        let path = folder.path().join(magic);
        std::fs::write(&path, format!("{magic} and more")).expect("written");
        let path = text(&path);
        for command in ["segment", "checkpoint", "wal"] {
            let output = inspect(&[command, path]);
            let said = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(1), "{said}");
            let told = said.contains(&format!("{path} is {what}; `"))
                && said.contains(&format!("esker inspect {reads} {path}` reads it"));
            assert_eq!(told, command != reads, "{command}: {said}");
        }
    }
}

#[test]
fn what_is_not_there_or_no_key_is_said() {
    for (args, code, word) in [
        (&["wal", "/nowhere"][..], 1, "/nowhere"),
        (&["segment", "/nowhere"], 1, "/nowhere"),
        (
            &["segment", "x", "--object-store", "memory://x"],
            2,
            "no key",
        ),
        (
            &["segment", "/dev/null", "--batches", "--records"],
            2,
            "cannot be used",
        ),
        (&["segment", "/dev/null"], 1, "is empty"),
        (&["checkpoint", "/dev/null"], 1, "is empty"),
        (&["checkpoint", "/dev"], 1, "/dev is a folder"),
        (
            &["segment", "s3://bucket/key"],
            2,
            "--object-store with the URL",
        ),
    ] {
        let output = inspect(args);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
}
