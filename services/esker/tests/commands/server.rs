//! `esker dev` in a scratch folder, and commands at it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(40);

/// `esker` with `args`, and no environment that it would listen to.
pub(crate) fn esker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(args).stdin(Stdio::null());
    for name in ["ESKER_ENDPOINT", "ESKER_LOG", "ESKER_SAMPLE_DIR"] {
        command.env_remove(name);
    }
    command
}

/// A server of everything. Ends with its scratch folder when it is dropped.
pub(crate) struct Server {
    child: Child,
    endpoint: String,
    metrics: String,
    scratch: PathBuf,
}

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same, told more by its environment.
    pub(crate) fn start_with(name: &str, environment: &[(&str, &str)]) -> Self {
        let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let scratch = scratch.join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        let data = scratch.join("data");
        let mut child = esker(&["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .env("ESKER_LISTEN_METRICS", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut address = |after: &str| {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(after)));
            let line = line.unwrap().unwrap();
            let address = line.rsplit(' ').next().unwrap().to_owned();
            assert!(address.starts_with("http://127.0.0.1:"), "{line}");
            address
        };
        let (endpoint, metrics) = (address("is ready at"), address("metrics and health at"));
        Self {
            child,
            endpoint,
            metrics,
            scratch,
        }
    }

    /// Asks it to stop; what it has said on stderr.
    pub(crate) fn stop(mut self) -> String {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(self.scratch.join("stderr")).unwrap()
    }

    /// Starts another `esker dev` where this one ran; what it says once it is ready.
    pub(crate) fn again(&self) -> String {
        let mut child = esker(&["dev", "--listen", "0", "--metrics", "0", "--data-dir"])
            .arg(self.path("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("esker consume ") {
            let Some(line) = lines.next() else { break };
            said.push_str(&line.unwrap());
            said.push('\n');
        }
        child.kill().unwrap();
        child.wait().unwrap();
        said
    }

    /// Is killed, as by a power cut.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Neither takes nor gives anything from now on, but connections are made.
    pub(crate) fn freeze(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-STOP", &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Takes and gives again.
    pub(crate) fn thaw(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-CONT", &id]).status().unwrap();
        assert!(sent.success());
    }

    /// The answer to a GET at the address of metrics and health: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let address = self.metrics.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Where the public API is, as a URL.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where metrics and health are, as a URL.
    pub(crate) fn metrics(&self) -> &str {
        &self.metrics
    }

    /// A file of the scratch folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.scratch.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file into the scratch folder; its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    /// `esker ARGS` at this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = esker(args);
        command.env("ESKER_ENDPOINT", &self.endpoint);
        command
    }

    /// What `esker ARGS` comes to.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// stdout of `esker ARGS`, which succeeds.
    pub(crate) fn out(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        output.stdout
    }

    /// The tally that `esker ARGS --json` prints on stdout.
    pub(crate) fn tally(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        serde_json::from_slice(&self.out(&args)).unwrap()
    }

    /// What `esker ARGS --json` prints on stdout, and the tally on stderr.
    pub(crate) fn text_and_tally(&self, args: &[&str]) -> (Vec<u8>, Value) {
        let mut args = args.to_vec();
        args.push("--json");
        let output = self.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        (output.stdout, serde_json::from_str(&said).unwrap())
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: u32) {
        self.out(&[
            "topic",
            "create",
            name,
            "--partitions",
            &partitions.to_string(),
        ]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.scratch);
        }
    }
}

/// A process that ends with the test, whatever becomes of it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it `signal`, as kill knows it.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code and what it said on stderr, which is piped, once it has ended; it must within
    /// [`PATIENCE`].
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut errors = self.0.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            errors.read_to_string(&mut said).unwrap();
            said
        });
        wait_until("it has ended", || self.0.try_wait().unwrap().is_some());
        (self.0.wait().unwrap().code(), said.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Partitions of a tally that hold something.
pub(crate) fn used(tally: &Value) -> Vec<Value> {
    let partitions = tally["partitions"].as_array().unwrap().iter();
    partitions.filter(|p| p["records"] != 0).cloned().collect()
}
