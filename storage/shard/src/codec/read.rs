//! The vocabulary, from bytes: what comes out is valid, or nothing comes out.

use std::time::Duration;

use esker_types::limits::{SEGMENT_RANGES_MAX, STORAGE_CLASS_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use esker_types::{
    EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, Sequence,
    ShardTime, Term, TopicId, TopicName, TopicVersion,
};

use super::Reader;
use crate::command::RangeList;
use crate::config::{Compression, ConfigChange, StorageClass, TopicConfig};
use crate::error::Error;

/// Bytes of a partition and an offset range.
const RANGE_BYTES: usize = 12 + 16;

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::Trailing {
            what: self.what,
            bytes: self.rest.len(),
        })
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(Error::Truncated {
                what: self.what,
                need: length,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A `u32` count of things of at least `each` bytes: at most `limit`, and no more than the
    /// bytes left can hold.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        each: usize,
    ) -> Result<usize, Error> {
        let count = self.u32()?;
        let value = usize::try_from(count).expect("32 bits fit a usize here");
        if value > limit {
            let limit = limit as u64;
            return Err(Error::TooMany {
                what,
                value: u64::from(count),
                limit,
            });
        }
        let need = value.saturating_mul(each);
        if need > self.rest.len() {
            return Err(Error::Truncated {
                what,
                need,
                have: self.rest.len(),
            });
        }
        Ok(value)
    }

    pub(crate) const fn unknown(what: &'static str, value: u64) -> Error {
        Error::Unknown { what, value }
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Error> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Self::unknown("a yes or no", u64::from(other))),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if self.boolean()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn incarnation(&mut self) -> Result<Incarnation, Error> {
        let number = self.u32()?;
        Incarnation::new(number).ok_or(Self::unknown("an incarnation", u64::from(number)))
    }

    pub(crate) fn topic(&mut self) -> Result<TopicId, Error> {
        let raw = self.u64()?;
        TopicId::from_u64(raw).ok_or(Self::unknown("a topic id", raw))
    }

    pub(crate) fn version(&mut self) -> Result<TopicVersion, Error> {
        self.u64().map(TopicVersion)
    }

    pub(crate) fn partition(&mut self) -> Result<PartitionId, Error> {
        Ok(PartitionId {
            topic: self.topic()?,
            index: PartitionIndex(self.u32()?),
        })
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Error> {
        let number = self.u64()?;
        Offset::new(number).ok_or(Self::unknown("an offset", number))
    }

    pub(crate) fn range(&mut self) -> Result<OffsetRange, Error> {
        let (start, end) = (self.offset()?, self.offset()?);
        OffsetRange::new(start, end).ok_or(Self::unknown("the end of a range", end.get()))
    }

    pub(crate) fn range_list(&mut self) -> Result<RangeList, Error> {
        let count = self.count("ranges of a segment", SEGMENT_RANGES_MAX, RANGE_BYTES)?;
        (0..count)
            .map(|_| Ok((self.partition()?, self.range()?)))
            .collect()
    }

    pub(crate) fn index(&mut self) -> Result<RaftIndex, Error> {
        self.u64().map(RaftIndex)
    }

    pub(crate) fn raft(&mut self) -> Result<RaftRange, Error> {
        let (from, to) = (self.index()?, self.index()?);
        RaftRange::new(from, to).ok_or(Self::unknown("the end of a raft range", to.0))
    }

    pub(crate) fn entry(&mut self) -> Result<EntryId, Error> {
        Ok(EntryId {
            term: Term(self.u64()?),
            index: self.index()?,
        })
    }

    pub(crate) fn epoch(&mut self) -> Result<LeaderEpoch, Error> {
        let number = self.u32()?;
        if i32::try_from(number).is_err() {
            return Err(Self::unknown("a leader epoch", u64::from(number)));
        }
        Ok(LeaderEpoch(number))
    }

    pub(crate) fn time(&mut self) -> Result<ShardTime, Error> {
        self.u64().map(ShardTime)
    }

    pub(crate) fn fencing(&mut self) -> Result<FencingToken, Error> {
        self.u64().map(FencingToken)
    }

    pub(crate) fn producer_id(&mut self) -> Result<ProducerId, Error> {
        let raw = self.u64()?;
        ProducerId::from_u64(raw).ok_or(Self::unknown("a producer id", raw))
    }

    pub(crate) fn producer_epoch(&mut self) -> Result<ProducerEpoch, Error> {
        let raw = self.u16()?;
        ProducerEpoch::from_i16(raw.cast_signed())
            .ok_or(Self::unknown("a producer epoch", u64::from(raw)))
    }

    pub(crate) fn sequence(&mut self) -> Result<Sequence, Error> {
        let raw = self.u32()?;
        Sequence::from_i32(raw.cast_signed()).ok_or(Self::unknown("a sequence", u64::from(raw)))
    }

    pub(crate) fn stamp(&mut self) -> Result<ProducerStamp, Error> {
        Ok(ProducerStamp {
            id: self.producer_id()?,
            epoch: self.producer_epoch()?,
            sequence: self.sequence()?,
        })
    }

    fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, Error> {
        let length = usize::from(self.u16()?);
        if length > limit {
            return Err(Error::TooMany {
                what,
                value: length as u64,
                limit: limit as u64,
            });
        }
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes).map_err(|bad| Self::unknown(what, bad.valid_up_to() as u64))
    }

    pub(crate) fn name(&mut self) -> Result<TopicName, Error> {
        Ok(TopicName::new(
            self.text("a topic name", TOPIC_NAME_BYTES_MAX)?,
        )?)
    }

    pub(crate) fn change(&mut self) -> Result<ConfigChange, Error> {
        let change = match self.u8()? {
            0 => ConfigChange::Retention(self.option(Self::u64)?.map(Duration::from_millis)),
            1 => ConfigChange::RetentionBytes(self.option(Self::u64)?),
            2 => ConfigChange::MaxBatchBytes(self.u32()?),
            3 => {
                let number = self.u8()?;
                ConfigChange::Compression(
                    Compression::from_number(number)
                        .ok_or(Self::unknown("a codec", u64::from(number)))?,
                )
            }
            4 => ConfigChange::MergeTranscode(self.boolean()?),
            5 => ConfigChange::StorageClass(self.option(|from| {
                Ok(StorageClass::new(
                    from.text("a storage class", STORAGE_CLASS_BYTES_MAX)?,
                )?)
            })?),
            6 => ConfigChange::DeepCheck(self.boolean()?),
            other => return Err(Self::unknown("a topic setting", u64::from(other))),
        };
        change.check()?;
        Ok(change)
    }

    /// A whole configuration: each setting once, in the order of `ConfigChange::KEYS`.
    pub(crate) fn config(&mut self) -> Result<TopicConfig, Error> {
        let mut config = TopicConfig::default();
        for key in ConfigChange::KEYS {
            let change = self.change()?;
            if change.key() != key {
                return Err(Error::Order {
                    what: "settings of a topic",
                });
            }
            config = config.with(&change)?;
        }
        Ok(config)
    }
}
