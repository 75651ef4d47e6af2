//! What the parts of a server are told, from what the server is told.

use std::path::{Path, PathBuf};

use esker_agent::Budgets;
use esker_cache::{Disk, Settings};
use esker_log::{EngineOptions, FlushTriggers, UpkeepTimes};
use esker_record::ZstdLevel;
use esker_types::limits::{FLUSHES_IN_FLIGHT, OPENED_SEGMENTS_BYTES, READ_AHEAD_ALL_BYTES};
use esker_wal::KeeperOptions;
use esker_wal::disk::WalOptions;
use esker_walnode::NodeOptions;

use crate::config::{Config, Role, Upkeep};

pub(super) fn engine(config: &Config) -> EngineOptions {
    EngineOptions {
        flush: FlushTriggers {
            bytes: config.flush.bytes.0,
            age: config.flush.age.0,
        },
        zstd_level: ZstdLevel::new(config.flush.zstd_level).expect("the configuration bounds it"),
        opened_bytes: OPENED_SEGMENTS_BYTES,
        ahead_bytes: READ_AHEAD_ALL_BYTES,
        upkeep: upkeep(config),
    }
}

const fn upkeep(config: &Config) -> UpkeepTimes {
    let Upkeep {
        checkpoint,
        retention,
        collect,
        grace,
    } = config.upkeep;
    UpkeepTimes {
        checkpoint: checkpoint.0,
        retention: retention.0,
        collect: collect.0,
        grace: grace.0,
    }
}

pub(super) fn node(config: &Config) -> NodeOptions {
    NodeOptions {
        wal: WalOptions {
            file_bytes: config.wal.file.0,
            disk_bytes: config.wal.disk.0,
            memory_bytes: usize::try_from(config.wal.memory.0).unwrap_or(usize::MAX),
            ..WalOptions::default()
        },
        keeper: KeeperOptions::default(),
        head_bytes: config.head_bytes(),
    }
}

pub(super) fn budgets(config: &Config) -> Budgets {
    let memory = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Budgets {
        append_bytes: memory(config.agent.append_memory.0),
        read_bytes: memory(config.agent.read_memory.0),
    }
}

pub(super) fn cache(config: &Config) -> Settings {
    let memory = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let disk = config.cache.disk.0;
    Settings {
        tail_bytes: memory(config.cache.memory.0),
        backfill_bytes: memory(config.cache.backfill_memory.0),
        disk: (disk > 0).then(|| Disk {
            directory: cache_directory(&config.data_dir),
            bytes: disk,
        }),
    }
}

/// Where the cache lies. It may be deleted while no server runs.
pub(crate) fn cache_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("cache")
}

/// What it holds in memory at most, by what it was told, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    head: u64,
    tail: u64,
    backfill: u64,
    appends: u64,
    reads: u64,
    flushes: u64,
    opened: u64,
    ahead: u64,
}

impl Memory {
    pub(super) fn of(config: &Config) -> Self {
        let of = |role, bytes: u64| if config.is(role) { bytes } else { 0 };
        let agent = |bytes| of(Role::Agent, bytes);
        Self {
            head: of(Role::Wal, config.wal.memory.0),
            tail: agent(config.cache.memory.0),
            backfill: agent(config.cache.backfill_memory.0),
            appends: agent(config.agent.append_memory.0),
            reads: agent(config.agent.read_memory.0),
            // Bounded by the bytes of a flush: each holds its run and its segment.
            flushes: agent(2 * FLUSHES_IN_FLIGHT as u64 * config.flush.bytes.0),
            opened: agent(OPENED_SEGMENTS_BYTES as u64),
            ahead: agent(READ_AHEAD_ALL_BYTES as u64),
        }
    }

    /// All of it; a configuration may say what no machine has.
    pub(super) fn sum(&self) -> u64 {
        let all = [
            self.head,
            self.tail,
            self.backfill,
            self.appends,
            self.reads,
            self.flushes,
            self.opened,
            self.ahead,
        ];
        all.into_iter().fold(0, u64::saturating_add)
    }

    pub(super) fn tell(&self) {
        tracing::info!(
            sum = self.sum(),
            head = self.head,
            tail = self.tail,
            backfill = self.backfill,
            appends = self.appends,
            reads = self.reads,
            flushes = self.flushes,
            opened = self.opened,
            ahead = self.ahead,
            "memory budgets, in bytes"
        );
    }
}
