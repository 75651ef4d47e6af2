//! A connection to a cluster, and what can be had over it.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Network};
use esker_proto::tls::{Connecting, NO_TLS, Secure};
use esker_proto::v1::admin_client::AdminClient;
use esker_proto::v1::log_client::LogClient;
use esker_proto::{transport, tuning, v1};
use tonic::Code::Unimplemented;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::admin::Admin;
use crate::error::{Code, Error};
use crate::greeting::{Greeted, Greeting, Other};
use crate::patience::Patience;
use crate::producer::{Producer, ProducerOptions};
use crate::reader::{ReadOptions, Reader};
use crate::setback::Setbacks;
use esker_types::Durability;

/// How a client behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What is shown and believed where the address is `https://`. Default: no certificate is shown,
    /// and the CAs that browsers believe are believed.
    pub tls: Connecting,
    /// How long calls and readers go on trying without progress. Default: 120 s.
    pub patience: Duration,
    /// How long one try of a call may take, from one second on. Default: 30 s.
    pub call_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: Connecting::default(),
            patience: Duration::from_secs(120),
            call_timeout: Duration::from_secs(30),
        }
    }
}

/// A cluster, by the address of one of its agents. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    channel: Channel,
    greeting: Greeting,
    pub(crate) options: Options,
    pub(crate) setbacks: Setbacks,
    pub(crate) env: Env,
}

/// Whether a call whose outcome is unknown may be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Again {
    /// It changes nothing: its outcome is never unknown.
    Reading,
    /// It is recognised.
    Yes,
    /// Only if it is known not to have been done.
    IfNotWritten,
}

impl Client {
    /// Connects to an agent at `uri`, such as `http://127.0.0.1:7070` or `https://logs.example:7070`. A connection that breaks
    /// later is made again by itself.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] if `uri` or a file of [`Options::tls`] is none, [`Code::Unavailable`] if
    /// nobody answers there, or somebody else.
    pub async fn connect(uri: &str, options: Options, env: &Env) -> Result<Self, Error> {
        let endpoint = tuning::endpoint(uri).map_err(|_| {
            let text =
                format!("`{uri}` is no address; write http://host:port or https://host:port");
            Error::invalid(text)
        })?;
        let network: Arc<dyn Network> = match endpoint.uri().scheme_str() {
            Some("http") if options.tls != Connecting::default() => {
                let text =
                    format!("certificates are named, and `{uri}` has no TLS: write https://");
                return Err(Error::invalid(text));
            }
            Some("http") => Arc::clone(&env.network),
            Some("https") => {
                let secure = Secure::new(env, options.tls.clone());
                Arc::new(secure.map_err(|error| Error::invalid(error.to_string()))?)
            }
            // Sent in the clear, it would not be what was asked for.
            _ => {
                let text = format!("`{uri}` is neither http://host:port nor https://host:port");
                return Err(Error::invalid(text));
            }
        };
        let greeting = Greeting::default();
        let network = Arc::new(Greeted {
            network,
            greeting: greeting.clone(),
        });
        let env = Env {
            network,
            ..env.clone()
        };
        let channel = transport::connect(Arc::clone(&env.network), &endpoint)
            .await
            .map_err(|error| {
                let why = chain(&error);
                // The network names the address, too.
                let why = match why.split_once(": ") {
                    Some((tried, why))
                        if tried.starts_with("cannot connect to ")
                            || tried.starts_with("no TLS with ") =>
                    {
                        why
                    }
                    _ => &why,
                };
                let mut text = format!("no connection to {uri}: {why}");
                if why.contains(NO_TLS) {
                    text.push_str(&format!("; write {}", uri.replacen("https", "http", 1)));
                }
                Error::new(Code::Unavailable, Durability::NotWritten, text)
            })?;
        Ok(Self {
            endpoint,
            channel,
            greeting,
            options,
            setbacks: Setbacks::default(),
            env,
        })
    }

    /// Whether anything that may be an agent was heard yet: to connect takes no more than a system
    /// that answers for its process.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.greeting.is_heard()
    }

    /// Why a producer, a reader or a call of this client does not get on at present, if one was
    /// refused or broke off and is tried again: for who shows a person what is waited for.
    #[must_use]
    pub fn setback(&self) -> Option<Error> {
        self.setbacks.last()
    }

    /// Topics and the cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A producer of `topic`. Asks for the topic's settings and, if it is to be idempotent, for a
    /// producer id.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::InvalidRequest`] for options out of bounds, and what a call
    /// may meet.
    pub async fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer, Error> {
        Producer::open(self, topic, options).await
    }

    /// Reads `partition` of `topic`. What a bounded read ends with is settled now.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], and what a call may meet.
    pub async fn read(
        &self,
        topic: &str,
        partition: u32,
        options: ReadOptions,
    ) -> Result<Reader, Error> {
        Reader::open(self, topic, partition, options).await
    }

    pub(crate) fn log(&self) -> LogClient<Channel> {
        with_limits_log(self.channel.clone())
    }

    /// Over a connection of its own: what a slow reader leaves unread fills the connection's
    /// window, and no one else may wait for that.
    pub(crate) fn log_alone(&self) -> LogClient<Channel> {
        let network = Arc::clone(&self.env.network);
        with_limits_log(transport::channel(network, &self.endpoint))
    }

    pub(crate) fn admin_stub(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
            .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX)
    }

    /// Makes a unary call until it succeeds, fails for good, or patience is over.
    pub(crate) async fn call<T, F>(&self, again: Again, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut patience = Patience::new(&self.env, self.options.patience);
        let mut setback = self.setbacks.one();
        let timeout = self.options.call_timeout.max(Duration::from_secs(1));
        loop {
            let error = match tokio::time::timeout(timeout, attempt()).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => self.told(status).await,
                Err(_) => {
                    let endpoint = self.endpoint.uri();
                    let text = format!("no reply from {endpoint} within {timeout:?}");
                    Error::new(Code::OutcomeUnknown, Durability::Unknown, text)
                }
            };
            let harmless =
                again != Again::IfNotWritten || error.durability() == Durability::NotWritten;
            let strange = self.greeting.other().is_some();
            setback.met(&error);
            if strange || !error.is_retriable() || !harmless || !patience.rest().await {
                return Err(match again {
                    Again::Reading => error.of_a_read(),
                    Again::Yes | Again::IfNotWritten => error,
                });
            }
        }
    }

    /// What `status` tells, which may be that no agent is there at all.
    async fn told(&self, status: Status) -> Error {
        let uri = self.endpoint.uri();
        let port = uri.port_u16().unwrap_or(transport::DEFAULT_PORT);
        let address = format!("{}:{port}", uri.host().unwrap_or_default());
        self.greeting.ask(&*self.env.network, &address).await;
        let what = match self.greeting.other() {
            Some(Other::Tls) => {
                let authority = uri.authority().map_or("host:port", |of| of.as_str());
                let text = format!("what answers at {uri} speaks TLS; write https://{authority}");
                return Error::new(Code::Unavailable, Durability::NotWritten, text);
            }
            Some(Other::Refuses(why)) => {
                let text = format!("what answers at {uri} refuses us: {why}");
                return Error::new(Code::Unavailable, Durability::NotWritten, text);
            }
            Some(Other::Speaks(other)) => format!("speaks {other}"),
            // A service of ours that refuses a call says why.
            None if status.code() == Unimplemented && status.details().is_empty() => {
                "does not know this call".to_owned()
            }
            None => return status.into(),
        };
        let text = format!("what answers at {uri} {what}: it is not Esker's gRPC API");
        let text = match port.checked_sub(1) {
            Some(below) => format!("{text}; if that is a server's metrics port, try {below}"),
            None => text,
        };
        Error::new(Code::Unavailable, Durability::NotWritten, text)
    }

    /// Where partitions of `topic` begin and end; no partition stands for all of them.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], and what a call may meet.
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        at: Option<v1::Position>,
    ) -> Result<Vec<v1::PartitionOffsets>, Error> {
        let request = v1::OffsetsRequest {
            topic: topic.to_owned(),
            partitions: partitions.to_vec(),
            at,
        };
        let reply = self.call(Again::Reading, || {
            let (mut log, request) = (self.log(), request.clone());
            async move { log.offsets(request).await }
        });
        Ok(reply.await?.partitions)
    }
}

fn with_limits_log(channel: Channel) -> LogClient<Channel> {
    LogClient::new(channel)
        .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX)
}

/// What is at the bottom of an error: tonic's own text is `transport error`, and each cause
/// repeats what it wraps.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source().or(Some(error));
    while let Some(next) = cause {
        let said = next.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
