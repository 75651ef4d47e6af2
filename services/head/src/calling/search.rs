//! Whom to ask next: who is known to lead, whom a node names, then one after the other.

use std::sync::Arc;
use std::time::Duration;

use esker_log::{HeadError, Leader};
use esker_proto::tuning::PEER_KEEPALIVE;
use esker_types::ShardId;
use esker_types::limits::HEAD_HOPS_MAX;
use tonic::transport::Channel;

use super::ways::{Address, Ways};

/// A search for the leader of a shard.
#[derive(Debug)]
pub(super) struct Search {
    ways: Arc<Ways>,
    shard: ShardId,
    /// Whom a node has named.
    named: Option<Address>,
    /// Whom it was that was asked last.
    asked: Option<Address>,
    hops: u32,
    failures: u32,
}

/// Why a node was asked for nothing.
#[derive(Debug)]
pub(super) enum Miss {
    /// It does not lead.
    Elsewhere {
        leader: Option<Leader>,
        error: HeadError,
    },
    /// It has not answered.
    Silent {
        what: String,
        /// It may have heard the question.
        left: bool,
        /// It took its time.
        slow: bool,
    },
}

impl Miss {
    /// What `status` comes to, after a call that took `took` and of which something has `left`. If
    /// nothing has, it took so long to connect.
    pub(super) fn of(status: &tonic::Status, left: bool, took: Duration) -> Self {
        Self::Silent {
            what: format!("{}: {}", status.code(), status.message()),
            left: left && !nothing_done(status),
            slow: !left && took >= PEER_KEEPALIVE,
        }
    }

    pub(super) fn late(most: Duration, left: bool) -> Self {
        Self::Silent {
            what: format!("no answer within {most:?}"),
            left,
            slow: true,
        }
    }

    pub(super) fn unread(fault: &str) -> Self {
        Self::Silent {
            what: format!("it gave an answer that is none: {fault}"),
            left: true,
            slow: false,
        }
    }

    /// The node had heard the question, and then the connection broke.
    pub(super) const fn broke(&self) -> bool {
        matches!(
            self,
            Self::Silent {
                left: true,
                slow: false,
                ..
            }
        )
    }

    /// Something may have come of the question.
    pub(super) const fn left(&self) -> bool {
        matches!(self, Self::Silent { left: true, .. })
    }
}

/// Whether `status` says that the call was not meant for who heard it, and so did nothing. Only the
/// service itself says these.
pub(super) fn nothing_done(status: &tonic::Status) -> bool {
    use tonic::Code::{Aborted, FailedPrecondition, Unimplemented};
    matches!(status.code(), Aborted | FailedPrecondition | Unimplemented)
}

/// Whether `status`, which ends a stream of appends, says that the node stops, and that it has answered
/// all that it took. Only the service itself says this of a stream that it has opened.
pub(super) fn stops(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition
}

impl Search {
    pub(super) fn new(ways: &Arc<Ways>, shard: ShardId) -> Self {
        Self {
            ways: Arc::clone(ways),
            shard,
            named: None,
            asked: None,
            hops: 0,
            failures: 0,
        }
    }

    /// The connection to the node to ask now.
    pub(super) fn node(&mut self) -> Result<Channel, Miss> {
        let Self { ways, shard, .. } = self;
        let named = self.named.take();
        let known = || ways.leader(*shard);
        let next = || ways.next(*shard, self.asked.as_ref());
        let address = named.or_else(known).or_else(next);
        let none = |what: String| Miss::Silent {
            what,
            left: false,
            slow: false,
        };
        let address = address.ok_or_else(|| none("no node is known".into()))?;
        self.asked = Some(Arc::clone(&address));
        self.ways.channel(&address).map_err(none)
    }

    /// The node that was asked leads.
    pub(super) fn found(&mut self) {
        if let Some(asked) = &self.asked {
            self.ways.leads(self.shard, asked);
        }
        (self.hops, self.failures) = (0, 0);
    }

    /// The node that was asked has not answered. How long to rest before the next.
    pub(super) fn missed(&mut self, miss: &Miss) -> Duration {
        if let Some(asked) = &self.asked {
            self.ways.leads_not(self.shard, asked);
            if matches!(miss, Miss::Silent { slow: true, .. }) {
                self.ways.kept_waiting(asked);
            }
        }
        if let Miss::Elsewhere {
            leader: Some(leader),
            ..
        } = miss
            && let Some(address) = self.ways.learn(&leader.address)
            && self.hops < HEAD_HOPS_MAX
            && self.asked.as_ref() != Some(&address)
        {
            self.hops += 1;
            self.named = Some(address);
            return Duration::ZERO;
        }
        self.hops = 0;
        self.failures = self.failures.saturating_add(1);
        self.ways.rest(self.failures)
    }

    /// What it comes to if the search ends here; `done` if what was asked may have been done.
    pub(super) fn failed(&self, miss: Miss, done: bool) -> HeadError {
        let shard = self.shard;
        match miss {
            Miss::Elsewhere { error, .. } if !done => error,
            Miss::Elsewhere { error, .. } => HeadError::Unknown {
                shard,
                what: error.to_string(),
            },
            Miss::Silent { what, .. } => {
                let asked = self.asked.as_deref().unwrap_or("nobody");
                let what = format!("asked {asked}: {what}");
                if done {
                    HeadError::Unknown { shard, what }
                } else {
                    HeadError::NotLeader {
                        shard,
                        leader: None,
                        what,
                    }
                }
            }
        }
    }
}
