//! A server, and commands.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    said: String,
    metrics: String,
}

impl Server {
    /// Starts `esker` with `args`, which logs to `log`, and waits until it says where its metrics are.
    pub(crate) fn start(args: &[&str], environment: &[(&str, &str)], log: &Path) -> Self {
        let mut child = esker(args)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let metrics = loop {
            let logged = || std::fs::read_to_string(log).unwrap();
            let line = lines.next().unwrap_or_else(|| unreachable!("{}", logged()));
            let line = line.unwrap();
            said.push_str(&line);
            said.push('\n');
            if let Some(metrics) = line.strip_prefix("metrics and health at http://") {
                break metrics.to_owned();
            }
        };
        Self {
            child,
            said,
            metrics,
        }
    }

    /// What stands behind `words` in what it said.
    pub(crate) fn behind(&self, words: &str) -> String {
        let (_, rest) = self.said.split_once(words).unwrap();
        rest.lines().next().unwrap().to_owned()
    }

    /// Status and body of what it says at `path`.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// The figure of this name and these labels.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| unreachable!("{name} is not in {text}"));
        value.parse().unwrap()
    }

    /// Waits until it is ready.
    pub(crate) fn wait_until_ready(&self) {
        let began = Instant::now();
        loop {
            let (status, body) = self.get("/readyz");
            if status == 200 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not ready: {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if it could not start.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `esker` with `args`, and no environment that it would listen to.
pub(crate) fn esker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(args).stdin(Stdio::null());
    for name in ["ESKER_ENDPOINT", "ESKER_LOG", "ESKER_TLS_CA"] {
        command.env_remove(name);
    }
    command
}

/// What `esker` with `args` says on stdout, given `stdin`. It must not fail.
pub(crate) fn out(args: &[&str], stdin: &str) -> String {
    let mut child = esker(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end without reading any of it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{args:?}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// The exit code of `esker` with `args`, and what it says on stderr.
pub(crate) fn refused(args: &[&str]) -> (i32, String) {
    let output = esker(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}
