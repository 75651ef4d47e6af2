//! One file's bytes: as a running process sees them, and as the disk has them.

use std::collections::BTreeSet;

use crate::sim::SeededEntropy;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Percent of the sectors not synced that a power cut leaves on the disk.
const SURVIVAL_PERCENT: u64 = 50;

#[derive(Clone, Default)]
pub(super) struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ, or may, between the two and that a sync would still write.
    dirty: BTreeSet<usize>,
    /// Whether the durable length may lag behind.
    resized: bool,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.cached.len() as u64
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> usize {
        let at = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(self.cached.len());
        let found = buffer.len().min(self.cached.len() - at);
        buffer[..found].copy_from_slice(&self.cached[at..at + found]);
        found
    }

    /// A direct read first writes dirty pages back, then drops the pages and reads the disk: what
    /// counts as clean but was never written shows its old content.
    pub(super) fn read_past_cache_at(&mut self, buffer: &mut [u8], at: u64) -> usize {
        self.sync();
        self.cached.clone_from(&self.durable);
        self.read_at(buffer, at)
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) {
        if bytes.is_empty() {
            return;
        }
        let at = usize::try_from(at).expect("a simulated file fits in memory");
        let end = at + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
            self.resized = true;
        }
        self.cached[at..end].copy_from_slice(bytes);
        self.dirty.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).expect("a simulated file fits in memory");
        let from = self.cached.len().min(bytes);
        self.cached.resize(bytes, 0);
        self.dirty.extend(from / SECTOR..bytes.div_ceil(SECTOR));
        self.resized = true;
    }

    pub(super) fn sync(&mut self) {
        if std::mem::take(&mut self.resized) {
            self.durable.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            self.persist(sector);
        }
    }

    /// Some sectors were written, the others not; all count as clean from now on.
    pub(super) fn fail_sync(&mut self, entropy: &SeededEntropy) {
        self.persist_some(entropy);
    }

    pub(super) fn cut_power(&mut self, entropy: &SeededEntropy) {
        self.persist_some(entropy);
        self.cached.clone_from(&self.durable);
    }

    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.sync();
        change(&mut self.durable);
        self.cached.clone_from(&self.durable);
    }

    fn persist_some(&mut self, entropy: &SeededEntropy) {
        if std::mem::take(&mut self.resized) && entropy.chance(SURVIVAL_PERCENT) {
            self.durable.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if entropy.chance(SURVIVAL_PERCENT) {
                self.persist(sector);
            }
        }
    }

    /// Copies one sector to the disk, as far as the durable length reaches.
    fn persist(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR)
            .min(self.cached.len())
            .min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.cached[start..end]);
        }
    }
}
