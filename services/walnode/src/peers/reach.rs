//! Which nodes are out of reach: said once when it begins, and once when it is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use esker_types::NodeId;
use esker_wal::peers::PeerError;
use tonic::Status;

/// Nodes that did not do what they were last called for. Clones share it.
#[derive(Clone, Default, Debug)]
pub(super) struct Reach(Arc<Mutex<BTreeSet<NodeId>>>);

impl Reach {
    /// A call has failed; why, as the log is told.
    pub(super) fn failed(&self, node: NodeId, status: &Status) -> PeerError {
        if self.of(|away| away.insert(node)) {
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

#[cfg(test)]
mod tests {
    use esker_types::Incarnation;

    use super::*;

    #[test]
    fn each_node_is_away_or_not_whatever_the_others_are() {
        let node = |sequence| NodeId::new(Incarnation::FIRST, sequence).expect("small");
        let reach = Reach::default();
        let away = || reach.of(|away| away.iter().map(|of| of.sequence()).collect::<Vec<_>>());
        let gone = Status::unavailable("gone");
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
}
