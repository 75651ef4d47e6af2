//! Attempts of a session, one after the other: spoken by hand, as no caller would.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use esker_head::words::{self, Append, Beginning};
use esker_log::HeadError;
use esker_proto::internal::head_client::HeadClient;
use esker_proto::internal::{AppendAnswers, AppendCall};
use esker_proto::{transport, tuning};
use esker_types::PartitionId;
use futures::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::posed::{Posed, Step};
use crate::site::{CLUSTER, SHARD, Site, batch, make_partition, run, stamp};

const NODE: &str = "node1:7072";

/// A stream of appends, by hand.
struct Stream {
    calls: mpsc::Sender<AppendCall>,
    answers: Streaming<AppendAnswers>,
}

impl Stream {
    async fn open(site: &Site, session: u128, attempt: u64) -> Result<Self, Status> {
        let endpoint = tuning::peer_endpoint(&format!("http://{NODE}")).expect("an address");
        let channel = transport::channel(Arc::clone(&site.env.network), &endpoint);
        let (calls, sent) = mpsc::channel(16);
        let begins = words::beginning(Beginning {
            session,
            attempt,
            seen: None,
        });
        calls.send(begins).await.expect("there is room");
        let mut request = Request::new(ReceiverStream::new(sent));
        let shown = request.metadata_mut();
        let cluster = CLUSTER.to_string().parse().expect("digits");
        shown.insert("esker-cluster", cluster);
        shown.insert("esker-shard", "1".parse().expect("a digit"));
        let answers = HeadClient::new(channel).append(request).await?;
        let answers = answers.into_inner();
        Ok(Self { calls, answers })
    }

    async fn append(&self, partition: PartitionId, number: u64) {
        let sequence = u32::try_from(number).expect("small");
        let bytes = Bytes::from(number.to_string());
        let (batch, bytes) = batch(partition, 1, bytes, Some(stamp(1, sequence)));
        let append = words::append_call(Append {
            number,
            batch,
            bytes,
        });
        self.calls.send(append).await.expect("there is room");
    }

    /// Numbers of the next answers, which are no errors; how the stream ended, if it did.
    async fn next(&mut self) -> Result<Vec<u64>, Code> {
        let told = timeout(Duration::from_secs(1), self.answers.message()).await;
        let told = told.expect("it says something");
        let told = told.map_err(|status| status.code())?.ok_or(Code::Ok)?;
        let read = told.answers.into_iter().map(|answer| {
            let number = answer.number;
            let outcome = words::read_append_answer(answer).expect("it is one");
            outcome.expect("it leads");
            number
        });
        Ok(read.collect())
    }
}

async fn end(site: &Site, partition: PartitionId) -> u64 {
    let bounds = site.head().bounds(SHARD, partition).await;
    bounds.expect("it leads").expect("it is there").end.get()
}

/// A head whose appends wait until the gate is open.
fn gated(site: &Site, gate: &watch::Sender<bool>) -> Arc<Posed> {
    let gate = gate.subscribe();
    Posed::new(&site.head(), move |step| {
        let mut gate = gate.clone();
        async move {
            if step == Step::Append {
                let _ = gate.wait_for(|open| *open).await;
            }
            None::<HeadError>
        }
        .boxed()
    })
}

#[test]
fn what_an_earlier_attempt_had_read_is_not_proposed_after_a_later_one() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let gate = watch::Sender::new(false);
        let refusals = site.serve(NODE, gated(&site, &gate)).await;
        let mut first = Stream::open(&site, 7, 1).await.expect("it is the first");
        for number in 0..5 {
            first.append(partition, number).await;
        }
        sleep(Duration::from_millis(10)).await;
        let mut second = Stream::open(&site, 7, 2).await.expect("it is later");
        assert_eq!(first.next().await, Err(Code::Aborted), "it is told so");
        gate.send_replace(true);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(end(&site, partition).await, 0, "nothing of it was proposed");
        second.append(partition, 0).await;
        assert_eq!(second.next().await, Ok(vec![0]));
        // What it still sends nobody reads.
        let _ = first.calls.try_send(AppendCall::default());
        for late in [1, 2] {
            let late = Stream::open(&site, 7, late).await.err();
            assert_eq!(late.map(|status| status.code()), Some(Code::Aborted));
        }
        assert_eq!(refusals.overtaken.load(Ordering::Relaxed), 2);
        second.append(partition, 1).await;
        assert_eq!(second.next().await, Ok(vec![1]));
        assert_eq!(end(&site, partition).await, 2);
    });
}

#[test]
fn attempts_wait_for_each_other_however_many_there_are() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let gate = watch::Sender::new(false);
        site.serve(NODE, gated(&site, &gate)).await;
        let mut streams = Vec::new();
        for attempt in 1..=20 {
            let stream = Stream::open(&site, 7, attempt).await.expect("it is later");
            stream.append(partition, 0).await;
            stream.append(partition, 1).await;
            streams.push(stream);
        }
        // Another caller's are none of its business.
        let mut other = Stream::open(&site, 8, 1).await.expect("it is the first");
        gate.send_replace(true);
        other.append(partition, 0).await;
        assert!(other.next().await.is_ok());
        let mut last = streams.pop().expect("there are twenty");
        let mut told = last.next().await.expect("it goes on");
        while told.len() < 2 {
            told.extend(last.next().await.expect("it goes on"));
        }
        assert_eq!(told, [0, 1]);
        for mut stream in streams {
            assert_eq!(stream.next().await, Err(Code::Aborted));
        }
        assert_eq!(end(&site, partition).await, 2);
    });
}

#[test]
fn a_stream_that_is_none_is_refused_and_counted() {
    run(async {
        let site = Site::start(1).await;
        let refusals = site.serve(NODE, site.head()).await;
        let mut stream = Stream::open(&site, 7, 1).await.expect("it is the first");
        let again = words::beginning(Beginning {
            session: 7,
            attempt: 2,
            seen: None,
        });
        stream.calls.send(again).await.expect("there is room");
        assert_eq!(stream.next().await, Err(Code::InvalidArgument));
        let mut stream = Stream::open(&site, 7, 2).await.expect("it is later");
        let nothing = AppendCall::default();
        stream.calls.send(nothing).await.expect("there is room");
        assert_eq!(stream.next().await, Err(Code::InvalidArgument));
        assert_eq!(refusals.malformed.load(Ordering::Relaxed), 2);
    });
}
