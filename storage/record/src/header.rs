//! The 61 bytes before the records (org.apache.kafka.common.record.DefaultRecordBatch).

use esker_types::limits::{BATCH_DECODED_BYTES_MAX, RECORD_BYTES_MIN};
use esker_types::{
    LeaderEpoch, Offset, OffsetRange, ProducerEpoch, ProducerId, ProducerStamp, Sequence, Timestamp,
};

use crate::codec::Codec;
use crate::error::{Error, Fault, FieldName};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of a whole batch at most: a header and records that are stored plain (a merge may store
/// them so, whatever the producer's codec was).
pub(crate) const STORED_BYTES_MAX: usize = HEADER_BYTES + BATCH_DECODED_BYTES_MAX;
/// Records of a batch at most, from the bytes a reader must be ready to hold.
pub(crate) const RECORDS_MAX: usize = BATCH_DECODED_BYTES_MAX / RECORD_BYTES_MIN;

/// Where each field begins.
pub(crate) mod layout {
    pub(crate) const BASE_OFFSET: usize = 0;
    pub(crate) const LENGTH: usize = 8;
    /// The length field counts the bytes from here on.
    pub(crate) const LENGTH_FROM: usize = 12;
    pub(crate) const LEADER_EPOCH: usize = 12;
    pub(crate) const MAGIC: usize = 16;
    pub(crate) const CRC: usize = 17;
    /// The CRC covers the bytes from here on.
    pub(crate) const CRC_FROM: usize = 21;
    pub(crate) const ATTRIBUTES: usize = 21;
    pub(crate) const LAST_OFFSET_DELTA: usize = 23;
    pub(crate) const BASE_TIMESTAMP: usize = 27;
    pub(crate) const MAX_TIMESTAMP: usize = 35;
    pub(crate) const PRODUCER_ID: usize = 43;
    pub(crate) const PRODUCER_EPOCH: usize = 51;
    pub(crate) const SEQUENCE: usize = 53;
    pub(crate) const RECORD_COUNT: usize = 57;
}

/// The only version of the layout.
const MAGIC: u8 = 2;

/// What the header of a batch says. Consistent in itself; only [`crate::Batch`] has a checksum
/// that holds, and only [`crate::admit`] has looked at the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Offset of the first record: as the producer sent it (0, in practice) until patched.
    pub base_offset: Offset,
    /// Leader epoch; `None` if negative, as producers may send it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Bytes of the whole batch, header included.
    pub bytes: usize,
    /// CRC-32C of byte 21 to the end, as the producer says.
    pub crc: u32,
    /// Codec, kind of timestamps, and who made it.
    pub attributes: Attributes,
    /// What the records' timestamp deltas count from.
    pub base_timestamp: Timestamp,
    /// The largest timestamp of the records.
    pub max_timestamp: Timestamp,
    /// Producer, epoch and first sequence, if idempotent.
    pub producer: Option<ProducerStamp>,
    /// Records, at least 1; also `lastOffsetDelta + 1`.
    pub records: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`, which may go on past the batch's end. Checks all
    /// that can be told without the records: neither that the batch is there whole, nor its CRC.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the byte; [`Error::TooLarge`] above 64 MiB and a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else {
            let short = Fault::Short {
                needed: HEADER_BYTES,
                left: bytes.len(),
            };
            return Err(malformed(bytes.len(), short));
        };
        let magic = raw[layout::MAGIC];
        if magic != MAGIC {
            return Err(malformed(layout::MAGIC, Fault::Magic(magic)));
        }
        let length = whole_length(raw)?;
        let attributes = Attributes::parse(u16::from_be_bytes(field(raw, layout::ATTRIBUTES)))?;
        let records = record_count(raw, length, attributes.codec())?;
        Ok(Self {
            base_offset: base_offset(raw, records)?,
            leader_epoch: u32::try_from(i32::from_be_bytes(field(raw, layout::LEADER_EPOCH)))
                .ok()
                .map(LeaderEpoch),
            bytes: length,
            crc: u32::from_be_bytes(field(raw, layout::CRC)),
            attributes,
            base_timestamp: Timestamp(i64::from_be_bytes(field(raw, layout::BASE_TIMESTAMP))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(raw, layout::MAX_TIMESTAMP))),
            producer: producer(raw)?,
            records,
        })
    }

    /// `[base offset, base offset + records)`.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        OffsetRange::from_count(self.base_offset, u64::from(self.records))
            .expect("parse refuses a base offset without room for the records")
    }

    /// Writes all fields. The caller has put lengths and CRC right.
    pub(crate) fn write(&self, out: &mut [u8; HEADER_BYTES]) {
        let length = u32::try_from(self.bytes - layout::LENGTH_FROM)
            .expect("a batch is bounded far below 2^31 bytes");
        let epoch = self.leader_epoch.map_or(u32::MAX, |epoch| epoch.0);
        let (id, producer_epoch, sequence) = match self.producer {
            Some(stamp) => (
                stamp.id.as_u64(),
                stamp.epoch.as_i16(),
                stamp.sequence.as_i32(),
            ),
            None => (u64::MAX, -1, -1),
        };
        put(
            out,
            layout::BASE_OFFSET,
            self.base_offset.get().to_be_bytes(),
        );
        put(out, layout::LENGTH, length.to_be_bytes());
        put(out, layout::LEADER_EPOCH, epoch.to_be_bytes());
        put(out, layout::MAGIC, [MAGIC]);
        put(out, layout::CRC, self.crc.to_be_bytes());
        put(out, layout::ATTRIBUTES, self.attributes.0.to_be_bytes());
        put(
            out,
            layout::LAST_OFFSET_DELTA,
            (self.records - 1).to_be_bytes(),
        );
        put(
            out,
            layout::BASE_TIMESTAMP,
            self.base_timestamp.0.to_be_bytes(),
        );
        put(
            out,
            layout::MAX_TIMESTAMP,
            self.max_timestamp.0.to_be_bytes(),
        );
        put(out, layout::PRODUCER_ID, id.to_be_bytes());
        put(out, layout::PRODUCER_EPOCH, producer_epoch.to_be_bytes());
        put(out, layout::SEQUENCE, sequence.to_be_bytes());
        put(out, layout::RECORD_COUNT, self.records.to_be_bytes());
    }
}

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampKind {
    /// The producer's time of creation.
    Create,
    /// The broker's time of append.
    LogAppend,
}

/// The attribute bits, none of them unknown: 0–2 codec, 3 kind of timestamps, 4 transactional,
/// 5 control, 6 delete horizon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(u16);

impl Attributes {
    const CODEC: u16 = 0b111;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;
    const KNOWN: u16 = (1 << 7) - 1;

    /// Attributes of a producer's batch: `codec` and nothing else.
    #[must_use]
    pub fn of_codec(codec: Codec) -> Self {
        Self(u16::from(codec.number()))
    }

    fn parse(bits: u16) -> Result<Self, Error> {
        if bits & !Self::KNOWN != 0 {
            return Err(malformed(layout::ATTRIBUTES, Fault::AttributeBits(bits)));
        }
        let number = u8::try_from(bits & Self::CODEC).expect("three bits");
        if Codec::from_number(number).is_none() {
            return Err(malformed(layout::ATTRIBUTES + 1, Fault::Codec(number)));
        }
        Ok(Self(bits))
    }

    /// How the records are compressed.
    #[must_use]
    pub fn codec(self) -> Codec {
        let number = u8::try_from(self.0 & Self::CODEC).expect("three bits");
        Codec::from_number(number).expect("parse refuses unknown codecs")
    }

    /// What the timestamps mean.
    #[must_use]
    pub const fn timestamp_kind(self) -> TimestampKind {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampKind::Create
        } else {
            TimestampKind::LogAppend
        }
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether its one record is a transaction marker.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time at which tombstones may go.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

pub(crate) fn malformed(at: usize, fault: Fault) -> Error {
    Error::Malformed { at, fault }
}

fn field<const N: usize>(raw: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *raw[at..]
        .first_chunk::<N>()
        .expect("every field lies inside the header")
}

fn put<const N: usize>(out: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    out[at..at + N].copy_from_slice(&value);
}

fn whole_length(raw: &[u8; HEADER_BYTES]) -> Result<usize, Error> {
    let declared = i32::from_be_bytes(field(raw, layout::LENGTH));
    let length = usize::try_from(declared)
        .ok()
        .map(|after| after + layout::LENGTH_FROM)
        .filter(|&length| length >= HEADER_BYTES);
    match length {
        None => Err(malformed(
            layout::LENGTH,
            Fault::Length {
                of: FieldName::Batch,
                declared: i64::from(declared),
                left: HEADER_BYTES - layout::LENGTH_FROM,
            },
        )),
        Some(bytes) if bytes > STORED_BYTES_MAX => Err(Error::TooLarge {
            bytes,
            limit: STORED_BYTES_MAX,
        }),
        Some(bytes) => Ok(bytes),
    }
}

fn record_count(raw: &[u8; HEADER_BYTES], length: usize, codec: Codec) -> Result<u32, Error> {
    let declared = i32::from_be_bytes(field(raw, layout::RECORD_COUNT));
    let limit = match codec {
        Codec::None => (length - HEADER_BYTES) / RECORD_BYTES_MIN,
        _ => RECORDS_MAX,
    };
    let count = u32::try_from(declared).ok();
    let Some(records) = count.filter(|&n| n > 0 && n as usize <= limit) else {
        if declared == 0 {
            return Err(Error::Empty);
        }
        let fault = Fault::Count {
            of: FieldName::Record,
            declared: i64::from(declared),
            limit,
        };
        return Err(malformed(layout::RECORD_COUNT, fault));
    };
    let delta = i32::from_be_bytes(field(raw, layout::LAST_OFFSET_DELTA));
    if i64::from(delta) + 1 != i64::from(records) {
        let fault = Fault::LastOffsetDelta { delta, records };
        return Err(malformed(layout::LAST_OFFSET_DELTA, fault));
    }
    Ok(records)
}

fn base_offset(raw: &[u8; HEADER_BYTES], records: u32) -> Result<Offset, Error> {
    let declared = i64::from_be_bytes(field(raw, layout::BASE_OFFSET));
    let Some(base) = u64::try_from(declared).ok().and_then(Offset::new) else {
        return Err(malformed(
            layout::BASE_OFFSET,
            Fault::NegativeOffset(declared),
        ));
    };
    if base.checked_add(u64::from(records)).is_none() {
        let base = base.get();
        return Err(malformed(
            layout::BASE_OFFSET,
            Fault::OffsetOverflow { base, records },
        ));
    }
    Ok(base)
}

fn producer(raw: &[u8; HEADER_BYTES]) -> Result<Option<ProducerStamp>, Error> {
    let id = i64::from_be_bytes(field(raw, layout::PRODUCER_ID));
    let epoch = i16::from_be_bytes(field(raw, layout::PRODUCER_EPOCH));
    let sequence = i32::from_be_bytes(field(raw, layout::SEQUENCE));
    if (id, epoch, sequence) == (-1, -1, -1) {
        return Ok(None);
    }
    let (Ok(unsigned), Some(epoch), Some(sequence)) = (
        u64::try_from(id),
        ProducerEpoch::from_i16(epoch),
        Sequence::from_i32(sequence),
    ) else {
        return Err(malformed(layout::PRODUCER_ID, Fault::HalfProducer));
    };
    let Some(id) = ProducerId::from_u64(unsigned) else {
        return Err(malformed(layout::PRODUCER_ID, Fault::ProducerId(id)));
    };
    Ok(Some(ProducerStamp {
        id,
        epoch,
        sequence,
    }))
}
