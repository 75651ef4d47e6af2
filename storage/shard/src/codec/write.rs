//! The vocabulary, to bytes.

use esker_types::{
    EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, Sequence, ShardTime, TopicId,
    TopicName, TopicVersion,
};

use super::Writer;
use crate::config::{ConfigChange, TopicConfig};

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
