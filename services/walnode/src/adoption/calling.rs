//! Ways to nodes, for who does not know them yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use esker_env::Network;
use esker_proto::internal as wire;
use esker_proto::internal::node_client::NodeClient;
use esker_proto::{transport, tuning};
use esker_types::{ClusterId, NodeId};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::answering::MESSAGE_BYTES_MAX;
use super::founders::Founders;
use super::standing::{Hello, Membership};
use super::words;
use crate::disk_id::DiskId;

/// How long an answer may take: a file is synced for it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The same where every shard writes its first entry.
const FOUND_MAX: Duration = Duration::from_secs(60);

/// How it is told that a connection broke before anything was answered.
const BROKEN: [&str; 3] = [
    "transport error",
    "h2 protocol error",
    "operation was canceled",
];

/// The way to one node. Connects when it is first used, and again after a broken connection.
#[derive(Clone)]
pub struct Calling {
    address: String,
    client: NodeClient<Channel>,
}

/// Why a node did not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answered, or cannot yet: it may or may not have been done, and may be asked again.
    #[error("{address}: {what}")]
    Away {
        /// Who was asked.
        address: String,
        /// What happened.
        what: String,
    },
    /// It refuses. Nothing was done.
    #[error("{address}: {what}")]
    Refused {
        /// Who was asked.
        address: String,
        /// Why.
        what: String,
    },
}

impl Calling {
    /// The way to whoever listens at `address`, `host:port`.
    ///
    /// # Errors
    /// [`CallError::Refused`] if that is no address.
    pub fn new(network: &Arc<dyn Network>, address: &str) -> Result<Self, CallError> {
        let endpoint = tuning::peer_endpoint(&format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| CallError::Refused {
            address: address.to_owned(),
            what: format!("it is no address: {error}"),
        })?;
        let channel = transport::channel(Arc::clone(network), &endpoint);
        let client = NodeClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            address: address.to_owned(),
            client,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who is there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn hello(&self) -> Result<Hello, CallError> {
        let mut client = self.client.clone();
        let asked = client.hello(within(wire::HelloRequest {}, ANSWER_MAX));
        let reply = asked.await.map_err(|status| self.failed(&status))?;
        words::read_hello(reply.into_inner()).map_err(|fault| CallError::Refused {
            address: self.address.clone(),
            what: format!("its answer is none: {fault}"),
        })
    }

    /// Makes the node that showed `disk` one of a cluster that is to be founded with `founders`, or of one
    /// that stands, with nobody. May be called again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn adopt(
        &self,
        disk: DiskId,
        membership: Membership,
        founders: &Founders,
    ) -> Result<(), CallError> {
        let request = wire::AdoptRequest {
            disk: disk.to_string(),
            membership: Some(words::membership(membership)),
            founders: words::founders(founders),
        };
        let mut client = self.client.clone();
        let asked = client.adopt(within(request, ANSWER_MAX)).await;
        asked.map_err(|status| self.failed(&status)).map(|_| ())
    }

    /// Gives every shard its first voters. May be called again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn found(
        &self,
        cluster: ClusterId,
        voters: &BTreeMap<NodeId, String>,
    ) -> Result<(), CallError> {
        let request = wire::FoundRequest {
            cluster: cluster.to_string(),
            voters: words::voters(voters),
        };
        let mut client = self.client.clone();
        let asked = client.found(within(request, FOUND_MAX)).await;
        asked.map_err(|status| self.failed(&status)).map(|_| ())
    }

    fn failed(&self, status: &Status) -> CallError {
        let (address, what) = (self.address.clone(), status.message().to_owned());
        match status.code() {
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated => CallError::Refused { address, what },
            // Another service listens there.
            Code::Unimplemented => CallError::Refused {
                address,
                what: "a service answers there that is no WAL node's".to_owned(),
            },
            // As where only one side speaks TLS, or does not believe the other.
            _ if BROKEN.iter().any(|broken| what.contains(broken)) => {
                let what = format!(
                    "{what}: the connection broke; see that here and there tls.peers is said, or is not, \
                     with certificates of one CA"
                );
                CallError::Away { address, what }
            }
            _ => CallError::Away { address, what },
        }
    }
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calling({})", self.address)
    }
}

fn within<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}
