//! Lookup, lanes and loads.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::Files;
use esker_types::Lane;
use foyer::{HybridCacheProperties, Location};
use futures::FutureExt;

use crate::block::{Block, BlockKey};
use crate::counters::{Counters, Tally};
use crate::disk::DiskTier;
use crate::error::Error;
use crate::flight::{Boarding, Flights};
use crate::memory::{self, Memory};
use crate::settings::Settings;

/// The cache of one process. Cloning is cheap and shares everything. `E` is the loader's error,
/// which every caller that waited for the same load gets a clone of.
#[derive(Debug)]
pub struct BlockCache<E: Clone> {
    tiers: Arc<Tiers>,
    flights: Arc<Flights<E>>,
}

/// Where blocks are kept.
#[derive(Debug)]
struct Tiers {
    tail: Memory,
    backfill: Memory,
    disk: Option<DiskTier>,
    settings: Settings,
    tally: Tally,
}

impl<E: Clone> Clone for BlockCache<E> {
    fn clone(&self) -> Self {
        Self {
            tiers: Arc::clone(&self.tiers),
            flights: Arc::clone(&self.flights),
        }
    }
}

impl<E: Clone + Send + Sync + 'static> BlockCache<E> {
    /// Opens the cache with the tiers that `settings` names. A disk tier that does not open is a
    /// warning and a count; the cache then runs without.
    ///
    /// # Errors
    /// [`Error::TooSmall`].
    pub async fn open(settings: Settings, files: &dyn Files) -> Result<Self, Error> {
        settings.check()?;
        let tally = Tally::default();
        let disk = match &settings.disk {
            Some(disk) => DiskTier::open(&settings, disk, files, &tally).await,
            None => None,
        };
        Ok(Self::with(settings, disk, tally))
    }

    /// A cache in memory alone. It spawns nothing and asks no clock, so that under a simulator
    /// the same calls give the same hits.
    ///
    /// # Errors
    /// [`Error::TooSmall`].
    pub fn in_memory(tail_bytes: usize, backfill_bytes: usize) -> Result<Self, Error> {
        let settings = Settings {
            tail_bytes,
            backfill_bytes,
            disk: None,
        };
        settings.check()?;
        Ok(Self::with(settings, None, Tally::default()))
    }

    fn with(settings: Settings, disk: Option<DiskTier>, tally: Tally) -> Self {
        let tail = match &disk {
            Some(disk) => disk.memory().clone(),
            None => memory::memory("esker-tail", settings.tail_bytes),
        };
        let tiers = Tiers {
            tail,
            backfill: memory::memory("esker-backfill", settings.backfill_bytes),
            disk,
            settings,
            tally,
        };
        Self {
            tiers: Arc::new(tiers),
            flights: Arc::new(Flights::new()),
        }
    }

    /// The block `key`: from memory, from disk, or from `loader`.
    ///
    /// Contract:
    /// 1. `loader` hands over the verified raw block in an allocation of its own: what a slice of
    ///    something larger holds on to is not counted.
    /// 2. While one caller loads a block, everybody else who asks for it waits for that load. It
    ///    is cancelled only when the last of them goes away.
    /// 3. An error of the loader goes to all of them and is not kept.
    /// 4. A backfill evicts no block of the tail lane, from memory or from disk.
    ///
    /// # Errors
    /// Those of `loader`, and no others.
    pub async fn get_or_load<L, F>(&self, key: BlockKey, lane: Lane, loader: L) -> Result<Bytes, E>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Bytes, E>> + Send + 'static,
    {
        if let Some(bytes) = self.tiers.in_memory(key, lane) {
            self.tiers.tally.memory_hits.increment();
            return Ok(bytes);
        }
        let tiers = Arc::clone(&self.tiers);
        let load = async move { tiers.load(key, lane, loader).await }.boxed();
        let landed = || self.tiers.in_memory(key, lane);
        match self.flights.board(key, lane, landed, load) {
            Boarding::Landed(bytes) => {
                self.tiers.tally.memory_hits.increment();
                Ok(bytes)
            }
            Boarding::Began(flight) => flight.await,
            Boarding::Joined(flight, began_by) => {
                self.tiers.tally.coalesced.increment();
                let bytes = flight.await?;
                if lane == Lane::Tail && began_by == Lane::Backfill {
                    self.tiers.keep(key, lane, &bytes, false);
                }
                Ok(bytes)
            }
        }
    }

    /// Forgets the block `key`, in memory and on disk: whoever asks for it next has it loaded.
    pub fn forget(&self, key: BlockKey) {
        self.tiers.tail.remove(&key);
        self.tiers.backfill.remove(&key);
        if let Some(disk) = &self.tiers.disk {
            disk.forget(key);
        }
    }

    /// What the cache did since it was opened, and what it holds.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tiers.counters()
    }

    /// Writes what the tail lane holds in memory to the disk tier, as far as about a second
    /// allows, and stops that tier. What is left of the cache works on.
    pub async fn close(&self) {
        if let Some(disk) = &self.tiers.disk {
            disk.close(&self.tiers.tally).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }
}

impl Tiers {
    /// Looks in the lane's own memory, then in the other's. A tail reader that finds a block in
    /// the backfill's memory takes it along.
    fn in_memory(&self, key: BlockKey, lane: Lane) -> Option<Bytes> {
        let (own, other) = match lane {
            Lane::Tail => (&self.tail, &self.backfill),
            Lane::Backfill => (&self.backfill, &self.tail),
        };
        if let Some(entry) = own.get(&key) {
            return Some(entry.value().bytes().clone());
        }
        let bytes = other.get(&key)?.value().bytes().clone();
        if lane == Lane::Tail {
            self.keep(key, lane, &bytes, false);
        }
        Some(bytes)
    }

    /// The flight of one key: disk, then loader.
    async fn load<E, L, F>(&self, key: BlockKey, lane: Lane, loader: L) -> Result<Bytes, E>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Bytes, E>>,
    {
        if let Some(disk) = &self.disk
            && let Some(found) = disk.get(key, &self.tally).await
        {
            self.tally.disk_hits.increment();
            let bytes = found.block.bytes().clone();
            self.keep(key, lane, &bytes, found.stays);
            return Ok(bytes);
        }
        self.tally.loads.increment();
        let result = loader().await;
        match &result {
            Ok(bytes) => self.keep(key, lane, bytes, false),
            Err(_) => self.tally.load_failures.increment(),
        }
        result
    }

    /// Puts a block into the lane's memory. `on_disk` says that the disk holds it already, so that
    /// its eviction writes nothing.
    fn keep(&self, key: BlockKey, lane: Lane, bytes: &Bytes, on_disk: bool) {
        let (memory, budget) = match lane {
            Lane::Tail => (&self.tail, self.settings.tail_bytes),
            Lane::Backfill => (&self.backfill, self.settings.backfill_bytes),
        };
        let block = Block::new(key, bytes.clone());
        if block.weight() > memory::weight_max(budget) {
            self.tally.oversized.increment();
            return;
        }
        let location = if on_disk {
            Location::InMem
        } else {
            Location::Default
        };
        let properties = HybridCacheProperties::default().with_location(location);
        memory.insert_with_properties(key, block, properties);
    }

    fn counters(&self) -> Counters {
        let (disk_written_bytes, disk_read_bytes) =
            self.disk.as_ref().map_or((0, 0), DiskTier::traffic);
        Counters {
            tail_bytes: self.tail.usage() as u64,
            backfill_bytes: self.backfill.usage() as u64,
            disk_written_bytes,
            disk_read_bytes,
            ..self.tally.snapshot()
        }
    }
}

#[cfg(test)]
mod tests;
