//! What every command has at hand.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use esker_client::{Client, Code, Connecting, Options};
use esker_env::Env;
use serde::Serialize;

use crate::cli::{Common, ENDPOINT, Tls};
use crate::failure::Failure;
use crate::run::program;
use crate::screen;

/// How long a short command goes on trying. Records are given the SDK's own patience.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an agent may be silent before a person is told.
const SILENCE: Duration = Duration::from_secs(1);

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Shell {
    /// The real world.
    pub(crate) env: Env,
    /// How this binary was called: the first word of the next commands we print.
    pub(crate) program: String,
    /// What to put behind those, if the agent is not where it is looked for.
    pub(crate) option: String,
    /// Of an agent.
    pub(crate) endpoint: String,
    /// What it shows and believes.
    pub(crate) tls: Tls,
    /// Whether a program reads what we say.
    pub(crate) json: bool,
}

impl Shell {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            env: Env::real(),
            program: program(),
            option: option(common),
            endpoint: url(&common.endpoint, common.tls.is_said()),
            tls: common.tls.clone(),
            json: common.json,
        }
    }

    /// A connection for short commands.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let options = Options {
            patience: PATIENCE,
            call_timeout: PATIENCE,
            ..Options::default()
        };
        self.client_with(options).await
    }

    /// A connection to the agent.
    pub(crate) async fn client_with(&self, mut options: Options) -> Result<Client, Failure> {
        options.tls = Connecting {
            own: self.tls.own(),
            ca: self.tls.ca.clone(),
        };
        if has_odd_port(&self.endpoint) {
            let text = "the port is no number up to 65535; write http://host:port";
            return Err(Failure::usage(format!(
                "--endpoint: `{}`: {text}",
                self.endpoint
            )));
        }
        let connected = Arc::new(OnceLock::<Client>::new());
        tokio::spawn(self.tell_of_silence(Arc::clone(&connected)));
        let client = Client::connect(&self.endpoint, options, &self.env).await;
        let client = client.map_err(|error| {
            if error.code() == Code::InvalidRequest {
                return Failure::usage(format!("--endpoint: {}", error.message()));
            }
            let program = &self.program;
            let next = format!("start one with `{program} dev`, or name another with --endpoint");
            Failure::reading(&error).and_next(next)
        })?;
        let _ = connected.set(client.clone());
        Ok(client)
    }

    /// Says once what is waited for, if nothing is heard of the agent.
    fn tell_of_silence(
        &self,
        connected: Arc<OnceLock<Client>>,
    ) -> impl Future<Output = ()> + use<> {
        let (endpoint, json) = (self.endpoint.clone(), self.json);
        async move {
            tokio::time::sleep(SILENCE).await;
            if connected.get().is_some_and(Client::is_heard) {
                return;
            }
            screen::note(&match json {
                true => serde_json::json!({ "waiting_for": endpoint }).to_string(),
                false => format!("esker: waiting for {endpoint}, which says nothing yet"),
            });
        }
    }

    /// Answers on stdout: `value` for a program, `text` for a person.
    pub(crate) fn answer(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            screen::print(&format!("{}\n", json(value)))
        } else {
            screen::print(&text())
        }
    }
}

/// What finds the same agent again, behind a command.
fn option(common: &Common) -> String {
    let mut option = match common.endpoint.as_str() {
        ENDPOINT => String::new(),
        other => format!(" --endpoint {other}"),
    };
    let tls = &common.tls;
    for (name, file) in [
        ("ca", &tls.ca),
        ("certificate", &tls.certificate),
        ("key", &tls.key),
    ] {
        if let Some(file) = file {
            option.push_str(&format!(" --tls-{name} {}", file.display()));
        }
    }
    option
}

/// The URL that `endpoint` stands for: it may be HOST:PORT, or a port of this machine, as what a server
/// is told. `tls`: certificates are named.
fn url(endpoint: &str, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match endpoint {
        port if port.parse::<u16>().is_ok() => format!("{scheme}://127.0.0.1:{port}"),
        // Where nobody says anything.
        ENDPOINT if tls => ENDPOINT.replacen("http://", "https://", 1),
        text if text.contains("://") => text.to_owned(),
        address => format!("{scheme}://{address}"),
    }
}

/// Whether what stands for a port in `url` is none.
fn has_odd_port(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once(':') {
        // Of an address of IPv6, without a port.
        Some((_, end)) if end.ends_with(']') => false,
        Some((_, port)) => port.parse::<u16>().is_err(),
        None => false,
    }
}

/// One line of JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys are text and no value fails to serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_an_address_or_a_port() {
        for (endpoint, expected) in [
            ("http://a:1", "http://a:1"),
            ("https://a:1", "https://a:1"),
            ("a:1", "http://a:1"),
            ("7080", "http://127.0.0.1:7080"),
        ] {
            assert_eq!(url(endpoint, false), expected);
            let secured = match endpoint.contains("://") {
                true => expected.to_owned(),
                false => expected.replacen("http://", "https://", 1),
            };
            assert_eq!(url(endpoint, true), secured);
        }
    }

    #[test]
    fn a_port_is_a_number() {
        for url in [
            "http://a:1",
            "http://a",
            "http://[::1]:1/x:y",
            "http://[::1]",
        ] {
            assert!(!has_odd_port(url), "{url}");
        }
        for url in [
            "http://a:b",
            "http://a:",
            "http://a:65536",
            "http://[::1]:b/",
        ] {
            assert!(has_odd_port(url), "{url}");
        }
    }
}
