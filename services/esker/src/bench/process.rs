//! A process of this binary that was started here: what it counts, what it takes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Child;

use esker_env::Env;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::run::read_text;

/// Bytes of all figures, at most.
const FIGURES_BYTES_MAX: u64 = 16 << 20;
/// Of `/proc/PID/stat`, where Linux has them: ticks a second, and which fields behind the name are the time
/// in user mode and in the kernel.
const TICKS: f64 = 100.0;
const CPU_FIELDS: [usize; 2] = [11, 12];

/// A process. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where its metrics and health are.
    pub(crate) metrics: String,
}

/// Figures of a process at one moment, labels included in their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Process {
    pub(crate) const fn new(child: Child, metrics: String) -> Self {
        Self { child, metrics }
    }

    /// What it counts, as of now.
    ///
    /// # Errors
    /// Of the connection.
    pub(crate) async fn figures(&self, env: &Env) -> io::Result<Figures> {
        Ok(Figures::parse(&get(env, &self.metrics, "/metrics").await?))
    }

    /// Whether it says that it is ready, and of no shard that it does not answer.
    pub(crate) async fn is_ready(&self, env: &Env) -> bool {
        let answer = get(env, &self.metrics, "/readyz").await;
        let all = |answer: String| {
            answer.starts_with("HTTP/1.1 200 ") && !answer.contains("shards do not answer")
        };
        answer.is_ok_and(all)
    }

    /// The most memory that it ever held, in bytes; 0 where the system does not tell.
    pub(crate) fn most_resident(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    /// The memory that it holds, in bytes; 0 where the system does not tell.
    pub(crate) fn resident(&self) -> u64 {
        self.of_status("VmRSS:")
    }

    fn of_status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let kib = status.and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        kib.unwrap_or(0) << 10
    }

    /// Seconds of a core that it has used; 0 where the system does not tell.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.proc("stat").as_deref().and_then(cpu).unwrap_or(0.0)
    }

    fn proc(&self, file: &str) -> Option<String> {
        let id = self.child.id();
        read_text(Path::new(&format!("/proc/{id}/{file}"))).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By what `/proc/PID/stat` says.
fn cpu(stat: &str) -> Option<f64> {
    // The name, which may hold anything, ends with the last of these.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = CPU_FIELDS.map(|at| fields.get(at)?.parse::<f64>().ok());
    Some((ticks[0]? + ticks[1]?) / TICKS)
}

async fn get(env: &Env, address: &str, path: &str) -> io::Result<String> {
    let mut connection = env.network.connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    let mut answer = connection.take(FIGURES_BYTES_MAX);
    answer.read_to_string(&mut text).await?;
    Ok(text)
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

    #[test]
    fn the_time_of_a_core_stands_behind_the_name() {
        let stat = "4242 (a) name) S 1 4242 4242 0 -1 4194304 5 0 0 0 1234 66 0 0 20 0 9 0 77 0 0";
        assert!((cpu(stat).unwrap() - 13.0).abs() < 1e-9);
        assert_eq!(cpu("4242 (short) S 1"), None);
    }
}
