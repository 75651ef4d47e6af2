//! One of several WAL nodes: it is reached from its first moment on, is adopted, opens its log, and
//! hears the others.
//!
//! ```text
//!   listen.peers ─┬─ Node: hello, adopt, found       at once
//!                 └─ Raft, Head, Members             once it is adopted and its log is open
//!                    behind a guard: who calls, and may he
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Listener};
use esker_proto::internal::head_server::HeadServer;
use esker_proto::internal::members_server::MembersServer;
use esker_proto::internal::raft_server::RaftServer;
use esker_proto::{transport, tuning};
use esker_wal::Replica;
use esker_walnode::adoption::{self, Founding, Standing};
use esker_walnode::peers::{Answering, Calling, Credentials, Guard};
use esker_walnode::{Directory, Identity, Node, NodeOptions, Slot, members};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::keeping::Keeping;
use super::{Reaching, ServeError};
use crate::observe::Log;

/// How long a node that stops may take to answer the appends that it took.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// What is answered to who comes too early.
const NOT_YET: &str = "this node is not adopted yet, or still reads its log";

/// A WAL node of a cluster of several, running.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) keeping: Keeping,
    pub(crate) standing: Standing,
    /// Where it is reached, as `host:port`.
    pub(crate) address: String,
    /// What stands before its services.
    pub(crate) guard: Guard,
    opened: watch::Receiver<Option<Opened>>,
}

/// What is known of a node once its log is open.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) log: Log,
    replicas: Vec<Replica>,
}

impl Member {
    /// Starts the node of `directory`, reached at `listener`. `shards` is told how many data shards
    /// there are once that is known.
    pub(crate) fn start(
        env: &Env,
        directory: Directory,
        listener: Box<dyn Listener>,
        options: NodeOptions,
        reaching: Reaching,
    ) -> Result<Self, ServeError> {
        let standing = Standing::of(env, &directory)?;
        if let Some(number) = reaching.number() {
            match standing.identity().map(|of| of.node) {
                Some(node) if node.sequence() != number => {
                    return Err(ServeError::OtherNode { number, node });
                }
                _ => standing.certify(number),
            }
        }
        let guard = Guard::new(reaching.is_certified());
        let address = listener.address().to_owned();
        let (tell, opened) = watch::channel(None);
        let running = Running {
            env: env.clone(),
            standing: standing.clone(),
            reaching,
            guard: guard.clone(),
            raft: Slot::new(NOT_YET),
            head: Slot::new(NOT_YET),
            members: Slot::new(NOT_YET),
            serving: JoinSet::new(),
            address: address.clone(),
            data_dir: directory.path().to_owned(),
            tell,
        };
        let keeping = Keeping::start(|stopped| running.run(directory, listener, options, stopped));
        Ok(Self {
            keeping,
            standing,
            address,
            guard,
            opened,
        })
    }

    /// Ends it as a kill does, and waits until nothing of it runs.
    #[cfg(test)]
    pub(crate) async fn kill(self) {
        self.keeping.kill().await;
    }

    /// Waits until its log is open; for ever if it dies before.
    pub(super) fn opened(&self) -> impl Future<Output = Opened> + Send + use<> {
        let mut opened = self.opened.clone();
        async move {
            let opened = opened.wait_for(Option::is_some).await;
            match opened.map(|opened| opened.clone()) {
                Ok(Some(opened)) => opened,
                // It is told by whoever keeps it.
                _ => std::future::pending().await,
            }
        }
    }
}

impl Opened {
    /// Waits until every shard has applied something: it was founded, and this node is heard.
    pub(super) async fn begun(&self) {
        for replica in &self.replicas {
            let mut states = replica.watch();
            let begun = states.wait_for(|state| state.applied().index.0 > 0);
            let ended = begun.await.is_err();
            if ended {
                // Its end is told by whoever keeps it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What runs a node.
struct Running {
    env: Env,
    standing: Standing,
    reaching: Reaching,
    guard: Guard,
    raft: Slot<RaftServer<Answering>>,
    head: Slot<HeadServer<esker_head::Answering>>,
    members: Slot<MembersServer<members::Answering>>,
    /// The listener; ends with this.
    serving: JoinSet<Result<(), tonic::transport::Error>>,
    address: String,
    data_dir: PathBuf,
    tell: watch::Sender<Option<Opened>>,
}

impl Running {
    async fn run(
        mut self,
        directory: Directory,
        listener: Box<dyn Listener>,
        options: NodeOptions,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), ServeError> {
        let server = tuning::peer_server()
            .layer(self.guard.clone())
            .add_service(adoption::Answering::new(self.standing.clone()).service())
            .add_service(self.raft.clone())
            .add_service(self.head.clone())
            .add_service(self.members.clone());
        let incoming = transport::incoming(listener);
        self.serving.spawn(server.serve_with_incoming(incoming));
        let open = self.open(directory, options);
        let (mut node, identity) = tokio::select! {
            biased;
            opened = open => opened?,
            // Nothing of the log is to be left well.
            _ = &mut stopped => return Ok(()),
        };
        let foundings = self.standing.open(identity.clone(), node.replicas());
        let credentials = credentials(&identity, &self.standing);
        let replicas = node.replicas().to_vec();
        // Entries come whole, with what was refused in them: more than heads may have, and what fits the log.
        let head_bytes = node.wal().disk_bytes_max();
        let answering = Answering::new(credentials, replicas.clone(), head_bytes);
        self.guard.before(answering.refusals());
        self.raft.fill(answering.service());
        let head = esker_head::Answering::new(identity.cluster, node.head());
        self.head.fill(head.service());
        let members = members::Answering::new(identity.cluster, replicas.clone());
        self.members.fill(members.service());
        self.tell.send_replace(Some(Opened {
            log: Log::of(&node, &self.data_dir),
            replicas: replicas.clone(),
        }));
        let died = tokio::select! {
            biased;
            died = node.ended() => died.into(),
            ended = self.serving.join_next() => self.broken(ended),
            () = found(&replicas, foundings) => ServeError::Died("nobody can found it".to_owned()),
            _ = stopped => {
                node.hand_over().await;
                // What cannot be answered in time ends with the process, and is in doubt.
                let _ = tokio::time::timeout(LAST_ANSWERS, head.stop()).await;
                node.leave().await;
                return Ok(());
            }
        };
        Err(died)
    }

    /// Waits until the node is adopted, and opens its log.
    async fn open(
        &mut self,
        directory: Directory,
        options: NodeOptions,
    ) -> Result<(Node, Identity), ServeError> {
        if self.standing.identity().is_none() {
            tracing::info!(
                disk = %self.standing.disk(),
                "waits to be adopted: run `esker cluster init` once all WAL nodes run"
            );
        }
        let identity = tokio::select! {
            biased;
            ended = self.serving.join_next() => return Err(self.broken(ended)),
            adopted = self.standing.adopted() => adopted?,
        };
        let Identity { cluster, node, .. } = identity;
        tracing::info!(%cluster, %node, "reading the log");
        self.guard.belongs_to(cluster);
        let ways = self.reaching.ways();
        let calling = Calling::over(ways, credentials(&identity, &self.standing));
        let node = Node::start(&self.env, directory, &identity, options, Arc::new(calling)).await?;
        Ok((node, identity))
    }

    fn broken<E: ToString>(
        &self,
        ended: Option<Result<Result<(), E>, tokio::task::JoinError>>,
    ) -> ServeError {
        let what = match ended {
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(panicked)) => panicked.to_string(),
            Some(Ok(Ok(()))) | None => "nobody asked it to".to_owned(),
        };
        let address = self.address.clone();
        ServeError::Listener { address, what }
    }
}

fn credentials(identity: &Identity, standing: &Standing) -> Credentials {
    Credentials {
        cluster: identity.cluster,
        node: identity.node,
        disk: standing.disk().0,
    }
}

/// Gives the shards their voters whenever somebody says so. A shard that has some keeps them: killed
/// half-way, it is told again.
async fn found(replicas: &[Replica], mut foundings: mpsc::Receiver<Founding>) {
    while let Some(Founding { voters, done }) = foundings.recv().await {
        let mut founded = Ok(());
        for replica in replicas {
            founded = founded.and(replica.found(&voters).await);
        }
        let founded = founded.map_err(|error| error.to_string());
        tracing::info!(?voters, ?founded, "told to found the shards");
        // Who asked may have gone; asked again, it does nothing twice.
        let _ = done.send(founded);
    }
}
