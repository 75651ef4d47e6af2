//! A command as bytes.
//!
//! ```text
//!   level u16 │ tag u8 │ body, little-endian
//! ```
//!
//! `level` is the one from which shards take the command; a build that does not know it must not
//! guess, and stops. Counts are `u32`, an option is a byte 0 or 1 and then its value. The numbers
//! of the tags below are the format: never reuse one.

use bytes::Bytes;
use esker_types::limits::{
    COMMAND_BYTES_MAX, ENTRY_BATCHES_MAX, ENTRY_PAYLOAD_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX,
    SEGMENT_RANGES_MAX,
};
use esker_types::{ContentHash, PartitionIndex, SegmentId, ShardId, Timestamp};

use super::{
    Append, AppendBatch, Command, CommitSegment, CreateTopic, PutTopic, SegmentRemoval, Swap, Trim,
};
use crate::catalog::RequestId;
use crate::codec::{Reader, Writer};
use crate::error::Error;
use crate::level::Level;
use crate::manifest::ObjectChecksum;

const TICK: u8 = 1;
const RAISE_LEVEL: u8 = 2;
const APPEND: u8 = 3;
const COMMIT_SEGMENT: u8 = 4;
const SWAP: u8 = 5;
const RAISE_GC_BOUNDARY: u8 = 6;
const PUT_TOPIC: u8 = 7;
const END_TOPIC: u8 = 8;
const DROP_TOMBSTONE: u8 = 9;
const TRIM: u8 = 10;
const CREATE_TOPIC: u8 = 11;
const ALTER_TOPIC: u8 = 12;
const ADD_PARTITIONS: u8 = 13;
const DELETE_TOPIC: u8 = 14;
const TOPIC_ENDED: u8 = 15;
const ALLOCATE_PRODUCERS: u8 = 16;
const ALLOCATE_NODE: u8 = 17;

/// Bytes of the smallest batch description: all options absent.
const BATCH_BYTES_MIN: usize = 12 + 4 + 4 + 8 + 8 + 1 + 16 + 1 + 1;
/// Bytes of the smallest removal: incarnation, id, raft range, count of ranges.
const REMOVAL_BYTES_MIN: usize = 4 + 16 + 16 + 4;

impl Command {
    /// The command as bytes.
    ///
    /// # Errors
    /// [`Error::TooMany`] if it holds more of something than its limit: whoever made it must make
    /// a smaller one. [`Error::Config`] for a change out of bounds.
    pub fn encode(&self) -> Result<Bytes, Error> {
        self.check_limits()?;
        let mut out = Writer::default();
        out.u16(self.level().get());
        self.write(&mut out);
        within("bytes of a command", out.len(), COMMAND_BYTES_MAX)?;
        Ok(Bytes::from(out.into_inner()))
    }

    /// Reads a command back.
    ///
    /// # Errors
    /// [`Error`], for anything that [`Command::encode`] does not write. [`Error::Level`] asks for
    /// a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        within("bytes of a command", bytes.len(), COMMAND_BYTES_MAX)?;
        let mut from = Reader::new("a command", bytes);
        let level = from.u16()?;
        if level > Level::NEWEST.get() {
            return Err(newer(level));
        }
        let tag = from.u8()?;
        let command = read(tag, &mut from)?;
        // One encoding a command: bytes that say another level were not written by `encode`.
        if level != command.level().get() {
            return Err(Error::Unknown {
                what: "the level of a command",
                value: u64::from(level),
            });
        }
        command.check_limits()?;
        from.finish()?;
        Ok(command)
    }

    /// Limits that hold for a whole command; both ways check them.
    fn check_limits(&self) -> Result<(), Error> {
        match self {
            Self::Append(append) => {
                within(
                    "batches of an entry",
                    append.batches.len(),
                    ENTRY_BATCHES_MAX,
                )?;
                let bytes: u64 = append.batches.iter().map(|b| u64::from(b.bytes)).sum();
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                within("payload bytes of an entry", bytes, ENTRY_PAYLOAD_BYTES_MAX)
            }
            Self::CommitSegment(commit) => within(
                "ranges of a segment",
                commit.ranges.len(),
                SEGMENT_RANGES_MAX,
            ),
            Self::Swap(swap) => {
                let ranges = swap
                    .removes
                    .iter()
                    .map(|removal| removal.ranges.len())
                    .sum();
                within("segments of a swap", swap.removes.len(), SEGMENT_RANGES_MAX)?;
                within("ranges of a swap", ranges, SEGMENT_RANGES_MAX)
            }
            Self::PutTopic(put) => within(
                "partitions of a topic",
                put.partitions.len(),
                partitions_max(),
            ),
            Self::AlterTopic { changes, .. } => {
                within(
                    "changes of a topic",
                    changes.len(),
                    Self::CONFIG_CHANGES_MAX,
                )?;
                changes.iter().try_for_each(|change| Ok(change.check()?))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Tick { time } => {
                out.u8(TICK);
                out.time(*time);
            }
            Self::RaiseLevel { level } => {
                out.u8(RAISE_LEVEL);
                out.u16(level.get());
            }
            Self::Append(append) => write_append(append, out),
            Self::CommitSegment(commit) => write_commit(commit, out),
            Self::Swap(swap) => write_swap(swap, out),
            Self::RaiseGcBoundary { to } => {
                out.u8(RAISE_GC_BOUNDARY);
                out.index(*to);
            }
            Self::PutTopic(put) => write_put_topic(put, out),
            Self::EndTopic { topic, version } => {
                out.u8(END_TOPIC);
                out.topic(*topic);
                out.version(*version);
            }
            Self::DropTombstone { topic, plan_index } => {
                out.u8(DROP_TOMBSTONE);
                out.topic(*topic);
                out.index(*plan_index);
            }
            Self::Trim(trim) => {
                out.u8(TRIM);
                out.partition(trim.partition);
                out.offset(trim.to);
                out.option(trim.planned_version, Writer::version);
            }
            _ => self.write_catalog(out),
        }
    }

    /// The commands of the catalog.
    fn write_catalog(&self, out: &mut Writer) {
        match self {
            Self::CreateTopic(create) => {
                out.u8(CREATE_TOPIC);
                out.u128(create.request.0);
                out.name(&create.name);
                out.u32(create.partitions);
                out.config(&create.config);
            }
            Self::AlterTopic {
                topic,
                expected,
                changes,
            } => {
                out.u8(ALTER_TOPIC);
                out.topic(*topic);
                out.option(*expected, Writer::version);
                out.count(changes.len());
                changes.iter().for_each(|change| out.change(change));
            }
            Self::AddPartitions {
                topic,
                expected,
                total,
            } => {
                out.u8(ADD_PARTITIONS);
                out.topic(*topic);
                out.option(*expected, Writer::version);
                out.u32(*total);
            }
            Self::DeleteTopic { topic } => {
                out.u8(DELETE_TOPIC);
                out.topic(*topic);
            }
            Self::TopicEnded { topic, shard } => {
                out.u8(TOPIC_ENDED);
                out.topic(*topic);
                out.u32(shard.0);
            }
            Self::AllocateProducers { count } => {
                out.u8(ALLOCATE_PRODUCERS);
                out.u32(*count);
            }
            Self::AllocateNode => out.u8(ALLOCATE_NODE),
            _ => unreachable!("`write` has written every other command"),
        }
    }
}

fn write_append(append: &Append, out: &mut Writer) {
    out.u8(APPEND);
    out.time(append.time);
    out.count(append.batches.len());
    for batch in &append.batches {
        out.partition(batch.partition);
        out.u32(batch.bytes);
        out.u32(batch.records);
        out.i64(batch.base_timestamp.0);
        out.i64(batch.max_timestamp.0);
        out.option(batch.producer, Writer::stamp);
        out.u128(batch.hash.0);
        out.option(batch.expected_end, Writer::offset);
        out.option(batch.fencing, Writer::fencing);
    }
}

fn write_commit(commit: &CommitSegment, out: &mut Writer) {
    out.u8(COMMIT_SEGMENT);
    out.u128(commit.segment.0);
    out.u64(commit.length);
    out.u64(commit.checksum.0);
    out.raft(commit.raft);
    out.range_list(&commit.ranges);
}

fn write_swap(swap: &Swap, out: &mut Writer) {
    out.u8(SWAP);
    out.index(swap.plan_index);
    out.count(swap.removes.len());
    for removal in &swap.removes {
        out.incarnation(removal.incarnation);
        out.u128(removal.segment.0);
        out.raft(removal.raft);
        out.range_list(&removal.ranges);
    }
    // Segments put in their place: a later level gives this count a meaning.
    out.count(0);
}

fn write_put_topic(put: &PutTopic, out: &mut Writer) {
    out.u8(PUT_TOPIC);
    out.topic(put.topic);
    out.version(put.version);
    out.name(&put.name);
    out.config(&put.config);
    out.count(put.partitions.len());
    put.partitions
        .iter()
        .for_each(|partition| out.u32(partition.0));
}

fn read(tag: u8, from: &mut Reader<'_>) -> Result<Command, Error> {
    Ok(match tag {
        TICK => Command::Tick { time: from.time()? },
        RAISE_LEVEL => {
            let number = from.u16()?;
            Command::RaiseLevel {
                level: Level::new(number).ok_or_else(|| newer(number))?,
            }
        }
        APPEND => Command::Append(read_append(from)?),
        COMMIT_SEGMENT => Command::CommitSegment(CommitSegment {
            segment: SegmentId(from.u128()?),
            length: from.u64()?,
            checksum: ObjectChecksum(from.u64()?),
            raft: from.raft()?,
            ranges: from.range_list()?,
        }),
        SWAP => Command::Swap(read_swap(from)?),
        RAISE_GC_BOUNDARY => Command::RaiseGcBoundary { to: from.index()? },
        PUT_TOPIC => Command::PutTopic(read_put_topic(from)?),
        END_TOPIC => Command::EndTopic {
            topic: from.topic()?,
            version: from.version()?,
        },
        DROP_TOMBSTONE => Command::DropTombstone {
            topic: from.topic()?,
            plan_index: from.index()?,
        },
        TRIM => Command::Trim(Trim {
            partition: from.partition()?,
            to: from.offset()?,
            planned_version: from.option(Reader::version)?,
        }),
        CREATE_TOPIC => Command::CreateTopic(CreateTopic {
            request: RequestId(from.u128()?),
            name: from.name()?,
            partitions: from.u32()?,
            config: from.config()?,
        }),
        ALTER_TOPIC => {
            let (topic, expected) = (from.topic()?, from.option(Reader::version)?);
            let count = from.count("changes of a topic", Command::CONFIG_CHANGES_MAX, 2)?;
            let changes = (0..count)
                .map(|_| from.change())
                .collect::<Result<_, _>>()?;
            Command::AlterTopic {
                topic,
                expected,
                changes,
            }
        }
        ADD_PARTITIONS => Command::AddPartitions {
            topic: from.topic()?,
            expected: from.option(Reader::version)?,
            total: from.u32()?,
        },
        DELETE_TOPIC => Command::DeleteTopic {
            topic: from.topic()?,
        },
        TOPIC_ENDED => Command::TopicEnded {
            topic: from.topic()?,
            shard: ShardId(from.u32()?),
        },
        ALLOCATE_PRODUCERS => Command::AllocateProducers { count: from.u32()? },
        ALLOCATE_NODE => Command::AllocateNode,
        other => {
            return Err(Error::Unknown {
                what: "a command's tag",
                value: u64::from(other),
            });
        }
    })
}

fn read_append(from: &mut Reader<'_>) -> Result<Append, Error> {
    let time = from.time()?;
    let count = from.count("batches of an entry", ENTRY_BATCHES_MAX, BATCH_BYTES_MIN)?;
    let batch = |from: &mut Reader<'_>| {
        Ok(AppendBatch {
            partition: from.partition()?,
            bytes: from.u32()?,
            records: from.u32()?,
            base_timestamp: Timestamp(from.i64()?),
            max_timestamp: Timestamp(from.i64()?),
            producer: from.option(Reader::stamp)?,
            hash: ContentHash(from.u128()?),
            expected_end: from.option(Reader::offset)?,
            fencing: from.option(Reader::fencing)?,
        })
    };
    let batches = (0..count)
        .map(|_| batch(from))
        .collect::<Result<_, Error>>()?;
    Ok(Append { time, batches })
}

fn read_swap(from: &mut Reader<'_>) -> Result<Swap, Error> {
    let plan_index = from.index()?;
    let count = from.count("segments of a swap", SEGMENT_RANGES_MAX, REMOVAL_BYTES_MIN)?;
    let removal = |from: &mut Reader<'_>| {
        Ok(SegmentRemoval {
            incarnation: from.incarnation()?,
            segment: SegmentId(from.u128()?),
            raft: from.raft()?,
            ranges: from.range_list()?,
        })
    };
    let removes = (0..count)
        .map(|_| removal(from))
        .collect::<Result<_, Error>>()?;
    match from.u32()? {
        0 => Ok(Swap {
            plan_index,
            removes,
        }),
        more => Err(Error::TooMany {
            what: "segments that a swap adds at level 1",
            value: u64::from(more),
            limit: 0,
        }),
    }
}

fn read_put_topic(from: &mut Reader<'_>) -> Result<PutTopic, Error> {
    let (topic, version) = (from.topic()?, from.version()?);
    let (name, config) = (from.name()?, from.config()?);
    let count = from.count("partitions of a topic", partitions_max(), 4)?;
    let partitions = (0..count)
        .map(|_| from.u32().map(PartitionIndex))
        .collect::<Result<_, _>>()?;
    Ok(PutTopic {
        topic,
        version,
        name,
        config,
        partitions,
    })
}

fn partitions_max() -> usize {
    usize::try_from(PARTITIONS_PER_TOPIC_MAX).expect("32 bits fit a usize here")
}

fn within(what: &'static str, value: usize, limit: usize) -> Result<(), Error> {
    if value > limit {
        return Err(Error::TooMany {
            what,
            value: value as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

const fn newer(found: u16) -> Error {
    Error::Level {
        what: "a command",
        found,
        newest: Level::NEWEST.get(),
    }
}
