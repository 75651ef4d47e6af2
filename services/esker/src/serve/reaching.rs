//! How nodes are reached: over TLS where there is some, and then as who.

use std::fmt;
use std::sync::Arc;

use esker_env::{Env, Network};
use esker_proto::tls::{Secure, Showing, TlsError};
use esker_types::NodeId;
use esker_walnode::peers::{AGENT, NODE, OPERATOR, Roles, Ways, node_name};

use crate::config::tls::PeerTls;
use crate::config::{Config, Role};

/// Names of nodes, in words.
const NODES: &str = "node-1.esker, node-2.esker, …";

/// How nodes are reached.
#[derive(Clone)]
pub(crate) struct Reaching {
    plain: Env,
    secure: Option<Secure>,
}

/// Why nodes are not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReach {
    /// Certificates and keys.
    #[error("tls.peers: {0}")]
    Tls(#[from] TlsError),
    /// The certificate has no name that anybody lets in.
    #[error(
        "the certificate of tls.peers names {names}: the nodes of the cluster let in {NODES}, {AGENT} and \
         {OPERATOR}"
    )]
    Stranger {
        /// What it has.
        names: String,
    },
    /// It has no name of one node.
    #[error("the certificate of tls.peers names {names}: that of a node has one of {NODES}")]
    NoNode {
        /// What it has.
        names: String,
    },
}

impl Reaching {
    /// As `peers` says.
    pub(crate) fn new(env: &Env, peers: Option<PeerTls>) -> Result<Self, TlsError> {
        let secure = peers.map(|peers| Secure::new(env, peers.connecting()));
        Ok(Self {
            plain: env.clone(),
            secure: secure.transpose()?,
        })
    }

    /// As one of the processes of a cluster reaches nodes, which `config` tells what it is.
    pub(super) fn of_a_part(env: &Env, config: &Config) -> Result<Self, NoReach> {
        let reaching = Self::new(env, config.tls.peers())?.of_the_cluster()?;
        match config.is(Role::Wal) {
            true => reaching.of_a_node(),
            false => Ok(reaching),
        }
    }

    /// The same, as somebody whom the nodes let in.
    pub(crate) fn of_the_cluster(self) -> Result<Self, NoReach> {
        let is_one = |of: Roles| of.node.is_some() || of.agent || of.operator;
        match self.roles().is_none_or(is_one) {
            true => Ok(self),
            false => Err(NoReach::Stranger {
                names: self.listed(),
            }),
        }
    }

    /// The same, as a node.
    pub(crate) fn of_a_node(self) -> Result<Self, NoReach> {
        match self.roles().is_none_or(|of| of.node.is_some()) {
            true => Ok(self),
            false => Err(NoReach::NoNode {
                names: self.listed(),
            }),
        }
    }

    /// A world whose connections go to nodes of the cluster.
    pub(crate) fn env(&self) -> Env {
        let network: Arc<dyn Network> = match &self.secure {
            None => Arc::clone(&self.plain.network),
            Some(secure) => Arc::new(secure.to(NODE).expect("it is a name")),
        };
        Env {
            network,
            ..self.plain.clone()
        }
    }

    /// Ways to each node, and to nobody else in its place.
    pub(crate) fn ways(&self) -> Ways {
        let Some(secure) = self.secure.clone() else {
            let network = Arc::clone(&self.plain.network);
            return Arc::new(move |_| Arc::clone(&network));
        };
        Arc::new(move |node: NodeId| {
            let name = node_name(node.sequence());
            Arc::new(secure.to(&name).expect("it is a name"))
        })
    }

    /// What is shown to nodes.
    pub(crate) fn showing(&self) -> Option<Showing> {
        self.secure.as_ref().map(Secure::showing)
    }

    /// Whether who is reached proves who he is.
    pub(crate) const fn is_certified(&self) -> bool {
        self.secure.is_some()
    }

    /// The node's number that its own certificate has.
    pub(crate) fn number(&self) -> Option<u64> {
        self.roles()?.node
    }

    fn listed(&self) -> String {
        match &*self.names() {
            [] => "nobody".to_owned(),
            names => names.join(", "),
        }
    }

    fn names(&self) -> Arc<[String]> {
        self.secure.as_ref().map(Secure::names).unwrap_or_default()
    }

    fn roles(&self) -> Option<Roles> {
        self.is_certified().then(|| Roles::of(&self.names()))
    }
}

impl fmt::Debug for Reaching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reaching(as {:?})", self.names())
    }
}
