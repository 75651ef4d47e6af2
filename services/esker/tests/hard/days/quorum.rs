//! The quorum is lost: two nodes of three are killed, and stay away. Nobody is acknowledged anything, and
//! everybody is told so; what was flushed is read out of the bucket all the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use esker_checker::{
    Append, Call, Mode, Offset, Outcome, Producer, Reply, Sequence, Session, Stream, ValueHash,
    Values, View,
};
use esker_client::direct::Direct;
use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::append_request::Payload;
use esker_client::v1::log_client::LogClient;
use esker_client::{
    Client, Code, Durability, Error, From, Options, ProducerOptions, ReadOptions, Reader, Record,
    Until, v1,
};
use esker_env::Env;
use esker_proto::{transport, tuning};
use tonic::transport::Channel;

use super::replaced::within;
use super::{Days, share};
use crate::clients::{PARTITIONS, SOON, TOPIC, connect};
use crate::cluster::DATA_SHARDS;
use crate::pen::{Pen, seen};
use crate::probe::Probes;
use crate::turn;

/// Quorums lost in a whole run.
const LOSSES: u32 = 50;
/// How long a client goes on trying that is to be told.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it takes at most until it is.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// Records that are flushed of each partition before a quorum is lost.
const FLUSHED: u64 = 50;
/// Sessions and producers of who is told; those of who reads out of the bucket.
const TOLD: u64 = 1000;
const READS: u64 = 900;
/// A reader reads ahead as little as may be.
const AHEAD_BYTES: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_acknowledged_and_what_was_flushed_is_read() {
    let Some(_turn) = turn().await else { return };
    let losses = share(LOSSES);
    let mut days = Days::begin(&format!("{losses} times the quorum lost"), 2).await;
    let patient = connect(&days.cluster.endpoints()[0]).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let mut codes = BTreeMap::<_, u32>::new();
    for loss in 0..losses {
        days.well().await;
        let mut readers = Vec::new();
        let endpoint = &days.cluster.endpoints()[0];
        let hasty = hasty(endpoint).await;
        let flushed = flushed(&patient).await;
        for partition in 0..PARTITIONS {
            readers.push(Position::take(&hasty, partition).await);
        }
        let number = TOLD + u64::from(loss * PARTITIONS * 2);
        let at_once = senders((&hasty, endpoint), number, &days.pen).await;
        let later = senders(
            (&hasty, endpoint),
            number + u64::from(PARTITIONS),
            &days.pen,
        )
        .await;
        let left = usize::try_from(days.below(3)).expect("three");
        let lost: Vec<_> = (0..3).filter(|node| *node != left).collect();
        tokio::task::block_in_place(|| days.cluster.kill(&lost, &[]));

        let began = Instant::now();
        for error in told(&at_once, Sender::sends).await {
            *codes
                .entry(format!("at once: {}", kind(&error)))
                .or_default() += 1;
        }
        // What a quorum had taken before is acknowledged by now.
        let before = days.pen.tally().batches;
        for error in told(&later, Sender::asks).await {
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            assert_eq!(error.durability(), Durability::NotWritten, "{error}");
            assert!(error.is_retriable(), "{error}");
            *codes.entry(format!("later: {}", kind(&error))).or_default() += 1;
        }
        println!("all are told within {:?}", began.elapsed());
        let read = read_bucket(&days, Session(READS + u64::from(loss)), &flushed).await;
        let mut on = 0;
        for reader in &mut readers {
            on += reader.go_on().await;
        }
        println!("{read} records out of the bucket; {on} by readers that had begun before");
        assert_eq!(days.pen.tally().batches, before, "nobody may acknowledge");
        days.cluster.all_live();

        for node in lost {
            days.cluster.start_node(node);
        }
        days.well().await;
        for reader in readers {
            reader.ends(&patient).await;
        }
        let acked = probes.all_acked_since(Instant::now()).await;
        println!("every shard takes appends after {acked:?}");
    }
    probes.end().await;
    println!("{losses} times the quorum lost; who appended was told {codes:#?}");
    days.finish().await;
}

/// A client that soon gives up.
async fn hasty(endpoint: &str) -> Client {
    let options = Options {
        patience: PATIENCE,
        ..Options::default()
    };
    let client = Client::connect(endpoint, options, &Env::real()).await;
    client.expect("the agent is ready")
}

fn kind(error: &Error) -> String {
    format!("{:?}, {}", error.code(), error.durability())
}

/// Waits until something of every partition is in the bucket. Where that ends.
async fn flushed(client: &Client) -> BTreeMap<u32, u64> {
    let mut ends = BTreeMap::new();
    within(SOON, "a little is flushed", async || {
        let (_, partitions) = client.admin().describe_topic(TOPIC).await.expect("a topic");
        ends = partitions
            .iter()
            .map(|of| (of.partition, of.tiered_end))
            .collect();
        ends.values().all(|end| *end >= FLUSHED)
    })
    .await;
    ends
}

/// Who appends one batch to a partition.
struct Sender {
    producer: esker_client::Producer,
    log: LogClient<Channel>,
    number: u64,
    partition: u32,
    pen: Pen,
}

/// One for each partition, which knows whom to call.
async fn senders((client, endpoint): (&Client, &str), first: u64, pen: &Pen) -> Vec<Sender> {
    let endpoint = tuning::endpoint(endpoint).expect("an address");
    let log = LogClient::new(transport::channel(Env::real().network, &endpoint));
    let mut senders = Vec::new();
    for partition in 0..PARTITIONS {
        let options = ProducerOptions {
            linger: Duration::ZERO,
            delivery_timeout: PATIENCE,
            ..ProducerOptions::default()
        };
        let producer = client.producer(TOPIC, options).await;
        senders.push(Sender {
            producer: producer.expect("a producer"),
            log: log.clone(),
            number: first + u64::from(partition),
            partition,
            pen: pen.clone(),
        });
    }
    senders
}

/// What each is told: nothing is acknowledged, and nobody is left without a word.
async fn told(
    senders: &[Sender],
    way: impl AsyncFn(&Sender, Vec<u8>) -> Option<Error>,
) -> Vec<Error> {
    let told = senders.iter().map(|sender| sender.told(&way));
    let told = tokio::time::timeout(TOLD_WITHIN, futures::future::join_all(told)).await;
    told.unwrap_or_else(|_| panic!("not told within {TOLD_WITHIN:?}"))
}

impl Sender {
    /// Appends on one of the ways below, and notes what came of it.
    async fn told(&self, way: impl AsyncFn(&Self, Vec<u8>) -> Option<Error>) -> Error {
        let mut values = Values::new(Stream(self.partition.into()), Producer(self.number));
        let value = values.next(100);
        let append = Append {
            producer: Producer(self.number),
            sequence: Sequence(0),
            values: vec![ValueHash::of(&value)],
            expect: None,
            token: None,
            plain: false,
        };
        let session = Session(self.number);
        let op = self.pen.append(session, self.partition, append);
        let error = way(self, value).await;
        let error = error.expect("nobody acknowledges without a quorum");
        let is_clean = matches!(error.code(), Code::Unavailable | Code::OutcomeUnknown);
        assert!(is_clean, "{error}");
        assert_ne!(error.durability(), Durability::Durable, "{error}");
        self.pen.appended(session, op, Err(&error));
        error
    }

    /// Tries until its patience ends.
    async fn sends(&self, value: Vec<u8>) -> Option<Error> {
        let records = vec![Record::value(value)];
        let sent = self.producer.send_together(Some(self.partition), records);
        match sent.await {
            Ok(delivery) => delivery.await.err(),
            Err(error) => Some(error),
        }
    }

    /// One try, whose answer is the agent's.
    async fn asks(&self, value: Vec<u8>) -> Option<Error> {
        let record = v1::Record {
            value: Some(value.into()),
            ..v1::Record::default()
        };
        let records = vec![record];
        let request = v1::AppendRequest {
            request_id: 1,
            topic: TOPIC.to_owned(),
            partition: self.partition,
            payload: Some(Payload::Records(v1::Records { records })),
            ..v1::AppendRequest::default()
        };
        let mut log = self.log.clone();
        let told = async {
            let replies = log.append(futures::stream::iter([request])).await;
            replies?.into_inner().message().await
        };
        match told.await {
            Ok(reply) => match reply.expect("an answer").result.expect("an answer") {
                Answer::Appended(_) => None,
                Answer::Error(error) => Some(error.into()),
            },
            Err(status) => Some(status.into()),
        }
    }
}

/// Reads everything out of the bucket, while nobody leads. All that was flushed is there, and is what was
/// acknowledged. How many records that are.
async fn read_bucket(days: &Days, session: Session, flushed: &BTreeMap<u32, u64>) -> u64 {
    let (url, options) = (days.cluster.url(), days.cluster.store_options());
    let direct = Direct::open(&url, &options, &Env::real()).await;
    let direct = direct.expect("a bucket that can be read");
    let view = View::new("direct", "bucket in need");
    let mut count = 0;
    for partition in 0..PARTITIONS {
        let op = days.pen.read(session, partition, 0, Mode::Stale, &view);
        let reader = direct.read(TOPIC, partition, From::Earliest, Until::End);
        let mut reader = reader.await.expect("open");
        let mut records = Vec::new();
        while let Some(batch) = reader.next().await.expect("a whole bucket is readable") {
            records.extend(seen(&batch));
        }
        let end = reader.end_offset().get();
        days.pen.was_read(op, records.clone(), None);
        assert!(
            end >= flushed[&partition],
            "{partition}: {end} of {flushed:?}"
        );
        assert!(
            records.iter().map(|(offset, _)| offset.0).eq(0..end),
            "{partition}"
        );
        let acked = acked(&days.pen, partition);
        for (offset, value) in &records {
            // What is in doubt may be there, too.
            let told = acked.get(&offset.0);
            assert!(
                told.is_none_or(|told| told == value),
                "{partition}: {offset:?}"
            );
        }
        let known = acked.range(..end).count();
        assert!(known > 0, "{partition}: {known} of {end}");
        count += end;
    }
    count
}

/// Values of a partition that were acknowledged, by offset.
fn acked(pen: &Pen, partition: u32) -> BTreeMap<u64, ValueHash> {
    let mut acked = BTreeMap::new();
    for op in pen.history().ops() {
        if let (Call::Append(append), Outcome::Ok(Reply::Append { base, .. })) =
            (&op.call, &op.outcome)
            && op.stream == Stream(partition.into())
        {
            let Offset(base) = *base;
            acked.extend((base..).zip(append.values.iter().copied()));
        }
    }
    acked
}

/// A reader in the midst of what was flushed.
struct Position {
    reader: Reader,
    partition: u32,
    next: u64,
}

impl Position {
    /// Begins to read.
    async fn take(client: &Client, partition: u32) -> Self {
        let options = ReadOptions {
            read_ahead_bytes: AHEAD_BYTES,
            ..ReadOptions::default()
        };
        let reader = client.read(TOPIC, partition, options).await;
        let mut reader = reader.expect("open");
        let first = reader.next().await.expect("readable").expect("a batch");
        assert_eq!(first.range().start().get(), 0);
        Self {
            next: first.range().end().get(),
            reader,
            partition,
        }
    }

    /// Reads on as far as it comes: neither back nor over anything, and if it does not come to the end it
    /// says why. How many records.
    async fn go_on(&mut self) -> u64 {
        let from = self.next;
        loop {
            let next = tokio::time::timeout(TOLD_WITHIN, self.reader.next()).await;
            match next.expect("it goes on, or is told") {
                Ok(Some(batch)) => {
                    assert_eq!(batch.range().start().get(), self.next, "{}", self.partition);
                    self.next = batch.range().end().get();
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.code(), Code::Unavailable, "{error}");
                    println!(
                        "partition {}, read to {}: {error}",
                        self.partition, self.next
                    );
                    break;
                }
            }
        }
        self.next - from
    }

    /// All is well: who begins where it stood finds what comes next.
    async fn ends(self, client: &Client) {
        let options = ReadOptions {
            from: From::Offset(esker_client::Offset::new(self.next).expect("small")),
            ..ReadOptions::default()
        };
        let reader = client.read(TOPIC, self.partition, options).await;
        let batch = reader.expect("open").next().await.expect("readable");
        if let Some(batch) = batch {
            assert_eq!(batch.range().start().get(), self.next);
        }
    }
}
