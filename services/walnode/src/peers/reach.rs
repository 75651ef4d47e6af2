//! Which nodes are out of reach: said once when it begins, and once when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_types::NodeId;
use esker_wal::peers::PeerError;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Refusals of a node that are told apart: of more, those that were heard last.
const REFUSALS_MAX: usize = 16;
/// After so much silence a refusal is news again.
const SILENCE: Duration = Duration::from_secs(60);

/// Nodes that did not do what they were last called for. Clones share it.
#[derive(Clone, Default, Debug)]
pub(super) struct Reach(Arc<Mutex<Standing>>);

#[derive(Default, Debug)]
struct Standing {
    away: BTreeSet<NodeId>,
    /// By which words each has refused, how often, and when last.
    refusals: BTreeMap<NodeId, BTreeMap<String, (u64, Instant)>>,
}

impl Reach {
    /// A call has failed; why, as the log is told.
    pub(super) fn failed(&self, node: NodeId, status: &Status) -> PeerError {
        let what = status.message();
        if is_its_word(status) {
            if let Some(times) = self.of(|of| of.refused(node, what, Instant::now())) {
                tracing::warn!(%node, %what, times, "another node refuses");
            }
        } else if self.of(|standing| standing.away.insert(node)) {
            tracing::warn!(%node, %what, "another node is out of reach");
        }
        PeerError(format!("node {node}: {what}"))
    }

    /// A call was answered.
    pub(super) fn answered(&self, node: NodeId) {
        if self.of(|standing| standing.away.remove(&node)) {
            tracing::info!(%node, "the other node answers again");
        }
    }

    fn of<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        change(&mut self.0.lock().expect("nothing panics under this lock"))
    }
}

impl Standing {
    /// How often `node` has refused by these words, numbers aside, if that is to be said: once, and each time that it
    /// has doubled.
    fn refused(&mut self, node: NodeId, what: &str, now: Instant) -> Option<u64> {
        let words: String = what.chars().filter(|c| !c.is_ascii_digit()).collect();
        let refusals = self.refusals.entry(node).or_default();
        if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&words) {
            let oldest = refusals.iter().min_by_key(|(_, (_, last))| *last);
            let oldest = oldest.map(|(words, _)| words.clone());
            refusals.remove(&oldest.unwrap_or_default());
        }
        let (times, last) = refusals.entry(words).or_insert((0, now));
        if now.duration_since(*last) > SILENCE {
            *times = 0;
        }
        (*times, *last) = (times.saturating_add(1), now);
        times.is_power_of_two().then_some(*times)
    }
}

/// The node itself says that it cannot do this now: its log is full, say. It answers other calls meanwhile, and each
/// of both would be told of in turn, many times a second.
fn is_its_word(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.source().is_none()
}

#[cfg(test)]
mod tests {
    use esker_types::Incarnation;

    use super::*;

    #[test]
    fn each_node_is_away_or_not_whatever_the_others_are() {
        let node = |sequence| NodeId::new(Incarnation::FIRST, sequence).expect("small");
        let reach = Reach::default();
        let away = || reach.of(|of| of.away.iter().map(|of| of.sequence()).collect::<Vec<_>>());
        let mut gone = Status::unavailable("gone");
        gone.set_source(Arc::new(std::io::Error::other("refused")));
        for _ in 0..2 {
            let error = reach.clone().failed(node(2), &gone);
            assert_eq!(error.0, "node n1.2: gone");
        }
        reach.failed(node(3), &gone);
        reach.answered(node(1));
        assert_eq!(away(), [2, 3]);
        reach.answered(node(2));
        assert_eq!(away(), [3]);
    }

    #[test]
    fn who_says_that_it_cannot_is_not_away_and_is_told_of_now_and_then() {
        let node = NodeId::new(Incarnation::FIRST, 2).expect("small");
        let reach = Reach::default();
        let error = reach.failed(node, &Status::unavailable("the log has no room"));
        assert_eq!(error.0, "node n1.2: the log has no room");
        assert!(reach.of(|of| of.away.is_empty()));
        reach.failed(node, &Status::failed_precondition("of another cluster"));
        assert!(!reach.of(|of| of.away.is_empty()));

        let (mut standing, now) = (Standing::default(), Instant::now());
        let told = (0..1000).filter_map(|at| standing.refused(node, &format!("{at} bytes"), now));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        );
        let later = now + 2 * SILENCE;
        assert_eq!(standing.refused(node, "5 bytes", later), Some(1));
        for at in 0..100 {
            let words = "x".repeat(at);
            assert_eq!(standing.refused(node, &words, later), Some(1));
            assert!(standing.refusals[&node].len() <= REFUSALS_MAX);
        }
    }
}
