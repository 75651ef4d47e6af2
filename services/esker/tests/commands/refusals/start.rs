//! Servers that do not start as they are told.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::server::{Running, Server, esker};

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

    let made = std::fs::exists(&other).unwrap();
    assert!(!made, "a directory of a server that never was");

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
        (
            &["dev", "--data-dir", "new", "--object-store", "memory://b"],
            &["only as long as this process", "file:///"],
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
