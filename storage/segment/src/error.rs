//! What is damaged, in which part of which segment, and which offsets that touches.

use std::fmt;

use esker_record::codec;
use esker_types::{OffsetRange, PartitionId, SegmentId};

use crate::block::BlockNumber;

/// Why a segment cannot be written or read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Stored bytes contradict a checksum, each other, or what was expected of the object.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// Written by a later version.
    #[error(
        "segment {segment} has format version {found}, the newest known is {known}; \
         use a newer release to read it"
    )]
    Version {
        /// Which.
        segment: SegmentId,
        /// As it says.
        found: u32,
        /// The newest that this crate reads.
        known: u32,
    },
    /// A writer was given more than one segment holds.
    #[error("segment {segment} is full: it holds at most {limit} {what}")]
    Full {
        /// Which.
        segment: SegmentId,
        /// Of what.
        what: &'static str,
        /// How many it holds.
        limit: usize,
    },
    /// A writer was given nothing.
    #[error("segment {segment} would be empty, it needs at least 1 batch")]
    Empty {
        /// Which.
        segment: SegmentId,
    },
    /// The compressor failed.
    #[error("{block} of segment {segment} cannot be compressed: {fault}")]
    Compress {
        /// Which.
        segment: SegmentId,
        /// Which block of it.
        block: BlockNumber,
        /// What the compressor says.
        fault: codec::Fault,
    },
}

/// A damaged part of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Which segment.
    pub segment: SegmentId,
    /// Which part of it.
    pub part: Part,
    /// What is wrong there.
    pub fault: Fault,
    /// The offsets that cannot be read because of it, where that is known.
    pub touches: Option<(PartitionId, OffsetRange)>,
}

impl std::error::Error for Damage {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            part,
            fault,
            touches,
        } = self;
        write!(f, "segment {segment} is damaged: {part}: {fault}")?;
        match touches {
            None => Ok(()),
            Some((partition, range)) => write!(f, "; touches offsets {range} of {partition}"),
        }
    }
}

impl Error {
    pub(crate) fn damaged(segment: SegmentId, part: Part, fault: Fault) -> Self {
        Self::Damaged(Box::new(Damage {
            segment,
            part,
            fault,
            touches: None,
        }))
    }

    /// The same, saying which offsets a reader was after.
    #[must_use]
    pub fn touching(mut self, partition: PartitionId, range: OffsetRange) -> Self {
        if let Self::Damaged(damage) = &mut self {
            damage.touches.get_or_insert((partition, range));
        }
        self
    }
}

/// A part of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The first 16 bytes.
    Header,
    /// A block.
    Block(BlockNumber),
    /// A batch inside a block.
    Batch {
        /// The block.
        block: BlockNumber,
        /// Byte of the raw block.
        position: u32,
    },
    /// A page of a partition's index.
    IndexPage {
        /// Byte of the object.
        position: u64,
    },
    /// A page of the directory.
    DirectoryPage {
        /// Byte of the object.
        position: u64,
    },
    /// The footer.
    Footer,
    /// The last 48 bytes.
    Trailer,
    /// The object as a whole.
    Object,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Block(number) => write!(f, "{number}"),
            Self::Batch { block, position } => write!(f, "batch at byte {position} of {block}"),
            Self::IndexPage { position } => write!(f, "index page at byte {position}"),
            Self::DirectoryPage { position } => write!(f, "directory page at byte {position}"),
            Self::Footer => f.write_str("footer"),
            Self::Trailer => f.write_str("trailer"),
            Self::Object => f.write_str("whole object"),
        }
    }
}

/// What is wrong with a part.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Fewer bytes than a field or part needs.
    #[error("{needed} bytes are needed, {left} are left")]
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        left: u64,
    },
    /// Bytes after the end.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many.
        bytes: u64,
    },
    /// It does not begin or end as it must.
    #[error("the magic is missing")]
    Magic,
    /// A checksum.
    #[error("checksum mismatch: {declared:x} is declared, the bytes give {computed:x}")]
    Checksum {
        /// As declared.
        declared: u64,
        /// As the bytes give.
        computed: u64,
    },
    /// More of something than there may be, or than the bytes can hold.
    #[error("{declared} {of} are declared, at most {limit} can be there")]
    TooMany {
        /// Of what.
        of: &'static str,
        /// As declared.
        declared: u64,
        /// What may or can be there.
        limit: u64,
    },
    /// A value that the field cannot have.
    #[error("{of} is {found}, which cannot be")]
    Value {
        /// Which field.
        of: &'static str,
        /// What it says.
        found: u64,
    },
    /// Two places that must agree.
    #[error("{of} is {found}, expected {expected}")]
    Mismatch {
        /// Of what.
        of: &'static str,
        /// What it is.
        found: u64,
        /// What the other place says.
        expected: u64,
    },
    /// A topic name that cannot be.
    #[error(transparent)]
    Name(#[from] esker_types::NameError),
    /// The compressed bytes of a block.
    #[error("the block cannot be decompressed: {0}")]
    Codec(#[from] codec::Fault),
    /// A batch.
    #[error(transparent)]
    Batch(#[from] esker_record::Error),
}
