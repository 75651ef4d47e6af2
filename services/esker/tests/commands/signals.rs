//! Asked to end while somebody else keeps silent: a command does, soon, and says what is so.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::server::{Running, Server, esker, wait_until};

/// More lines than a producer has memory for.
const LINES: usize = 2_000_000;

/// Takes connections and says nothing. Where it is.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[test]
fn a_producer_out_of_memory_hears_a_signal() {
    let server = Server::start("frozen");
    server.create_topic("t", 1);
    let mut command = server.command(&["produce", "t"]);
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut input = running.0.stdin.take().unwrap();
    writeln!(input, "line 0").unwrap();
    wait_until("the first line is there", || {
        server.out(&["consume", "t"]) == b"line 0\n"
    });
    server.freeze();
    let taken = Arc::new(AtomicUsize::new(0));
    let feeder = {
        let taken = Arc::clone(&taken);
        std::thread::spawn(move || {
            for n in 1..LINES {
                if writeln!(input, "line {n}").is_err() {
                    break;
                }
                taken.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut before = 0;
    wait_until("no more is taken", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = taken.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    running.terminate();
    let (code, said) = running.ended();
    feeder.join().unwrap();
    assert!(before < LINES - 1, "it had room for all {before}");
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "interrupted",
        "everything before line 2 of stdin is durable",
        "some of what follows may be written",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_signal_is_heard_before_anything_is_open() {
    let scratch = tempfile::tempdir().unwrap();
    let positions = scratch.path().join("positions");
    let kept = r#"{"topic":"t","topic_id":7,"partitions":{"0":5}}"#;
    std::fs::write(&positions, kept).unwrap();
    let out = scratch.path().join("out");
    let (positions, out) = (positions.to_str().unwrap(), out.to_str().unwrap());
    for args in [
        &["consume", "t"][..],
        &["consume", "t", "--follow"],
        &["consume", "t", "--offsets-file", positions],
        &["replay", "t"],
        &["replay", "t", "--out", out],
        &["produce", "t"],
    ] {
        let (listener, endpoint) = silent();
        let mut command = esker(args);
        let command = command.env("ESKER_ENDPOINT", endpoint);
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let running = Running(command.spawn().unwrap());
        let _connection = listener.accept().unwrap();
        running.terminate();
        let (code, said) = running.ended();
        assert_eq!(code, Some(1), "{args:?}: {said}");
        let also = match args[0] {
            "produce" => "; nothing was written",
            _ => "",
        };
        // On a busy machine it may have said that it waits.
        let said = said.lines().filter(|line| !line.contains(": waiting for "));
        let expected = format!("esker: interrupted{also}");
        assert_eq!(said.collect::<Vec<_>>(), [expected], "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(positions).unwrap(), kept);
    assert!(!std::fs::exists(out).unwrap());
}

/// The first process of a container dies of no signal that it does not ask for.
#[test]
fn a_short_command_ends_with_the_code_of_the_signal() {
    for args in [&["status"][..], &["topic", "list"], &["verify"]] {
        for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
            let (listener, endpoint) = silent();
            let mut command = esker(args);
            let command = command.env("ESKER_ENDPOINT", endpoint);
            let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
            let running = Running(command.spawn().unwrap());
            let _connection = listener.accept().unwrap();
            running.signal(signal);
            let (ended, said) = running.ended();
            assert_eq!(ended, Some(code), "{args:?} {signal}: {said}");
        }
    }
}

#[test]
fn a_demo_that_is_ended_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = esker(&["demo", "--bytes", "1GiB"]);
    let command = command.env("TMPDIR", scratch.path());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("1. started"), "{first}");
    running.terminate();
    let (code, said) = running.ended();
    assert_eq!(code, Some(143), "{said}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_ended_keeps_what_it_is_told_to_keep() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = esker(&["demo", "--keep", "--bytes", "1GiB"]);
    let command = command.env("TMPDIR", scratch.path());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let kept = first.strip_prefix("1. started everything in ").unwrap();
    running.terminate();
    let (code, said) = running.ended();
    assert_eq!(code, Some(143), "{said}");
    let last = lines.last().unwrap().unwrap();
    assert_eq!(last, format!("the scratch folder is {kept}"));
    assert!(std::path::Path::new(kept).join("wal").is_dir());
}

#[test]
fn a_temporary_folder_that_is_not_there_is_not_made() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("missing");
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (path, why) in [(&missing, "No such file"), (&file, "it is no folder")] {
        for args in [&["demo"][..], &["bench", "ratios"]] {
            let output = esker(args).env("TMPDIR", path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
            let named = format!("no temporary folder {}: {why}", path.display());
            assert!(said.contains(&named) && said.contains("TMPDIR"), "{said}");
            assert!(!missing.exists());
        }
    }
}

/// It says that it has ended, and not what its cache tells of its last moments.
#[test]
fn a_server_that_is_asked_to_stop_says_that_it_has() {
    let server = Server::start("stops");
    server.create_topic("t", 1);
    let said = server.stop();
    assert!(
        said.lines()
            .last()
            .is_some_and(|last| last.ends_with("stopped")),
        "{said}"
    );
    assert!(!said.contains("foyer"), "{said}");
}

/// The first process of a container dies of no signal that it does not ask for.
#[test]
fn a_server_hears_a_signal_while_it_starts() {
    let scratch = tempfile::tempdir().unwrap();
    let (listener, endpoint) = silent();
    let args = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--object-store",
        "s3://bucket/prefix",
        "--data-dir",
    ];
    let mut command = esker(&args);
    command.arg(scratch.path().join("data"));
    for (name, value) in [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ] {
        command.env(name, value);
    }
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let running = Running(command.spawn().unwrap());
    let _connection = listener.accept().unwrap();
    running.terminate();
    let (code, said) = running.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("before everything had started"), "{said}");
}
