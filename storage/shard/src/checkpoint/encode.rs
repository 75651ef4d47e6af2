//! A state into chunks of bytes.

use std::convert::Infallible;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use xxhash_rust::xxh3::Xxh3;

use super::{FORMAT, MAGIC, PAYLOAD_BYTES_MAX, SECTION_HEADER_BYTES, Scope, Tag};
use crate::catalog::{Catalog, CatalogTopic};
use crate::codec::Writer;
use crate::data::Data;
use crate::head::HeadEntry;
use crate::manifest::MixedSegment;
use crate::partition::Partition;
use crate::producer::Producer;
use crate::state::{Body, State, StateHash};
use esker_types::{EntryId, PartitionId, RaftIndex, RaftRange};

/// Writes `state` as a checkpoint, handing it to `sink` in chunks of at most
/// `CHECKPOINT_CHUNK_BYTES`, in order. The memory it takes is one chunk.
///
/// # Errors
/// The first error of `sink`, after which nothing more is handed over.
pub fn encode<E>(
    state: &State,
    scope: Scope,
    sink: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let mut out = Sections::new(sink);
    out.record(Tag::Shard, |to| write_shard(state, scope, to))?;
    match &state.body {
        Body::Data(data) => write_data(data, scope, &mut out)?,
        Body::Catalog(catalog) => write_catalog(catalog, &mut out)?,
    }
    out.end()
}

impl State {
    /// Hash of the whole state: XXH3-128 over its local checkpoint. Linear in the state; replicas
    /// that applied the same entries have the same.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        let mut hash = Xxh3::new();
        let hashed = encode(self, Scope::Local, |chunk| {
            hash.update(&chunk);
            Ok::<_, Infallible>(())
        });
        match hashed {
            Ok(()) => StateHash(hash.digest128()),
            Err(never) => match never {},
        }
    }
}

/// Puts records into sections, and sections into chunks.
struct Sections<S> {
    sink: S,
    /// Of the open section.
    tag: Tag,
    payload: Writer,
    /// Sections closed so far.
    closed: u32,
    /// Records so far.
    records: u64,
}

impl<S> Sections<S> {
    fn new(sink: S) -> Self {
        Self {
            sink,
            tag: Tag::Shard,
            payload: Writer::default(),
            closed: 0,
            records: 0,
        }
    }

    fn record<E>(&mut self, tag: Tag, write: impl FnOnce(&mut Writer)) -> Result<(), E>
    where
        S: FnMut(Bytes) -> Result<(), E>,
    {
        let mut record = Writer::default();
        write(&mut record);
        let record = record.into_inner();
        assert!(
            record.len() <= PAYLOAD_BYTES_MAX,
            "limits keep a record within a chunk"
        );
        if tag != self.tag || self.payload.len() + record.len() > PAYLOAD_BYTES_MAX {
            self.close()?;
            self.tag = tag;
        }
        self.payload.bytes(&record);
        self.records += 1;
        Ok(())
    }

    fn end<E>(mut self) -> Result<(), E>
    where
        S: FnMut(Bytes) -> Result<(), E>,
    {
        let records = self.records;
        self.record(Tag::End, |out| out.u64(records))?;
        self.close()
    }

    fn close<E>(&mut self) -> Result<(), E>
    where
        S: FnMut(Bytes) -> Result<(), E>,
    {
        let payload = std::mem::take(&mut self.payload).into_inner();
        let mut section = Writer::default();
        if self.closed == 0 {
            section.bytes(MAGIC);
            section.u16(FORMAT);
        }
        section.u8(self.tag as u8);
        section.u32(self.closed);
        section.count(payload.len());
        section.bytes(&payload);
        let mut bytes = section.into_inner();
        debug_assert!(bytes.len() >= SECTION_HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&section_crc(&bytes).to_le_bytes());
        self.closed += 1;
        (self.sink)(Bytes::from(bytes))
    }
}

/// CRC-32C, as iSCSI has it (RFC 3720).
pub(super) fn section_crc(bytes: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc).expect("a CRC-32 has 32 bits")
}

fn write_shard(state: &State, scope: Scope, out: &mut Writer) {
    out.u16(state.level.get());
    out.u8(scope.number());
    out.u32(state.shard.0);
    out.incarnation(state.incarnation);
    out.epoch(state.epoch_base);
    out.time(state.time.get());
    out.entry(state.applied);
}

fn write_data<S, E>(data: &Data, scope: Scope, out: &mut Sections<S>) -> Result<(), E>
where
    S: FnMut(Bytes) -> Result<(), E>,
{
    // How far a sweep has come is no news to a bucket: a shard that only grows older is not written anew.
    let swept = data.swept.filter(|_| scope == Scope::Local);
    out.record(Tag::Marks, |to| {
        to.index(data.flush_position());
        to.index(data.gc_boundary());
        to.option(swept, Writer::partition);
    })?;
    for (id, topic) in &data.topics {
        out.record(Tag::Topics, |to| {
            to.topic(*id);
            to.version(topic.version);
            to.name(&topic.name);
            to.config(&topic.config);
            to.u64(topic.mixed_ranges);
        })?;
    }
    write_partitions(data, scope, out)?;
    if scope == Scope::Local {
        let whole = RaftRange::new(RaftIndex::ZERO, RaftIndex(u64::MAX));
        for (index, entry) in data.head.entries(whole.expect("from 0 to anywhere")) {
            out.record(Tag::Head, |to| write_head_entry(index, entry, to))?;
        }
    }
    for segment in data.manifest() {
        out.record(Tag::Segments, |to| write_segment(segment, to))?;
    }
    for (id, tombstone) in &data.tombstones {
        out.record(Tag::Tombstones, |to| {
            to.topic(*id);
            to.version(tombstone.version);
            to.u64(tombstone.mixed_ranges);
            to.index(tombstone.changed);
        })?;
    }
    let unflushed = data
        .tombstones
        .values()
        .flat_map(|tombstone| &tombstone.unflushed);
    for ((index, partition), range) in unflushed.filter(|_| scope == Scope::Local) {
        out.record(Tag::Unflushed, |to| {
            to.index(*index);
            to.partition(*partition);
            to.range(*range);
        })?;
    }
    for (first, last) in data.gone.runs() {
        out.record(Tag::Gone, |to| {
            to.u64(first);
            to.u64(last);
        })?;
    }
    Ok(())
}

fn write_partitions<S, E>(data: &Data, scope: Scope, out: &mut Sections<S>) -> Result<(), E>
where
    S: FnMut(Bytes) -> Result<(), E>,
{
    // Without its head a partition is another one; the same rule makes it twice rather than a
    // second map of all partitions once.
    let seen = |partition: &Partition| match scope {
        Scope::Local => partition.clone(),
        Scope::Bucket => partition.without_head(),
    };
    for (id, partition) in data.partitions() {
        let partition = seen(partition);
        out.record(Tag::Partitions, |to| write_partition(id, &partition, to))?;
    }
    for (id, partition) in data.partitions() {
        for (producer_id, producer) in seen(partition).producers() {
            out.record(Tag::Producers, |to| {
                to.partition(id);
                to.producer_id(producer_id);
                write_producer(producer, to);
            })?;
        }
    }
    Ok(())
}

fn write_partition(id: PartitionId, partition: &Partition, out: &mut Writer) {
    out.partition(id);
    out.offset(partition.log_start());
    out.offset(partition.tiered_end());
    out.offset(partition.end());
    out.option(partition.fencing, Writer::fencing);
    out.count(partition.epochs.len());
    for epoch in &partition.epochs {
        out.epoch(epoch.epoch);
        out.offset(epoch.start);
    }
}

fn write_producer(producer: &Producer, out: &mut Writer) {
    out.producer_epoch(producer.epoch());
    out.time(producer.last_append());
    out.count(producer.window().len());
    for mark in producer.window() {
        out.sequence(mark.sequence);
        out.u32(mark.records);
        out.offset(mark.start);
        out.u128(mark.hash.0);
    }
}

fn write_head_entry(index: RaftIndex, entry: &HeadEntry, out: &mut Writer) {
    out.entry(EntryId {
        term: entry.term,
        index,
    });
    out.epoch(entry.epoch);
    out.time(entry.time);
    out.count(entry.batches.len());
    for batch in &entry.batches {
        out.u32(batch.ordinal);
        out.u32(batch.at);
        out.u32(batch.bytes);
        out.partition(batch.partition);
        out.range(batch.range);
        out.i64(batch.max_timestamp.0);
    }
}

fn write_segment(segment: &MixedSegment, out: &mut Writer) {
    out.incarnation(segment.incarnation);
    out.raft(segment.raft);
    out.u128(segment.segment.0);
    out.u64(segment.length);
    out.u64(segment.checksum.0);
    out.u32(segment.range_count);
    out.u128(segment.ranges_hash.0);
    out.time(segment.newest);
    out.u64(segment.bytes);
}

fn write_catalog<S, E>(catalog: &Catalog, out: &mut Sections<S>) -> Result<(), E>
where
    S: FnMut(Bytes) -> Result<(), E>,
{
    out.record(Tag::Marks, |to| {
        to.u32(catalog.data_shards());
        to.u64(catalog.next_topic);
        to.u64(catalog.next_producer);
        to.u64(catalog.next_node);
    })?;
    for (id, topic) in catalog.topics() {
        out.record(Tag::Catalog, |to| {
            to.topic(id);
            write_catalog_topic(topic, to);
        })?;
    }
    Ok(())
}

fn write_catalog_topic(topic: &CatalogTopic, out: &mut Writer) {
    out.version(topic.version);
    out.name(&topic.name);
    out.config(&topic.config);
    out.u128(topic.request.0);
    out.u128(topic.asked);
    out.count(topic.placement.len());
    topic.placement.iter().for_each(|shard| out.u32(shard.0));
    out.option(topic.ending.as_ref(), |out, shards| {
        out.count(shards.len());
        shards.iter().for_each(|shard| out.u32(shard.0));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value that the catalogue of CRCs gives for CRC-32/ISCSI.
        assert_eq!(section_crc(b"123456789"), 0xe306_9283);
    }
}
