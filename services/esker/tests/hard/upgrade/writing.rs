//! Who writes the golden files, by the binary of a version that is to be read for ever. Run by hand:
//! `tests/golden/format-1/README.md` says how.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::append_request::Payload;
use esker_client::v1::log_client::LogClient;
use esker_client::{Client, ProducerOptions, Record, v1};
use esker_env::Env;
use tonic::transport::Channel;

use super::Records;
use super::left::{Left, Stamped, log};
use super::reading::read_live;
use crate::clients::connect;
use crate::site::Site;
use crate::turn;

/// Nothing is flushed by itself: what is in the bucket and what is not is for the writer to say.
pub(super) const SETTINGS: &str = "cluster.data_shards = 2\n\
    wal = { disk = \"384MiB\", file = \"48MiB\", head = \"4MiB\", memory = \"16MiB\" }\n\
    flush = { bytes = \"64MiB\", age = \"1h\" }\n\
    cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = 0 }\n\
    upkeep = { checkpoint = \"1s\" }\n";
/// Topics, by how what is in them is compressed.
const TOPICS: [(&str, &str); 5] = [
    ("plain", "none"),
    ("zipped", "gzip"),
    ("snapped", "snappy"),
    ("quick", "lz4"),
    ("gravel", "zstd"),
];
const PARTITIONS: u32 = 2;
/// Batches of each partition in each of the two parts, and records of each.
const BATCHES: u32 = 3;
const RECORDS: u32 = 5;
const TOKEN: u64 = 7;
/// When records say that they were made: a retry has to say the same.
const MADE_MS: i64 = 1_700_000_000_000;
/// For a bucket checkpoint of what was flushed.
const CHECKPOINTED: Duration = Duration::from_secs(15);
/// Where groups of the WAL begin.
const ALIGN: usize = 4096;
/// Bytes of a group that was never finished.
const TORN: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the golden files anew, by ESKER_BINARY"]
async fn write_what_is_left() {
    let Some(_turn) = turn().await else { return };
    let mut site = Site::new(SETTINGS, None);
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    let client = connect(&site.endpoint()).await;
    let mut left = Left {
        records: Records::new(),
        producers: Vec::new(),
        fenced: "plain".to_owned(),
        token: TOKEN,
    };
    make_topics(&client, &mut left).await;
    write_part(&client, "first").await;
    let mut service = log(&site.endpoint(), &Env::real());
    let mut producers = vec![
        producer(&mut service, "gravel", 0, 0).await,
        producer(&mut service, "gravel", 1, 0).await,
        producer(&mut service, "plain", 1, 3).await,
    ];
    for producer in &mut producers {
        append(&mut service, producer, None).await;
    }
    client.admin().flush().await.expect("a bucket");
    tokio::time::sleep(CHECKPOINTED).await;
    server.stop();

    // From here on it is in the log alone, above its checkpoint.
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    write_part(&client, "second").await;
    let truncation = v1::Truncation {
        partition: 1,
        before: Some(4),
    };
    let truncated = client
        .admin()
        .truncate_topic("quick", None, vec![truncation])
        .await;
    truncated.expect("it is there");
    // The last batch of two of them is in the head, that of the third in the bucket.
    for producer in &mut producers[1..] {
        *producer = producer.next(vec!["of the head".into(), "and its like".into()]);
        append(&mut service, producer, None).await;
    }
    left.producers = producers;
    let mut owned = Stamped::plain(&left.fenced, 0, vec!["of an owner".into()]);
    append(&mut service, &mut owned, Some(TOKEN)).await;
    left.records = read_live(&client, &left).await;
    server.kill();
    tear(&site.path("data").join("wal"));
    left.pack(&site);
}

async fn make_topics(client: &Client, left: &mut Left) {
    let admin = client.admin();
    for (name, compression) in TOPICS {
        let mut settings = BTreeMap::from([("compression".into(), compression.into())]);
        if name == "gravel" {
            settings.insert("max_batch_bytes".into(), "65536".into());
        }
        let topic = admin.create_topic(name, PARTITIONS, &settings).await;
        topic.expect("a topic");
        let of_topic = left.records.entry(name.to_owned()).or_default();
        of_topic.extend((0..PARTITIONS).map(|partition| (partition, BTreeMap::new())));
    }
    let gone = admin.create_topic("gone", 1, &BTreeMap::new()).await;
    gone.expect("a topic");
    let producer = client.producer("gone", ProducerOptions::default()).await;
    let sent = producer
        .expect("a producer")
        .send(Record::value("lost"))
        .await;
    sent.expect("taken").await.expect("acknowledged");
    admin.delete_topic("gone").await.expect("it is there");
}

/// All at once, so that few groups of the log hold it.
async fn write_part(client: &Client, part: &str) {
    let mut sent = Vec::new();
    for (name, _) in TOPICS {
        let producer = client.producer(name, ProducerOptions::default()).await;
        let producer = producer.expect("a producer");
        for at in 0..PARTITIONS * BATCHES {
            let (partition, batch) = (at % PARTITIONS, at / PARTITIONS);
            let value = |at| {
                let text = format!("{name} {partition}, {part} part, batch {batch}: stone {at}; ");
                Record::value(text.repeat(2))
            };
            let records = (0..RECORDS).map(value).collect();
            let delivery = producer.send_together(Some(partition), records).await;
            sent.push(delivery.expect("taken"));
        }
    }
    for delivery in sent {
        delivery.await.expect("acknowledged");
    }
}

/// A producer of its own, and its first batch.
async fn producer(
    log: &mut LogClient<Channel>,
    topic: &str,
    partition: u32,
    epoch: u32,
) -> Stamped {
    let request = v1::AllocateProducerRequest {};
    let given = log.allocate_producer(request).await.expect("an id");
    let given = given.into_inner();
    Stamped {
        producer: Some((given.producer_id, given.epoch + epoch, 0)),
        ..Stamped::plain(
            topic,
            partition,
            vec!["one".into(), "two".into(), "three".into()],
        )
    }
}

async fn append(log: &mut LogClient<Channel>, batch: &mut Stamped, token: Option<u64>) {
    match stamped(log, batch, &batch.last, token).await {
        Answer::Appended(done) => batch.base = done.base_offset,
        Answer::Error(error) => panic!("{batch:?}: {error:?}"),
    }
}

/// What is said to `values`, appended as `batch` says.
pub(super) async fn stamped(
    log: &mut LogClient<Channel>,
    batch: &Stamped,
    values: &[String],
    token: Option<u64>,
) -> Answer {
    let record = |value: &String| v1::Record {
        value: Some(value.clone().into()),
        timestamp_ms: Some(MADE_MS),
        ..v1::Record::default()
    };
    let records = values.iter().map(record).collect();
    let producer = batch.producer.map(|(id, epoch, sequence)| v1::Producer {
        id,
        epoch,
        sequence,
    });
    let request = v1::AppendRequest {
        request_id: 1,
        topic: batch.topic.clone(),
        partition: batch.partition,
        payload: Some(Payload::Records(v1::Records { records })),
        producer,
        fencing_token: token,
        ..v1::AppendRequest::default()
    };
    let replies = log.append(futures::stream::iter([request])).await;
    let reply = replies.expect("it listens").into_inner().message().await;
    let reply = reply.expect("a reply").expect("a reply");
    reply.result.expect("an answer")
}

/// Leaves the beginning of a group behind the last one of the log, as a loss of power does.
fn tear(wal: &Path) {
    let files = fs::read_dir(wal)
        .expect("a folder")
        .map(|entry| entry.expect("readable").path());
    let written = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).expect("it is ours");
        bytes.iter().rposition(|byte| *byte != 0)
    };
    let last = files.filter_map(|path| Some((written(&path)?, path)));
    // Their names begin with their numbers.
    let (end, path) = last.max_by_key(|(_, path)| path.clone()).expect("one");
    let mut bytes = fs::read(&path).expect("it is ours");
    let at = (end + 1).next_multiple_of(ALIGN);
    println!("torn: {} at byte {at}", path.display());
    bytes[at..at + TORN].fill(0xa5);
    fs::write(path, bytes).expect("it is ours");
}
