//! openraft's log over `disk::Wal`: one shard's part of it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use esker_types::{EntryId, RaftIndex, ShardId};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, alias};
use tokio::sync::oneshot;

use super::types::{
    Entry, LogId, Payload, Proposal, RaftVote, TypeConfig, body_of, entry_id, log_id, payload_of,
};
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

    /// Makes sure that `read` begins with what was due of `asked`, in a log that ended at `before` when it
    /// was asked, and has no gap.
    fn lacks_none<B>(
        &self,
        asked: &RangeInclusive<RaftIndex>,
        before: RaftIndex,
        read: &[(EntryId, B)],
    ) -> io::Result<()> {
        // Purged or truncated while it was read, at the latest.
        let after = self.wal.bounds(self.shard);
        let due = *asked.start().max(&after.purged.index.next());
        let last = before.min(after.last.index).min(*asked.end());
        let ids = read.iter().map(|(id, _)| id.index);
        if let Some(missing) = gap(due, ids) {
            return Err(self.missing(missing));
        }
        if read.is_empty() && due <= last {
            return Err(self.missing(due));
        }
        Ok(())
    }

    /// As much of `range` as is sent at once. What is damaged here ends it, or stands at its beginning as
    /// lost: the entries before it are taken even by who refuses that.
    async fn sent(&self, range: RangeInclusive<RaftIndex>) -> io::Result<Vec<Entry>> {
        let (asked, before) = (range.clone(), self.wal.bounds(self.shard).last.index);
        let read = self
            .wal
            .read_or_lost(self.shard, range, Wal::READ_BYTES_MAX);
        let read = read.await?;
        self.lacks_none(&asked, before, &read)?;
        let read = read.into_iter().enumerate();
        let sent = read.take_while(|(at, (_, body))| *at == 0 || body.is_some());
        let entries = sent.map(|(_, (id, body))| match body {
            Some(body) => to_entry(id, body),
            None => lost_entry(id),
        });
        entries.collect()
    }

    /// All of `range` in runs, of which one is held at a time: after a restart the range is the whole head.
    fn runs(
        &self,
        range: RangeInclusive<RaftIndex>,
    ) -> impl Stream<Item = io::Result<Entry>> + Send + Unpin + use<> {
        let (start, end) = range.into_inner();
        let store = self.clone();
        let runs = stream::unfold(Some(start), move |next| {
            let store = store.clone();
            async move {
                let start = next.filter(|start| *start <= end)?;
                Some(match store.run(start..=end).await {
                    Ok(run) => {
                        let next = index(run.last()?).next();
                        (run.into_iter().map(Ok).collect(), Some(next))
                    }
                    Err(error) => (vec![Err(error)], None),
                })
            }
        });
        Box::pin(runs.flat_map(stream::iter))
    }

    /// All of `range`, but of commands only as many as are read at once: a further one stands there as lost,
    /// which nobody could apply.
    async fn skimmed(&self, range: RangeInclusive<RaftIndex>) -> io::Result<Vec<Entry>> {
        let (mut skimmed, mut bytes) = (Vec::new(), 0);
        let mut entries = self.runs(range);
        while let Some(mut entry) = entries.try_next().await? {
            if let Payload::Normal(proposal) = &mut entry.payload {
                if bytes >= Wal::READ_BYTES_MAX {
                    *proposal = Proposal::lost();
                }
                bytes += proposal.entry_bytes();
            }
            skimmed.push(entry);
        }
        Ok(skimmed)
    }

    /// As much of `range` as is read at once.
    async fn run(&self, range: RangeInclusive<RaftIndex>) -> io::Result<Vec<Entry>> {
        let (asked, before) = (range.clone(), self.wal.bounds(self.shard).last.index);
        let most = Some(Wal::READ_BYTES_MAX);
        let entries = self.wal.read(self.shard, range, most).await?;
        self.lacks_none(&asked, before, &entries)?;
        let entries = entries.into_iter();
        entries.map(|(id, body)| to_entry(id, body)).collect()
    }

    /// Raft would take what is left out for applied, or for sent.
    fn missing(&self, index: RaftIndex) -> io::Error {
        let (shard, bounds) = (self.shard, self.wal.bounds(self.shard));
        let what = format!(
            "the log of {shard}, purged up to {} and ending at {}, lacks entry {index}",
            bounds.purged, bounds.last
        );
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

/// The first entry from `due` on that is left out before another.
fn gap(due: RaftIndex, ids: impl Iterator<Item = RaftIndex>) -> Option<RaftIndex> {
    let mut due = due;
    for id in ids {
        if id > due {
            return Some(due);
        }
        // Below it, where it was purged meanwhile.
        due = due.max(id.next());
    }
    None
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

/// An entry that is damaged here, as it is said to others.
fn lost_entry(id: EntryId) -> io::Result<Entry> {
    let none = || io::Error::new(io::ErrorKind::InvalidData, "an entry without an index");
    let log_id = log_id(id).ok_or_else(none)?;
    let payload = Payload::Normal(Proposal::lost());
    Ok(Entry { log_id, payload })
}

fn index(entry: &Entry) -> RaftIndex {
    entry_id(&entry.log_id).index
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
    /// Raft asks for one entry, or looks for memberships through runs of 64, which may be large; what is to be
    /// applied or sent is asked for by the others.
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        self.skimmed(indexes(&range)).await
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.runs(indexes(&range))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let range = indexes(&(start..end));
        let due = *range.start();
        let mut run = self.sent(range).await?;
        // Purged meanwhile: nothing is sent now, and a snapshot next.
        if run.first().is_some_and(|first| index(first) > due) {
            run.clear();
        }
        Ok(run)
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
        let (shard, bounds) = (self.shard, self.wal.bounds(self.shard));
        let committed = bounds.committed;
        // Told by a leader before the entry was here.
        if committed.index > bounds.last.index {
            return Ok(None);
        }
        let read = self
            .wal
            .read(shard, committed.index..=committed.index, None);
        match read.await?.first() {
            Some((id, _)) if *id != committed => {
                let what = format!(
                    "the log of {shard} has entry {id} where {committed} was committed: it differs from \
                     what others were told. Keep this disk for an investigation, remove the node, and \
                     add it with an empty one"
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            _ => Ok(log_id(committed)),
        }
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

    #[test]
    fn a_gap_is_seen_wherever_it_is() {
        let gap = |due, ids: &[u64]| gap(RaftIndex(due), ids.iter().copied().map(RaftIndex));
        assert_eq!(gap(3, &[]), None);
        assert_eq!(gap(3, &[3, 4, 5]), None);
        assert_eq!(gap(3, &[4, 5]), Some(RaftIndex(3)));
        assert_eq!(gap(3, &[3, 5]), Some(RaftIndex(4)));
        assert_eq!(gap(3, &[1, 2, 3, 4]), None, "purged meanwhile");
        assert_eq!(gap(3, &[1, 4]), Some(RaftIndex(3)));
    }
}
