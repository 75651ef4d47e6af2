//! Founds a cluster of several WAL nodes, once.
//!
//! ```text
//!   hello ─► plan ─► adopt, one after the other ─► claim the bucket ─► found ─► every node is led
//! ```
//! Each step may be the last: run again, it goes on from there. Who founds at the same time is refused
//! at the first node that the other has adopted.

use std::time::Duration;

use esker_env::{Env, Monotonic};
use esker_log::{ClaimError, claim, confirm, nothing_written};
use esker_object::Store;
use esker_types::ClusterId;
use esker_walnode::adoption::{CallError, Calling, Hello};
use futures::future::try_join_all;

use super::plan::{Answer, Plan, Refusal, Shards, Stage, plan};

/// How long a node may be away, or read its log, before it is given up on.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// How long the nodes of a cluster that was founded may take until all know who leads.
const LED_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const REST: Duration = Duration::from_millis(100);

/// A cluster that is founded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Founded {
    pub(super) cluster: ClusterId,
    pub(super) plan: Plan,
}

/// What is being done, for a person who waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nodes are asked who they are.
    Asking,
    /// A node is adopted.
    Adopting(String),
    /// The bucket is claimed.
    Claiming,
    /// The shards get their voters.
    Founding(String),
    /// Nodes hear of their leaders: how many do not yet.
    Waiting(usize),
}

/// Why a cluster is not founded. What was done stays done; run again, it goes on from there.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("{0}; start `esker serve` with roles = [\"wal\"] there, and run this again")]
    Away(CallError),
    #[error(
        "{0}; if somebody else founds a cluster on these nodes, let them; run this again to see how far \
         it has come"
    )]
    Rejected(CallError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Bucket(#[from] esker_object::Error),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(
        "cluster {cluster} is founded, and after {LED_MAX:?} {} not heard from its leaders: see that \
         every node reaches the others at the addresses of cluster.nodes, and run this again",
        match late.as_slice() {
            [one] => format!("{one} has"),
            more => format!("{} have", more.join(", ")),
        }
    )]
    NotLed {
        cluster: ClusterId,
        late: Vec<String>,
    },
}

/// Founds a cluster of `shards` on `nodes`, whose bucket is `store`; does nothing to one that is
/// founded.
pub(super) async fn init(
    env: &Env,
    nodes: &[String],
    shards: Shards,
    store: &Store,
    tell: &impl Fn(Step),
) -> Result<Founded, InitError> {
    let founding = Initing { env, tell };
    tell(Step::Asking);
    let nodes = nodes.iter().map(|node| Calling::new(&env.network, node));
    let nodes: Vec<_> = nodes.collect::<Result<_, _>>().map_err(of_call)?;
    let answers = try_join_all(nodes.iter().map(|node| founding.ask(node))).await?;
    let plan = plan(&answers, shards)?;
    // A bucket that cannot be used is told of before anybody is adopted.
    store.probe().await?;
    let drawn = || ClusterId(env.entropy.next_u128());
    let cluster = plan.cluster.unwrap_or_else(drawn);
    let founded = Founded { cluster, plan };
    if founded.plan.stage == Stage::Founded {
        confirm(store, cluster, founded.plan.incarnation).await?;
    } else {
        founding.adopt(&nodes, &founded).await?;
        founding.claim(store, &founded).await?;
        founding.found(&nodes, &founded).await?;
    }
    founding.wait(&nodes, cluster).await?;
    Ok(founded)
}

/// What all steps have at hand.
struct Initing<'a, T> {
    env: &'a Env,
    tell: &'a T,
}

impl<T: Fn(Step)> Initing<'_, T> {
    /// Who is at `node`; one that reads its log is asked again.
    async fn ask(&self, node: &Calling) -> Result<Answer, InitError> {
        let ready = |hello: &Hello| hello.membership.is_none() || hello.open;
        let hello = self.patiently(async || {
            let hello = node.hello().await?;
            match ready(&hello) {
                true => Ok(hello),
                false => Err(CallError::Away {
                    address: node.address().to_owned(),
                    what: "it reads its log".to_owned(),
                }),
            }
        });
        Ok(Answer {
            address: node.address().to_owned(),
            hello: hello.await?,
        })
    }

    async fn adopt(&self, nodes: &[Calling], founded: &Founded) -> Result<(), InitError> {
        let founders = &founded.plan.founders;
        for (member, membership) in founded.plan.adoptions(founded.cluster) {
            (self.tell)(Step::Adopting(member.address.clone()));
            let node = at(nodes, &member.address);
            let adopt = async || node.adopt(member.disk, membership, founders).await;
            self.patiently(adopt).await?;
        }
        Ok(())
    }

    /// Makes the bucket the cluster's, which nobody has written to under its name if it is new.
    async fn claim(&self, store: &Store, founded: &Founded) -> Result<(), InitError> {
        (self.tell)(Step::Claiming);
        let incarnation = founded.plan.incarnation;
        claim(store, founded.cluster, incarnation).await?;
        if founded.plan.stage == Stage::Anew {
            nothing_written(store, incarnation).await?;
        }
        Ok(())
    }

    /// Has the first of the nodes give every shard its voters.
    async fn found(&self, nodes: &[Calling], founded: &Founded) -> Result<(), InitError> {
        let first = founded.plan.members.first();
        let first = first.expect("a plan has members");
        (self.tell)(Step::Founding(first.address.clone()));
        let (node, voters) = (at(nodes, &first.address), founded.plan.founders.voters());
        let found = async || node.found(founded.cluster, &voters).await;
        self.patiently(found).await
    }

    /// Waits until all nodes have heard of all shards, and know who leads.
    async fn wait(&self, nodes: &[Calling], cluster: ClusterId) -> Result<(), InitError> {
        let began = self.env.clock.monotonic();
        loop {
            let mut late = Vec::new();
            for node in nodes {
                let hello = node.hello().await;
                if !hello.is_ok_and(|hello| hello.has_begun() && hello.is_led()) {
                    late.push(node.address().to_owned());
                }
            }
            if late.is_empty() {
                return Ok(());
            }
            (self.tell)(Step::Waiting(late.len()));
            if self.is_over(began, LED_MAX) {
                return Err(InitError::NotLed { cluster, late });
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// What `call` comes to, which is made again while nobody answers.
    async fn patiently<A>(
        &self,
        call: impl AsyncFn() -> Result<A, CallError>,
    ) -> Result<A, InitError> {
        let began = self.env.clock.monotonic();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error @ CallError::Away { .. }) if !self.is_over(began, AWAY_MAX) => {
                    tracing::info!(%error, "asked again");
                    tokio::time::sleep(REST).await;
                }
                Err(error) => return Err(of_call(error)),
            }
        }
    }

    fn is_over(&self, began: Monotonic, most: Duration) -> bool {
        self.env.clock.monotonic().since(began) >= most
    }
}

fn at<'a>(nodes: &'a [Calling], address: &str) -> &'a Calling {
    let node = nodes.iter().find(|node| node.address() == address);
    node.expect("a plan names nodes that were asked")
}

fn of_call(error: CallError) -> InitError {
    match error {
        CallError::Away { .. } => InitError::Away(error),
        CallError::Refused { .. } => InitError::Rejected(error),
    }
}

#[cfg(test)]
mod tests;
