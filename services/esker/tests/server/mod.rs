//! The binary as a person runs it: `esker dev` on a free port, and commands against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) const ESKER: &str = env!("CARGO_BIN_EXE_esker");

/// A running `esker dev`. Dropped, it is killed, as by a power cut.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
}

impl Server {
    /// Starts one over `data_dir`; nothing is flushed but when a test says so.
    pub(crate) fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(ESKER)
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env("ESKER_FLUSH_AGE", "1h")
            .env("ESKER_LISTEN_METRICS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines
            .next()
            .expect("it says that it is ready")
            .expect("UTF-8");
        let (_, endpoint) = ready.split_once("ready at ").expect("and where");
        let endpoint = endpoint.to_owned();
        Self { child, endpoint }
    }

    /// What a command says on stdout, given `stdin`. It must not fail.
    pub(crate) fn run(&self, args: &[&str], stdin: &str) -> String {
        let mut child = Command::new(ESKER)
            .args(args)
            .args(["--endpoint", &self.endpoint])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut input = child.stdin.take().expect("it was asked for");
        // It may end without reading any of it.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Stops it as Ctrl-C does.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status();
        assert!(kill.expect("kill is there").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
