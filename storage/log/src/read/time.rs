//! The first record of a time or later: by the indexes of segments, then by the head's.

use esker_env::WorkersExt;
use esker_record::Batch;
use esker_types::limits::READ_TURNS_MAX;
use esker_types::{Lane, Offset, PartitionId, ShardId, Timestamp};

use super::{ReadBatch, Readers};
use crate::ahead::Wanted;
use crate::error::ReadError;

impl Readers {
    /// The first offset of a record of `time` or later, in offset order, from the log start on;
    /// `None` if there is none.
    ///
    /// # Errors
    /// As reading there would say.
    pub async fn by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let mut found = self.batch_by_time(shard, partition, time).await;
        if let Err(error) = &found
            && error.is_loss()
        {
            self.tally.again();
            if let Some(segment) = error.gone() {
                self.segments.forget(segment);
                self.manifests.reload(shard).await?;
            }
            found = self.batch_by_time(shard, partition, time).await;
        }
        if found.as_ref().is_err_and(ReadError::is_loss) {
            self.tally.lost();
        }
        let Some(found) = found? else { return Ok(None) };
        // The batch is found; its records need not ascend in time.
        let mut reader = self.open(shard, partition, found, Lane::Tail).await?;
        reader.until = found.checked_add(1).unwrap_or(Offset::MAX);
        let chunk = reader.step().await?;
        let Some(batch) = chunk.batches.into_iter().next() else {
            return Ok(Some(found));
        };
        // As much as 64 MiB are decoded: nothing for a thread that others wait for.
        let look = move || first_at(&batch, time, found, partition);
        self.segments.workers().run(look).await.map(Some)
    }

    /// Where the batch begins that holds it, or the log start if it begins below.
    async fn batch_by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let mut bounds = self.bounds(shard, partition).await?;
        for _ in 0..READ_TURNS_MAX {
            let from = bounds.log_start;
            let known = self.manifests.known(shard, bounds.mark).await?;
            let wanted = Wanted {
                shard,
                partition,
                lane: Lane::Tail,
                from,
                to: bounds.tiered_end,
            };
            let tiered = self.manifests.by_time(&known, &wanted, time).await?;
            if tiered.is_some() {
                return Ok(tiered);
            }
            let found = self.head.by_time(shard, partition, time, from).await?;
            // What left the head meanwhile is in a segment that was not looked at.
            let tiered_end = bounds.tiered_end;
            bounds = self.bounds(shard, partition).await?;
            if bounds.tiered_end == tiered_end {
                return Ok(found);
            }
        }
        Err(ReadError::Restless {
            partition,
            offset: bounds.tiered_end,
        })
    }
}

/// The first record of `time` or later in `batch`, at `from` or above.
fn first_at(
    batch: &ReadBatch,
    time: Timestamp,
    from: Offset,
    partition: PartitionId,
) -> Result<Offset, ReadError> {
    let damaged = |error: esker_record::Error| ReadError::Batch {
        partition,
        range: batch.range,
        what: error.to_string(),
    };
    let opened = Batch::open(batch.bytes.clone()).map_err(damaged)?;
    let mut scratch = esker_record::Scratch::new(0);
    let plain = scratch.decode(&opened).map_err(damaged)?;
    // Base offsets of the head are not set: offsets are counted from the range.
    for (count, record) in (0..).zip(plain.records()) {
        let record = record.map_err(damaged)?;
        let offset = batch.range.start().checked_add(count);
        let offset = offset.expect("a batch lies inside its range");
        if record.timestamp >= time && offset >= from {
            return Ok(offset);
        }
    }
    Ok(batch.range.end())
}
