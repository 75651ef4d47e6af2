//! The disk fails under the real binary: the kernel says EIO to a sync or a write, once, and well to
//! all that follow. The process must end and say why; what it acknowledged before is there after
//! the next start, and nothing that was acknowledged is missing in between.
//!
//! The kernel's answers are planted by `strace`, which `ESKER_STRACE` names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use esker_client::{Client, Durability, Options, ProducerOptions, ReadOptions, Record};
use esker_env::Env;

use crate::killed::SETTINGS;
use crate::server::binary;
use crate::site::Site;
use crate::turn;

const TOPIC: &str = "gravel";
/// Time for a start under strace, and for an end after a failure.
const SOON: Duration = Duration::from_secs(60);
/// Which call of a thread fails, the first of them early, while the log is set up.
const TIMES: [u32; 3] = [3, 40, 200];
/// Appends after which a fault must have been met.
const APPENDS_MAX: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_process_and_loses_nothing() {
    for when in TIMES {
        run("fdatasync", when).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_ends_the_process_and_loses_nothing() {
    for when in TIMES {
        run("pwritev", when).await;
    }
}

async fn run(call: &str, when: u32) {
    let strace = std::env::var_os("ESKER_STRACE").map(PathBuf::from);
    let Some(strace) = strace.filter(|path| !path.as_os_str().is_empty()) else {
        println!("skipped: ESKER_STRACE does not name a strace");
        return;
    };
    let Some(_turn) = turn().await else { return };
    let mut site = Site::new(SETTINGS, None);
    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    let client = connect(&site).await;
    let (admin, settings) = (client.admin(), BTreeMap::new());
    let created = admin.create_topic(TOPIC, 1, &settings).await;
    created.expect("a topic");
    drop(client);
    tokio::task::block_in_place(|| server.stop());

    let mut failing = Command::new(strace)
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e"])
        .arg(format!("trace={call}"))
        .args(["-e", &format!("inject={call}:error=EIO:when={when}")])
        .arg(binary())
        .args(["serve", "--config"])
        .arg(site.path("esker.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let acked = append_until_it_fails(&site).await;
    let began = Instant::now();
    while failing.try_wait().expect("it is a child").is_none() {
        let waited = began.elapsed();
        if waited > SOON {
            failing.kill().ok();
        }
        assert!(
            waited < SOON,
            "{call} {when}: it lives on after a failed disk"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = failing.wait_with_output().expect("it has ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("os error 5"),
        "{call} {when}: it does not say why: {said}"
    );
    println!(
        "{call} {when}: {} acknowledged, then: {}",
        acked.len(),
        said.lines().last().unwrap_or("")
    );

    let mut server = site.spawn();
    tokio::task::block_in_place(|| server.ready());
    let client = connect(&site).await;
    let mut reader = client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .expect("open");
    let mut read = Vec::new();
    while let Some(batch) = reader.next().await.expect("a healthy log is readable") {
        read.extend(
            batch
                .records()
                .map(|record| record.value.expect("a value").to_vec()),
        );
    }
    for (offset, value) in &acked {
        let at = usize::try_from(*offset).expect("small");
        assert_eq!(
            read.get(at),
            Some(value),
            "{call} {when}: offset {offset} of {}",
            read.len()
        );
    }
    tokio::task::block_in_place(|| server.stop());
}

/// Appends one record after the other until the first error; what was acknowledged, with offsets.
async fn append_until_it_fails(site: &Site) -> Vec<(u64, Vec<u8>)> {
    let options = ProducerOptions {
        idempotent: false,
        delivery_timeout: Duration::from_secs(5),
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    };
    let mut acked = Vec::new();
    let began = Instant::now();
    // It may fail before it takes calls at all.
    let client = loop {
        let patience = Options {
            patience: Duration::from_secs(1),
            ..Options::default()
        };
        match Client::connect(&site.endpoint(), patience, &Env::real()).await {
            Ok(client) => break client,
            Err(_) if began.elapsed() < SOON / 4 => {}
            Err(_) => return acked,
        }
    };
    let Ok(producer) = client.producer(TOPIC, options).await else {
        return acked;
    };
    for number in 0..APPENDS_MAX {
        let value = format!("record {number}").into_bytes();
        let Ok(delivery) = producer.send(Record::value(value.clone())).await else {
            break;
        };
        match delivery.await {
            Ok(done) => acked.push((done.offset.get(), value)),
            Err(error) => {
                assert_ne!(error.durability(), Durability::Durable, "{error}");
                break;
            }
        }
    }
    acked
}

async fn connect(site: &Site) -> Client {
    let client = Client::connect(&site.endpoint(), Options::default(), &Env::real()).await;
    client.expect("it listens")
}
