//! Who appends only where it saw the log end: each append is one try, without a producer id, over a
//! stream of its own.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use esker_checker::{
    Append, Offset, Outcome, Producer, Refusal, Reply, Sequence, Session, Stream, ValueHash, Values,
};
use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::append_request::Payload;
use esker_client::v1::error::Detail;
use esker_client::v1::log_client::LogClient;
use esker_client::{Client, Error, v1};
use esker_env::Env;
use esker_env::sim::SeededEntropy;
use esker_proto::{transport, tuning};
use esker_types::Durability;
use tonic::transport::Channel;

use crate::pen::Pen;

/// How long an answer is waited for. What comes later is never heard: it stays unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to reach somebody.
const REST: Duration = Duration::from_millis(20);
/// Milliseconds between two appends, at most.
const PAUSE_MAX: u64 = 100;
/// Bytes of a record, at most.
const BYTES_MAX: u64 = 300;

/// What is noted of a try whose connection ended before there was an answer.
pub(crate) const BROKEN: &str = "the connection has ended";
/// What is noted of one whose stream did.
pub(crate) const ENDED: &str = "the end of the stream";
/// How what is noted of one begins that waited too long for it.
pub(crate) const UNANSWERED: &str = "no answer in";

/// One of them.
pub(crate) struct Claimant {
    /// Unlike that of any writer.
    pub(crate) number: u64,
    pub(crate) endpoint: String,
    pub(crate) client: Client,
    pub(crate) random: Arc<SeededEntropy>,
    pub(crate) pen: Pen,
}

impl Claimant {
    /// Appends to any partition of `topic` until it is told to stop.
    pub(crate) async fn run(self, topic: &'static str, partitions: u32, stop: Arc<AtomicBool>) {
        let endpoint = tuning::endpoint(&self.endpoint).expect("an address");
        let channel = transport::channel(Env::real().network, &endpoint);
        let log = LogClient::new(channel);
        let producer = Producer(self.number);
        let values = |partition: u32| Values::new(Stream(partition.into()), producer);
        let mut values: Vec<_> = (0..partitions).map(values).collect();
        let mut sequences = vec![0; partitions as usize];
        while !stop.load(Ordering::Relaxed) {
            let partition = u32::try_from(self.random.below(partitions.into())).expect("a few");
            let at = partition as usize;
            let pause = Duration::from_millis(self.random.below(PAUSE_MAX));
            tokio::time::sleep(pause).await;
            // Looks are noted by who looks.
            let Ok(offsets) = self.client.offsets(topic, &[partition], None).await else {
                continue;
            };
            let expect = offsets[0].end;
            let bytes = usize::try_from(self.random.below(BYTES_MAX)).expect("small");
            let value = values[at].next(bytes);
            let append = Append {
                producer,
                sequence: Sequence(sequences[at]),
                values: vec![ValueHash::of(&value)],
                expect: Some(Offset(expect)),
                token: None,
                plain: false,
            };
            sequences[at] += 1;
            let op = self.pen.append(Session(self.number), partition, append);
            let record = v1::Record {
                value: Some(value.into()),
                ..v1::Record::default()
            };
            let records = vec![record];
            let request = v1::AppendRequest {
                request_id: 1,
                topic: topic.to_owned(),
                partition,
                payload: Some(Payload::Records(v1::Records { records })),
                expected_end: Some(expect),
                ..v1::AppendRequest::default()
            };
            let told = tokio::time::timeout(ANSWER_WITHIN, claim(log.clone(), request)).await;
            let none = |_| (Outcome::Unknown, format!("{UNANSWERED} {ANSWER_WITHIN:?}"));
            let (outcome, told) = told.unwrap_or_else(none);
            self.pen.claimed(op, outcome, told);
        }
    }
}

/// One try, and what it was told. No answer is unknown.
async fn claim(log: LogClient<Channel>, request: v1::AppendRequest) -> (Outcome, String) {
    let told = loop {
        let mut log = log.clone();
        let told = async {
            let replies = log.append(futures::stream::iter([request.clone()])).await;
            replies?.into_inner().message().await
        };
        match told.await {
            Err(status) if is_unsent(&status) => tokio::time::sleep(REST).await,
            told => break told,
        }
    };
    let result = match told {
        Ok(reply) => reply.and_then(|reply| reply.result),
        Err(status) if status.source().is_some() => return (Outcome::Unknown, BROKEN.to_owned()),
        Err(status) => {
            let error = Error::from(status);
            let outcome = match error.durability() {
                Durability::NotWritten => Outcome::Fail(Refusal::Other),
                // It may be anybody's on the way.
                _ => Outcome::Unknown,
            };
            return (outcome, error.to_string());
        }
    };
    match result {
        Some(Answer::Appended(done)) => {
            let (base, count) = (Offset(done.base_offset), done.end - done.base_offset);
            (Outcome::Ok(Reply::Append { base, count }), String::new())
        }
        Some(Answer::Error(error)) => (refused(&error), Error::from(error).to_string()),
        None => (Outcome::Unknown, ENDED.to_owned()),
    }
}

/// Nobody listened: the request has never left.
fn is_unsent(status: &tonic::Status) -> bool {
    let first = status.source();
    let mut sources = std::iter::successors(first, |error| (*error).source());
    sources.any(|error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn refused(error: &v1::Error) -> Outcome {
    match (Durability::from(error.durability()), &error.detail) {
        (Durability::NotWritten, Some(Detail::End(end))) => {
            let actual = Offset(*end);
            Outcome::Fail(Refusal::ExpectedEnd { actual })
        }
        (Durability::NotWritten, _) => Outcome::Fail(Refusal::Other),
        _ => Outcome::Unknown,
    }
}
