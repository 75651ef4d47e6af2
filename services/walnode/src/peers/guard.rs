//! Who calls, looked at before any service sees the call.
//!
//! ```text
//!   call ─► certified? ─► may he? ─► in his own name? ─► of this cluster? ─► Raft, Head, Node, Members
//!              └──────────────┴─────────────┴──────────────────┴─► refused, counted, said now and then
//! ```

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use esker_proto::transport::Peer;
use esker_types::{ClusterId, NodeId};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Layer;

use super::answering::Refusals;
use super::credentials::{CLUSTER, FROM};
use super::names::Roles;
use super::rules;

/// Why a call was refused before a service saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Nothing was proved where proof is asked for.
    Unproved,
    /// What was proved does not allow it.
    Role,
    /// It is made in the name of another node.
    Forged,
    /// It is of another cluster.
    Cluster,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unproved, Self::Role, Self::Forged, Self::Cluster];

    /// Its name, as figures have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unproved => "unproved",
            Self::Role => "role",
            Self::Forged => "forged",
            Self::Cluster => "cluster",
        }
    }
}

/// What stands before the services of a node. Clones are the same.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    /// Whether callers prove who they are.
    certified: bool,
    cluster: OnceLock<ClusterId>,
    refused: [AtomicU64; Why::ALL.len()],
    /// What the service behind it has refused, once it is there.
    raft: OnceLock<Arc<Refusals>>,
}

impl Guard {
    /// One before services whose callers prove who they are, if they are `certified`; otherwise they are
    /// whoever they say.
    #[must_use]
    pub fn new(certified: bool) -> Self {
        Self(Arc::new(Shared {
            certified,
            cluster: OnceLock::new(),
            refused: Default::default(),
            raft: OnceLock::new(),
        }))
    }

    /// From now on, calls of other clusters than `cluster` are refused.
    pub fn belongs_to(&self, cluster: ClusterId) {
        // A node never changes its cluster.
        let _ = self.0.cluster.set(cluster);
    }

    /// Tells of what raft's service refuses, too.
    pub fn before(&self, raft: Arc<Refusals>) {
        // There is one.
        let _ = self.0.raft.set(raft);
    }

    /// How many calls were refused, by the reasons' names.
    #[must_use]
    pub fn all_refused(&self) -> Vec<(&'static str, u64)> {
        let raft = self.0.raft.get();
        let of = |count: fn(&Refusals) -> &AtomicU64| {
            raft.map_or(0, |raft| count(raft).load(Ordering::Relaxed))
        };
        let mut all = Why::ALL.map(|why| (why.name(), self.refused(why))).to_vec();
        all.push(("misdirected", of(|raft| &raft.misdirected)));
        all.push(("malformed", of(|raft| &raft.malformed)));
        all
    }

    /// How many calls were refused so.
    #[must_use]
    pub fn refused(&self, why: Why) -> u64 {
        self.0.refused[why as usize].load(Ordering::Relaxed)
    }

    /// Whether a call at `path` with `headers` of who has proved `names` may go on.
    fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        names: Option<&[String]>,
    ) -> Result<(), (Why, String)> {
        if self.0.certified {
            let unproved = || (Why::Unproved, "no certificate was shown".to_owned());
            let names = names.ok_or_else(unproved)?;
            let roles = Roles::of(names);
            rules::may(path, roles).map_err(|lacks| {
                let names = match names {
                    [] => "no name".to_owned(),
                    names => names.join(", "),
                };
                (Why::Role, format!("{path} is refused to {names}: {lacks}"))
            })?;
            if rules::is_of_a_node(path) {
                in_his_own_name(headers, roles)?;
            }
        }
        self.of_this_cluster(headers)
    }

    fn of_this_cluster(&self, headers: &HeaderMap) -> Result<(), (Why, String)> {
        let (Some(ours), Some(theirs)) = (self.0.cluster.get(), headers.get(CLUSTER)) else {
            return Ok(());
        };
        let theirs = theirs.to_str().unwrap_or("none");
        if theirs == ours.to_string() {
            return Ok(());
        }
        let what = format!("this node is of cluster {ours}, the call is of cluster {theirs}");
        Err((Why::Cluster, what))
    }

    fn refuse(&self, why: Why, what: &str, peer: &str) -> Status {
        let times = 1 + self.0.refused[why as usize].fetch_add(1, Ordering::Relaxed);
        // One line tells of many: who is set up wrongly calls ten times a second.
        if times.is_power_of_two() {
            tracing::warn!(%what, %peer, times, "a call was refused");
        }
        match why {
            Why::Unproved => Status::unauthenticated(what),
            Why::Role | Why::Forged => Status::permission_denied(what),
            Why::Cluster => Status::failed_precondition(what),
        }
    }
}

/// A node calls as itself: what it says is what it has proved.
fn in_his_own_name(headers: &HeaderMap, roles: Roles) -> Result<(), (Why, String)> {
    let said = headers.get(FROM).and_then(|from| from.to_str().ok());
    let said = said.and_then(|from| NodeId::from_u64(from.parse().ok()?));
    match (said, roles.node) {
        (Some(said), Some(proved)) if said.sequence() == proved => Ok(()),
        (said, proved) => {
            let said = said.map_or_else(|| "nobody".to_owned(), |said| said.to_string());
            let proved = proved.unwrap_or_default();
            let what = format!("the call is of {said}, the certificate is of node {proved}");
            Err((Why::Forged, what))
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.all_refused();
        f.debug_struct("Guard")
            .field("certified", &self.0.certified)
            .field("refused", &refused)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, services: S) -> Guarded<S> {
        let guard = self.clone();
        Guarded { guard, services }
    }
}

/// The services, behind a guard.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    guard: Guard,
    services: S,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let peer = request.extensions().get::<Peer>();
        let names = peer.and_then(|peer| peer.names.as_deref());
        let checked = self
            .guard
            .check(request.uri().path(), request.headers(), names);
        match checked {
            Ok(()) => Box::pin(self.services.call(request)),
            Err((why, what)) => {
                let peer = peer.map_or("somebody", |peer| &peer.address);
                let status = self.guard.refuse(why, &what, peer);
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTE: &str = "/esker.internal.v1.Raft/Vote";
    const HELLO: &str = "/esker.internal.v1.Node/Hello";
    const OURS: ClusterId = ClusterId(7);

    fn headers(cluster: ClusterId, from: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in [(CLUSTER, cluster.to_string()), (FROM, from.to_owned())] {
            headers.insert(name, text.parse().expect("ASCII"));
        }
        headers
    }

    #[test]
    fn a_node_calls_in_its_own_name_and_of_its_own_cluster() {
        let node = |number| NodeId::new(esker_types::Incarnation::FIRST, number).expect("small");
        let (two, three) = (node(2).as_u64().to_string(), node(3).as_u64().to_string());
        let guard = Guard::new(true);
        guard.belongs_to(OURS);
        let second = ["node-2.esker".to_owned(), "node.esker".to_owned()];
        let agent = ["agent.esker".to_owned()];
        let client = ["client.esker".to_owned()];
        let other = ClusterId(8);
        for (path, headers, names, expected) in [
            (VOTE, headers(OURS, &two), Some(&second[..]), None),
            (
                VOTE,
                headers(OURS, &three),
                Some(&second),
                Some(Why::Forged),
            ),
            (VOTE, headers(OURS, "2"), Some(&second), Some(Why::Forged)),
            (VOTE, headers(OURS, "x"), Some(&second), Some(Why::Forged)),
            (VOTE, HeaderMap::new(), Some(&second), Some(Why::Forged)),
            (VOTE, headers(OURS, &two), Some(&agent), Some(Why::Role)),
            (
                VOTE,
                headers(other, &two),
                Some(&second),
                Some(Why::Cluster),
            ),
            (HELLO, HeaderMap::new(), Some(&agent), None),
            (HELLO, HeaderMap::new(), Some(&client), Some(Why::Role)),
            (HELLO, HeaderMap::new(), Some(&[]), Some(Why::Role)),
            (HELLO, HeaderMap::new(), None, Some(Why::Unproved)),
        ] {
            let checked = guard.check(path, &headers, names);
            let refused = checked.err().map(|(why, _)| why);
            assert_eq!(refused, expected, "{path} {headers:?} {names:?}");
        }
    }

    #[test]
    fn where_nobody_is_asked_only_the_cluster_counts() {
        let guard = Guard::new(false);
        assert!(guard.check(VOTE, &headers(OURS, "1"), None).is_ok());
        guard.belongs_to(OURS);
        assert!(guard.check(VOTE, &headers(OURS, "1"), None).is_ok());
        let refused = guard.check(VOTE, &headers(ClusterId(8), "1"), None);
        assert_eq!(refused.err().map(|(why, _)| why), Some(Why::Cluster));
    }

    #[test]
    fn each_refusal_is_counted_by_its_reason() {
        let guard = Guard::new(true);
        for (at, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
            (0..=at).for_each(|_| _ = guard.refuse(why, "it is", "somebody"));
        }
        assert_eq!(Why::ALL.map(|why| guard.refused(why)), [1, 2, 3, 4]);
    }
}
