//! The nodes: a connection to each, who leads which shard, and how far each shard was seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use esker_env::{Env, Monotonic};
use esker_log::Mark;
use esker_proto::{transport, tuning};
use esker_types::limits::{
    HEAD_FOLLOWER_CALL_MAX, HEAD_FOLLOWER_REST, HEAD_NODE_REST, HEAD_NODES_MAX, HEAD_REST_FIRST,
    HEAD_REST_MAX,
};
use esker_types::{ClusterId, ShardId};
use tonic::Request;
use tonic::transport::Channel;

use crate::shown;

/// `host:port` of a node.
pub(super) type Address = Arc<str>;

/// What is known of the nodes.
pub(super) struct Ways {
    pub(super) env: Env,
    /// Names this caller among those that append.
    pub(super) session: u128,
    cluster: ClusterId,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nodes: Vec<Place>,
    leaders: BTreeMap<ShardId, Address>,
    marks: BTreeMap<ShardId, Mark>,
}

#[derive(Debug)]
struct Place {
    address: Address,
    /// Named by whoever made the ways, not by a node.
    given: bool,
    /// Made when it is first used.
    channel: Option<Channel>,
    /// It kept a caller waiting: until then the others come first.
    rests_until: Option<Monotonic>,
    /// Shards of which it did not answer as a follower: until then it is not asked to.
    follows_not_until: BTreeMap<ShardId, Monotonic>,
}

impl Place {
    fn new(address: &str, given: bool) -> Self {
        Self {
            address: address.into(),
            given,
            channel: None,
            rests_until: None,
            follows_not_until: BTreeMap::new(),
        }
    }
}

impl Ways {
    pub(super) fn new(env: Env, cluster: ClusterId, nodes: Vec<String>) -> Self {
        let mut known = Known::default();
        for address in nodes.into_iter().take(HEAD_NODES_MAX) {
            if known.place(&address).is_none() {
                known.nodes.push(Place::new(&address, true));
            }
        }
        Self {
            session: env.entropy.next_u128(),
            env,
            cluster,
            known: Mutex::new(known),
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.env.clock.monotonic()
    }

    /// A call about `shard`.
    pub(super) fn request<T>(&self, shard: ShardId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        shown::show(self.cluster, shard, request.metadata_mut());
        request
    }

    /// The connection to the node at `address`; why not, if that is none.
    pub(super) fn channel(&self, address: &Address) -> Result<Channel, String> {
        let mut known = self.known();
        let place = known.place(address).ok_or("it was forgotten")?;
        if let Some(channel) = &place.channel {
            return Ok(channel.clone());
        }
        let endpoint = tuning::peer_endpoint(&format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| format!("it is no address: {error}"))?;
        let channel = transport::channel(Arc::clone(&self.env.network), &endpoint);
        Ok(place.channel.insert(channel).clone())
    }

    /// Who was last seen to lead `shard`, unless it rests.
    pub(super) fn leader(&self, shard: ShardId) -> Option<Address> {
        let now = self.now();
        let mut known = self.known();
        let leader = Arc::clone(known.leaders.get(&shard)?);
        (!known.rests(&leader, now)).then_some(leader)
    }

    /// The node to ask after `last`; those that rest come when there are no others.
    pub(super) fn next(&self, shard: ShardId, last: Option<&Address>) -> Option<Address> {
        let now = self.now();
        let mut known = self.known();
        let count = known.nodes.len();
        let last = last.and_then(|last| known.nodes.iter().position(|it| it.address == *last));
        // Shards that know of no leader begin with different nodes.
        let first = last.map_or(shard.0 as usize, |last| last + 1);
        let turns = (0..count).map(|turn| (first + turn) % count);
        let turns: Vec<Address> = turns
            .map(|at| Arc::clone(&known.nodes[at].address))
            .collect();
        let awake = turns.iter().find(|address| !known.rests(address, now));
        awake.or(turns.first()).cloned()
    }

    /// The node at `address` has answered for `shard` as only its leader does.
    pub(super) fn leads(&self, shard: ShardId, address: &Address) {
        let mut known = self.known();
        if let Some(place) = known.place(address) {
            place.rests_until = None;
        }
        if known.leaders.get(&shard) != Some(address) {
            known.leaders.insert(shard, Arc::clone(address));
        }
    }

    /// It does not, or not any more.
    pub(super) fn leads_not(&self, shard: ShardId, address: &Address) {
        let mut known = self.known();
        if known.leaders.get(&shard) == Some(address) {
            known.leaders.remove(&shard);
        }
    }

    /// A node to read `shard` from that does not lead it, as far as is known: which of several, `turn`
    /// says, as long as none of them rests. Of one that has rested a single read finds out how it is.
    pub(super) fn follower(&self, shard: ShardId, turn: u64) -> Option<Address> {
        let now = self.now();
        let mut known = self.known();
        let known = &mut *known;
        let leader = known.leaders.get(&shard);
        let follows = |place: &&mut Place| {
            let until = place.follows_not_until.get(&shard);
            leader != Some(&place.address)
                && until
                    .max(place.rests_until.as_ref())
                    .is_none_or(|until| now >= *until)
        };
        let mut followers: Vec<_> = known.nodes.iter_mut().filter(follows).collect();
        let at = turn.checked_rem(followers.len() as u64)?;
        let chosen = followers.get_mut(usize::try_from(at).ok()?)?;
        if let Some(until) = chosen.follows_not_until.get_mut(&shard) {
            *until = Monotonic(now.0 + HEAD_FOLLOWER_CALL_MAX);
        }
        Some(Arc::clone(&chosen.address))
    }

    /// The node at `address` answered as a follower of `shard`.
    pub(super) fn follows(&self, shard: ShardId, address: &Address) {
        if let Some(place) = self.known().place(address) {
            place.follows_not_until.remove(&shard);
        }
    }

    /// The node at `address` did not answer as a follower of `shard`.
    pub(super) fn follows_not(&self, shard: ShardId, address: &Address) {
        let until = Monotonic(self.now().0 + HEAD_FOLLOWER_REST);
        if let Some(place) = self.known().place(address) {
            place.follows_not_until.insert(shard, until);
        }
    }

    /// The node at `address` kept a caller waiting, for nothing.
    pub(super) fn kept_waiting(&self, address: &Address) {
        let until = Monotonic(self.now().0 + HEAD_NODE_REST);
        if let Some(place) = self.known().place(address) {
            place.rests_until = Some(until);
        }
    }

    /// A node has named another: it is known from now on. `None` if it is one that rests, or none.
    pub(super) fn learn(&self, address: &str) -> Option<Address> {
        let now = self.now();
        let mut known = self.known();
        if known.place(address).is_none() {
            if address.is_empty() {
                return None;
            }
            if known.nodes.len() >= HEAD_NODES_MAX {
                let learned = known.nodes.iter().position(|place| !place.given)?;
                known.nodes.remove(learned);
            }
            known.nodes.push(Place::new(address, false));
        }
        let address = Arc::clone(&known.place(address)?.address);
        (!known.rests(&address, now)).then_some(address)
    }

    /// How far `shard` was seen.
    pub(super) fn seen(&self, shard: ShardId) -> Option<Mark> {
        self.known().marks.get(&shard).copied()
    }

    /// It was seen up to `mark`.
    pub(super) fn saw(&self, shard: ShardId, mark: Option<Mark>) {
        let Some(mark) = mark else { return };
        let mut known = self.known();
        let seen = known.marks.entry(shard).or_insert(mark);
        *seen = mark.max(*seen);
    }

    /// How long to rest after `failures` in a row: doubled with each, to a bound, and with full
    /// jitter, so that those who failed together do not come back together.
    pub(super) fn rest(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let longest = HEAD_REST_FIRST
            .saturating_mul(1 << doublings)
            .min(HEAD_REST_MAX);
        let micros = u64::try_from(longest.as_micros()).expect("less than a second");
        // At least a millisecond: what timers can tell.
        Duration::from_micros((self.env.entropy.next_u64() % (micros + 1)).max(1000))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics under this lock")
    }
}

impl Known {
    fn place(&mut self, address: &str) -> Option<&mut Place> {
        let mut places = self.nodes.iter_mut();
        places.find(|place| &*place.address == address)
    }

    fn rests(&mut self, address: &str, now: Monotonic) -> bool {
        let until = self.place(address).and_then(|place| place.rests_until);
        until.is_some_and(|until| now < until)
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        let nodes = known.nodes.iter().map(|place| &place.address);
        f.debug_struct("Ways")
            .field("cluster", &self.cluster)
            .field("nodes", &nodes.collect::<Vec<_>>())
            .field("leaders", &known.leaders)
            .finish_non_exhaustive()
    }
}
