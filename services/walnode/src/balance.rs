//! Leadership, spread over the nodes: who leads more than another by two or more gives some away, once
//! nothing has moved for a while.
//!
//! ```text
//!   n1 ■■■■■■   n2 ■■■■■   n3 (just back)     calm for a while
//!   n1 ■■■■     n2 ■■■■    n3 ■■■             each of those that lead more has given some
//! ```
//! Every node decides for itself, by what it hears of the others' leaderships. A node that gives back what
//! it was given, since its disk is slow or it dies, is left alone for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::limits::LEAD_ROOM_GIVEN;
use esker_types::{NodeId, ShardId};
use esker_wal::Replica;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks without a change of leaders before something is given away.
const CALM: u64 = 2;
/// Looks within which a shard that comes back speaks against whom it was given to.
const TRUSTED: u64 = 30;
/// Looks for which such a node is given nothing.
const DISTRUSTED: u64 = 120;
/// Shards given away at a time: each stands still for a moment.
const GIFTS_MAX: usize = 4;

/// Spreads what `replicas`, all of `own` node, lead.
pub(crate) async fn balance(own: NodeId, replicas: Vec<Replica>) {
    let mut balance = Balance::new(own);
    loop {
        tokio::time::sleep(LOOK).await;
        for (shard, node) in balance.look(replicas.iter().map(Stood::of).collect()) {
            let replica = replicas.iter().find(|replica| replica.shard() == shard);
            let Some(replica) = replica else { continue };
            match replica.hand_over(node).await {
                Ok(()) => tracing::info!(%shard, %node, "asked to lead, for it leads less"),
                // Deposed meanwhile, or the node lost its vote: the next look tells.
                Err(error) => tracing::debug!(%shard, %node, %error, "not handed over"),
            }
        }
    }
}

/// A shard, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stood {
    shard: ShardId,
    leader: Option<NodeId>,
    /// Who votes: might lead.
    voters: BTreeSet<NodeId>,
    /// Who may lead, and has room; known only where this node leads.
    ready: BTreeSet<NodeId>,
}

impl Stood {
    fn of(replica: &Replica) -> Self {
        let members = replica.members();
        let settled = !members.changing;
        let is_ready =
            |node: &NodeId| settled && has_room(replica.room_of(*node)) && replica.may_lead(*node);
        Self {
            shard: replica.shard(),
            leader: replica.leader().map(|leader| leader.node),
            ready: members.voters.iter().copied().filter(is_ready).collect(),
            voters: members.voters,
        }
    }
}

/// Whether that many bytes of room are enough to lead. One with less gives it back before long.
fn has_room(room: Option<u64>) -> bool {
    room.is_some_and(|room| room >= LEAD_ROOM_GIVEN)
}

/// What a node remembers from look to look.
#[derive(Debug)]
struct Balance {
    own: NodeId,
    looks: u64,
    leaders: BTreeMap<ShardId, Option<NodeId>>,
    /// The look at which a leader changed last.
    moved: u64,
    /// Whom a shard was given to, and at which look.
    given: BTreeMap<ShardId, (NodeId, u64)>,
    /// Until which look a node is given nothing.
    distrusted: BTreeMap<NodeId, u64>,
}

impl Balance {
    fn new(own: NodeId) -> Self {
        Self {
            own,
            looks: 0,
            leaders: BTreeMap::new(),
            moved: 0,
            given: BTreeMap::new(),
            distrusted: BTreeMap::new(),
        }
    }

    /// What to give away now, and to whom.
    fn look(&mut self, shards: Vec<Stood>) -> Vec<(ShardId, NodeId)> {
        self.looks += 1;
        let leaders = shards.iter().map(|of| (of.shard, of.leader)).collect();
        if leaders != self.leaders {
            self.leaders = leaders;
            self.moved = self.looks;
        }
        self.remember();
        let led = shards.iter().all(|of| of.leader.is_some());
        if !led || self.looks - self.moved < CALM {
            return Vec::new();
        }
        let distrusted = self.distrusted.keys().copied().collect();
        let gifts = gifts(self.own, shards, &distrusted);
        for (shard, node) in &gifts {
            self.given.insert(*shard, (*node, self.looks));
        }
        // Given away or not, it is looked at again after a while.
        self.moved = self.looks;
        gifts
    }

    /// Learns of what came back.
    fn remember(&mut self) {
        let now = self.looks;
        let (leaders, distrusted) = (&self.leaders, &mut self.distrusted);
        self.given.retain(|shard, (node, at)| {
            let leader = leaders.get(shard).copied().flatten();
            // Here again, or with a third: it did not keep it. An election takes a moment.
            let came_back = leader.is_some_and(|leader| leader != *node) && now - *at >= CALM;
            if came_back {
                distrusted.insert(*node, now + DISTRUSTED);
            }
            !came_back && now - *at < TRUSTED
        });
        self.distrusted.retain(|_, until| *until > now);
    }
}

/// Which of `shards` node `own` gives away, and to whom: to whoever leads least, while that is two or more
/// below what this node leads; a part of the difference at a time, since others give, too.
fn gifts(own: NodeId, shards: Vec<Stood>, distrusted: &BTreeSet<NodeId>) -> Vec<(ShardId, NodeId)> {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for of in &shards {
        for voter in &of.voters {
            leads.entry(*voter).or_default();
        }
        *leads.entry(of.leader.unwrap_or(own)).or_default() += 1;
    }
    let mut ours: Vec<_> = shards
        .into_iter()
        .filter(|of| of.leader == Some(own))
        .collect();
    let mut gifts = Vec::new();
    let mut most = None;
    loop {
        let least = |of: &Stood| {
            let ready = of.ready.iter().filter(|node| !distrusted.contains(node));
            let ready = ready.filter(|node| **node != own);
            let counts = ready.map(|node| (leads.get(node).copied().unwrap_or(0), *node));
            counts.min()
        };
        let candidates = ours.iter().enumerate();
        let candidates = candidates.filter_map(|(at, of)| Some((least(of)?, at)));
        let Some(((count, node), at)) = candidates.min() else {
            return gifts;
        };
        let above = leads.get(&own).copied().unwrap_or(0).saturating_sub(count);
        let most = *most.get_or_insert((above / 3).clamp(1, GIFTS_MAX));
        if above < 2 || gifts.len() == most {
            return gifts;
        }
        gifts.push((ours.swap_remove(at).shard, node));
        *leads.entry(own).or_default() -= 1;
        *leads.entry(node).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use esker_types::Incarnation;

    use super::*;

    fn id(node: u64) -> NodeId {
        NodeId::new(Incarnation::FIRST, node).expect("a small sequence")
    }

    /// Shards of three voters, each led by the node of that number.
    fn led_by(leaders: &[u64]) -> Vec<Stood> {
        let all: BTreeSet<_> = [1, 2, 3].map(id).into();
        let shards = leaders.iter().zip(0..).map(|(leader, shard)| Stood {
            shard: ShardId(shard),
            leader: Some(id(*leader)),
            voters: all.clone(),
            ready: all.clone(),
        });
        shards.collect()
    }

    /// Has every node look once, and its gifts arrive.
    fn turn(nodes: &mut [Balance], shards: &mut [Stood]) -> usize {
        let looks = nodes.iter_mut().map(|node| node.look(shards.to_vec()));
        let gifts: Vec<_> = looks.flatten().collect();
        for (shard, node) in &gifts {
            shards[shard.0 as usize].leader = Some(*node);
        }
        gifts.len()
    }

    fn counts(shards: &[Stood]) -> [usize; 3] {
        [1, 2, 3].map(|node| {
            let led = shards.iter().filter(|of| of.leader == Some(id(node)));
            led.count()
        })
    }

    #[test]
    fn however_it_was_it_comes_to_be_even_and_stays() {
        for leaders in [
            vec![1; 17],
            vec![1, 1, 1, 2, 2, 2],
            [vec![1; 33], vec![2; 32]].concat(),
            vec![2, 2],
            vec![3, 3, 3],
        ] {
            let mut shards = led_by(&leaders);
            let mut nodes = [1, 2, 3].map(|node| Balance::new(id(node)));
            let mut looks = 0;
            for _ in 0..200 {
                looks += u64::from(turn(&mut nodes, &mut shards) > 0);
            }
            let counts = counts(&shards);
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(
                most.zip(least).is_some_and(|(m, l)| m - l < 2),
                "{counts:?}"
            );
            assert!(looks <= 17, "{leaders:?} took {looks} turns");
            assert_eq!(turn(&mut nodes, &mut shards), 0);
        }
    }

    #[test]
    fn who_has_room_enough_is_ready() {
        assert!(has_room(Some(LEAD_ROOM_GIVEN)));
        assert!(!has_room(Some(LEAD_ROOM_GIVEN - 1)));
        assert!(!has_room(None), "it gives no answer");
    }

    #[test]
    fn nothing_moves_while_anything_does() {
        let mut node = Balance::new(id(1));
        let mut shards = led_by(&[1, 1, 1]);
        for look in 0..40 {
            // Another shard changes hands now and then, and is led by nobody for a moment.
            shards[2].leader = (look % 2 > 0).then_some(id(1));
            assert_eq!(node.look(shards.clone()), []);
        }
        shards[2].leader = Some(id(1));
        let given = (0..=CALM).map(|_| node.look(shards.clone()).len());
        assert_eq!(given.sum::<usize>(), 1);
    }

    /// A slow disk hands over to whoever has most of the log, which need not be who gave.
    #[test]
    fn who_gives_what_it_was_given_to_a_third_is_given_no_more() {
        let mut shards = led_by(&[1, 1, 1, 1, 2, 2]);
        let mut node = Balance::new(id(1));
        let mut given = Vec::new();
        for look in 0..DISTRUSTED {
            for (shard, to) in node.look(shards.clone()) {
                given.push((look, to));
                let third = if to == id(3) { id(2) } else { to };
                shards[shard.0 as usize].leader = Some(third);
            }
            // The third gives its surplus to the first.
            if look % 10 == 0 {
                for of in shards.iter_mut().take(4) {
                    of.leader = Some(id(1));
                }
            }
        }
        let to_third = given.iter().filter(|(_, to)| *to == id(3)).count();
        assert_eq!(to_third, 1, "{given:?}");
    }

    #[test]
    fn who_is_not_ready_or_gives_back_is_given_nothing() {
        let mut shards = led_by(&[1, 1, 1, 1]);
        for of in &mut shards {
            of.ready = [1, 2].map(id).into();
        }
        let mut node = Balance::new(id(1));
        let (mut to_two, mut looks) = (Vec::new(), 0);
        // Whatever it is given, node 2 gives back at once.
        while looks < 3 * DISTRUSTED {
            looks += 1;
            for (_, to) in node.look(shards.clone()) {
                assert_eq!(to, id(2));
                to_two.push(looks);
            }
        }
        let pairs = to_two.windows(2);
        let apart: Vec<_> = pairs.map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|looks| *looks >= DISTRUSTED), "{apart:?}");
        assert!(apart.len() >= 2, "it is tried again: {to_two:?}");
    }
}
