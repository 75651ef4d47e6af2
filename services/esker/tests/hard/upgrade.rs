//! What an older version left on its disk and in its bucket is read, and goes on, in this one.
//!
//! ```text
//!   golden/format-1 ─► copied ─► this binary: all is there, nothing twice, offsets go on
//!                   └► on a simulated disk, a minute later: its producers are answered as they were
//!   ESKER_OLD_BINARY ─► writes ─► stopped, or killed ─► this binary, under the same writers
//! ```
//! The golden files are what `writing` wrote by the binary of the tag `format-1`, the last one before there
//! were clusters; how, says the file beside them.

mod left; // what stands in the golden folder, and what it is to be read as
mod writing; // who wrote it
mod reading; // all of a topic
mod remembered; // producers, within the day that they are remembered

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_checker::{Options as Judging, Session, View, check};
use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::log_client::LogClient;
use esker_client::{Client, Code, Durability, ProducerOptions, Record};
use esker_env::Env;
use esker_env::sim::SeededEntropy;
use tonic::transport::Channel;

use crate::clients::{Clients, PARTITIONS, TOPIC, connect};
use crate::cluster::esker;
use crate::killed::seed;
use crate::pen::Pen;
use crate::reader::{drain, read_all, read_bucket};
use crate::server::{OLD_SERVER, old_binary};
use crate::site::Site;
use crate::turn;
use left::{Left, Stamped};
use reading::{read_alone, read_live};
use writing::{SETTINGS, stamped};

/// How long each binary has writers.
const LIFE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn what_format_1_left_is_read_and_goes_on() {
    let Some(_turn) = turn().await else { return };
    let mut site = Site::new(SETTINGS, None);
    let mut left = Left::unpack(&site);
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    let client = connect(&site.endpoint()).await;
    assert_eq!(read_live(&client, &left).await, left.records);
    let settings = client.admin().describe_topic("gravel").await;
    assert_eq!(
        settings.expect("it is there").0.settings["max_batch_bytes"],
        "65536"
    );
    let gone = client.admin().describe_topic("gone").await;
    assert_eq!(gone.expect_err("it was deleted").code(), Code::UnknownTopic);

    let endpoint = site.endpoint();
    let mut log = left::log(&endpoint, &Env::real());
    for producer in left.producers.clone() {
        go_on(&mut log, &mut left, &producer).await;
    }
    fences_stand(&left, &endpoint).await;
    append_everywhere(&client, &mut left).await;

    drop(server.kill());
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    assert_eq!(read_live(&client, &left).await, left.records);
    client.admin().flush().await.expect("the bucket is there");
    for name in left.names() {
        drain(&client, &name).await;
    }
    assert_eq!(read_live(&client, &left).await, left.records);
    let verified = esker(&["verify", "--content", "--json", "--endpoint", &endpoint]);
    println!("esker verify --content: {}", verified.expect("all agree"));
    let errors = server.saying().errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    server.stop();
    let alone = read_alone(&site, &left).await;
    assert_eq!(alone, left.records);
}

/// In place, under writers and readers: it is stopped, or killed, and this one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_is_followed_by_this_one() {
    let Some(old) = old_binary(OLD_SERVER) else {
        println!("left out: {OLD_SERVER} does not name the binary of an older version");
        return;
    };
    for killed in [false, true] {
        follow(&old, killed).await;
    }
}

async fn follow(old: &Path, killed: bool) {
    let Some(_turn) = turn().await else { return };
    let random = Arc::new(SeededEntropy::new(seed()));
    let mut site = Site::new(crate::killed::SETTINGS, None);
    let pen = Pen::new(&site.path("history.jsonl"));
    let mut server = site.spawn_by(old);
    tokio::task::block_in_place(|| server.ready());
    let endpoints = [site.endpoint()];
    let mut clients = Clients::come(&endpoints, &random, &pen).await;
    clients.claim(&endpoints, &random, &pen).await;
    tokio::time::sleep(LIFE).await;
    let before = clients.reins.acked.load(Ordering::Relaxed);
    match killed {
        true => drop(server.kill()),
        false => _ = server.stop(),
    }
    let mut server = site.spawn();
    let took = tokio::task::block_in_place(|| server.ready());
    let told = pen.misses();
    tokio::time::sleep(LIFE).await;
    let after = clients.reins.acked.load(Ordering::Relaxed);
    println!(
        "killed: {killed}; {before} batches of the old one, {after} in all; ready in {took:?}"
    );
    assert!(before > 0 && after > before, "{before}, then {after}");
    let client = connect(&endpoints[0]).await;
    let unresolved = clients.settle(&client).await;
    assert!(unresolved.is_empty(), "{unresolved:?}");
    // The old one leaves what has no id in doubt, whichever way it ends: its version promised no more. This one
    // neither refuses anything nor leaves it in doubt.
    let since = pen.misses();
    assert_eq!(since, told, "what appends were told instead of an offset");
    let (live, bucket) = (View::new("client", "live"), View::new("direct", "bucket"));
    let records = read_all(&client, TOPIC, PARTITIONS, Session(300), &pen, &live).await;
    drain(&client, TOPIC).await;
    let endpoint = &endpoints[0];
    let verified = esker(&["verify", "--content", "--json", "--endpoint", endpoint]);
    println!("esker verify --content: {}", verified.expect("all agree"));
    let errors = server.saying().errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    server.stop();
    let (url, options) = (site.url(), site.store_options());
    let alone = read_bucket(&url, &options, TOPIC, Session(302), &pen, &bucket).await;
    assert_eq!(alone, records);
    let judging = Judging {
        final_views: vec![live, bucket],
        retention: false,
    };
    let report = check(&pen.history(), &judging);
    println!("{report}");
    assert!(report.is_clean());
}

/// Producers are remembered for a day, which has passed since `producer` wrote: what it sends again is taken as new, if
/// that is its first batch, and goes on from there; of any later one nobody knows whether it was written, and that is
/// what it is told. (What they are told within the day, [`remembered`] says.)
async fn go_on(log: &mut LogClient<Channel>, left: &mut Left, producer: &Stamped) {
    let (_, _, sequence) = producer.producer.expect("it is one");
    if sequence > 0 {
        let Answer::Error(error) = stamped(log, producer, &producer.last, None).await else {
            panic!("{producer:?}");
        };
        assert_eq!(error.code(), Code::DuplicateExpired, "{error:?}");
        let durability = Durability::from(error.durability());
        assert_eq!(durability, Durability::Unknown, "{error:?}");
        return;
    }
    let next = producer.next(vec!["goes on".into()]);
    for sent in [producer, &next] {
        for duplicate in [false, true] {
            let Answer::Appended(done) = stamped(log, sent, &sent.last, None).await else {
                panic!("{sent:?}");
            };
            if !duplicate {
                let end = left.end(&sent.topic, sent.partition);
                assert_eq!(done.base_offset, end, "{sent:?}");
                for value in &sent.last {
                    left.add(&sent.topic, sent.partition, value);
                }
            }
            assert_eq!(done.duplicate, duplicate, "{sent:?}");
            let end = left.end(&sent.topic, sent.partition);
            assert_eq!(done.end, end, "{sent:?}");
        }
    }
}

/// A token that was the highest still is.
async fn fences_stand(left: &Left, endpoint: &str) {
    let mut log = left::log(endpoint, &Env::real());
    let fenced = Stamped::plain(&left.fenced, 0, vec!["an old owner".into()]);
    let answer = stamped(&mut log, &fenced, &fenced.last, Some(left.token - 1)).await;
    let Answer::Error(error) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(error.code(), Code::Fenced, "{error:?}");
    let durability = Durability::from(error.durability());
    assert_eq!(durability, Durability::NotWritten, "{error:?}");
}

async fn append_everywhere(client: &Client, left: &mut Left) {
    for name in left.names() {
        let producer = client.producer(&name, ProducerOptions::default()).await;
        let producer = producer.expect("a producer");
        for partition in left.partitions(&name) {
            let value = format!("new, of {name} {partition}");
            let sent = vec![Record::value(value.clone())];
            let sent = producer.send_together(Some(partition), sent).await;
            let acked = sent.expect("taken").await.expect("acknowledged");
            let end = left.end(&name, partition);
            assert_eq!(acked.offsets.start().get(), end, "{name} {partition}");
            left.add(&name, partition, &value);
        }
    }
}

/// Records by offset, by partition, by topic.
type Records = BTreeMap<String, BTreeMap<u32, BTreeMap<u64, String>>>;
