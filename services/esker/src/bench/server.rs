//! A server of one's own: this binary, in a scratch folder, in a process of its own.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use esker_client::{Client, Options};
use esker_env::{Env, WorkersExt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::failure::Failure;
use crate::run::read_text;

/// Lines in which a server says where it is.
const READY_LINES_MAX: usize = 16;
/// Bytes of all figures, at most.
const FIGURES_BYTES_MAX: u64 = 4 << 20;

/// A server in a process of its own. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    endpoint: String,
    metrics: String,
}

/// Figures of a server at one moment, labels included in their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Server {
    /// Starts one over `data`, on free ports, and waits until it is ready.
    pub(crate) async fn start(env: &Env, data: PathBuf) -> Result<Self, Failure> {
        let name = data.display().to_string();
        let started = env.workers.run(move || Self::spawn(&data)).await;
        let started = started.map_err(|error| Failure::io("a server of our own", &error))?;
        started.ok_or_else(|| {
            let text = format!("a server of our own over {name} did not become ready");
            Failure::new(text).and_next(format!("`esker dev --data-dir {name}` says why"))
        })
    }

    /// `None` if it ends without becoming ready.
    fn spawn(data: &Path) -> io::Result<Option<Self>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data)
            .env_remove("ESKER_ENDPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        // Whatever happens from here on, it ends with us.
        let mut server = Self {
            child,
            endpoint: String::new(),
            metrics: String::new(),
        };
        for line in BufReader::new(stdout).lines().take(READY_LINES_MAX) {
            let line = line?;
            if let Some((_, address)) = line.split_once("is ready at ") {
                address.clone_into(&mut server.endpoint);
            }
            if let Some((_, address)) = line.split_once("metrics and health at http://") {
                address.clone_into(&mut server.metrics);
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    pub(crate) async fn client(&self, env: &Env) -> Result<Client, Failure> {
        let client = Client::connect(&self.endpoint, Options::default(), env).await;
        client.map_err(|error| Failure::reading(&error))
    }

    /// What it counts, as of now.
    pub(crate) async fn figures(&self, env: &Env) -> Result<Figures, Failure> {
        let failed = |error: io::Error| Failure::io(&self.metrics, &error);
        let mut connection = env.network.connect(&self.metrics).await.map_err(failed)?;
        let host = &self.metrics;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let asked = connection.write_all(request.as_bytes()).await;
        asked.map_err(failed)?;
        let mut text = String::new();
        let mut answer = connection.take(FIGURES_BYTES_MAX);
        answer.read_to_string(&mut text).await.map_err(failed)?;
        Ok(Figures::parse(&text))
    }

    /// The most memory that it ever held, in bytes; 0 where the system does not tell.
    pub(crate) fn most_resident(&self) -> u64 {
        let id = self.child.id();
        let status = read_text(Path::new(&format!("/proc/{id}/status")));
        let kib = status.ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        kib.unwrap_or(0) << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Figures {
    fn parse(text: &str) -> Self {
        let figures = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        });
        Self(figures.collect())
    }

    /// The figure of `name`; zero if there is none.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// What `name` grew by since `before`.
    pub(crate) fn since(&self, before: &Self, name: &str) -> f64 {
        self.get(name) - before.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP esker_wal_groups Groups.\n\
                    esker_wal_groups_total 17\nesker_shard_head_bytes{shard=\"1\"} 2.5\n# EOF\n";
        let (figures, before) = (Figures::parse(text), Figures::default());
        assert!((figures.since(&before, "esker_wal_groups_total") - 17.0).abs() < 1e-9);
        assert!((figures.get("esker_shard_head_bytes{shard=\"1\"}") - 2.5).abs() < 1e-9);
        assert!(figures.get("nothing").abs() < 1e-9);
    }
}
