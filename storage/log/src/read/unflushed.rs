//! What the head has of a partition. By default who leads is asked; a reader may let a follower answer that
//! has applied what this reader was told, so that no watermark goes back. Where the end is, who leads says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_types::limits::READ_HEAD_BYTES;

use super::{Chunk, ReadBatch, Reader, Readers};
use crate::error::ReadError;
use crate::head::{HeadRecords, Place, ReadFrom};

/// Reads of the head that a follower might answer, since the engine began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FollowerReads {
    /// One did.
    pub answered: u64,
    /// None did, and who leads was asked.
    pub fell_back: u64,
}

/// Counts them. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    by_followers: Arc<AtomicU64>,
    by_leaders: Arc<AtomicU64>,
}

impl Readers {
    /// Reads of the head that followers were let answer.
    #[must_use]
    pub fn follower_reads(&self) -> FollowerReads {
        FollowerReads {
            answered: self.answered.by_followers.load(Ordering::Relaxed),
            fell_back: self.answered.by_leaders.load(Ordering::Relaxed),
        }
    }
}

impl Reader {
    /// Lets followers answer what is in the head.
    #[must_use]
    pub const fn prefer_followers(mut self) -> Self {
        self.prefers_followers = true;
        self
    }

    /// Batches of the head, or the end; `None` if they are in the bucket by now.
    pub(super) async fn of_head(&mut self) -> Result<Option<Chunk>, ReadError> {
        let (shard, partition) = (self.shard, self.partition);
        let mut who = ReadFrom::Leader;
        if self.prefers_followers {
            if self.bounds.place(self.next) == Place::End {
                self.refresh().await?;
                let at_end = self.bounds.place(self.next) == Place::End;
                return Ok(at_end.then(|| self.advance(Vec::new())));
            }
            let seen = self.bounds.mark;
            who = ReadFrom::Follower { seen };
        }
        let Readers { head, answered, .. } = &self.readers;
        let read = head
            .read(shard, partition, self.next, READ_HEAD_BYTES, who)
            .await?;
        let read = read.ok_or(ReadError::UnknownPartition { partition })?;
        if self.prefers_followers {
            let by = match read.by_follower {
                true => &answered.by_followers,
                false => &answered.by_leaders,
            };
            by.fetch_add(1, Ordering::Relaxed);
        }
        self.bounds = read.bounds;
        let batches: Vec<_> = read.batches.into_iter().map(ReadBatch::from).collect();
        let at_end = self.bounds.place(self.next) == Place::End;
        Ok((at_end || !batches.is_empty()).then(|| self.advance(batches)))
    }
}

impl From<HeadRecords> for ReadBatch {
    fn from(records: HeadRecords) -> Self {
        Self {
            range: records.range,
            leader_epoch: Some(records.leader_epoch),
            bytes: records.bytes,
        }
    }
}
