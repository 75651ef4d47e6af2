//! The disk tier. Its every failure is a miss and a count; while it fails it is left alone.

mod marker; // what the files in the folder were written by

use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_env::Files;
use esker_types::limits::MIB;
use foyer::{
    Age, BlockEngineConfig, Compression, DeviceBuilder, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, Load, PsyncIoEngineConfig, RecoverMode,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::block::{Block, BlockKey};
use crate::counters::Tally;
use crate::memory::{self, Memory};
use crate::settings::{Disk, Settings};

/// foyer evicts a region at a time; an entry lies within one.
const REGION_BYTES_MAX: u64 = 64 * MIB as u64;
/// Regions of a small disk tier.
const REGIONS_MIN: u64 = 16;
/// Regions are whole pages.
const PAGE: u64 = 4096;
/// Memory for entries being written, and for those that wait; more are shed.
const WRITE_BUFFER_BYTES: usize = 32 * MIB;
/// Reads at once; one more is a miss.
const READS_MAX: usize = 64;
/// A read that takes longer is a miss: the bucket may be faster.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed read the tier is left alone for this long.
const PAUSE: Duration = Duration::from_secs(10);
/// Recovering an index of gigabytes takes tens of milliseconds; past this we go without.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A graceful stop as a whole may take 2 s.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The disk tier behind the tail lane's memory.
#[derive(Debug)]
pub(crate) struct DiskTier {
    hybrid: HybridCache<BlockKey, Block>,
    reads: Arc<Semaphore>,
    /// Set after a failure: until then, no lookup.
    avoid_until: Mutex<Option<Instant>>,
}

/// A block found on disk.
pub(crate) struct Found {
    pub(crate) block: Block,
    /// Whether the disk still holds it for a while, so that it need not be written again.
    pub(crate) stays: bool,
}

impl DiskTier {
    /// Opens the tier; `None`, a count and a warning if that fails in any way.
    pub(crate) async fn open(
        settings: &Settings,
        disk: &Disk,
        files: &dyn Files,
        tally: &Tally,
    ) -> Option<Self> {
        let region = region_bytes(disk.bytes);
        if let Err(error) = marker::prepare(files, &disk.directory, disk.bytes, region) {
            tracing::warn!(directory = %disk.directory.display(), %error, "the disk cache is off");
            tally.errors.increment();
            return None;
        }
        let building = tokio::spawn(build(settings.tail_bytes, disk.clone(), region));
        let reason = match tokio::time::timeout(OPEN_TIMEOUT, building).await {
            Ok(Ok(Ok(hybrid))) => {
                return Some(Self {
                    hybrid,
                    reads: Arc::new(Semaphore::new(READS_MAX)),
                    avoid_until: Mutex::new(None),
                });
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => format!("it did not open within {OPEN_TIMEOUT:?}"),
        };
        tracing::warn!(directory = %disk.directory.display(), reason, "the disk cache is off");
        tally.errors.increment();
        None
    }

    /// The memory tier whose evicted blocks go to this disk.
    pub(crate) fn memory(&self) -> &Memory {
        self.hybrid.memory()
    }

    /// Looks `key` up. The read runs as a task of its own: foyer does not like its reads to be
    /// dropped, and a panic in it ends there.
    pub(crate) async fn get(&self, key: BlockKey, tally: &Tally) -> Option<Found> {
        if self.is_avoided() {
            tally.disk_skipped.increment();
            return None;
        }
        let Ok(permit) = Arc::clone(&self.reads).try_acquire_owned() else {
            tally.disk_skipped.increment();
            return None;
        };
        let store = self.hybrid.storage().clone();
        let reading = tokio::spawn(async move {
            let _permit = permit;
            store.load(&key).await
        });
        match tokio::time::timeout(READ_TIMEOUT, reading).await {
            Ok(Ok(Ok(load))) => {
                let found = match load {
                    Load::Entry {
                        value, populated, ..
                    } => Found {
                        block: value,
                        stays: matches!(populated.age, Age::Young),
                    },
                    Load::Piece { piece, .. } => Found {
                        block: piece.value().clone(),
                        stays: true,
                    },
                    Load::Throttled | Load::Miss => return None,
                };
                if found.block.verified(key).is_none() {
                    tally.corrupt.increment();
                    return None;
                }
                Some(found)
            }
            Ok(Ok(Err(error))) => self.failed(tally, &error.to_string()),
            Ok(Err(panic)) => self.failed(tally, &panic.to_string()),
            Err(_) => self.failed(tally, "it did not answer in time"),
        }
    }

    /// Forgets `key`.
    pub(crate) fn forget(&self, key: BlockKey) {
        self.hybrid.storage().delete(&key);
    }

    /// Writes what memory holds, as far as time allows, and stops the tier.
    pub(crate) async fn close(&self, tally: &Tally) {
        let hybrid = self.hybrid.clone();
        let closing = tokio::spawn(async move { hybrid.close().await });
        let reason = match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => format!("it did not close within {CLOSE_TIMEOUT:?}"),
        };
        tracing::debug!(reason, "the disk cache loses what was in memory");
        tally.errors.increment();
    }

    /// Bytes written and read so far.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let statistics = self.hybrid.statistics();
        (
            statistics.disk_write_bytes() as u64,
            statistics.disk_read_bytes() as u64,
        )
    }

    fn is_avoided(&self) -> bool {
        let mut until = self.avoid_until.lock().expect("no holder panics");
        match *until {
            Some(end) if Instant::now() < end => true,
            _ => {
                *until = None;
                false
            }
        }
    }

    fn failed(&self, tally: &Tally, reason: &str) -> Option<Found> {
        tally.errors.increment();
        let mut until = self.avoid_until.lock().expect("no holder panics");
        if until.is_none() {
            tracing::warn!(reason, "the disk cache fails and is left alone for a while");
        }
        *until = Some(Instant::now() + PAUSE);
        None
    }
}

/// Bytes of a region: as large as an entry may need, but so that there are several.
fn region_bytes(disk_bytes: u64) -> u64 {
    let region = (disk_bytes / REGIONS_MIN).min(REGION_BYTES_MAX);
    region - region % PAGE
}

async fn build(
    tail_bytes: usize,
    disk: Disk,
    region: u64,
) -> foyer::Result<HybridCache<BlockKey, Block>> {
    let usize_of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let device = FsDeviceBuilder::new(&disk.directory)
        .with_capacity(usize_of(disk.bytes))
        .build()?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(usize_of(region))
        .with_buffer_pool_size(WRITE_BUFFER_BYTES)
        .with_submit_queue_size_threshold(WRITE_BUFFER_BYTES);
    HybridCacheBuilder::new()
        .with_name("esker-tail")
        .with_policy(HybridCachePolicy::WriteOnEviction)
        .with_flush_on_close(true)
        .memory(tail_bytes)
        .with_shards(memory::SHARDS)
        .with_eviction_config(memory::eviction())
        .with_weighter(|_: &BlockKey, block: &Block| block.weight())
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .with_compression(Compression::None)
        .build()
        .await
}
