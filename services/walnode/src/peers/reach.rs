//! Which nodes are out of reach: said once when it begins, and once when it is over.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::{Arc, Mutex};

use esker_types::NodeId;
use esker_wal::peers::PeerError;
use tonic::{Code, Status};

/// Nodes that did not do what they were last called for. Clones share it.
#[derive(Clone, Default, Debug)]
pub(super) struct Reach(Arc<Mutex<BTreeSet<NodeId>>>);

impl Reach {
    /// A call has failed; why, as the log is told.
    pub(super) fn failed(&self, node: NodeId, status: &Status) -> PeerError {
        if !is_its_word(status) && self.of(|away| away.insert(node)) {
            let what = status.message();
            tracing::warn!(%node, %what, "another node is out of reach");
        }
        PeerError(format!("node {node}: {}", status.message()))
    }

    /// A call was answered.
    pub(super) fn answered(&self, node: NodeId) {
        if self.of(|away| away.remove(&node)) {
            tracing::info!(%node, "the other node answers again");
        }
    }

    fn of<T>(&self, change: impl FnOnce(&mut BTreeSet<NodeId>) -> T) -> T {
        change(&mut self.0.lock().expect("nothing panics under this lock"))
    }
}

/// The node itself says that it cannot do this now: its log is full, or it stops. It answers other calls meanwhile,
/// and each of both would be told of in turn, many times a second.
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
        let away = || reach.of(|away| away.iter().map(|of| of.sequence()).collect::<Vec<_>>());
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
    fn who_says_that_it_cannot_is_not_away() {
        let node = NodeId::new(Incarnation::FIRST, 2).expect("small");
        let reach = Reach::default();
        let full = Status::unavailable("the log has no room");
        let error = reach.failed(node, &full);
        assert_eq!(error.0, "node n1.2: the log has no room");
        assert!(reach.of(|away| away.is_empty()));
        reach.failed(node, &Status::failed_precondition("of another cluster"));
        assert!(!reach.of(|away| away.is_empty()));
    }
}
