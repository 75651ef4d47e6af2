//! What the process says on stderr: which work is under way. Each line is written before the next
//! step begins, so that after a death the last lines tell which arrow it cut.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// How far a flush has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Stage {
    /// The head is read, blocks are compressed.
    Building,
    /// The object is on its way to the bucket.
    Putting,
    /// The object is there, and is read back.
    Verifying,
    /// The object is proven, the command that makes it part of the log is not applied.
    Committing,
}

/// Fault points under way when a process died.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnderWay {
    /// Flushes, each by the last step that it told of.
    pub(crate) flushes: Vec<Stage>,
    /// Checkpoints of shards.
    pub(crate) checkpoints: usize,
}

/// What was heard so far.
#[derive(Default)]
pub(crate) struct Saying {
    heard: Mutex<Heard>,
    /// Flushes seen to enter each stage, and checkpoints begun: for who waits to strike.
    moments: watch::Sender<BTreeMap<Moment, u64>>,
}

/// What a killer may wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Moment {
    /// A flush has come so far.
    Flush(Stage),
    /// A checkpoint begins.
    Checkpoint,
}

#[derive(Default)]
struct Heard {
    flushes: BTreeMap<String, Stage>,
    checkpoints: BTreeMap<String, ()>,
    committed: u64,
    failed: u64,
    /// Lines at level ERROR, and panics, which are no JSON.
    errors: Vec<String>,
    /// Lines at level WARN.
    warnings: Vec<String>,
}

impl Saying {
    /// Hears everything until the process is dead.
    pub(crate) fn listen(&self, said: impl BufRead, mut log: File) {
        for line in said.lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            self.hear(&line);
        }
    }

    /// Waits until `moment` comes once more.
    pub(crate) async fn next(&self, moment: Moment) {
        let mut moments = self.moments.subscribe();
        let count = |moments: &BTreeMap<_, u64>| moments.get(&moment).copied().unwrap_or(0);
        let before = count(&moments.borrow_and_update());
        let came = moments.wait_for(|now| count(now) > before).await;
        came.expect("the sender is here");
    }

    /// What is under way; after the death, what was.
    pub(crate) fn under_way(&self) -> UnderWay {
        let heard = self.heard();
        UnderWay {
            flushes: heard.flushes.values().copied().collect(),
            checkpoints: heard.checkpoints.len(),
        }
    }

    /// Flushes that were committed, and that failed.
    pub(crate) fn flushes(&self) -> (u64, u64) {
        let heard = self.heard();
        (heard.committed, heard.failed)
    }

    /// What it said at level ERROR, or in panic.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.heard().errors.clone()
    }

    /// What it said at level WARN.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.heard().warnings.clone()
    }

    fn hear(&self, line: &str) {
        let Ok(said) = serde_json::from_str::<Value>(line) else {
            self.heard().errors.push(line.to_owned());
            return;
        };
        let text = |key: &str| said["fields"][key].as_str().unwrap_or_default().to_owned();
        let mut heard = self.heard();
        match said["level"].as_str() {
            Some("ERROR") => heard.errors.push(line.to_owned()),
            Some("WARN") => heard.warnings.push(line.to_owned()),
            _ => {}
        }
        let moment = match said["fields"]["message"].as_str().unwrap_or_default() {
            "a flush begins" => Some(Stage::Building),
            "a segment is built" => Some(Stage::Putting),
            "a segment is put" => Some(Stage::Verifying),
            "a segment is verified" => Some(Stage::Committing),
            "a flush has ended: committed" => {
                heard.flushes.remove(&text("segment"));
                heard.committed += 1;
                None
            }
            "a flush has ended: failed" => {
                heard.flushes.remove(&text("segment"));
                heard.failed += 1;
                None
            }
            "a checkpoint begins" => {
                heard.checkpoints.insert(text("shard"), ());
                self.tell(Moment::Checkpoint);
                None
            }
            "a checkpoint has ended" => {
                heard.checkpoints.remove(&text("shard"));
                None
            }
            _ => None,
        };
        if let Some(stage) = moment {
            heard.flushes.insert(text("segment"), stage);
            self.tell(Moment::Flush(stage));
        }
    }

    fn tell(&self, moment: Moment) {
        self.moments
            .send_modify(|moments| *moments.entry(moment).or_default() += 1);
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Saying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saying").finish_non_exhaustive()
    }
}
