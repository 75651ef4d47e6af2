//! The process under test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::saying::Saying;

/// Time for a start: a debug binary on a busy machine, with a log to read.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time for a stop that was asked for: two seconds are promised, the rest is for a busy machine.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// What it logs: as by default, and which flushes and checkpoints are under way.
const LEVELS: &str = "info,openraft=error,openraft::raft=off,openraft::core::heartbeat=off,foyer=warn,\
    esker_log::flush=debug,esker_wal::keeper=debug";

/// Names the binary under test.
const BINARY: &str = "ESKER_BINARY";
/// Of an older server.
pub(crate) const OLD_SERVER: &str = "ESKER_OLD_BINARY";
/// Of an older cluster: the oldest servers knew of none.
pub(crate) const OLD_CLUSTER: &str = "ESKER_OLD_CLUSTER_BINARY";

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    named(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_esker").into())
}

/// Another, older one, if `variable` names it. Where `CI` is set and says which binary is tested, it must: there, a
/// test that does not run must not pass.
pub(crate) fn old_binary(variable: &str) -> Option<PathBuf> {
    let old = named(variable);
    assert!(
        old.is_some() || named(BINARY).is_none() || std::env::var_os("CI").is_none(),
        "{variable} is not set, and CI and {BINARY} are: set it to what `.ci/older` prints"
    );
    old
}

fn named(variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty());
    named.map(PathBuf::from)
}

/// A running `esker serve`. Dropping it kills it, also when a test panics; when the whole test
/// process is killed, it goes too.
pub(crate) struct Server {
    process: Child,
    guardian: Child,
    saying: Arc<Saying>,
    listens: Option<JoinHandle<()>>,
    ready: Receiver<String>,
    metrics: Option<String>,
    began: Instant,
    log: PathBuf,
}

impl Server {
    /// Starts `binary` where `there` leads, a command that becomes what is said behind it, and does not
    /// wait until it is ready. What it says goes to `log`.
    pub(crate) fn spawn_at(
        binary: &Path,
        there: &[String],
        config: &Path,
        environment: &BTreeMap<String, String>,
        log: &Path,
    ) -> Self {
        let mut words = there.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut process = Command::new(words.next().expect("the binary at least"))
            .args(words)
            .args(["--log", "json", "--log-level", LEVELS, "serve", "--config"])
            .arg(config)
            .envs(environment)
            // It would take them for keys of its own that are misspelt, or none.
            .env_remove("ESKER_AGENT_SECONDS")
            .env_remove("ESKER_ROUNDS")
            .env_remove("ESKER_NAMESPACES")
            .env_remove(OLD_SERVER)
            .env_remove(OLD_CLUSTER)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        // It waits for the end of its input, whose other end is this process.
        let guardian = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; kill -s KILL "$1""#, "sh"])
            .arg(process.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let (tell, ready) = sync_channel(1);
        let stdout = process.stdout.take().expect("it is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("metrics and health at ") {
                    let _ = tell.send(line);
                }
            }
        });
        let stderr = process.stderr.take().expect("it is piped");
        let saying = Arc::new(Saying::default());
        let (heard, file) = (Arc::clone(&saying), File::create(log).expect("a log"));
        let listens = std::thread::spawn(move || heard.listen(BufReader::new(stderr), file));
        Self {
            process,
            guardian,
            saying,
            listens: Some(listens),
            ready,
            metrics: None,
            began: Instant::now(),
            log: log.to_owned(),
        }
    }

    /// Waits until it takes calls, or, a WAL node alone, until it is reached; how long that took from its
    /// start.
    pub(crate) fn ready(&mut self) -> Duration {
        self.try_ready().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same, of one that may fail to start.
    pub(crate) fn try_ready(&mut self) -> Result<Duration, String> {
        while self.began.elapsed() < READY_WITHIN {
            if let Ok(line) = self.ready.recv_timeout(Duration::from_millis(50)) {
                self.metrics = line.rsplit("//").next().map(str::to_owned);
                return Ok(self.began.elapsed());
            }
            if let Some(status) = self.process.try_wait().expect("it is a child") {
                self.end();
                let said = self.last_words();
                return Err(format!("it does not start: {status}; {said}"));
            }
        }
        let said = self.last_words();
        Err(format!("not ready within {READY_WITHIN:?}; {said}"))
    }

    /// Whether it was ready once.
    pub(crate) const fn was_ready(&self) -> bool {
        self.metrics.is_some()
    }

    /// Where it tells its figures.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.clone().expect("it was ready")
    }

    /// A figure that it counts.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let address = self.metrics();
        let mut stream = TcpStream::connect(&address).expect("it listens");
        let ask = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().expect("a whole number")
    }

    /// What it is doing.
    pub(crate) fn saying(&self) -> &Arc<Saying> {
        &self.saying
    }

    /// The most memory that it had so far, in bytes.
    pub(crate) fn rss_max(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("a size").parse::<u64>().expect("a number") << 10
    }

    /// `kill -9`. Returns once it is dead and all that it said is heard.
    pub(crate) fn kill(mut self) -> Arc<Saying> {
        self.process.kill().expect("it is a child");
        self.end();
        Arc::clone(&self.saying)
    }

    /// `kill -9`, without waiting for its death.
    pub(crate) fn strike(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP: it stands still, and its connections stay.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it is a child");
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM: it must stop by itself, and well.
    pub(crate) fn stop(self) -> Duration {
        self.ask_to_stop();
        self.stopped()
    }

    /// Waits until it stops that was asked to; how long that took.
    pub(crate) fn stopped(mut self) -> Duration {
        let began = Instant::now();
        while began.elapsed() < STOP_WITHIN {
            if let Some(status) = self.process.try_wait().expect("it is a child") {
                let took = began.elapsed();
                self.end();
                assert!(
                    status.success(),
                    "stopped with {status}; {}",
                    self.last_words()
                );
                return took;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not stopped within {STOP_WITHIN:?}; {}", self.last_words());
    }

    /// Whether it has ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("it is a child")
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(12).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("it said at last:\n{}", lines.join("\n"))
    }

    fn end(&mut self) {
        // The guardian first: once the server is reaped, its number may be another's.
        for process in [&mut self.guardian, &mut self.process] {
            process.kill().ok();
            process.wait().ok();
        }
        if let Some(listens) = self.listens.take() {
            listens.join().ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
