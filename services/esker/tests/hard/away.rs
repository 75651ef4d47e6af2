//! The bucket is away: appends go on as far as the head's share, then a clear error; when it is
//! back everything drains, and nothing was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_checker::{Options as Judging, Session, View, check};
use esker_client::{Client, Code, Durability, ProducerOptions, Record, v1};
use esker_env::sim::SeededEntropy;
use esker_object::minio::Minio;

use crate::clients::connect;
use crate::pen::Pen;
use crate::reader::{drain, follow, read_all, read_bucket};
use crate::site::Site;
use crate::turn;
use crate::writer::{Load, Reins, Writer};

const TOPIC: &str = "gravel";
const PARTITIONS: u32 = 2;
/// What the head may hold.
const HEAD_BYTES: u64 = 4 << 20;
/// Memory that the settings below give away by name: 16 MiB of head, 64 MiB of cache.
const NAMED_BYTES: u64 = (16 + 64) << 20;
/// What a process takes beside: its code, its threads, opened segments, flushes and calls in flight.
const UNNAMED_BYTES: u64 = 64 << 20;
const SETTINGS: &str = "cluster.data_shards = 1\n\
    wal = { disk = \"384MiB\", file = \"48MiB\", head = \"4MiB\", memory = \"16MiB\" }\n\
    flush = { bytes = \"256KiB\", age = \"100ms\" }\n\
    cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n";
/// Time for anything that must happen once everything is well; a circuit that opened stays open
/// for a while.
const SOON: Duration = Duration::from_secs(60);
/// How long the bucket is away once the head is full.
const AWAY: Duration = Duration::from_secs(3);

/// How a bucket goes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Away {
    /// SIGSTOP: connections are taken, nothing is answered.
    Frozen,
    /// SIGKILL: connections are refused.
    Killed,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_bucket_fills_the_head_and_no_more() {
    run(Away::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bucket_fills_the_head_and_no_more() {
    run(Away::Killed).await;
}

async fn run(away: Away) {
    let Some(binary) = Minio::binary() else {
        println!("skipped: ESKER_MINIO does not name a MinIO binary; .ci/minio makes one");
        return;
    };
    let Some(_turn) = turn().await else { return };
    let mut site = Site::new(SETTINGS, Some(&binary));
    let pen = Pen::new(&site.path("history.jsonl"));
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    let endpoint = site.endpoint();
    let client = connect(&endpoint).await;
    let (admin, settings) = (client.admin(), BTreeMap::new());
    let topic = admin.create_topic(TOPIC, PARTITIONS, &settings).await;
    topic.expect("a topic");
    let reins = Arc::<Reins>::default();
    let mut writers = Vec::new();
    for writer in writers_of(&pen) {
        let (client, reins) = (connect(&endpoint).await, Arc::clone(&reins));
        writers.push(tokio::spawn(writer.run(client, TOPIC, reins)));
    }
    let (mut followers, mut come) = (Vec::new(), Vec::new());
    for partition in 0..PARTITIONS {
        let (client, pen, at) = (connect(&endpoint).await, pen.clone(), Arc::default());
        let session = Session(100 + u64::from(partition));
        come.push(Arc::clone(&at));
        followers.push(tokio::spawn(follow(
            client, TOPIC, partition, session, pen, at,
        )));
    }
    until("it flushes", async || shard(&client).await.segments > 3).await;

    // A slow start may have filled the head; appends can go on only into room.
    until("the head has room", async || {
        let shard = shard(&client).await;
        shard.head_bytes * 2 < shard.head_bytes_max
    })
    .await;
    let acked_before = reins.acked.load(Ordering::Relaxed);
    let minio = site.minio.as_mut().expect("it has one");
    match away {
        Away::Frozen => minio.freeze().expect("it freezes"),
        Away::Killed => minio.kill(),
    }
    until("the head fills", async || {
        let shard = shard(&client).await;
        shard.head_bytes * 10 >= shard.head_bytes_max * 9
    })
    .await;
    // The last appends that fit have been answered by now, and those that did not.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let acked_full = reins.acked.load(Ordering::Relaxed);
    let error = refused(&client, &pen).await;
    println!("{away:?}: {error}");
    tokio::time::sleep(AWAY).await;
    let full = shard(&client).await;
    assert_eq!(full.head_bytes_max, HEAD_BYTES);
    assert!(full.head_bytes <= HEAD_BYTES, "{} bytes", full.head_bytes);
    // What a frozen server is asked hangs until its deadline.
    let said = away == Away::Frozen || !full.flush_error.is_empty();
    assert!(said, "the status says why nothing is flushed");
    assert!(acked_full > acked_before, "appends go on without a bucket");
    let acked_late = reins.acked.load(Ordering::Relaxed);
    println!(
        "{away:?}: head {} of {HEAD_BYTES} bytes, {} batches acknowledged without a bucket, {} of \
         them after it was nearly full; {}",
        full.head_bytes,
        acked_late - acked_before,
        acked_late - acked_full,
        full.flush_error,
    );
    let ends = client.offsets(TOPIC, &[], None).await.expect("offsets");
    until("the tail is read without a bucket", async || {
        let mut each = come.iter().zip(&ends);
        each.all(|(come, end)| come.load(Ordering::Relaxed) >= end.end)
    })
    .await;

    let rss_full = server.rss_max();
    server.kill();
    let mut server = site.spawn();
    let took = tokio::task::block_in_place(|| server.ready());
    println!("{away:?}: killed, and ready again without a bucket in {took:?}");
    let again = client.offsets(TOPIC, &[], None).await.expect("offsets");
    for (before, after) in ends.iter().zip(again) {
        assert!(before.end <= after.end, "nothing is forgotten");
    }
    assert!(shard(&client).await.head_bytes <= HEAD_BYTES);

    let minio = site.minio.as_mut().expect("it has one");
    match away {
        Away::Frozen => minio.thaw().expect("it is there"),
        Away::Killed => minio.restart().expect("it comes back"),
    }
    until("appends go on", async || {
        reins.acked.load(Ordering::Relaxed) > acked_late + 20
    })
    .await;
    reins.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let written = writer.await.expect("a writer");
        assert!(written.errors.is_empty(), "{:?}", written.errors);
    }
    drain(&client, TOPIC).await;
    for follower in followers {
        assert!(!follower.is_finished(), "who tails goes on");
        follower.abort();
        assert!(follower.await.expect_err("it never ends").is_cancelled());
    }
    let live = View::new("client", "live");
    let records = read_all(&client, TOPIC, PARTITIONS, Session(300), &pen, &live).await;
    let rss = server.rss_max().max(rss_full);
    println!(
        "{away:?}: {records} records, {} MiB of memory at most",
        rss >> 20
    );
    assert!(rss <= NAMED_BYTES + UNNAMED_BYTES, "{rss} bytes of memory");
    let errors = server.saying().errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    server.kill();
    let (url, options) = (site.url(), site.store_options());
    let bucket = View::new("direct", "bucket");
    let alone = read_bucket(&url, &options, TOPIC, Session(302), &pen, &bucket).await;
    assert_eq!(alone, records);
    let options = Judging {
        final_views: vec![live, bucket],
        retention: false,
    };
    let report = check(&pen.history(), &options);
    println!("{report}");
    assert!(report.is_clean());
}

fn writers_of(pen: &Pen) -> impl Iterator<Item = Writer> {
    let random = Arc::new(SeededEntropy::new(1));
    (0..u64::from(PARTITIONS) * 2).map(move |number| Writer {
        number,
        partition: u32::try_from(number).expect("a few") % PARTITIONS,
        options: ProducerOptions {
            linger: Duration::ZERO,
            delivery_timeout: 3 * SOON,
            ..ProducerOptions::default()
        },
        load: Load {
            window: 6,
            records: 12,
            bytes: 2000,
            pause: 20,
        },
        random: Arc::clone(&random),
        pen: pen.clone(),
    })
}

/// What a producer of little patience is told when the head is full: nothing is written, what is
/// full, how much it may hold, and that later is better.
async fn refused(client: &Client, pen: &Pen) -> esker_client::Error {
    let options = ProducerOptions {
        linger: Duration::ZERO,
        delivery_timeout: Duration::from_secs(2),
        ..ProducerOptions::default()
    };
    let producer = client.producer(TOPIC, options).await.expect("a producer");
    let stream = esker_checker::Stream(0);
    let mut values = esker_checker::Values::new(stream, esker_checker::Producer(50));
    for sequence in 0..1000 {
        // More than what is left below the head's share.
        let value = values.next(100_000);
        let op = pen.append(
            Session(50),
            0,
            esker_checker::Append {
                producer: esker_checker::Producer(50),
                sequence: esker_checker::Sequence(sequence),
                values: vec![esker_checker::ValueHash::of(&value)],
                expect: None,
                token: None,
                plain: false,
            },
        );
        let sent = producer.send_together(Some(0), vec![Record::value(value)]);
        match sent.await.expect("it is taken").await {
            Ok(acked) => {
                let offsets = acked.offsets;
                pen.appended(Session(50), op, Ok((offsets.start().get(), offsets.len())));
            }
            Err(error) => {
                pen.appended(Session(50), op, Err(&error));
                assert_eq!(error.durability(), Durability::NotWritten, "{error}");
                assert_eq!(error.code(), Code::HeadFull, "{error}");
                assert!(error.is_retriable(), "{error}");
                let named = error.message().contains(&HEAD_BYTES.to_string());
                assert!(named, "it names the budget: {error}");
                return error;
            }
        }
    }
    unreachable!("a full head takes no more");
}

async fn shard(client: &Client) -> v1::ShardStatus {
    let status = client.admin().cluster_status().await.expect("status");
    let mut shards = status.shards.into_iter();
    shards
        .find(|shard| shard.shard == 1)
        .expect("the data shard")
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, waited).await;
    assert!(waited.is_ok(), "not within {SOON:?}: {what}");
}
