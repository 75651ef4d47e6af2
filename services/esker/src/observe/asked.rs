//! What the leaders of the shards say when they are asked how these stand: all at once, so that one that does
//! not answer keeps nobody from hearing of the others.

use std::fmt::Write as _;
use std::time::Duration;

use esker_log::{Head, HeadError, Progress};
use esker_types::ShardId;
use esker_types::limits::DATA_SHARDS_MAX;
use futures::StreamExt as _;
use futures::stream;
use tokio::time::{Instant, timeout_at};

/// How long a shard's leader is looked for: a scrape, and who asks whether an agent is ready, wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// When all have answered or will not: a probe of Kubernetes gives up after 5 s. It leaves those whose patience
/// is over a moment to say of what.
const ASKED_MAX: Duration = Duration::from_secs(3);
/// Questions at once. A shard that does not answer holds one to the end: with fewer than there are shards, some
/// would not be asked.
const QUESTIONS_MAX: usize = DATA_SHARDS_MAX as usize;
/// Shards that do not answer, and of which it is said why.
const NAMED_MAX: usize = 4;
/// Bytes of what is said of one.
const WHY_BYTES_MAX: usize = 256;

/// How the shards stand, of each that has answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Those that have, ascending.
    pub(super) answers: Vec<(ShardId, Progress)>,
    /// Those that have not, ascending, and why.
    pub(super) silent: Vec<(ShardId, String)>,
}

/// Asks for all shards of `head`.
pub(super) async fn ask(head: &dyn Head) -> Asked {
    gather(head.shards(), |shard| head.progress_within(shard, PATIENCE)).await
}

async fn gather<F>(shards: Vec<ShardId>, progress: impl Fn(ShardId) -> F) -> Asked
where
    F: Future<Output = Result<Progress, HeadError>>,
{
    let end = Instant::now() + ASKED_MAX;
    let asked = shards.into_iter().map(|shard| {
        let progress = progress(shard);
        async move { (shard, timeout_at(end, progress).await) }
    });
    let mut asked = stream::iter(asked).buffer_unordered(QUESTIONS_MAX);
    let mut came = Asked::default();
    while let Some((shard, answer)) = asked.next().await {
        match answer {
            Ok(Ok(progress)) => came.answers.push((shard, progress)),
            Ok(Err(error)) => came.silent.push((shard, why(&error))),
            Err(_) => {
                let why = format!("no answer within {ASKED_MAX:?}");
                came.silent.push((shard, why));
            }
        }
    }
    came.answers.sort_unstable_by_key(|(shard, _)| *shard);
    came.silent.sort_unstable();
    came
}

/// In words, without the shard before it, which is named by its number.
fn why(error: &HeadError) -> String {
    let mut why = match error {
        HeadError::NotLeader { what, .. } => what.clone(),
        other => other.to_string(),
    };
    why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
    why
}

impl Asked {
    /// Nobody answers, of any shard; where there are none, nobody has to.
    pub(super) fn nothing(&self) -> Option<String> {
        let nothing = self.answers.is_empty() && !self.silent.is_empty();
        nothing.then(|| format!("no shard answers: {}", self.named()))
    }

    /// Which do not answer, where others do.
    pub(super) fn some_silent(&self) -> Option<String> {
        let (silent, shards) = (self.silent.len(), self.answers.len() + self.silent.len());
        let text = || {
            let named = self.named();
            format!("{silent} of {shards} shards do not answer, the others go on: {named}")
        };
        (silent > 0).then(text)
    }

    fn named(&self) -> String {
        let mut text = String::new();
        for (at, (shard, why)) in self.silent.iter().take(NAMED_MAX).enumerate() {
            let gap = if at == 0 { "" } else { "; " };
            let _ = write!(text, "{gap}{} ({why})", shard.0);
        }
        if let more @ 1.. = self.silent.len().saturating_sub(NAMED_MAX) {
            let _ = write!(text, "; and {more} more");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use esker_log::Mark;
    use esker_shard::HeadSize;
    use esker_types::{Incarnation, RaftIndex, ShardTime, Term};

    use super::*;

    fn progress() -> Progress {
        Progress {
            mark: Mark {
                incarnation: Incarnation::FIRST,
                index: RaftIndex(7),
            },
            term: Term(1),
            checkpointed: RaftIndex(0),
            time: ShardTime(1),
            clock_skew: None,
            leader_clock: None,
            flush_position: RaftIndex(0),
            flushed: RaftIndex(0),
            head: HeadSize::default(),
            head_bytes_max: 1,
            head_batches_max: 1,
            segments: 0,
            gc_boundary: RaftIndex(0),
            flush_early: false,
        }
    }

    fn shards(count: u32) -> Vec<ShardId> {
        (1..=count).map(ShardId).collect()
    }

    /// What comes of it if the shards that `silent` names never answer, and how long it took.
    async fn with_silent(count: u32, silent: impl Fn(u32) -> bool) -> (Asked, Duration) {
        let began = Instant::now();
        let asked = gather(shards(count), |shard| {
            let silent = silent(shard.0);
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(progress())
            }
        });
        (asked.await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_leaves_the_others_and_is_named() {
        let (asked, took) = with_silent(16, |shard| shard == 3).await;
        assert_eq!((asked.answers.len(), asked.silent.len()), (15, 1));
        assert_eq!((asked.nothing(), took), (None, ASKED_MAX));
        assert_eq!(
            asked.some_silent().as_deref(),
            Some("1 of 16 shards do not answer, the others go on: 3 (no answer within 3s)")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_as_there_may_be_are_asked_together() {
        let (asked, took) = with_silent(DATA_SHARDS_MAX, |_| false).await;
        assert_eq!(took, Duration::from_millis(50));
        let ascending: Vec<_> = asked.answers.iter().map(|(shard, _)| *shard).collect();
        assert_eq!(ascending, shards(DATA_SHARDS_MAX));
        assert_eq!((asked.nothing(), asked.some_silent()), (None, None));

        let (asked, took) = with_silent(DATA_SHARDS_MAX, |shard| shard != 1024).await;
        assert_eq!((asked.answers.len(), took), (1, ASKED_MAX));
        let said = asked.some_silent().expect("most do not answer");
        let named = "1023 of 1024 shards do not answer, the others go on: 1 (no";
        assert!(said.starts_with(named), "{said}");
        assert!(
            said.ends_with("4 (no answer within 3s); and 1019 more"),
            "{said}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_shard_answers_it_is_said_of_what() {
        let asked = gather(shards(2), |shard| async move {
            Err(HeadError::NotLeader {
                shard,
                leader: None,
                what: format!("{:é<300}", "asked wal-1:7072: "),
            })
        });
        let said = asked.await.nothing().expect("none answers");
        assert!(
            said.starts_with("no shard answers: 1 (asked wal-1:7072: é"),
            "{said}"
        );
        assert!(said.contains("; 2 (asked"), "{said}");
        assert!(said.len() < 2 * WHY_BYTES_MAX + 40, "{}", said.len());
        assert_eq!(
            gather(Vec::new(), |_| async { Ok(progress()) })
                .await
                .nothing(),
            None
        );
    }
}
