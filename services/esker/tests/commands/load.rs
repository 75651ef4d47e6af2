//! `esker bench load`: what it counts is what there is.

use std::path::PathBuf;

use serde_json::Value;

use crate::server::{Server, esker};

fn load(server: &Server, more: &[&str]) -> Value {
    let args = [&["bench", "load", "--json", "--warmup", "0"][..], more].concat();
    serde_json::from_slice(&server.out(&args)).unwrap()
}

#[test]
fn an_open_load_is_written_read_along_and_read_again() {
    let server = Server::start("load");
    let args = ["--rate", "100", "--seconds", "1", "--batch-bytes", "20kB"];
    let told = load(&server, &[&args[..], &["--topic", "kept"]].concat());
    assert_eq!(told["due"], 100, "{told}");
    let sum = |names: [&str; 2]| names.map(|name| told[name].as_u64().unwrap());
    assert_eq!(sum(["sent", "missed"]).iter().sum::<u64>(), 100);
    assert_eq!(told["failed"], 0);
    for latency in [&told["append"]["latency"], &told["tail"]["latency"]] {
        assert_eq!(latency["count"], told["sent"], "{told}");
        assert!(latency["p50_ms"].as_f64() <= latency["max_ms"].as_f64());
    }
    assert_eq!(told["tail"]["unseen_records"], 0);
    assert_eq!(told["replay"]["records"], told["written"]["records"]);
    assert_eq!(told["replay"]["bytes"], told["written"]["bytes"]);
    // A topic that has a name is kept, and taken as it is.
    let again = load(
        &server,
        &["--topic", "kept", "--seconds", "1", "--rate", "50"],
    );
    assert_eq!(again["due"], 50);
    let both = [&told, &again].map(|told| told["written"]["records"].as_u64().unwrap());
    assert_eq!(again["replay"]["records"], both.iter().sum::<u64>());
}

#[test]
fn a_load_as_fast_as_there_is_room_leaves_nothing_behind() {
    let server = Server::start("load-fast");
    let args = ["--rate", "0", "--in-flight", "4", "--seconds", "1"];
    let args = [&args[..], &["--record-bytes", "5000", "--partitions", "2"]].concat();
    let told = load(&server, &args);
    assert_eq!(told["due"], Value::Null);
    assert_eq!(told["missed"], 0);
    assert!(told["written"]["records"].as_u64() > Some(0), "{told}");
    // 64 KiB in records of 5000 bytes, the last one shorter.
    let (records, bytes) = (&told["written"]["records"], &told["written"]["bytes"]);
    assert_eq!(
        bytes.as_u64().unwrap() * 14,
        records.as_u64().unwrap() * (64 << 10)
    );
    assert_eq!(told["replay"]["bytes"], *bytes);
    assert_eq!(
        server.tally(&["topic", "list"])["topics"],
        Value::Array(vec![])
    );
}

#[test]
fn a_load_that_cannot_be_kept_up_says_so() {
    let server = Server::start("load-much");
    let much = [
        "--rate",
        "20000",
        "--in-flight",
        "1",
        "--batch-bytes",
        "1MiB",
    ];
    let told = load(
        &server,
        &[&much[..], &["--seconds", "1", "--no-tail", "--no-replay"]].concat(),
    );
    let [due, sent, missed] = ["due", "sent", "missed"].map(|name| told[name].as_u64().unwrap());
    assert_eq!(due, 20_000);
    assert!(missed > 0);
    assert_eq!(sent + missed, due);
    assert!(told.get("tail").is_none() && told.get("replay").is_none());
    // Latency counts from when a batch was due: the wait for room is part of it.
    assert!(
        told["append"]["latency"]["max_ms"].as_f64() > Some(100.0),
        "{told}"
    );
}

#[test]
fn ratios_are_of_a_server_that_worked_and_nothing_is_left_of_it() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ratios");
    std::fs::create_dir_all(&scratch).unwrap();
    let args = [
        "bench",
        "ratios",
        "--json",
        "--seconds",
        "1s",
        "--directory",
    ];
    let output = esker(&args).arg(&scratch).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ratios = told["ratios"].as_array().unwrap();
    assert_eq!(ratios.len(), 12);
    for ratio in ratios {
        // What could not be divided would be null.
        assert!(ratio["ratio"].is_f64(), "{ratio}");
    }
    for step in ["single", "lines", "noise"] {
        // The disk was asked to write what the WAL wrote, in whole blocks.
        let [group, write] = [
            &told[step]["group_bytes"],
            &told[step]["disk"]["write_bytes"],
        ];
        let (group, write) = (group.as_u64().unwrap(), write.as_u64().unwrap());
        assert!(
            group > 0 && write >= group && write < group + 4096,
            "{told}"
        );
    }
    assert!(told["most_resident_bytes"].as_u64() > Some(1 << 20));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}
