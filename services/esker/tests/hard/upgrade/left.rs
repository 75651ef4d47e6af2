//! What stands in the golden folder: a data directory and a bucket, their files without the zeros at the
//! ends of pages, and what they are to be read as.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_client::v1::log_client::LogClient;
use esker_env::Env;
use esker_proto::{transport, tuning};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::Records;
use crate::site::Site;

/// Where the files of a log have most of their zeros.
const PAGE: usize = 4096;

/// What was left, and is to be read.
pub(super) struct Left {
    pub(super) records: Records,
    /// Producers whose last batch is known.
    pub(super) producers: Vec<Stamped>,
    /// The topic whose partition 0 has seen `token`.
    pub(super) fenced: String,
    pub(super) token: u64,
}

/// A batch of a producer, or of none, to one partition.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Stamped {
    pub(super) topic: String,
    pub(super) partition: u32,
    /// Id, epoch, sequence.
    pub(super) producer: Option<(u64, u32, u32)>,
    pub(super) last: Vec<String>,
    /// Where it is, once it was appended.
    pub(super) base: u64,
}

impl Stamped {
    pub(super) fn plain(topic: &str, partition: u32, last: Vec<String>) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            producer: None,
            last,
            base: 0,
        }
    }

    /// The batch that follows it.
    pub(super) fn next(&self, last: Vec<String>) -> Self {
        let records = u32::try_from(self.last.len()).expect("a few");
        let follow = |(id, epoch, sequence)| (id, epoch, sequence + records);
        Self {
            producer: self.producer.map(follow),
            last,
            ..self.clone()
        }
    }
}

/// Where golden files are.
pub(super) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

/// The service at `endpoint`, without the SDK's own sequences.
pub(super) fn log(endpoint: &str, env: &Env) -> LogClient<Channel> {
    let endpoint = tuning::endpoint(endpoint).expect("an address");
    let network = Arc::clone(&env.network);
    LogClient::new(transport::channel(network, &endpoint))
}

/// The files that were left: the path of each, and its bytes.
pub(super) fn unfolded() -> Vec<(String, Vec<u8>)> {
    let golden = golden();
    let lengths = fs::read_to_string(golden.join("lengths.txt")).expect("it is there");
    let file = |line: &str| {
        let mut words = line.split(' ');
        let path = words.next().expect("a path");
        let kept = fs::read(golden.join(path)).expect("it is there");
        let mut numbers = words.map(|word| word.parse().expect("a number"));
        let whole = unfold(&kept, numbers.next().expect("a length"), numbers);
        (path.to_owned(), whole)
    };
    lengths.lines().map(file).collect()
}

impl Left {
    /// Puts what was left where `site` has its own.
    pub(super) fn unpack(site: &Site) -> Self {
        for (path, bytes) in unfolded() {
            let to = site.path(&path);
            fs::create_dir_all(to.parent().expect("a folder")).expect("it is ours");
            fs::write(to, bytes).expect("room");
        }
        Self::told()
    }

    /// What is said of it.
    pub(super) fn told() -> Self {
        let told = fs::read_to_string(golden().join("written.json")).expect("it is there");
        Self::read(&serde_json::from_str(&told).expect("it is JSON"))
    }

    /// Puts what `site` has, and what it is, into the golden folder.
    pub(super) fn pack(&self, site: &Site) {
        let golden = golden();
        for old in ["data", "bucket"] {
            // There may be none.
            let _ = fs::remove_dir_all(golden.join(old));
        }
        let mut lengths = String::new();
        let mut paths = [files(&site.path("data")), files(&site.path("bucket"))].concat();
        paths.sort();
        for path in paths {
            let within = path.strip_prefix(site.path("")).expect("it is in there");
            // It is nobody's who is to be told apart by it.
            if within.starts_with("data/cache") {
                continue;
            }
            let bytes = fs::read(&path).expect("it is ours");
            let (kept, pages) = fold(&bytes);
            lengths += &format!("{} {}", within.display(), bytes.len());
            for length in pages {
                lengths += &format!(" {length}");
            }
            lengths.push('\n');
            let to = golden.join(within);
            fs::create_dir_all(to.parent().expect("a folder")).expect("it is ours");
            fs::write(to, kept).expect("room");
        }
        fs::write(golden.join("lengths.txt"), lengths).expect("room");
        let told = serde_json::to_string(&self.write()).expect("it is JSON");
        fs::write(golden.join("written.json"), told + "\n").expect("room");
    }

    /// Names of its topics.
    pub(super) fn names(&self) -> Vec<String> {
        self.records.keys().cloned().collect()
    }

    pub(super) fn partitions(&self, topic: &str) -> Vec<u32> {
        self.records[topic].keys().copied().collect()
    }

    /// The offset that comes next.
    pub(super) fn end(&self, topic: &str, partition: u32) -> u64 {
        let last = self.records[topic][&partition].keys().next_back();
        last.map_or(0, |last| last + 1)
    }

    /// One more was appended.
    pub(super) fn add(&mut self, topic: &str, partition: u32, value: &str) {
        let end = self.end(topic, partition);
        let of_topic = self.records.get_mut(topic).expect("it is there");
        let of_partition = of_topic.get_mut(&partition).expect("it is there");
        of_partition.insert(end, value.to_owned());
    }

    fn write(&self) -> Value {
        let producer = |of: &Stamped| {
            let (id, epoch, sequence) = of.producer.expect("it is one");
            json!({
                "topic": of.topic, "partition": of.partition, "id": id, "epoch": epoch,
                "sequence": sequence, "last": of.last, "base": of.base,
            })
        };
        let producers: Vec<_> = self.producers.iter().map(producer).collect();
        json!({
            "records": self.records, "producers": producers, "fenced": self.fenced,
            "token": self.token,
        })
    }

    fn read(told: &Value) -> Self {
        let number = |of: &Value| of.as_u64().expect("a number");
        let small = |of: &Value| u32::try_from(number(of)).expect("small");
        let text = |of: &Value| of.as_str().expect("a text").to_owned();
        let producer = |of: &Value| Stamped {
            topic: text(&of["topic"]),
            partition: small(&of["partition"]),
            producer: Some((
                number(&of["id"]),
                small(&of["epoch"]),
                small(&of["sequence"]),
            )),
            last: of["last"]
                .as_array()
                .expect("a list")
                .iter()
                .map(text)
                .collect(),
            base: number(&of["base"]),
        };
        let producers = told["producers"].as_array().expect("a list");
        Self {
            records: serde_json::from_value(told["records"].clone()).expect("records"),
            producers: producers.iter().map(producer).collect(),
            fenced: text(&told["fenced"]),
            token: number(&told["token"]),
        }
    }
}

/// What is left of `bytes` without the zeros at the end of each page, and how much that is of each.
fn fold(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut kept, mut lengths) = (Vec::new(), Vec::new());
    for page in bytes.chunks(PAGE) {
        let end = page.iter().rposition(|byte| *byte != 0);
        let length = end.map_or(0, |at| at + 1);
        kept.extend_from_slice(&page[..length]);
        lengths.push(length);
    }
    let end = lengths.iter().rposition(|length| *length != 0);
    lengths.truncate(end.map_or(0, |at| at + 1));
    (kept, lengths)
}

/// What [`fold`] was given: so many `bytes`.
fn unfold(mut kept: &[u8], bytes: usize, lengths: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut whole = vec![0; bytes];
    for (page, length) in whole.chunks_mut(PAGE).zip(lengths) {
        let (now, rest) = kept.split_at(length);
        page[..length].copy_from_slice(now);
        kept = rest;
    }
    assert!(kept.is_empty(), "{} bytes too many", kept.len());
    whole
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
