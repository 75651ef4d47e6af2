//! States and outcomes as lines that people can compare.

use esker_shard::{
    AppendOutcome, Catalog, CatalogTopic, Data, FlushPlan, HeadPosition, Outcome, Partition, State,
};
use esker_types::{EntryId, PartitionId};

/// The answer to a command, a line or one a batch.
pub(super) fn outcome(entry: EntryId, outcome: &Outcome) -> Vec<String> {
    let name = format!("{entry}: ");
    match outcome {
        Outcome::Refused(refusal) => vec![format!("{name}refused: {refusal}")],
        Outcome::Appended(batches) => batches.iter().map(|b| name.clone() + &batch(b)).collect(),
        done => vec![format!("{name}{done:?}")],
    }
}

fn batch(outcome: &AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Accepted {
            range,
            leader_epoch,
        } => format!("{range} epoch {leader_epoch}"),
        AppendOutcome::Duplicate { range } => format!("duplicate of {range}"),
        AppendOutcome::Rejected(error) => format!("rejected: {error}"),
    }
}

/// The batch that was looked up.
pub(super) fn head(found: Option<HeadPosition>) -> Vec<String> {
    vec![found.map_or("not in the head".to_owned(), |found| {
        let batch = found.batch;
        let (place, at) = (batch.ordinal, batch.at);
        let (index, range, bytes) = (found.index, batch.range, batch.bytes);
        format!("entry {index}, batch {place} at byte {at}: {range}, {bytes} bytes")
    })]
}

/// What a flush would write.
pub(super) fn plan(plan: Option<&FlushPlan>) -> Vec<String> {
    let Some(plan) = plan else {
        return vec!["nothing to flush".to_owned()];
    };
    let FlushPlan {
        raft,
        ranges,
        bytes,
        batches,
    } = plan;
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(id, range)| format!("{id} {range}"))
        .collect();
    vec![format!(
        "{raft} {batches} batches, {bytes} bytes: {}",
        ranges.join(", ")
    )]
}

/// Everything that matters of a state.
pub(super) fn state(state: &State) -> Vec<String> {
    let (applied, time, level) = (state.applied(), state.time(), state.level());
    let mut lines = vec![format!("applied {applied}, {time}, level {level}")];
    if let Some(data) = state.data() {
        show_data(state, data, &mut lines);
    }
    if let Some(catalog) = state.catalog() {
        show_catalog(catalog, &mut lines);
    }
    lines
}

fn show_data(state: &State, data: &Data, lines: &mut Vec<String>) {
    let size = data.head_size();
    lines.push(format!(
        "flush position {}, flushed {}, boundary {}, head {} batches of {} bytes",
        data.flush_position(),
        state.flushed(),
        data.gc_boundary(),
        size.batches,
        size.bytes
    ));
    lines.extend(
        data.partitions()
            .map(|(id, partition)| show_partition(id, partition)),
    );
    lines.extend(data.manifest().map(|segment| {
        let (id, raft, ranges) = (segment.segment.0, segment.raft, segment.range_count);
        format!(
            "segment {id} {raft}, {ranges} ranges, newest {}",
            segment.newest
        )
    }));
    lines.extend(data.tombstones().map(|(id, tombstone)| {
        let (version, ranges) = (tombstone.version(), tombstone.mixed_ranges());
        format!("tombstone {id} {version}, {ranges} ranges left")
    }));
}

fn show_partition(id: PartitionId, partition: &Partition) -> String {
    let (start, tiered, end) = (
        partition.log_start(),
        partition.tiered_end(),
        partition.end(),
    );
    let mut line = format!("{id} start {start}, tiered {tiered}, end {end}");
    for epoch in partition.epochs() {
        line += &format!(", epoch {} from {}", epoch.epoch, epoch.start);
    }
    if let Some(token) = partition.fencing() {
        line += &format!(", fence {token}");
    }
    for (id, producer) in partition.producers() {
        let (epoch, next) = (producer.epoch(), producer.next_sequence());
        let marks = producer.window().len();
        line += &format!(", {id} epoch {epoch} next {next} ({marks} marks)");
    }
    line
}

fn show_catalog(catalog: &Catalog, lines: &mut Vec<String>) {
    lines.extend(catalog.topics().map(|(id, topic)| {
        let (name, version) = (topic.name(), topic.version());
        let awaiting = CatalogTopic::awaiting(topic).map(|shards| format!(", awaiting {shards:?}"));
        let placement = topic.placement();
        format!(
            "{id} {name} {version} on {placement:?}{}",
            awaiting.unwrap_or_default()
        )
    }));
}
