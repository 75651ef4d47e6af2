//! Agents and buckets that are not there, or are none.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::server::{Server, esker};

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
    let output = esker(&["status", "--endpoint", "foo:bar"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`http://foo:bar`: the port is no number"),
        "{said}"
    );
    let output = esker(&["status", "--json", "--endpoint", &endpoint])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["error"]["code"], "UNAVAILABLE");
    assert_eq!(said["error"]["durability"], "NOT_WRITTEN");
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

/// It may be a home folder: nothing of it is looked at but what would be a cluster's.
#[test]
fn a_folder_that_is_no_bucket_is_not_walked_through() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever walks through it finds no end.
    std::os::unix::fs::symlink(".", folder.path().join("again")).unwrap();
    let url = format!("file://{}", folder.path().display());
    for args in [&["consume", "t"][..], &["topic", "list"]] {
        let direct = [args, &["--direct", "--object-store", &url]].concat();
        let output = esker(&direct).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}: {said}");
        let told = format!("nothing of a cluster stands in {url}");
        assert!(said.contains(&told), "{args:?}: {said}");
    }
}
