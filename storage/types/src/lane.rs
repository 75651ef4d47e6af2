//! Lanes: two kinds of reader that must not slow each other down.

/// Whose read it is. A backfill has budgets of its own, so that replaying history neither evicts
/// the blocks of tail readers nor queues in front of their requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// A reader near the end of its partition.
    Tail,
    /// A reader of history, and every job that reads whole segments.
    Backfill,
}
