//! Who appends only where it saw the log end: each append is one try, without a producer id, over a
//! stream of its own.

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
use esker_client::{Client, v1};
use esker_env::Env;
use esker_env::sim::SeededEntropy;
use esker_proto::{transport, tuning};
use esker_types::Durability;
use tonic::transport::Channel;

use crate::pen::Pen;

/// How long an answer is waited for. What comes later is never heard: it stays unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Milliseconds between two tries, at most.
const PAUSE_MAX: u64 = 100;
/// Bytes of a record, at most.
const BYTES_MAX: u64 = 300;

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
            self.pen.claimed(op, told.unwrap_or(Outcome::Unknown));
        }
    }
}

/// One try. No answer is unknown.
async fn claim(mut log: LogClient<Channel>, request: v1::AppendRequest) -> Outcome {
    let told = async {
        let replies = log.append(futures::stream::iter([request])).await;
        replies?.into_inner().message().await
    };
    match told.await {
        Ok(Some(reply)) => match reply.result {
            Some(Answer::Appended(done)) => Outcome::Ok(Reply::Append {
                base: Offset(done.base_offset),
                count: done.end - done.base_offset,
            }),
            Some(Answer::Error(error)) => refused(&error),
            None => Outcome::Unknown,
        },
        Ok(None) => Outcome::Unknown,
        // It may be anybody's on the way.
        Err(_) => Outcome::Unknown,
    }
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
