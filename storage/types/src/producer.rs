//! What an idempotent producer stamps on each batch (KIP-98).

use std::fmt;

use crate::ProducerId;

/// A producer's epoch: raised when a producer begins anew under its id. Kafka's `i16`, so at
/// most 32,767.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerEpoch(u16);

impl ProducerEpoch {
    /// The epoch of a fresh producer id.
    pub const FIRST: Self = Self(0);

    /// An epoch from the wire's number; `None` if it is negative.
    #[must_use]
    pub fn from_i16(wire: i16) -> Option<Self> {
        u16::try_from(wire).ok().map(Self)
    }

    /// As the wire carries it.
    #[must_use]
    pub const fn as_i16(self) -> i16 {
        self.0.cast_signed()
    }
}

/// Number of a record within a producer's session on one partition. Wraps from 2^31 − 1 to 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sequence(u32);

impl Sequence {
    /// The first of a session.
    pub const ZERO: Self = Self(0);
    const MODULUS: u64 = 1 << 31;

    /// A sequence from the wire's number; `None` if it is negative.
    #[must_use]
    pub fn from_i32(wire: i32) -> Option<Self> {
        u32::try_from(wire).ok().map(Self)
    }

    /// As the wire carries it.
    #[must_use]
    pub const fn as_i32(self) -> i32 {
        self.0.cast_signed()
    }

    /// The sequence `count` records on, with the wrap.
    #[must_use]
    pub fn after(self, count: u32) -> Self {
        let sum = (u64::from(self.0) + u64::from(count)) % Self::MODULUS;
        Self(u32::try_from(sum).expect("below 2^31"))
    }
}

/// A writer's claim to a partition: an append with a lower token than the highest one accepted
/// there is refused. Callers choose the numbers (a lease's generation, say).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

/// Producer, epoch and first sequence of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProducerStamp {
    /// Who.
    pub id: ProducerId,
    /// In which session.
    pub epoch: ProducerEpoch,
    /// Sequence of the batch's first record.
    pub sequence: Sequence,
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_from_its_maximum_to_zero() {
        let last = Sequence::from_i32(i32::MAX).unwrap();
        assert_eq!(last.after(1), Sequence::ZERO);
        assert_eq!(last.after(3).as_i32(), 2);
        assert_eq!(Sequence::from_i32(-1), None);
        assert_eq!(ProducerEpoch::from_i16(-1), None);
    }
}
