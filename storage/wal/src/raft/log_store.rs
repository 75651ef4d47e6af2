//! openraft's log over `disk::Wal`: one shard's part of it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use esker_types::{EntryId, RaftIndex, ShardId};
use futures::{Stream, StreamExt as _, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, alias};
use tokio::sync::oneshot;

use super::types::{Entry, LogId, RaftVote, TypeConfig, body_of, entry_id, log_id, payload_of};
use super::types::{raft_vote, vote_of};
use crate::disk::{Body, Wal};

/// One shard's log. Clones share it.
///
/// `append`, `purge` and `save_committed` return without waiting for the disk, `save_vote` and
/// `truncate_after` wait: a disk that hangs must not hang raft, or it could not hand over.
#[derive(Clone, Debug)]
pub struct LogStore {
    wal: Arc<Wal>,
    shard: ShardId,
}

impl LogStore {
    /// The log of `shard` in `wal`.
    #[must_use]
    pub fn new(wal: Arc<Wal>, shard: ShardId) -> Self {
        Self { wal, shard }
    }

    async fn read(
        &self,
        range: RangeInclusive<RaftIndex>,
        bytes_max: Option<usize>,
    ) -> io::Result<Vec<Entry>> {
        let entries = self.wal.read(self.shard, range, bytes_max).await?;
        entries
            .into_iter()
            .map(|(id, body)| to_entry(id, body))
            .collect()
    }
}

fn to_entry(id: EntryId, body: Body) -> io::Result<Entry> {
    let unreadable = || {
        let what = format!("entry {id} is whole, and yet no entry that this binary knows");
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let payload = payload_of(body).ok_or_else(unreadable)?;
    let log_id = log_id(id).ok_or_else(unreadable)?;
    Ok(Entry { log_id, payload })
}

/// openraft's range, which counts from 0, as ours.
fn indexes(range: &impl RangeBounds<u64>) -> RangeInclusive<RaftIndex> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start + 1,
        Bound::Excluded(&before) => before + 2,
        Bound::Unbounded => 1,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    RaftIndex(start)..=RaftIndex(end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        self.read(indexes(&range), None).await
    }

    /// Reads ahead no more than one bounded run at a time: after a restart the range is the whole
    /// head.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = indexes(&range).into_inner();
        let store = self.clone();
        let runs = stream::unfold(Some(start), move |next| {
            let store = store.clone();
            async move {
                let start = next.filter(|start| *start <= end)?;
                let run = match store.read(start..=end, Some(Wal::READ_BYTES_MAX)).await {
                    Ok(run) => run,
                    Err(error) => return Some((vec![Err(error)], None)),
                };
                let last = run.last()?;
                let next = entry_id(&last.log_id).index.next();
                Some((run.into_iter().map(Ok).collect(), Some(next)))
            }
        });
        Box::pin(runs.flat_map(stream::iter))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(indexes(&(start..end)), Some(Wal::READ_BYTES_MAX))
            .await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.wal.bounds(self.shard).vote.map(raft_vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let bounds = self.wal.bounds(self.shard);
        Ok(LogState {
            last_purged_log_id: log_id(bounds.purged),
            last_log_id: log_id(bounds.last),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let reply = move |result| _ = done.send(result);
        self.wal.save_vote(self.shard, vote_of(vote), reply);
        synced(answer).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.wal.set_committed(self.shard, entry_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let bounds = self.wal.bounds(self.shard);
        // The frame may have outlived a truncation that no quorum ever had.
        Ok(log_id(bounds.committed).filter(|_| bounds.committed.index <= bounds.last.index))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter();
        let entries = entries.map(|entry| (entry_id(&entry.log_id), body_of(&entry.payload)));
        self.wal.append(self.shard, entries, move |result| {
            callback.io_completed(result)
        })?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.as_ref().map(entry_id).unwrap_or_default();
        if last.index >= self.wal.bounds(self.shard).last.index {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        self.wal
            .truncate(self.shard, last, move |result| _ = done.send(result))?;
        synced(answer).await
    }

    async fn purge(&mut self, upto: alias::LogIdOf<TypeConfig>) -> io::Result<()> {
        self.wal.purge(self.shard, entry_id(&upto));
        Ok(())
    }
}

async fn synced(answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    answer
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the WAL is closed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_shifted_by_one() {
        assert_eq!(indexes(&(0..0)), RaftIndex(1)..=RaftIndex(0));
        assert_eq!(indexes(&(3..7)), RaftIndex(4)..=RaftIndex(7));
        assert_eq!(indexes(&(3..=7)), RaftIndex(4)..=RaftIndex(8));
        assert_eq!(indexes(&..), RaftIndex(1)..=RaftIndex(u64::MAX));
    }
}
