//! Hits, loads and failures.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the cache did since it was opened, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Requests answered from memory.
    pub memory_hits: u64,
    /// Flights that ended at the disk tier.
    pub disk_hits: u64,
    /// Flights that called a loader.
    pub loads: u64,
    /// Loaders that failed.
    pub load_failures: u64,
    /// Requests that joined the flight of another.
    pub coalesced: u64,
    /// Entries of the disk tier that were not what they claimed to be.
    pub corrupt: u64,
    /// Failures of the disk tier: errors, time-outs, panics.
    pub errors: u64,
    /// Lookups that passed the disk tier by, because it was failing or too busy.
    pub disk_skipped: u64,
    /// Blocks that were too large to keep.
    pub oversized: u64,
    /// Bytes in the tail lane's memory.
    pub tail_bytes: u64,
    /// Bytes in the backfill lane's memory.
    pub backfill_bytes: u64,
    /// Bytes written to the disk tier.
    pub disk_written_bytes: u64,
    /// Bytes read from the disk tier.
    pub disk_read_bytes: u64,
}

/// The live counters that are ours.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) memory_hits: Cell,
    pub(crate) disk_hits: Cell,
    pub(crate) loads: Cell,
    pub(crate) load_failures: Cell,
    pub(crate) coalesced: Cell,
    pub(crate) corrupt: Cell,
    pub(crate) errors: Cell,
    pub(crate) disk_skipped: Cell,
    pub(crate) oversized: Cell,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// The counts, with the fields that the tiers know left at zero.
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            memory_hits: self.memory_hits.get(),
            disk_hits: self.disk_hits.get(),
            loads: self.loads.get(),
            load_failures: self.load_failures.get(),
            coalesced: self.coalesced.get(),
            corrupt: self.corrupt.get(),
            errors: self.errors.get(),
            disk_skipped: self.disk_skipped.get(),
            oversized: self.oversized.get(),
            ..Counters::default()
        }
    }
}
