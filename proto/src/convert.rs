//! Ids, offsets and durability, between the wire and [`esker_types`].

use esker_types::{
    Durability, Incarnation, Offset, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, Sequence,
};

use crate::v1;

/// A field of a message that holds no valid value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the field `{field}` is {value}, allowed is {allowed}")]
pub struct FieldError {
    /// As the .proto names it.
    pub field: &'static str,
    /// What it holds.
    pub value: u64,
    /// What it may hold.
    pub allowed: &'static str,
}

impl From<FieldError> for v1::Error {
    fn from(error: FieldError) -> Self {
        Self::new(
            v1::Code::InvalidRequest,
            Durability::NotWritten,
            error.to_string(),
        )
    }
}

impl From<Durability> for v1::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Durable => Self::Durable,
            Durability::NotWritten => Self::NotWritten,
            Durability::Unknown => Self::Unknown,
        }
    }
}

impl From<v1::Durability> for Durability {
    /// Who does not say leaves it unknown.
    fn from(durability: v1::Durability) -> Self {
        match durability {
            v1::Durability::Durable => Self::Durable,
            v1::Durability::NotWritten => Self::NotWritten,
            v1::Durability::Unknown | v1::Durability::Unspecified => Self::Unknown,
        }
    }
}

impl From<ProducerStamp> for v1::Producer {
    fn from(stamp: ProducerStamp) -> Self {
        Self {
            id: stamp.id.as_u64(),
            epoch: u32::from(stamp.epoch.as_i16().cast_unsigned()),
            sequence: stamp.sequence.as_i32().cast_unsigned(),
        }
    }
}

impl TryFrom<v1::Producer> for ProducerStamp {
    type Error = FieldError;

    fn try_from(producer: v1::Producer) -> Result<Self, FieldError> {
        let wrong = |field, value, allowed| FieldError {
            field,
            value,
            allowed,
        };
        let (id, epoch, sequence) = (producer.id, producer.epoch, producer.sequence);
        Ok(Self {
            id: ProducerId::from_u64(id)
                .ok_or_else(|| wrong("producer.id", id, "an id that AllocateProducer gave"))?,
            epoch: i16::try_from(epoch)
                .ok()
                .and_then(ProducerEpoch::from_i16)
                .ok_or_else(|| wrong("producer.epoch", u64::from(epoch), "0 to 32767"))?,
            sequence: i32::try_from(sequence)
                .ok()
                .and_then(Sequence::from_i32)
                .ok_or_else(|| {
                    wrong("producer.sequence", u64::from(sequence), "0 to 2147483647")
                })?,
        })
    }
}

impl v1::AllocateProducerReply {
    /// The producer and the epoch to begin with.
    ///
    /// # Errors
    /// [`FieldError`] if the two are none.
    pub fn producer(&self) -> Result<(ProducerId, ProducerEpoch), FieldError> {
        let stamp = ProducerStamp::try_from(v1::Producer {
            id: self.producer_id,
            epoch: self.epoch,
            sequence: 0,
        })?;
        Ok((stamp.id, stamp.epoch))
    }
}

impl v1::Mark {
    /// The mark of `index` in `incarnation`.
    #[must_use]
    pub const fn new(incarnation: Incarnation, index: RaftIndex) -> Self {
        Self {
            incarnation: incarnation.get(),
            index: index.0,
        }
    }

    /// What it marks.
    ///
    /// # Errors
    /// [`FieldError`] if the incarnation is none.
    pub fn place(&self) -> Result<(Incarnation, RaftIndex), FieldError> {
        let incarnation = Incarnation::new(self.incarnation).ok_or(FieldError {
            field: "mark.incarnation",
            value: u64::from(self.incarnation),
            allowed: "what a reply carried",
        })?;
        Ok((incarnation, RaftIndex(self.index)))
    }
}

impl v1::Position {
    /// The first offset kept.
    #[must_use]
    pub fn earliest() -> Self {
        v1::position::At::Edge(v1::Edge::Earliest.into()).into()
    }

    /// The first unwritten offset.
    #[must_use]
    pub fn end() -> Self {
        v1::position::At::Edge(v1::Edge::End.into()).into()
    }

    /// This offset.
    #[must_use]
    pub fn offset(offset: Offset) -> Self {
        v1::position::At::Offset(offset.get()).into()
    }
}

impl From<v1::position::At> for v1::Position {
    fn from(at: v1::position::At) -> Self {
        Self { at: Some(at) }
    }
}

/// Bytes of `message` on the wire.
#[must_use]
pub fn encoded_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// The offset that `field` holds.
///
/// # Errors
/// [`FieldError`] above [`Offset::MAX`].
pub fn offset(field: &'static str, value: u64) -> Result<Offset, FieldError> {
    Offset::new(value).ok_or(FieldError {
        field,
        value,
        allowed: "0 to 9223372036854775807",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_survives_the_wire_and_silence_is_unknown() {
        for durability in [
            Durability::Durable,
            Durability::NotWritten,
            Durability::Unknown,
        ] {
            assert_eq!(
                Durability::from(v1::Durability::from(durability)),
                durability
            );
        }
        assert_eq!(
            Durability::from(v1::Durability::Unspecified),
            Durability::Unknown
        );
    }

    #[test]
    fn a_producer_survives_the_wire_and_a_wrong_one_is_named() {
        let stamp = ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, 7).unwrap(),
            epoch: ProducerEpoch::from_i16(i16::MAX).unwrap(),
            sequence: Sequence::from_i32(i32::MAX).unwrap(),
        };
        let wire = v1::Producer::from(stamp);
        assert_eq!(ProducerStamp::try_from(wire), Ok(stamp));
        let refused = |change: fn(&mut v1::Producer)| {
            let mut producer = wire;
            change(&mut producer);
            ProducerStamp::try_from(producer).unwrap_err().field
        };
        assert_eq!(refused(|p| p.id = u64::MAX), "producer.id");
        assert_eq!(refused(|p| p.epoch = 1 << 15), "producer.epoch");
        assert_eq!(refused(|p| p.sequence = 1 << 31), "producer.sequence");
    }

    #[test]
    fn a_mark_survives_the_wire() {
        let mark = v1::Mark::new(Incarnation::FIRST, RaftIndex(9));
        assert_eq!(mark.place(), Ok((Incarnation::FIRST, RaftIndex(9))));
        let none = v1::Mark {
            incarnation: 0,
            index: 9,
        };
        assert_eq!(none.place().unwrap_err().field, "mark.incarnation");
    }

    #[test]
    fn an_offset_beyond_the_last_is_refused() {
        let largest = Offset::MAX.get();
        assert_eq!(offset("end", largest), Ok(Offset::MAX));
        let error = offset("end", largest + 1).unwrap_err();
        assert_eq!(
            v1::Error::from(error).message,
            "the field `end` is 9223372036854775808, allowed is 0 to 9223372036854775807"
        );
    }
}
