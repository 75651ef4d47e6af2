//! What a flush asks for: whether it is time, and the batches that were accepted.

use esker_log::{AcceptedBatch, AcceptedRun, HeadError};
use esker_shard::{Data, HeadEntry, State};
use esker_types::limits::{FLUSH_EARLY_SEGMENTS_MAX, HEAD_ENTRIES_AT_ONCE};
use esker_types::{RaftIndex, RaftRange, ShardId};
use esker_wal::{Accepted, Replica};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::LocalHead;
use super::refusals::unreadable;

impl LocalHead {
    /// Whether the shard of `state` is to be flushed though it is neither large nor old: the oldest WAL file
    /// waits for it, or what a flush would read is about to leave memory.
    pub(super) fn flush_early(&self, state: &State) -> bool {
        let upto = self.holders.borrow().get(&state.shard()).copied();
        let look = || {
            let led = self.shards.values().map(|led| &led.replica);
            let led = led.filter(|replica| replica.leads_in().is_some());
            led.map(|replica| (replica.shard(), replica.head_size().bytes))
                .collect()
        };
        let (now, memory) = (self.clock.monotonic(), self.wal.memory_of_led());
        let held = (state.shard(), state.head_size().bytes);
        let segments = state.data().map_or(0, Data::segment_count);
        upto.is_some_and(|upto| state.flushed() < upto)
            || segments < FLUSH_EARLY_SEGMENTS_MAX && self.early.has(held, now, memory, look)
    }

    /// Batches of the entries in `raft`, or of the first of them once they pass `bytes_max`.
    pub(super) async fn accepted_run(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> Result<AcceptedRun, HeadError> {
        // Who leads it elsewhere is told at once, whatever holds up those that read.
        let replica = self.replica(shard)?;
        // So is who needs no disk. What has left memory by the time of the turn is read all the same.
        let from_disk = Run::of(replica, &replica.state(), raft, bytes_max).disk_bytes > 0;
        let _turn = if from_disk {
            Some(self.runs.acquire().await.expect("nobody closes it"))
        } else {
            None
        };
        let state = replica.state();
        let Run { entries, upto, .. } = Run::of(replica, &state, raft, bytes_max);
        let read = async |(index, entry): (RaftIndex, &HeadEntry)| {
            let read = replica.read_accepted(index, entry).await;
            let read = read.map_err(|error| unreadable(shard, &error))?;
            let read = read.ok_or(HeadError::Released { shard, index })?;
            let batches = read.into_iter().map(|accepted| hand_out(entry, accepted));
            Ok(stream::iter(batches.map(Ok).collect::<Vec<_>>()))
        };
        // Entries that are on the disk lie apart in it: one at a time each would wait for the one before.
        let batches = stream::iter(entries.into_iter().map(read));
        let batches = batches.buffered(HEAD_ENTRIES_AT_ONCE).try_flatten();
        let batches = batches.try_collect().await?;
        Ok(AcceptedRun { batches, upto })
    }
}

/// What one answer holds.
struct Run<'a> {
    entries: Vec<(RaftIndex, &'a HeadEntry)>,
    /// As far as they go.
    upto: RaftIndex,
    /// Bytes that reading them takes from the disk.
    disk_bytes: u64,
}

impl<'a> Run<'a> {
    /// The entries in `raft`, or the first of them: until what they hold passes `bytes_max`, or what is read for
    /// them, which is far more where most of what was in them is refused or deleted.
    fn of(replica: &Replica, state: &'a State, raft: RaftRange, bytes_max: usize) -> Self {
        let all = state.data().into_iter();
        let all = all.flat_map(|data| data.head_entries(raft));
        let (mut entries, mut bytes, mut disk_bytes) = (Vec::new(), 0, 0);
        for (index, entry) in all {
            if bytes > bytes_max as u64 {
                // `index` holds a batch that is not read: the answer ends just below it.
                let upto = RaftIndex(index.0 - 1);
                return Self {
                    entries,
                    upto,
                    disk_bytes,
                };
            }
            let on_disk = replica.bytes_on_disk(index);
            disk_bytes += on_disk;
            bytes += entry.bytes().max(on_disk);
            entries.push((index, entry));
        }
        Self {
            entries,
            upto: raft.to,
            disk_bytes,
        }
    }
}

fn hand_out(entry: &HeadEntry, accepted: Accepted) -> AcceptedBatch {
    AcceptedBatch {
        partition: accepted.batch.partition,
        range: accepted.batch.range,
        leader_epoch: entry.epoch,
        append_time: entry.time,
        hash: accepted.hash,
        bytes: accepted.bytes,
    }
}
