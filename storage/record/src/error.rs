//! What is wrong with a batch, where, and by which limit. Never with what bytes.

use crate::codec::{self, Codec};

/// Why bytes are no batch, or none we take.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The batch's frame or header contradicts itself.
    #[error("malformed batch at byte {at}: {fault}")]
    Malformed {
        /// Byte of the batch.
        at: usize,
        /// What is wrong there.
        fault: Fault,
    },
    /// The records, once decoded, contradict themselves or the header.
    #[error("malformed batch at byte {at} of its decoded records: {fault}")]
    MalformedRecords {
        /// Byte of the decoded records.
        at: usize,
        /// What is wrong there.
        fault: Fault,
    },
    /// CRC-32C of byte 21 to the end is not what the header says.
    #[error(
        "batch checksum mismatch: the header says {declared:08x}, the bytes give {computed:08x}"
    )]
    Checksum {
        /// As the header says.
        declared: u32,
        /// As the bytes give.
        computed: u32,
    },
    /// The batch is larger than its topic allows.
    #[error("batch has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// The records are larger than any reader must be ready to hold.
    #[error("records of a batch decode to {at_least} bytes or more, the limit is {limit}")]
    DecodedTooLarge {
        /// Bytes it has at least: decoding stops at the limit.
        at_least: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// The compressed records cannot be decoded.
    #[error("records of a batch cannot be decoded as {codec}: {fault}")]
    Codec {
        /// The codec of the attributes.
        codec: Codec,
        /// What its decoder says.
        fault: codec::Fault,
    },
    /// A producer may not send this.
    #[error("batch refused: {0}")]
    Refused(Refusal),
    /// A batch must hold a record.
    #[error("batch holds no record, it needs at least 1")]
    Empty,
    /// A new record's timestamp lies too far from the first one's to be written as a difference.
    #[error("timestamp {timestamp} lies more than 2^63 ms from the batch's first, {base}")]
    TimestampSpread {
        /// The record's.
        timestamp: i64,
        /// The batch's first.
        base: i64,
    },
}

impl Error {
    /// `fault` of `codec` as an error of a batch.
    pub(crate) fn of_codec(codec: Codec, fault: codec::Fault) -> Self {
        match fault {
            codec::Fault::TooLarge { at_least, limit } => Self::DecodedTooLarge { at_least, limit },
            fault => Self::Codec { codec, fault },
        }
    }
}

/// One contradiction in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Fewer bytes than the part needs.
    #[error("{needed} bytes are needed, {left} are left")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        left: usize,
    },
    /// Bytes after the end.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A length field that cannot be.
    #[error("length of {of} is {declared}, {left} bytes are left")]
    Length {
        /// What it measures.
        of: FieldName,
        /// What it says.
        declared: i64,
        /// What there is.
        left: usize,
    },
    /// Not Kafka's version 2.
    #[error("magic is {0}, only 2 is known")]
    Magic(u8),
    /// A codec number nobody has given.
    #[error("codec is {0}, the largest known is 4")]
    Codec(u8),
    /// Attribute bits nobody has given.
    #[error("attributes {0:#06x} have unknown bits set")]
    AttributeBits(u16),
    /// Offsets are never negative.
    #[error("base offset is {0}")]
    NegativeOffset(i64),
    /// The last offset lies past 2^63 − 1.
    #[error("base offset {base} leaves no room for {records} records")]
    OffsetOverflow {
        /// Base offset.
        base: u64,
        /// Records.
        records: u32,
    },
    /// A count that the bytes cannot hold.
    #[error("count of {of} is {declared}, the bytes there hold at most {limit}")]
    Count {
        /// What it counts.
        of: FieldName,
        /// What it says.
        declared: i64,
        /// What fits.
        limit: usize,
    },
    /// `lastOffsetDelta + 1` must be the record count.
    #[error("last offset delta is {delta} with {records} records")]
    LastOffsetDelta {
        /// As the header says.
        delta: i32,
        /// As the header says.
        records: u32,
    },
    /// Producer id, epoch and sequence come together or not at all (−1).
    #[error("producer id, epoch and sequence are neither all there nor all absent")]
    HalfProducer,
    /// A producer id that no cluster has given.
    #[error("producer id {0} was given by no cluster")]
    ProducerId(i64),
    /// A varint of more bits than its type.
    #[error("varint overflows {bits} bits")]
    Varint {
        /// Bits of the type.
        bits: u32,
    },
    /// Records are numbered 0, 1, 2, …
    #[error("offset delta is {found}, expected {expected}")]
    OffsetDelta {
        /// As the record says.
        found: i32,
        /// Its place in the batch.
        expected: u32,
    },
    /// Base timestamp plus delta leaves 64 bits.
    #[error("timestamp delta {delta} overflows base timestamp {base}")]
    TimestampOverflow {
        /// The record's.
        delta: i64,
        /// The batch's.
        base: i64,
    },
    /// The header's maximum is not the records'.
    #[error("max timestamp is {declared}, the records give {found}")]
    MaxTimestamp {
        /// As the header says.
        declared: i64,
        /// As the records give.
        found: i64,
    },
}

/// A part of a batch that has a length or a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldName {
    /// The whole batch.
    Batch,
    /// One record, or the records of a batch.
    Record,
    /// A record's key.
    Key,
    /// A record's value.
    Value,
    /// A record header, or the headers of a record.
    Header,
    /// A record header's key.
    HeaderKey,
    /// A record header's value.
    HeaderValue,
}

impl std::fmt::Display for FieldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::Record => "record",
            Self::Key => "key",
            Self::Value => "value",
            Self::Header => "header",
            Self::HeaderKey => "header key",
            Self::HeaderValue => "header value",
        })
    }
}

/// Attribute bits that only our own coordinator may set, or that need server-side rewriting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Bit 5.
    #[error("control batches come from the coordinator alone")]
    Control,
    /// Bit 4.
    #[error("transactions are not served")]
    Transactional,
    /// Bit 3.
    #[error("timestamps of kind log append time are not a producer's to set")]
    LogAppendTime,
    /// Bit 6.
    #[error("a delete horizon is not a producer's to set")]
    DeleteHorizon,
}
