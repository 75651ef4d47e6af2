//! Bytes in, bytes out: little-endian, every count checked against what is left before anything
//! is allocated for it. Shared by commands and checkpoints.

use bytes::{Buf, BufMut};
use esker_types::{
    EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, Sequence,
    ShardTime, Term, TopicId, TopicName, TopicVersion,
    limits::{SEGMENT_RANGES_MAX, STORAGE_CLASS_BYTES_MAX, TOPIC_NAME_BYTES_MAX},
};

use crate::command::RangeList;
use crate::config::{Compression, ConfigChange, StorageClass, TopicConfig};
use crate::error::Error;

/// Bytes of a partition and an offset range.
const RANGE_BYTES: usize = 12 + 16;

/// Reads from a slice. Errors name `what` is being read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

/// Writes to a buffer.
#[derive(Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

macro_rules! numbers {
    ($($name:ident: $type:ty = $get:ident / $put:ident),+ $(,)?) => {
        impl Reader<'_> {$(
            pub(crate) fn $name(&mut self) -> Result<$type, Error> {
                let what = self.what;
                self.rest.$get().map_err(|short| Error::Truncated {
                    what,
                    need: short.requested,
                    have: short.available,
                })
            }
        )+}
        impl Writer {$(
            pub(crate) fn $name(&mut self, value: $type) {
                self.out.$put(value);
            }
        )+}
    };
}

numbers! {
    u8: u8 = try_get_u8 / put_u8,
    u16: u16 = try_get_u16_le / put_u16_le,
    u32: u32 = try_get_u32_le / put_u32_le,
    u64: u64 = try_get_u64_le / put_u64_le,
    u128: u128 = try_get_u128_le / put_u128_le,
    i64: i64 = try_get_i64_le / put_i64_le,
}

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
            0 => ConfigChange::Retention(
                self.option(Self::u64)?
                    .map(std::time::Duration::from_millis),
            ),
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

impl Writer {
    pub(crate) const fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn into_inner(self) -> Vec<u8> {
        self.out
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A count that the caller has held to a limit below `u32::MAX`.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("every count has a limit that fits 32 bits"));
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.boolean(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn incarnation(&mut self, incarnation: Incarnation) {
        self.u32(incarnation.get());
    }

    pub(crate) fn topic(&mut self, topic: TopicId) {
        self.u64(topic.as_u64());
    }

    pub(crate) fn version(&mut self, version: TopicVersion) {
        self.u64(version.0);
    }

    pub(crate) fn partition(&mut self, partition: PartitionId) {
        self.topic(partition.topic);
        self.u32(partition.index.0);
    }

    pub(crate) fn offset(&mut self, offset: Offset) {
        self.u64(offset.get());
    }

    pub(crate) fn range(&mut self, range: OffsetRange) {
        self.offset(range.start());
        self.offset(range.end());
    }

    pub(crate) fn range_list(&mut self, ranges: &[(PartitionId, OffsetRange)]) {
        self.count(ranges.len());
        for &(partition, range) in ranges {
            self.partition(partition);
            self.range(range);
        }
    }

    pub(crate) fn index(&mut self, index: RaftIndex) {
        self.u64(index.0);
    }

    pub(crate) fn raft(&mut self, raft: RaftRange) {
        self.index(raft.from);
        self.index(raft.to);
    }

    pub(crate) fn entry(&mut self, entry: EntryId) {
        self.u64(entry.term.0);
        self.index(entry.index);
    }

    pub(crate) fn epoch(&mut self, epoch: LeaderEpoch) {
        self.u32(epoch.0);
    }

    pub(crate) fn time(&mut self, time: ShardTime) {
        self.u64(time.0);
    }

    pub(crate) fn fencing(&mut self, token: FencingToken) {
        self.u64(token.0);
    }

    pub(crate) fn producer_id(&mut self, id: ProducerId) {
        self.u64(id.as_u64());
    }

    pub(crate) fn producer_epoch(&mut self, epoch: ProducerEpoch) {
        self.u16(epoch.as_i16().cast_unsigned());
    }

    pub(crate) fn sequence(&mut self, sequence: Sequence) {
        self.u32(sequence.as_i32().cast_unsigned());
    }

    pub(crate) fn stamp(&mut self, stamp: ProducerStamp) {
        self.producer_id(stamp.id);
        self.producer_epoch(stamp.epoch);
        self.sequence(stamp.sequence);
    }

    fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("names are shorter than 64 KiB"));
        self.bytes(text.as_bytes());
    }

    pub(crate) fn name(&mut self, name: &TopicName) {
        self.text(name.as_str());
    }

    pub(crate) fn change(&mut self, change: &ConfigChange) {
        match change {
            ConfigChange::Retention(age) => {
                self.u8(0);
                let ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                self.option(ms, Self::u64);
            }
            ConfigChange::RetentionBytes(bytes) => {
                self.u8(1);
                self.option(*bytes, Self::u64);
            }
            ConfigChange::MaxBatchBytes(bytes) => {
                self.u8(2);
                self.u32(*bytes);
            }
            ConfigChange::Compression(codec) => {
                self.u8(3);
                self.u8(codec.number());
            }
            ConfigChange::MergeTranscode(yes) => {
                self.u8(4);
                self.boolean(*yes);
            }
            ConfigChange::StorageClass(class) => {
                self.u8(5);
                self.option(class.as_ref(), |out, class| out.text(class.as_str()));
            }
            ConfigChange::DeepCheck(yes) => {
                self.u8(6);
                self.boolean(*yes);
            }
        }
    }

    pub(crate) fn config(&mut self, config: &TopicConfig) {
        for setting in &config.settings() {
            self.change(setting);
        }
    }
}
