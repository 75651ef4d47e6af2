//! Why a server does not start, or has died.

use std::io;

use esker_log::{ClaimError, Ended};
use esker_proto::tls::TlsError;
use esker_types::{ClusterId, NodeId};
use esker_walnode::{IdentityError, NodeError};

use super::NoReach;

/// Why a server does not start, or has died.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] esker_object::Error),
    /// The bucket is not ours, or no longer.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The data directory belongs to somebody else, or says nothing useful.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The cache's budgets.
    #[error(transparent)]
    Cache(#[from] esker_cache::Error),
    /// Certificates and keys.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The same, between nodes.
    #[error(transparent)]
    NoReach(#[from] NoReach),
    /// The certificate is of another node than the data directory.
    #[error(
        "the certificate of tls.peers is of node {number}, and this data directory belongs to node {node}: \
         give it the certificate of node {}, or start the other node in a directory of its own",
        node.sequence()
    )]
    OtherNode {
        /// Of the certificate.
        number: u64,
        /// Of the directory.
        node: NodeId,
    },
    /// The address is taken, or not ours.
    #[error("{0}; choose another with --listen HOST:PORT")]
    Listen(io::Error),
    /// The same, for the other nodes.
    #[error("{0} for the other nodes of the cluster; choose another by `listen.peers`")]
    ListenPeers(io::Error),
    /// The same, for metrics.
    #[error("{0} for metrics; choose another with --metrics HOST:PORT")]
    ListenMetrics(io::Error),
    /// The same, where nobody said which.
    #[error(
        "{error} for metrics and health, which are one port above {below} if nothing else is said; \
         choose another with --metrics HOST:PORT"
    )]
    ListenDerived {
        /// What the system says.
        error: io::Error,
        /// What it was derived from.
        below: String,
    },
    /// The server's own listener broke.
    #[error("the listener at {address} has ended: {what}")]
    Listener {
        /// Where it listened.
        address: String,
        /// Why it ended.
        what: String,
    },
    /// The engine ended.
    #[error("the engine has ended: {0}")]
    Engine(Ended),
    /// A part of the server panicked.
    #[error("a part of the server has died: {0}; start again")]
    Died(String),
    /// The nodes that an agent is told of are of different clusters.
    #[error(
        "{one} is a node of cluster {by}, and {other} of cluster {to}: name the nodes of one cluster \
         in cluster.nodes"
    )]
    TwoClusters {
        /// Who was asked.
        one: String,
        /// Whose it is.
        by: ClusterId,
        /// Who else was asked.
        other: String,
        /// Whose that is.
        to: ClusterId,
    },
}
