//! A server of one's own: this binary, in a scratch folder, in a process of its own.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use esker_client::{Client, Options};
use esker_env::{Env, WorkersExt};

use super::process::{Figures, Process};
use crate::failure::Failure;

/// Lines in which a server says where it is.
const READY_LINES_MAX: usize = 16;
/// A server in a process of its own. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    endpoint: String,
}

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
            process: Process::new(child, String::new()),
            endpoint: String::new(),
        };
        for line in BufReader::new(stdout).lines().take(READY_LINES_MAX) {
            let line = line?;
            if let Some((_, address)) = line.split_once("is ready at ") {
                address.clone_into(&mut server.endpoint);
            }
            if let Some((_, address)) = line.split_once("metrics and health at http://") {
                address.clone_into(&mut server.process.metrics);
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
        let figures = self.process.figures(env).await;
        figures.map_err(|error| Failure::io(&self.process.metrics, &error))
    }
}
