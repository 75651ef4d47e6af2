//! What a flush asks for: whether it is time, and the batches that were accepted.

use esker_log::{AcceptedBatch, AcceptedRun, HeadError};
use esker_shard::{HeadEntry, State};
use esker_types::limits::HEAD_ENTRIES_AT_ONCE;
use esker_types::{RaftIndex, RaftRange, ShardId};
use esker_wal::Accepted;
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
        upto.is_some_and(|upto| state.flushed() < upto) || self.early.has(held, now, memory, look)
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
        let turn = self.runs.acquire().await;
        let _turn = turn.expect("nobody closes it");
        let state = replica.state();
        let entries = state
            .data()
            .into_iter()
            .flat_map(|data| data.head_entries(raft));
        let (mut first, mut bytes, mut upto) = (Vec::new(), 0, raft.to);
        for (index, entry) in entries {
            if bytes > bytes_max as u64 {
                // `index` holds a batch that is not read: the answer ends just below it.
                upto = RaftIndex(index.0 - 1);
                break;
            }
            bytes += entry.bytes();
            first.push((index, entry));
        }
        let read = async |(index, entry): (RaftIndex, &HeadEntry)| {
            let read = replica.read_accepted(index, entry).await;
            let read = read.map_err(|error| unreadable(shard, &error))?;
            let read = read.ok_or(HeadError::Released { shard, index })?;
            let batches = read.into_iter().map(|accepted| hand_out(entry, accepted));
            Ok(stream::iter(batches.map(Ok).collect::<Vec<_>>()))
        };
        // Entries that are on the disk lie apart in it: one at a time each would wait for the one before.
        let batches = stream::iter(first.into_iter().map(read));
        let batches = batches.buffered(HEAD_ENTRIES_AT_ONCE).try_flatten();
        let batches = batches.try_collect().await?;
        Ok(AcceptedRun { batches, upto })
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
