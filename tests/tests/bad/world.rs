//! An agent over a whole engine, and ways to it.

use std::sync::Arc;

use bytes::Bytes;
use esker_agent::{Agent, Budgets, Cluster, Traffic};
use esker_env::sim::SimNetwork;
use esker_env::{Connection, Env};
use esker_proto::v1::admin_client::AdminClient;
use esker_proto::v1::append_reply::Result as Reply;
use esker_proto::v1::append_request::Payload;
use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{self, Code, Durability};
use esker_proto::{transport, tuning};
use esker_tests::whole::{Site, Whole};
use esker_types::{ClusterId, Incarnation};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tonic::transport::Channel;

/// In keys, values and names that are refused: no answer may repeat it.
pub(crate) const SECRET: &str = "quartzite";

/// The topic that stands, with two partitions.
pub(crate) const TOPIC: &str = "gravel";

pub(crate) struct World {
    pub(crate) whole: Whole,
    pub(crate) channel: Channel,
    pub(crate) address: String,
    traffic: Traffic,
    env: Env,
    network: Option<SimNetwork>,
}

impl World {
    /// On a network of its own, in memory.
    pub(crate) async fn new(seed: u64) -> Self {
        let whole = Site::new(seed).start().await.expect("started");
        whole.create(TOPIC, 2).await;
        Self::over(whole).await
    }

    /// The same, with other budgets.
    pub(crate) async fn with_budgets(seed: u64, budgets: Budgets) -> Self {
        let whole = Site::new(seed).start().await.expect("started");
        whole.create(TOPIC, 2).await;
        Self::within(whole, budgets).await
    }

    /// The same, over what is there.
    pub(crate) async fn over(whole: Whole) -> Self {
        Self::within(whole, Budgets::default()).await
    }

    async fn within(whole: Whole, budgets: Budgets) -> Self {
        let network = SimNetwork::new();
        let env = Env {
            network: Arc::new(network.clone()),
            ..whole.env.clone()
        };
        Self::serving(whole, env, Some(network), budgets).await
    }

    /// On the system's network.
    pub(crate) async fn on_tcp(seed: u64) -> Self {
        let whole = Site::new(seed).start().await.expect("started");
        whole.create(TOPIC, 2).await;
        let env = Env {
            network: Env::real().network,
            ..whole.env.clone()
        };
        Self::serving(whole, env, None, Budgets::default()).await
    }

    async fn serving(
        whole: Whole,
        env: Env,
        network: Option<SimNetwork>,
        budgets: Budgets,
    ) -> Self {
        let (address, traffic) = serve(&whole, &env, budgets).await;
        let endpoint = tuning::endpoint(&format!("http://{address}")).expect("an address");
        let channel = transport::connect(Arc::clone(&env.network), &endpoint);
        let channel = channel.await.expect("it listens");
        Self {
            whole,
            channel,
            address,
            traffic,
            env,
            network,
        }
    }

    pub(crate) fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
            .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX)
    }

    /// The agent's listener has no descriptor left, for so many tries.
    pub(crate) fn starve(&self, tries: u64) {
        let network = self.network.as_ref().expect("in memory");
        network.starve(&self.address, tries);
    }

    /// Tries that still fail.
    pub(crate) fn starves(&self) -> u64 {
        let network = self.network.as_ref().expect("in memory");
        network.starves(&self.address)
    }

    /// Bytes both ways, nothing said yet.
    pub(crate) async fn connection(&self) -> Connection {
        let connected = self.env.network.connect(&self.address).await;
        connected.expect("it listens")
    }

    /// Appends on a stream of its own.
    pub(crate) async fn append(
        &self,
        request: v1::AppendRequest,
    ) -> Result<v1::Appended, v1::Error> {
        let mut replies = self.appends(vec![request]).await;
        replies.pop().expect("one reply").1
    }

    /// Appends on one stream: the replies as they came, by request.
    pub(crate) async fn appends(
        &self,
        requests: Vec<v1::AppendRequest>,
    ) -> Vec<(u64, Result<v1::Appended, v1::Error>)> {
        let called = self.log().append(futures::stream::iter(requests)).await;
        let mut stream = called.expect("a stream").into_inner();
        let mut replies = Vec::new();
        while let Some(reply) = stream.message().await.expect("no failed append ends it") {
            let result = match reply.result.expect("one or the other") {
                Reply::Appended(appended) => Ok(appended),
                Reply::Error(error) => Err(error),
            };
            replies.push((reply.request_id, result));
        }
        replies
    }

    /// Streams of reads that are open, as the gauge says.
    pub(crate) fn reads_open(&self) -> u64 {
        self.figure("reads_open")
    }

    /// A figure of the agent's, by its name.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let mut registry = Registry::default();
        self.traffic.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the figure").parse().expect("a number")
    }

    pub(crate) async fn end(&self) -> u64 {
        let mut log = self.log();
        let reply = log.offsets(v1::OffsetsRequest {
            topic: TOPIC.into(),
            partitions: vec![0],
            at: None,
        });
        reply.await.expect("told").into_inner().partitions[0].end
    }

    /// A good append on the same channel, and over the same connection.
    pub(crate) async fn is_well(&self) {
        let connections = self.network.as_ref().map(SimNetwork::connections);
        let end = self.end().await;
        let appended = self.append(plain(&["fine"])).await.expect("appended");
        assert_eq!((appended.base_offset, appended.end), (end, end + 1));
        assert_eq!(
            connections,
            self.network.as_ref().map(SimNetwork::connections),
            "the connection did not survive"
        );
    }

    /// Nothing is stored of `request`, which is refused with `code` and a text that has `words`.
    pub(crate) async fn refuses(
        &self,
        request: v1::AppendRequest,
        code: Code,
        words: &[&str],
    ) -> v1::Error {
        let end = self.end().await;
        let error = self.append(request).await.expect_err("refused");
        is_told(&error, code, Durability::NotWritten, words);
        assert_eq!(self.end().await, end, "something was stored");
        self.is_well().await;
        error
    }
}

/// Whether `error` is what it should be.
pub(crate) fn is_told(error: &v1::Error, code: Code, durability: Durability, words: &[&str]) {
    assert_eq!(error.code(), code, "{error:?}");
    assert_eq!(error.durability(), durability, "{error:?}");
    for word in words {
        assert!(
            error.message.contains(word),
            "no `{word}` in: {}",
            error.message
        );
    }
    assert!(
        !error.message.contains(SECRET),
        "it repeats: {}",
        error.message
    );
    assert!(
        error.message.len() < 512,
        "{} bytes of text",
        error.message.len()
    );
}

/// A status of ours: what it tells, and its code.
pub(crate) fn told(status: &tonic::Status) -> (tonic::Code, v1::Error) {
    assert!(!status.details().is_empty(), "no details: {status:?}");
    (status.code(), v1::Error::from(status))
}

async fn serve(whole: &Whole, env: &Env, budgets: Budgets) -> (String, Traffic) {
    let listener = env.network.listen("127.0.0.1:0").await.expect("free");
    let address = listener.address().to_owned();
    let cluster = Cluster {
        id: ClusterId(7),
        incarnation: Incarnation::FIRST,
        version: "test".into(),
        wal: None,
    };
    let agent = Agent::new(whole.engine.clone(), env.clone(), cluster).with_budgets(budgets);
    let traffic = agent.traffic().clone();
    let ends = whole.ends();
    tokio::spawn(async move { agent.serve(listener, ends).await });
    (address, traffic)
}

pub(crate) fn request(payload: Payload) -> v1::AppendRequest {
    v1::AppendRequest {
        request_id: 1,
        topic: TOPIC.into(),
        payload: Some(payload),
        ..v1::AppendRequest::default()
    }
}

pub(crate) fn batch(bytes: impl Into<Bytes>) -> v1::AppendRequest {
    request(Payload::Batch(bytes.into()))
}

pub(crate) fn plain(values: &[&str]) -> v1::AppendRequest {
    let record = |value: &&str| v1::Record {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..v1::Record::default()
    };
    let records = values.iter().map(record).collect();
    request(Payload::Records(v1::Records { records }))
}

/// Kilobytes of memory that the process holds now, if the system tells.
#[expect(clippy::disallowed_methods, reason = "tests look at the real process")]
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// On the real clock, for the system's network.
pub(crate) fn run_live<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}
