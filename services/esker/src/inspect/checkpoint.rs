//! A checkpoint: the state of a shard, as its node or the bucket has it.

use bytes::{Bytes, BytesMut};
use esker_shard::checkpoint::{self, Scope};
use esker_shard::{Catalog, Data, State};
use esker_types::ShardId;
use serde_json::{Map, Value, json};

use super::source::Source;
use crate::failure::Failure;
use crate::screen::{self, count};
use crate::shell::Shell;

/// How the checkpoint of a node begins; that of the bucket is the state alone.
const LOCAL_MAGIC: &[u8] = b"ESKERLCP";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// List every partition, too
    #[arg(long)]
    partitions: bool,
    /// List every segment of the manifest, too
    #[arg(long)]
    segments: bool,
}

pub(super) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let name = &args.source.name;
    let bytes = args.source.read("checkpoint", shell).await?;
    let state_bytes = match bytes.starts_with(LOCAL_MAGIC) {
        true => of_node(name, &bytes)?,
        false => bytes,
    };
    let decoded = checkpoint::decode(&state_bytes);
    let decoded = decoded.map_err(|error| {
        Failure::new(format!("{name}: {error}; it is damaged, or no checkpoint"))
    })?;
    let (state, scope) = (decoded.state, decoded.scope);
    let answer = object(args, &state, scope);
    shell.answer(&answer, || text(args, &state, scope))
}

/// The state in the checkpoint of a node.
fn of_node(name: &str, bytes: &Bytes) -> Result<Bytes, Failure> {
    let local = esker_wal::disk::Checkpoint::decode(bytes).ok_or_else(|| {
        let text = format!("{name}: it is damaged, its checksum or its lengths are off");
        Failure::new(text).and_next("keep the file, and replace this node under a new id")
    })?;
    let mut state = BytesMut::new();
    local
        .state
        .iter()
        .for_each(|part| state.extend_from_slice(part));
    Ok(state.freeze())
}

fn object(args: &Args, state: &State, scope: Scope) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| _ = object.insert(name.to_owned(), value);
    let scope = match scope {
        Scope::Local => "node",
        Scope::Bucket => "bucket",
    };
    put("scope", scope.into());
    put("shard", state.shard().0.into());
    put("incarnation", state.incarnation().get().into());
    put("level", state.level().get().into());
    put("applied_term", state.applied().term.0.into());
    put("applied", state.applied().index.0.into());
    put("time_ms", state.time().0.into());
    put("leader_epoch", state.leader_epoch().0.into());
    if let Some(catalog) = state.catalog() {
        put("data_shards", catalog.data_shards().into());
        let topics = catalog.topics().map(|(id, topic)| {
            let shards: Vec<_> = topic.placement().iter().map(|shard| shard.0).collect();
            json!({
                "name": topic.name().as_str(), "id": id.as_u64(), "version": topic.version().0,
                "partitions": topic.partition_count(), "placement": shards,
                "in_progress": topic.awaiting().is_some(),
            })
        });
        put("topics", topics.collect());
    }
    if let Some(data) = state.data() {
        let head = data.head_size();
        put("flush_position", data.flush_position().0.into());
        put("flushed", state.flushed().0.into());
        put("gc_boundary", data.gc_boundary().0.into());
        put("topic_count", data.topics().count().into());
        put("partition_count", data.partition_count().into());
        put("producer_count", producers(data).into());
        put("ended_topics", data.tombstones().count().into());
        put("head_batches", head.batches.into());
        put("head_bytes", head.bytes.into());
        put("segment_count", data.segment_count().into());
        put("segment_bytes", segment_bytes(data).into());
        if args.partitions {
            put("partitions", partition_objects(data).into());
        }
        if args.segments {
            put("segments", segment_objects(data, state.shard()).into());
        }
    }
    object.into()
}

fn partition_objects(data: &Data) -> Vec<Value> {
    let of = data.partitions().map(|(id, partition)| {
        json!({
            "topic": topic_name(data, id.topic), "partition": id.index.0,
            "log_start": partition.log_start().get(),
            "tiered_end": partition.tiered_end().get(), "end": partition.end().get(),
            "producers": partition.producers().count(),
        })
    });
    of.collect()
}

fn segment_objects(data: &Data, shard: ShardId) -> Vec<Value> {
    let of = data.manifest().map(|segment| {
        json!({
            "key": key(segment, shard), "length": segment.length,
            "checksum": segment.checksum.to_string(), "ranges": segment.range_count,
            "newest_ms": segment.newest.0,
        })
    });
    of.collect()
}

fn key(segment: &esker_shard::MixedSegment, shard: ShardId) -> String {
    let key = esker_object::Key::FlushedSegment {
        incarnation: segment.incarnation,
        shard,
        range: segment.raft,
        id: segment.segment,
    };
    key.to_string()
}

fn topic_name(data: &Data, topic: esker_types::TopicId) -> String {
    let name = data.topic(topic).map(|topic| topic.name().to_string());
    name.unwrap_or_else(|| topic.to_string())
}

fn producers(data: &Data) -> usize {
    let of = data.partitions();
    of.map(|(_, partition)| partition.producers().count()).sum()
}

fn segment_bytes(data: &Data) -> u64 {
    data.manifest().map(|segment| segment.length).sum()
}

fn text(args: &Args, state: &State, scope: Scope) -> String {
    let scope = match scope {
        Scope::Local => "its node",
        Scope::Bucket => "the bucket",
    };
    let mut text = format!(
        "checkpoint of {} for {scope}\nincarnation {}, level {}, applied {}, leader epoch {}\n",
        state.shard(),
        state.incarnation().get(),
        state.level().get(),
        state.applied(),
        state.leader_epoch(),
    );
    if let Some(catalog) = state.catalog() {
        text.push_str(&catalog_text(catalog));
    }
    if let Some(data) = state.data() {
        let head = data.head_size();
        text.push_str(&format!(
            "flush position {}, flushed up to {}, GC boundary {}\n\
             {}, {}, {}, {} that have ended\n\
             head: {}, {}\nmanifest: {}, {}\n",
            data.flush_position(),
            state.flushed(),
            data.gc_boundary(),
            count(data.topics().count() as u64, "topic"),
            count(data.partition_count() as u64, "partition"),
            count(producers(data) as u64, "producer"),
            count(data.tombstones().count() as u64, "topic"),
            count(head.batches, "batch"),
            screen::bytes(head.bytes),
            count(data.segment_count() as u64, "segment"),
            screen::bytes(segment_bytes(data)),
        ));
        if args.partitions {
            text.push_str(&partition_table(data));
        }
        if args.segments {
            text.push_str(&segment_table(data, state.shard()));
        }
    }
    text
}

fn catalog_text(catalog: &Catalog) -> String {
    let rows = catalog.topics().map(|(id, topic)| {
        vec![
            topic.name().to_string(),
            topic.partition_count().to_string(),
            topic.version().0.to_string(),
            id.to_string(),
        ]
    });
    let table = screen::table(
        &["NAME", "PARTITIONS", "VERSION", "ID"],
        &rows.collect::<Vec<_>>(),
    );
    format!(
        "catalog over {}\n\n{table}",
        count(catalog.data_shards().into(), "data shard")
    )
}

fn partition_table(data: &Data) -> String {
    let rows = data.partitions().map(|(id, partition)| {
        vec![
            topic_name(data, id.topic),
            id.index.0.to_string(),
            partition.log_start().to_string(),
            partition.tiered_end().to_string(),
            partition.end().to_string(),
        ]
    });
    let heads = ["TOPIC", "PARTITION", "LOG START", "IN BUCKET", "END"];
    format!("\n{}", screen::table(&heads, &rows.collect::<Vec<_>>()))
}

fn segment_table(data: &Data, shard: ShardId) -> String {
    let rows = data.manifest().map(|segment| {
        vec![
            key(segment, shard),
            segment.length.to_string(),
            segment.range_count.to_string(),
            segment.checksum.to_string(),
        ]
    });
    let heads = ["SEGMENT", "BYTES", "RANGES", "CHECKSUM"];
    format!("\n{}", screen::table(&heads, &rows.collect::<Vec<_>>()))
}
