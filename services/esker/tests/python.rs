//! Readers in Python that know Esker's documents alone: the bucket by `storage/FORMAT.md`, the API
//! by `proto/`.
//!
//! Needs an interpreter: `ESKER_PYTHON=$(.ci/python | tail -1) cargo test -p esker --test python`.

#![expect(clippy::disallowed_methods, reason = "tests look at real files")]

mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use server::Server;

/// Names a Python that can import what `.ci/python.txt` lists.
const PYTHON: &str = "ESKER_PYTHON";

/// The interpreter, or `None` on a machine without one.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os(PYTHON).map(PathBuf::from);
    if python.is_none() {
        let in_ci = std::env::var_os("CI").is_some();
        assert!(
            !in_ci,
            "{PYTHON} must name an interpreter in CI; .ci/python makes one"
        );
        #[expect(clippy::disallowed_macros, reason = "who runs the tests should know")]
        {
            println!("skipped: {PYTHON} does not name an interpreter; .ci/python makes one");
        }
    }
    python
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a script says on stdout, and on stderr if it fails.
fn run(python: &Path, script: &str, args: &[&str]) -> Result<String, String> {
    let script = tree().join("tests/python").join(script);
    let run = Command::new(python).arg(script).args(args).output();
    let output = run.expect("Python starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

#[test]
fn the_bucket_is_read_by_its_format_alone() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start(folder.path());
    server.run(&["topic", "create", "clicks", "--partitions", "2"], "");
    let mut expected = [String::new(), String::new()];
    // Several segments, blocks stored plain and blocks compressed, batches of either kind.
    for round in 0..3 {
        for (partition, codec) in [("0", "zstd"), ("1", "none")] {
            let line = |at| {
                format!(
                    "{partition}: {at} of round {round}, {}\n",
                    "gravel ".repeat(9)
                )
            };
            let lines: String = (0..700).map(line).collect();
            let to = [
                "produce",
                "clicks",
                "--partition",
                partition,
                "--compression",
                codec,
            ];
            server.run(&to, &lines);
            expected[usize::from(partition == "1")].push_str(&lines);
        }
        server.run(&["cluster", "flush"], "");
    }
    let truncate = [
        "topic",
        "truncate",
        "clicks",
        "--partition",
        "1",
        "--before",
        "1000",
    ];
    server.run(&truncate, "");
    server.run(&["produce", "clicks", "--partition", "1"], "the last\n");
    server.run(&["cluster", "flush"], "");
    expected[1] = expected[1]
        .lines()
        .skip(1000)
        .map(|line| format!("{line}\n"))
        .collect();
    expected[1].push_str("the last\n");
    server.stop();

    let bucket = folder.path().join("bucket");
    let bucket = bucket.to_str().expect("UTF-8");
    for (partition, expected) in ["0", "1"].iter().zip(&expected) {
        let read = run(&python, "read_bucket.py", &[bucket, "clicks", partition]);
        assert!(read.as_ref() == Ok(expected), "{:?}", read.err());
    }
    let nothing = run(&python, "read_bucket.py", &[bucket, "clicks", "2"]);
    assert!(
        nothing
            .expect_err("0 and 1")
            .contains("nothing of clicks/2")
    );
    a_flipped_bit_is_refused(&python, folder.path());
}

fn a_flipped_bit_is_refused(python: &Path, folder: &Path) {
    let shards = folder.join("bucket/00000000000000000001/shards");
    let shards = std::fs::read_dir(shards).expect("a folder");
    let mut refused = 0;
    for shard in shards {
        let segments = shard.expect("an entry").path().join("segments");
        let Ok(segments) = std::fs::read_dir(segments) else {
            continue; // The catalog has none.
        };
        for segment in segments {
            let path = segment.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("read");
            let mut damaged = bytes.clone();
            damaged[bytes.len() / 3] ^= 1;
            std::fs::write(&path, damaged).expect("written");
            let bucket = folder.join("bucket");
            let bucket = bucket.to_str().expect("UTF-8");
            let mut read = ["0", "1"]
                .iter()
                .map(|partition| run(python, "read_bucket.py", &[bucket, "clicks", partition]));
            refused +=
                usize::from(read.any(|read| read.is_err_and(|said| said.contains("damaged"))));
            std::fs::write(&path, bytes).expect("written");
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn the_api_is_used_by_its_protos_alone() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start(folder.path());
    let address = server.endpoint.trim_start_matches("http://");
    let protos = tree().join("proto");
    let expected = "plain 0\nplain 1\nplain 2\nraw 0\nraw 1\nplain 0\nlate\n";
    // A second time the topic is there, and goes on.
    for _ in 0..2 {
        let args = [address, protos.to_str().expect("UTF-8")];
        let said = run(&python, "client.py", &args);
        assert_eq!(said.as_deref(), Ok(expected));
    }
    // What Python wrote, our own reader reads.
    let consumed = server.run(&["consume", "python"], "");
    assert_eq!(consumed, expected.repeat(2));
    server.stop();
}

#[test]
fn the_format_is_simple_enough_for_a_reader_of_150_lines() {
    let reader = include_str!("../../../tests/python/read_bucket.py");
    let lines = reader.lines().count();
    assert!(lines <= 150, "{lines}");
}

#[test]
fn a_script_that_is_called_wrongly_says_how_to_call_it() {
    let Some(python) = python() else { return };
    for (script, usage) in [
        (
            "client.py",
            "usage: python client.py HOST:PORT PROTO_FOLDER",
        ),
        (
            "read_bucket.py",
            "usage: python read_bucket.py BUCKET_FOLDER TOPIC PARTITION",
        ),
    ] {
        for wrong in [&[][..], &["one"], &["no", "such", "folder"]] {
            let said = run(&python, script, wrong).expect_err("usage");
            assert!(said.starts_with(usage), "{script} {wrong:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let said = run(&python, script, &["--help"]).expect("help");
        assert!(said.contains(usage), "{said}");
    }
}

#[test]
fn a_script_that_misses_something_says_what() {
    let Some(python) = python() else { return };
    // A port that nobody listens at: bound, and given back.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    drop(taken);
    let protos = tree().join("proto");
    let protos = protos.to_str().expect("UTF-8");
    let said = run(&python, "client.py", &[&address, protos]).expect_err("nobody listens");
    let begins = format!("client.py: {address}: ");
    assert!(said.starts_with(&begins), "{said}");
    assert!(said.contains("(UNAVAILABLE)"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    // Without what was installed.
    let script = tree().join("tests/python/read_bucket.py");
    let mut command = Command::new(&python);
    let command = command.arg("-S").arg(script).args([protos, "t", "0"]);
    let output = command.output().expect("Python starts");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success(), "{said}");
    assert!(said.ends_with("; install zstandard\n"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
