//! What a node answers before it has any credentials to go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_proto::internal as wire;
use esker_proto::internal::node_server::{Node, NodeServer};
use tonic::{Request, Response, Status};

use super::standing::{Refused, Standing};
use super::words::{self, Fault};

/// Bytes of a message: a few addresses and ids.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The service that a node answers from its first moment on.
#[derive(Clone, Debug)]
pub struct Answering {
    standing: Standing,
    refused: Arc<AtomicU64>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Answering {
    /// Answers for the node of `standing`.
    #[must_use]
    pub fn new(standing: Standing) -> Self {
        Self {
            standing,
            refused: Arc::default(),
        }
    }

    /// The service, for a server.
    #[must_use]
    pub fn service(self) -> NodeServer<Self> {
        NodeServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn refused(&self, call: &str, refused: &Refused) -> Status {
        match refused {
            Refused::NotNow(what) => Status::unavailable(what),
            Refused::Never(what) => {
                let times = 1 + self.refused.fetch_add(1, Ordering::Relaxed);
                // One line tells of many.
                if times.is_power_of_two() {
                    tracing::warn!(call, %what, times, "refused");
                }
                Status::failed_precondition(what)
            }
        }
    }
}

fn malformed(fault: Fault) -> Status {
    Status::invalid_argument(fault)
}

#[tonic::async_trait]
impl Node for Answering {
    async fn hello(&self, _: Request<wire::HelloRequest>) -> Reply<wire::HelloReply> {
        Ok(Response::new(words::hello(self.standing.hello().await)))
    }

    async fn adopt(&self, request: Request<wire::AdoptRequest>) -> Reply<wire::AdoptReply> {
        let request = request.into_inner();
        let disk = words::read_disk(&request.disk).map_err(malformed)?;
        let membership = request.membership.ok_or("it has no membership");
        let membership = membership.and_then(|of| words::read_membership(&of));
        let membership = membership.map_err(malformed)?;
        let founders = words::read_founders(request.founders).map_err(malformed)?;
        let adopted = self.standing.adopt(disk, membership, founders).await;
        adopted.map_err(|why| self.refused("an adoption", &why))?;
        Ok(Response::new(wire::AdoptReply {}))
    }

    async fn found(&self, request: Request<wire::FoundRequest>) -> Reply<wire::FoundReply> {
        let request = request.into_inner();
        let cluster = words::read_cluster(&request.cluster).map_err(malformed)?;
        let voters = words::read_voters(request.voters).map_err(malformed)?;
        let founded = self.standing.found(cluster, voters).await;
        founded.map_err(|why| self.refused("a founding", &why))?;
        Ok(Response::new(wire::FoundReply {}))
    }
}
