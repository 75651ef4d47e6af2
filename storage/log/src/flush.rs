//! From the head to the bucket: read what was accepted, sort it by partition, build one segment,
//! PUT it under a key that is never used again, read it back, and only then propose the fact.
//!
//! Whatever dies or is lost on the way leaves an object that nothing names, and the head as it
//! was. Two flushers at once, or one that slept, waste a PUT and harm nothing: the shard takes a
//! segment only if it begins at the flush position and holds exactly what was accepted.

mod windows; // what a segment says of the producers in it

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use esker_env::{Env, WorkersExt};
use esker_object::{Key, Kind, Store};
use esker_record::{Batch, ZstdLevel};
use esker_segment::{
    Assembler, Checksum, Index, Origin, PartitionFacts, Placement, RawBlock, SealedBlock, Sealer,
    Summary, Writer,
};
use esker_shard::{Command, CommitSegment, ObjectChecksum, Outcome};
use esker_types::limits::{FLUSH_READS_AT_ONCE, LOG_READ_BYTES_MAX, MIB, MIXED_SEGMENTS_MAX};
use esker_types::{OffsetRange, PartitionId, RaftIndex, RaftRange, SegmentId, ShardId};
use futures::future::try_join_all;

use crate::claim::Owner;
use crate::error::{Error, HeadError};
use crate::head::{AcceptedBatch, FlushJob, Head};
use windows::windows;

/// Bytes of one request when a segment is read back.
const VERIFY_BYTES: u64 = 8 * MIB as u64;
/// Plans carried out, one after the other, before a flush is told to have failed because the head
/// no longer was what its plan said.
const FLUSH_PLANS_MAX: u32 = 3;

/// Moves heads into a bucket. Clones share everything.
#[derive(Clone, Debug)]
pub struct Flusher {
    head: Arc<dyn Head>,
    store: Store,
    env: Env,
    zstd_level: ZstdLevel,
}

/// A segment that is in the bucket and part of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flushed {
    /// Where it lies.
    pub key: Key,
    /// What it holds.
    pub summary: Summary,
    /// The entries it covers.
    pub raft: RaftRange,
    /// Up to where the shard is flushed now.
    pub flush_position: RaftIndex,
}

impl Flusher {
    /// A flusher from `head` to `store`, compressing blocks at `zstd_level`.
    #[must_use]
    pub fn new(head: Arc<dyn Head>, store: Store, env: Env, zstd_level: ZstdLevel) -> Self {
        Self {
            head,
            store,
            env,
            zstd_level,
        }
    }

    /// Flushes the next run of `shard`, of about `bytes_max` payload bytes, into the bucket of
    /// `owner`; `None` if there is nothing to flush. It holds the run and its segment in memory.
    ///
    /// # Errors
    /// [`Error`]; the head still has everything. After [`HeadError::Unknown`] the segment may be
    /// committed all the same: the next call begins where the shard then stands.
    ///
    /// [`HeadError::Unknown`]: crate::HeadError::Unknown
    pub async fn flush(
        &self,
        owner: Owner,
        shard: ShardId,
        bytes_max: u64,
    ) -> Result<Option<Flushed>, Error> {
        let mut plans = 1;
        loop {
            let Some(job) = self.head.flush_job(shard, bytes_max).await? else {
                return Ok(None);
            };
            self.has_place(shard).await?;
            match self.carry_out(owner, job).await {
                // A topic ended meanwhile, say. A head that contradicts itself is told about.
                Err(error) if error.is_of_an_old_plan() && plans < FLUSH_PLANS_MAX => plans += 1,
                flushed => return flushed.map(Some),
            }
        }
    }

    /// A manifest that is full takes no segment: what would be written for it would be refused,
    /// and could not be collected before the next one is taken.
    async fn has_place(&self, shard: ShardId) -> Result<(), Error> {
        let segments = self.head.progress(shard).await?.segments;
        if segments >= MIXED_SEGMENTS_MAX as u64 {
            return Err(Error::ManifestFull { shard, segments });
        }
        Ok(())
    }

    /// One job under a segment name of its own.
    async fn carry_out(&self, owner: Owner, job: FlushJob) -> Result<Flushed, Error> {
        let (shard, segment) = (job.shard, self.new_id());
        let (from, to) = (job.raft.from, job.raft.to);
        tracing::debug!(%shard, %segment, %from, %to, "a flush begins");
        let flushed = self.carry(owner, job, segment).await;
        match &flushed {
            Ok(_) => tracing::debug!(%shard, %segment, "a flush has ended: committed"),
            Err(error) => tracing::debug!(%shard, %segment, %error, "a flush has ended: failed"),
        }
        flushed
    }

    /// One job, arrow by arrow; each tells when it is done.
    async fn carry(
        &self,
        owner: Owner,
        job: FlushJob,
        segment: SegmentId,
    ) -> Result<Flushed, Error> {
        let shard = job.shard;
        let batches = self.read(&job).await?;
        tracing::debug!(%shard, %segment, "what it takes is read");
        let (chunks, summary) = self.build(&job, segment, batches).await?;
        let (incarnation, range) = (job.incarnation, job.raft);
        let key = Key::FlushedSegment {
            incarnation,
            shard,
            range,
            id: segment,
        };
        let bucket = |source| Error::Bucket {
            shard,
            segment,
            source,
        };
        tracing::debug!(%shard, %segment, "a segment is built");
        self.store.put(&key, chunks).await.map_err(bucket)?;
        tracing::debug!(%shard, %segment, "a segment is put");
        self.still_ours(owner, shard, segment).await?;
        self.verify(&key, shard, &summary).await?;
        tracing::debug!(%shard, %segment, "a segment is verified");
        let committed = self.commit(job, key, summary).await;
        if let Err(error) = &committed
            && error.is_refused_for_good()
        {
            self.take_back(shard, &key).await;
        }
        committed
    }

    /// Deletes a segment that was refused though it was next: no command will ever name it, and
    /// the collector could not tell before another one is taken in its place.
    async fn take_back(&self, shard: ShardId, key: &Key) {
        for result in self.store.delete(&[*key]).await {
            if let Err(error) = result {
                tracing::warn!(%shard, %key, %error, "a refused segment is left behind; the collector deletes it once another has taken its place");
            }
        }
    }

    fn new_id(&self) -> SegmentId {
        SegmentId::from_parts(self.env.clock.wall().0, self.env.entropy.next_u128())
    }

    /// All accepted batches of the job, by partition, in order.
    async fn read(
        &self,
        job: &FlushJob,
    ) -> Result<BTreeMap<PartitionId, Vec<AcceptedBatch>>, Error> {
        let parts = parts(job.raft, job.bytes).into_iter();
        let parts = try_join_all(parts.map(|part| self.read_part(job.shard, part))).await?;
        let mut sorted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for batch in parts.into_iter().flatten() {
            sorted.entry(batch.partition).or_default().push(batch);
        }
        Ok(sorted)
    }

    /// All accepted batches of `rest`, in order.
    async fn read_part(
        &self,
        shard: ShardId,
        mut rest: RaftRange,
    ) -> Result<Vec<AcceptedBatch>, HeadError> {
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let run = self.head.accepted(shard, rest, LOG_READ_BYTES_MAX).await?;
            batches.extend(run.batches);
            let before = rest.from;
            rest = RaftRange::new(run.upto, rest.to).unwrap_or(RaftRange {
                from: rest.to,
                ..rest
            });
            assert!(
                rest.from > before,
                "a head that does not move on would be asked for ever"
            );
        }
        Ok(batches)
    }

    /// The segment, as the chunks of an object.
    async fn build(
        &self,
        job: &FlushJob,
        segment: SegmentId,
        mut batches: BTreeMap<PartitionId, Vec<AcceptedBatch>>,
    ) -> Result<(Vec<Bytes>, Summary), Error> {
        let mut writer = Writer::new(Origin {
            segment,
            incarnation: job.incarnation,
            shard: job.shard,
            raft: job.raft,
            final_offsets: true,
            zstd_level: self.zstd_level,
        });
        let (mut assembler, first) = Assembler::start();
        let mut sealer = Sealer::new(self.zstd_level);
        let mut chunks = vec![first];
        for ((partition, range), facts) in job.ranges.iter().zip(&job.partitions) {
            let of_another = || Error::Job {
                shard: job.shard,
                partition: *partition,
            };
            let batches = batches.remove(partition).unwrap_or_default();
            if !are(&batches, *range) || facts.id != *partition {
                return Err(of_another());
            }
            let opened = batches.iter().map(|accepted| open(job.shard, accepted));
            let opened = opened.collect::<Result<Vec<_>, _>>()?;
            let producers = windows(batches.iter().zip(&opened));
            writer.begin(PartitionFacts {
                producers,
                ..facts.clone()
            })?;
            for (accepted, batch) in batches.iter().zip(&opened) {
                if let Some(block) = writer.push(batch, &placement(accepted))? {
                    let sealed;
                    (sealer, sealed) = self.seal(sealer, block).await?;
                    chunks.extend(assembler.push(sealed));
                }
            }
        }
        let (last, index): (RawBlock, Index) = writer.finish()?;
        let (_, sealed) = self.seal(sealer, last).await?;
        chunks.extend(assembler.push(sealed));
        let (rest, summary) = assembler.finish(index, job.tombstones.clone())?;
        chunks.extend(rest);
        Ok((chunks, summary))
    }

    /// Compresses a block off the async threads, with the buffers of the one before it.
    async fn seal(
        &self,
        mut sealer: Sealer,
        block: RawBlock,
    ) -> Result<(Sealer, SealedBlock), Error> {
        let job = move || {
            let sealed = block.seal(&mut sealer);
            sealed.map(|sealed| (sealer, sealed))
        };
        Ok(self.env.workers.run(job).await?)
    }

    /// Our claim stands where the segment was put. A folder that is no longer mounted takes objects
    /// and hands them out again like the bucket. What is read back *after* this was seen is in the
    /// bucket that has our claim, whichever of the two was there when it was put.
    async fn still_ours(
        &self,
        owner: Owner,
        shard: ShardId,
        segment: SegmentId,
    ) -> Result<(), Error> {
        let claim = Key::Cluster {
            incarnation: owner.incarnation,
            cluster: owner.cluster,
        };
        match self.store.head(&claim).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => Err(Error::NotOurs {
                shard,
                segment,
                claim,
            }),
            Err(source) => Err(Error::Bucket {
                shard,
                segment,
                source,
            }),
        }
    }

    /// Reads the object back whole: its length and checksum are what was written.
    async fn verify(&self, key: &Key, shard: ShardId, summary: &Summary) -> Result<(), Error> {
        let segment = summary.segment;
        let bucket = |source| Error::Bucket {
            shard,
            segment,
            source,
        };
        let not_stored = |what: String| Error::NotStored {
            shard,
            segment,
            what,
        };
        let length = self
            .store
            .head(key)
            .await
            .map_err(|error| match error.kind() {
                Kind::NotFound => not_stored("nothing".into()),
                _ => bucket(error),
            })?;
        if length != summary.length {
            let written = summary.length;
            return Err(not_stored(format!(
                "{length} bytes where {written} were written"
            )));
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut at = 0;
        while at < length {
            let end = length.min(at + VERIFY_BYTES);
            let bytes = self.store.get_for_upkeep(key, at..end).await;
            digest.update(&bytes.map_err(bucket)?);
            at = end;
        }
        let found = Checksum(digest.finalize());
        if found != summary.checksum {
            let written = summary.checksum;
            return Err(not_stored(format!(
                "checksum {found} where {written} was written"
            )));
        }
        Ok(())
    }

    /// The only step that makes the object part of the log.
    async fn commit(&self, job: FlushJob, key: Key, summary: Summary) -> Result<Flushed, Error> {
        let (shard, raft, segment) = (job.shard, job.raft, summary.segment);
        let commit = CommitSegment {
            segment,
            length: summary.length,
            checksum: ObjectChecksum(summary.checksum.0),
            raft,
            ranges: summary.ranges.clone(),
        };
        match self
            .head
            .propose(shard, Command::CommitSegment(commit))
            .await?
        {
            Outcome::SegmentCommitted { flush_position } => Ok(Flushed {
                key,
                summary,
                raft,
                flush_position,
            }),
            Outcome::Refused(refusal) => Err(Error::Refused {
                shard,
                segment,
                refusal,
            }),
            other => unreachable!("a commit was answered with {other:?}"),
        }
    }
}

/// `raft`, which holds `bytes`, in the parts that are read at once: as many entries in each, and a read's worth of
/// bytes if they are alike.
fn parts(raft: RaftRange, bytes: u64) -> Vec<RaftRange> {
    let (from, entries) = (raft.from.0, raft.to.0 - raft.from.0);
    let reads = bytes.div_ceil(LOG_READ_BYTES_MAX as u64);
    let parts = reads.clamp(1, FLUSH_READS_AT_ONCE);
    let bound = |part: u64| match part < parts {
        true => RaftIndex(from + entries / parts * part),
        false => raft.to,
    };
    let part = |part| RaftRange {
        from: bound(part),
        to: bound(part + 1),
    };
    (0..parts).map(part).collect()
}

/// Whether `batches` are `range`, without a gap: what ended between two reads is missing anywhere in them.
fn are(batches: &[AcceptedBatch], range: OffsetRange) -> bool {
    let ends = batches.first().zip(batches.last());
    let ends = ends.map(|(first, last)| (first.range.start(), last.range.end()));
    let mut neighbours = batches.windows(2);
    ends == Some((range.start(), range.end()))
        && neighbours.all(|two| two[0].range.end() == two[1].range.start())
}

/// The batch, its checksum and lengths checked: what leaves the head is what came in.
fn open(shard: ShardId, accepted: &AcceptedBatch) -> Result<Batch, Error> {
    let (partition, range) = (accepted.partition, accepted.range);
    let damaged = |what: String| Error::Batch {
        shard,
        partition,
        range,
        what,
    };
    let batch = Batch::open(accepted.bytes.clone()).map_err(|error| damaged(error.to_string()))?;
    let records = u64::from(batch.header().records);
    if records != range.len() {
        return Err(damaged(format!("it has {records} records")));
    }
    Ok(batch)
}

fn placement(accepted: &AcceptedBatch) -> Placement {
    Placement {
        offset: accepted.range.start(),
        leader_epoch: accepted.leader_epoch,
        append_time: accepted.append_time,
        hash: accepted.hash,
        extensions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = LOG_READ_BYTES_MAX as u64;

    #[test]
    fn a_job_is_read_in_parts_that_chain_and_are_alike() {
        let raft = |from, to| RaftRange {
            from: RaftIndex(from),
            to: RaftIndex(to),
        };
        assert_eq!(parts(raft(7, 90), READ), [raft(7, 90)], "it fits one read");
        let two = [raft(7, 48), raft(48, 90)];
        assert_eq!(parts(raft(7, 90), READ + 1), two);
        for (from, to, bytes) in [(0, 1, 100 * READ), (5, 8, 3 * READ), (9, 10_009, u64::MAX)] {
            let parts = parts(raft(from, to), bytes);
            assert!(parts.len() as u64 <= FLUSH_READS_AT_ONCE);
            let mut chained = parts.iter().map(|part| part.from.0).chain([to]);
            assert_eq!(chained.next(), Some(from));
            assert!(parts.iter().map(|part| part.to.0).eq(chained));
            let longest = parts.iter().map(|part| part.to.0 - part.from.0).max();
            assert!(longest.is_some_and(|most| most <= (to - from) / FLUSH_READS_AT_ONCE + 3));
        }
        let last = parts(raft(u64::MAX - 1, u64::MAX), u64::MAX).pop();
        assert_eq!(last, Some(raft(u64::MAX - 1, u64::MAX)));
    }
}
