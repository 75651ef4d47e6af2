//! A disk that takes long to sync. In real time, with a thread that waits for it: a sync under way is what is
//! looked at.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_env::sim::SimDisk;
use esker_env::{Env, File, Files, Lock, OpenMode, Space, SystemClock, Threads};
use esker_types::limits::FSYNC_HANDOVER;
use tokio::time::{Instant, timeout};

use super::trio::{NODES, PATIENCE, Trio, World};

/// What a sync of the slow disk takes.
const SLOW: Duration = Duration::from_millis(600);
/// Appends, one after the other.
const MANY: u64 = 30;

const _: () = assert!(SLOW.as_millis() > 2 * FSYNC_HANDOVER.as_millis());

/// How long a sync takes, in milliseconds. Clones share it.
#[derive(Clone, Debug, Default)]
struct Pace(Arc<AtomicU64>);

impl Pace {
    fn set(&self, pace: Duration) {
        let millis = u64::try_from(pace.as_millis()).expect("short");
        self.0.store(millis, Ordering::Relaxed);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a sync blocks its thread, and this stands for one"
    )]
    fn pass(&self) {
        let millis = self.0.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(millis));
    }
}

/// Files that sync at a pace.
#[derive(Debug)]
struct Paced(SimDisk, Pace);

#[derive(Debug)]
struct PacedFile(Arc<dyn File>, Pace);

impl Files for Paced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path, mode)?;
        Ok(Arc::new(PacedFile(file, self.1.clone())))
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(directory)
    }
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.0.create_dir_all(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path)
    }
}

impl File for PacedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }
    fn read_past_cache_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_past_cache_at(buffer, at)
    }
    fn write_all_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.0.write_all_at(parts, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
}

/// Three nodes, and the pace of each one's disk.
async fn trio() -> (Trio, BTreeMap<u64, Pace>) {
    let paces: BTreeMap<_, _> = NODES.map(|node| (node, Pace::default())).into();
    let world = |node, network: &_| {
        let disk = SimDisk::new(node);
        let world = World::simulated(node, &disk, network);
        let env = Env {
            clock: Arc::new(SystemClock::new()),
            files: Arc::new(Paced(disk.mount(), paces[&node].clone())),
            workers: Arc::new(Threads::new()),
            ..world.env
        };
        World { env, ..world }
    };
    (Trio::found(world).await, paces)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build();
    runtime.expect("a runtime").block_on(test)
}

#[test]
fn a_leader_whose_disk_is_slow_hands_over_and_appends_go_on() {
    run(async {
        let (trio, paces) = trio().await;
        let slow = trio.settled(Duration::from_secs(3)).await;
        trio.append(0).await;
        paces[&slow].set(SLOW);
        let mut number = 1;
        let handed = timeout(PATIENCE, async {
            while trio.led_by(slow) > 0 {
                trio.append(number).await;
                number += 1;
            }
        });
        handed.await.expect("it leads nothing any more");
        let leader = trio.leader().await;
        assert_ne!(leader, slow);
        for number in number..number + MANY {
            trio.append(number).await;
        }
    });
}

#[test]
fn nobody_waits_for_a_follower_whose_disk_is_slow() {
    run(async {
        let (trio, paces) = trio().await;
        let leader = trio.settled(Duration::from_secs(3)).await;
        trio.append(0).await;
        let slow = NODES.into_iter().find(|node| *node != leader);
        paces[&slow.expect("two follow")].set(SLOW);
        let began = Instant::now();
        for number in 1..=MANY {
            trio.append(number).await;
        }
        // Had each waited for its disk, that would be more than twice as long.
        assert!(began.elapsed() < SLOW * 15, "{:?}", began.elapsed());
    });
}
