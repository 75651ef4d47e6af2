//! A great deal goes through: in by `produce`, out by `consume`, the same; then flushed, the cache
//! dropped, and out again of the bucket alone. The log on disk stays small all the while, and a
//! restart has no more to do after ten times the history.
//!
//! `ESKER_VOLUME` says how much, `ESKER_SAMPLE_DIR` names a folder of text logs that go along:
//!
//! ```sh
//! ESKER_VOLUME=1GiB ESKER_BINARY=$PWD/target/release/esker \
//!     cargo test -p esker --test hard volume -- --nocapture
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use esker_object::minio::Minio;
use serde_json::Value;

use crate::server::{Server, binary};
use crate::site::Site;
use crate::turn;

/// A tenth goes here, before the rest.
const FIRST: &str = "first";
const TOPIC: &str = "gravel";
/// Each file of the samples goes into a partition of its own here.
const SAMPLES: &str = "samples";
const PARTITIONS: u32 = 4;
const MIB: u64 = 1 << 20;
/// How much, unless `ESKER_VOLUME` says otherwise.
const VOLUME: &str = "24MiB";
const WAL_FILE: u64 = 48 * MIB;
/// The stated bound of the log on disk.
const WAL_BYTES_MAX: u64 = 512 * MIB;
/// Files that an idle log keeps, once what was flushed is checkpointed and released.
const WAL_FILES_IDLE: u64 = 3;
/// What a restart of an idle server reads at most, whatever came before.
const RESTART_BYTES_MAX: u64 = WAL_FILES_IDLE * WAL_FILE + 8 * MIB;
/// Time for a checkpoint and the release after it.
const RELEASE_WITHIN: Duration = Duration::from_secs(60);
const SETTINGS: &str = "cluster.data_shards = 4\n\
    wal = { disk = \"512MiB\", file = \"48MiB\", head = \"128MiB\", memory = \"64MiB\" }\n\
    flush = { bytes = \"16MiB\", age = \"5s\" }\n\
    cache = { memory = \"64MiB\", backfill_memory = \"32MiB\", disk = \"2GiB\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_takes_a_great_deal_and_gives_it_back() {
    let Some(_turn) = turn().await else { return };
    tokio::task::block_in_place(|| run(Site::new(SETTINGS, None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minio_takes_a_great_deal_and_gives_it_back() {
    let Some(minio) = Minio::binary() else {
        println!("skipped: ESKER_MINIO does not name a MinIO binary; .ci/minio makes one");
        return;
    };
    let Some(_turn) = turn().await else { return };
    tokio::task::block_in_place(|| run(Site::new(SETTINGS, Some(&minio))));
}

fn run(mut site: Site) {
    let volume = std::env::var("ESKER_VOLUME").unwrap_or_else(|_| VOLUME.to_owned());
    let (few, many) = (site.path("few"), site.path("many"));
    let bytes = make_lines(&many, &volume, 7);
    let tenth = make_lines(&few, &(bytes / 10).to_string(), 8);
    let samples = Samples::find();
    let mut server = site.spawn();
    server.ready();
    create(&site, FIRST, PARTITIONS);
    create(&site, TOPIC, PARTITIONS);
    if let Some(samples) = &samples {
        create(&site, SAMPLES, samples.count());
    }

    let first = produce(&site, FIRST, &few, tenth);
    let (restarted, after_a_tenth) = restart(&mut site, server);
    server = restarted;
    let written = produce(&site, TOPIC, &many, bytes);
    if let Some(samples) = &samples {
        samples.produce(&site);
    }
    read_back(
        &site,
        "consume, head and bucket",
        &written,
        samples.as_ref(),
    );

    let (restarted, after_all) = restart(&mut site, server);
    server = restarted;
    println!("restart: {after_a_tenth:?} after a tenth, {after_all:?} after all");
    for restart in [&after_a_tenth, &after_all] {
        assert!(restart.bytes <= RESTART_BYTES_MAX, "{restart:?}");
    }
    // No cache, and nothing held in the log: only the bucket can have it.
    let stored = stored_bytes(&site);
    let before = server.figure("esker_bucket_read_bytes_total");
    read_back(&site, "consume, bucket alone", &written, samples.as_ref());
    let tenth = esker_to(&["consume", FIRST, "--json"], &site, &site.path("out"));
    assert_eq!(tally(&tenth), first);
    let served = server.figure("esker_bucket_read_bytes_total") - before;
    assert!(
        served >= stored / 10 * 9,
        "{served} bytes served, {stored} are there"
    );
    println!(
        "the bucket served {served} bytes of {stored} that are there; peak memory {} MiB",
        server.rss_max() / MIB
    );
    server.stop();
}

/// What a restart had to do.
#[derive(Debug)]
struct Restart {
    bytes: u64,
    #[expect(dead_code, reason = "told to whoever runs it")]
    frames: u64,
}

/// Flushes, stops, looks into what is left on disk, drops the cache, starts again.
fn restart(site: &mut Site, server: Server) -> (Server, Restart) {
    esker(&["cluster", "flush"], site);
    all_tiered(site, FIRST);
    all_tiered(site, TOPIC);
    let began = Instant::now();
    while server.figure("esker_wal_files") > WAL_FILES_IDLE {
        let files = server.figure("esker_wal_files");
        assert!(
            began.elapsed() < RELEASE_WITHIN,
            "{files} files of the log are not released"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    server.stop();
    let data = site.path("data");
    let held: Value = json(&esker(&["inspect", "wal", text(&data), "--json"], site));
    assert_eq!(held["payload_frames_held"], 0, "{held}");
    let files = fs::read_dir(data.join("wal")).expect("it is there");
    let sizes = files.map(|file| file.expect("listed").metadata().expect("it is there").len());
    let disk: u64 = sizes.sum();
    assert!(disk <= WAL_BYTES_MAX, "{disk} bytes in the log's folder");
    site.drop_cache();
    let mut server = site.spawn();
    let took = server.ready();
    println!(
        "ready after {took:?}; {} MiB in the log's folder",
        disk / MIB
    );
    let restart = Restart {
        bytes: server.figure("esker_start_read_bytes"),
        frames: server.figure("esker_start_frames"),
    };
    (server, restart)
}

/// Everything, and all of it as it was written.
fn read_back(site: &Site, how: &str, written: &Value, samples: Option<&Samples>) {
    let out = site.path("out");
    let began = Instant::now();
    let told = esker_to(&["consume", TOPIC, "--json"], site, &out);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(&tally(&told), written, "{how}");
    let bytes = fs::metadata(&out).expect("it was written").len();
    assert_eq!(bytes, sum(written, "bytes") + sum(written, "records"));
    say(how, bytes, seconds);
    if let Some(samples) = samples {
        samples.compare(site, how);
    }
}

/// What went through, as a command tells it: records, bytes and a hash for each partition.
fn tally(told: &[u8]) -> Value {
    let told: Value = json(told);
    told["partitions"].clone()
}

fn sum(tally: &Value, of: &str) -> u64 {
    let partitions = tally.as_array().expect("a list").iter();
    let figures = partitions.map(|partition| partition[of].as_u64().expect("a number"));
    figures.sum()
}

/// Text logs that the machine has.
struct Samples(Vec<PathBuf>);

impl Samples {
    fn find() -> Option<Self> {
        let folder = std::env::var_os("ESKER_SAMPLE_DIR").filter(|path| !path.is_empty())?;
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::from(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of samples") {
                let path = entry.expect("listed").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "log") {
                    files.push(path);
                }
            }
        }
        files.sort();
        assert!(
            !files.is_empty(),
            "ESKER_SAMPLE_DIR has no file that ends in .log"
        );
        Some(Self(files))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a few")
    }

    fn produce(&self, site: &Site) {
        for (partition, path) in self.0.iter().enumerate() {
            let partition = partition.to_string();
            esker(
                &["produce", SAMPLES, "--partition", &partition, text(path)],
                site,
            );
        }
    }

    /// What comes out of each partition is its file, byte for byte.
    fn compare(&self, site: &Site, how: &str) {
        let mut bytes = 0;
        for (partition, path) in self.0.iter().enumerate() {
            let partition = partition.to_string();
            let out = esker(&["consume", SAMPLES, "--partition", &partition], site);
            let mut file = fs::read(path).expect("a sample");
            if file.last().is_some_and(|last| *last != b'\n') {
                file.push(b'\n');
            }
            assert!(out == file, "{how}: {} comes out otherwise", path.display());
            bytes += file.len();
        }
        println!(
            "{how}: {} samples, {bytes} bytes, as they were",
            self.0.len()
        );
    }
}

/// Writes made-up lines; how many bytes they are.
fn make_lines(path: &Path, volume: &str, seed: u64) -> u64 {
    let seed = seed.to_string();
    let lines = Command::new(binary())
        .args(["bench", "lines", "--bytes", volume, "--seed", &seed])
        .stdout(File::create(path).expect("a file"))
        .status();
    assert!(lines.expect("the binary starts").success());
    fs::metadata(path).expect("it was written").len()
}

fn create(site: &Site, topic: &str, partitions: u32) {
    let partitions = partitions.to_string();
    esker(
        &["topic", "create", topic, "--partitions", &partitions],
        site,
    );
}

fn produce(site: &Site, topic: &str, path: &Path, bytes: u64) -> Value {
    let began = Instant::now();
    let told = tally(&esker(&["produce", topic, text(path), "--json"], site));
    say("produce", bytes, began.elapsed().as_secs_f64());
    let newlines = sum(&told, "records");
    assert_eq!(
        sum(&told, "bytes") + newlines,
        bytes,
        "nothing left out, nothing twice"
    );
    told
}

fn all_tiered(site: &Site, topic: &str) {
    let told: Value = json(&esker(&["topic", "describe", topic, "--json"], site));
    for partition in told["partition_status"].as_array().expect("a list") {
        assert_eq!(
            partition["tiered_end"], partition["end"],
            "{topic}: {partition}"
        );
    }
}

/// Bytes of segments that the log names.
fn stored_bytes(site: &Site) -> u64 {
    let told: Value = json(&esker(&["cluster", "status", "--json"], site));
    let shards = told["shards"].as_array().expect("a list").iter();
    shards
        .map(|shard| shard["segment_bytes"].as_u64().expect("a number"))
        .sum()
}

/// What `esker ARGS` writes to stdout.
fn esker(args: &[&str], site: &Site) -> Vec<u8> {
    let output = command(args, site)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let output = output.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    output.stdout
}

/// `esker ARGS`, stdout to a file; what it writes to stderr.
fn esker_to(args: &[&str], site: &Site, out: &Path) -> Vec<u8> {
    let out = File::create(out).expect("a file");
    let output = command(args, site)
        .stdout(out)
        .spawn()
        .expect("the binary starts");
    let output = output.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    output.stderr
}

fn command(args: &[&str], site: &Site) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("ESKER_ENDPOINT", site.endpoint())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn say(what: &str, bytes: u64, seconds: f64) {
    let mib = bytes as f64 / MIB as f64;
    println!(
        "{what}: {mib:.0} MiB of lines in {seconds:.1} s, {:.0} MiB/s",
        mib / seconds
    );
}
