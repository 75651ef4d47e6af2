//! One node through bad days: producers and readers on it, its bucket failing, its process killed
//! and its power cut, all from one seed; every call and answer goes into a history.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use esker_checker::{History, View};
use esker_env::sim::Crash;
use esker_log::UpkeepTimes;
use esker_object::faults::Fault;

use crate::clients::{Driver, PARTITIONS, TOPIC, stop};
use crate::whole::{Site, Whole};

/// What clients call the one agent.
const VIEW: &str = "agent";
/// All clients are the one agent's.
const ALL: (u64, u64) = (0, 1);

/// What one run came to.
#[derive(Debug)]
pub struct Run {
    /// Every event, a line each.
    pub lines: Vec<u8>,
    /// The same, to be judged.
    pub history: History,
    /// Faults that struck a request to the bucket.
    pub bucket_faults: u64,
    /// Reads that followers answered.
    pub followed: u64,
    /// Which troubles befell it, as the run numbers them.
    pub troubles: BTreeSet<u64>,
    /// How the lives ended.
    pub lives: String,
}

/// The seeds to run: `ESKER_SEEDS=200`, or `ESKER_SEEDS=100..200`; without it the first `few`.
#[must_use]
pub fn seeds(few: u64) -> Range<u64> {
    let Ok(told) = std::env::var("ESKER_SEEDS") else {
        return 0..few;
    };
    let (from, to) = told.split_once("..").unwrap_or(("0", &told));
    let number = |text: &str| text.parse().expect("ESKER_SEEDS is a number, or two");
    number(from)..number(to)
}

impl Run {
    /// Where the two runs differ, and what stands there; `None` if they are the same to the byte.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<String> {
        if self.lives != other.lives {
            return Some(format!("{}\n---\n{}", self.lives, other.lives));
        }
        let both = self.lines.iter().zip(&other.lines);
        let at = both.into_iter().position(|(one, other)| one != other);
        let at = match at {
            None if self.lines.len() == other.lines.len() => return None,
            None => self.lines.len().min(other.lines.len()),
            Some(at) => at,
        };
        let tell = |lines: &[u8]| {
            let from = at.saturating_sub(300).min(lines.len());
            String::from_utf8_lossy(&lines[from..lines.len().min(at + 200)]).into_owned()
        };
        let (one, other) = (tell(&self.lines), tell(&other.lines));
        Some(format!("at byte {at}:\n{one}\n---\n{other}"))
    }
}

/// Views that a run ends with.
pub fn final_views() -> Vec<View> {
    ["live", "restarted", "bucket"]
        .map(|tier| View::new("agent", tier))
        .to_vec()
}

/// Runs `lives` lives from `seed`, then heals everything and reads all there is, three times.
pub async fn simulate(seed: u64, lives: u32) -> Run {
    let mut site = Site::new(seed);
    esker_object::forget_memory_bucket(&site.bucket);
    site.flush.age = Duration::from_secs(1);
    // Checkpoints, and a collector that is quick to judge, in the life of every process.
    site.upkeep = UpkeepTimes {
        checkpoint: Duration::from_secs(1),
        retention: Duration::from_secs(1),
        collect: Duration::from_secs(1),
        grace: Duration::from_secs(2),
    };
    let driver = Driver::new(seed, 40);
    let (mut bucket_faults, mut told) = (0, String::new());
    for life in 0..lives {
        let whole = site
            .start()
            .await
            .expect("a crash leaves a log that starts");
        if life == 0 {
            whole.create(TOPIC, PARTITIONS).await;
        }
        driver.name_producers(&whole.engine).await;
        trouble_the_bucket(&driver, &whole, life);
        let mut tasks = driver.start(&whole.engine, VIEW, ALL);
        let length = 200 + driver.random.below(6000);
        tokio::time::sleep(Duration::from_millis(length)).await;
        bucket_faults += whole.faults.injected();
        match driver.random.below(4) {
            0 => {
                stop(&mut tasks).await;
                driver.forget_tries(ALL);
                whole.close().await;
                let _ = write!(told, "closed after {length} ms; ");
            }
            how => {
                let crash = if how == 1 {
                    Crash::PowerCut
                } else {
                    Crash::Kill
                };
                site.disk.crash(crash);
                stop(&mut tasks).await;
                driver.forget_tries(ALL);
                drop(whole);
                let _ = write!(told, "{crash:?} after {length} ms; ");
            }
        }
    }
    finish(&driver, &mut site).await;
    let (history, lines) = driver.written();
    Run {
        lines,
        history,
        bucket_faults,
        followed: 0,
        troubles: BTreeSet::new(),
        lives: told,
    }
}

/// A quiet bucket, one that fails at times, or none at all.
fn trouble_the_bucket(driver: &Driver, whole: &Whole, life: u32) {
    let often = [
        (Fault::FailBefore, 60),
        (Fault::Throttle, 30),
        (Fault::ApplyThenFail, 60),
        (Fault::ApplyLate, 30),
        (Fault::Lose, 30),
        (Fault::ShortBody, 20),
        (Fault::CorruptBody, 20),
        (Fault::SwappedBody, 20),
        (Fault::Slow(Duration::from_millis(700)), 60),
    ];
    match driver.random.below(4) {
        0 => whole.faults.away(true),
        1 => {}
        _ => whole.faults.random(u64::from(life) + 1, &often),
    }
}

/// Heals the bucket, settles what is open, and reads everything: as it is, after a restart with
/// nothing cached, and with everything in the bucket.
async fn finish(driver: &Driver, site: &mut Site) {
    let mut whole = site.start().await.expect("started");
    whole.stop_flushing();
    if !driver.settle(&whole.engine).await {
        // The last life left a full head, and nobody flushes.
        whole.close().await;
        whole = site.start().await.expect("started");
        whole.engine.flush_now().await.expect("the bucket is well");
        whole.stop_flushing();
        assert!(
            driver.settle(&whole.engine).await,
            "a healthy log settles every batch"
        );
    }
    driver
        .client(&whole.engine, VIEW, 100)
        .read_all("live")
        .await;
    whole.close().await;
    let whole = site.start().await.expect("started again");
    driver
        .client(&whole.engine, VIEW, 101)
        .read_all("restarted")
        .await;
    whole.engine.flush_now().await.expect("the bucket is well");
    driver
        .client(&whole.engine, VIEW, 102)
        .read_all("bucket")
        .await;
    for partition in 0..PARTITIONS {
        let bounds = whole.reader(TOPIC, partition, 0).await.bounds();
        assert_eq!(bounds.tiered_end, bounds.end, "everything is in the bucket");
    }
    whole.close().await;
}
