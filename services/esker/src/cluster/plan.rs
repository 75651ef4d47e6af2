//! What is to be done to found a cluster, decided from what its nodes say of themselves, and from
//! nothing else.
//!
//! ```text
//!   nobody is adopted ──────────► a cluster is drawn, all are adopted        ┐
//!   some are, none has begun ───► the others are adopted into the same       ├─► claimed ─► founded
//!   all are, some shards begun ─► a founding that was killed goes on         ┘
//!   all shards begun ───────────► done before
//! ```

use std::collections::{BTreeMap, BTreeSet};

use esker_types::limits::FOUNDERS_MAX;
use esker_types::{ClusterId, Incarnation, NodeId};
use esker_walnode::DiskId;
use esker_walnode::adoption::{Founder, Founders, Hello, Membership};

/// The highest number that a founder may have by its certificate: ids are given from the highest on.
pub(super) const NUMBER_MAX: u64 = 1000;

/// What a node says of itself, and where it was asked.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) address: String,
    pub(super) hello: Hello,
}

/// Data shards that a new cluster is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shards {
    pub(super) count: u32,
    /// Whether somebody said so: a cluster that is half made keeps what it has otherwise.
    pub(super) is_said: bool,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// That of the nodes which were adopted; `None` if it is to be drawn.
    pub(super) cluster: Option<ClusterId>,
    pub(super) incarnation: Incarnation,
    pub(super) data_shards: u32,
    /// By node.
    pub(super) members: Vec<Member>,
    /// The same, as they are told of each other.
    pub(super) founders: Founders,
    pub(super) stage: Stage,
}

/// A node of the cluster to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) disk: DiskId,
    pub(super) is_adopted: bool,
}

/// How far the cluster has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// No shard has begun.
    Anew,
    /// Some have.
    HalfFounded,
    /// All have: there is nothing to do.
    Founded,
}

/// Why a cluster is not founded on these nodes. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no node is named: write cluster.nodes = [\"10.0.0.1:7072\", …]")]
    NoNodes,
    #[error("{0} nodes are named; a cluster is founded with {FOUNDERS_MAX} at most")]
    TooMany(usize),
    #[error("{0} is named twice")]
    Twice(String),
    #[error(
        "{one} and {other} show the same disk, {disk}: they are one node, or the data directory of one \
         is a copy of the other's; start each in a data directory of its own, empty at first"
    )]
    SameDisk {
        one: String,
        other: String,
        disk: DiskId,
    },
    #[error(
        "{one} belongs to cluster {by}, and {other} to cluster {to}: take the one that does not belong \
         here out of cluster.nodes, or start it in an empty data directory"
    )]
    TwoClusters {
        one: String,
        by: ClusterId,
        other: String,
        to: ClusterId,
    },
    #[error(
        "{one} and {other} are both node {node} of the cluster: one of them was adopted in place of the \
         other; start that one in an empty data directory"
    )]
    SameNode {
        one: String,
        other: String,
        node: NodeId,
    },
    #[error(
        "{one} and {other} both show a certificate of node {number}: give each a certificate of its own"
    )]
    SameCertificate {
        one: String,
        other: String,
        number: u64,
    },
    #[error(
        "{address} shows a certificate of node {number}; a cluster is founded with numbers up to \
         {NUMBER_MAX}"
    )]
    HighNumber { address: String, number: u64 },
    #[error(
        "{address} was adopted for {theirs} data shards, and {ours} are asked for: write \
         cluster.data_shards = {theirs}, or start every node in an empty data directory"
    )]
    OtherShards {
        address: String,
        theirs: u32,
        ours: u32,
    },
    #[error(
        "cluster {cluster} has begun, and {address} does not belong to it: take {address} out of \
         cluster.nodes; a cluster is founded once"
    )]
    Begun { cluster: ClusterId, address: String },
    #[error("{0}: see cluster.nodes")]
    NotTogether(&'static str),
    #[error(
        "{address} was adopted to found cluster {cluster} with {founders}, and {other} {}: name exactly \
         those in cluster.nodes, or start every node in an empty data directory",
        if *is_named { "is not among them" } else { "is not named" }
    )]
    OtherFounders {
        address: String,
        cluster: ClusterId,
        founders: Founders,
        other: String,
        /// Whether `other` is named in place of a founder, or is a founder that is not.
        is_named: bool,
    },
    #[error(
        "{address} was adopted to join cluster {cluster}, which stands, and founds none: finish with \
         `esker cluster add {address}`, or start it in an empty data directory"
    )]
    Joins { address: String, cluster: ClusterId },
    #[error(
        "{address} is node {node} of cluster {cluster}, which was founded without it, with {founders}: \
         take {address} out of cluster.nodes"
    )]
    NoFounder {
        address: String,
        node: NodeId,
        cluster: ClusterId,
        founders: String,
    },
}

/// What is to be done on the nodes that gave `answers`, in the order in which they were named.
pub(super) fn plan(answers: &[Answer], shards: Shards) -> Result<Plan, Refusal> {
    distinct(answers)?;
    let adopted = adopted(answers)?;
    let (cluster, incarnation, data_shards) = match adopted.first() {
        None => (None, Incarnation::FIRST, shards.count),
        Some((address, of)) if shards.is_said && of.data_shards != shards.count => {
            return Err(Refusal::OtherShards {
                address: (*address).to_owned(),
                theirs: of.data_shards,
                ours: shards.count,
            });
        }
        Some((_, of)) => (Some(of.cluster), of.incarnation, of.data_shards),
    };
    let stage = stage(answers);
    let founders = match stage {
        Stage::Founded => None,
        Stage::Anew | Stage::HalfFounded => founders(answers)?,
    };
    let taken: BTreeSet<_> = adopted.iter().map(|(_, of)| of.node).collect();
    let numbers = 1..=u64::try_from(answers.len()).expect("at most 7");
    let numbers = numbers.map(|number| {
        NodeId::new(incarnation, number).expect("a small number is within an incarnation")
    });
    let certified = certified(answers, incarnation)?;
    let is_spoken_for = |node: &NodeId| certified.values().any(|of| of == node);
    let mut free = numbers.filter(|node| !taken.contains(node) && !is_spoken_for(node));
    let members = answers.iter().map(|Answer { address, hello }| {
        let adopted = hello.membership.map(|of| of.node);
        let founds = founders.and_then(|founders| founders.on(hello.disk));
        let known = adopted.or(founds);
        let known = known.or_else(|| certified.get(address.as_str()).copied());
        Member {
            node: known.unwrap_or_else(|| free.next().expect("as many numbers as nodes")),
            address: address.clone(),
            disk: hello.disk,
            is_adopted: adopted.is_some(),
        }
    });
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by_key(|member| member.node);
    if let (Some(cluster), Stage::HalfFounded | Stage::Founded) = (cluster, stage) {
        all_belong(answers, &members, cluster)?;
    }
    let together = members.iter().map(|member| {
        let (address, disk) = (member.address.clone(), member.disk);
        (member.node, Founder { address, disk })
    });
    Ok(Plan {
        cluster,
        incarnation,
        data_shards,
        founders: Founders::new(together).map_err(Refusal::NotTogether)?,
        members,
        stage,
    })
}

impl Plan {
    /// What is left to adopt, in the order in which it is done: of two that found a cluster at the same
    /// time one comes first to the first node, and the other is refused there before it has adopted any.
    pub(super) fn adoptions(&self, cluster: ClusterId) -> Vec<(&Member, Membership)> {
        let mut left: Vec<_> = self.members.iter().filter(|of| !of.is_adopted).collect();
        left.sort_unstable_by_key(|member| member.disk);
        let memberships = left.into_iter().map(|member| {
            let membership = Membership {
                cluster,
                incarnation: self.incarnation,
                node: member.node,
                data_shards: self.data_shards,
            };
            (member, membership)
        });
        memberships.collect()
    }
}

/// What the nodes are that show certificates, by their addresses: each becomes the node that its
/// certificate is of.
fn certified(
    answers: &[Answer],
    incarnation: Incarnation,
) -> Result<BTreeMap<&str, NodeId>, Refusal> {
    let mut certified: BTreeMap<&str, NodeId> = BTreeMap::new();
    for Answer { address, hello } in answers {
        let Some(number) = hello.certified else {
            continue;
        };
        let node = Some(number).filter(|number| *number <= NUMBER_MAX);
        let node = node.and_then(|number| NodeId::new(incarnation, number));
        let node = node.ok_or_else(|| Refusal::HighNumber {
            address: address.clone(),
            number,
        })?;
        if let Some((one, _)) = certified.iter().find(|(_, of)| **of == node) {
            return Err(Refusal::SameCertificate {
                one: (*one).to_owned(),
                other: address.clone(),
                number,
            });
        }
        certified.insert(address, node);
    }
    Ok(certified)
}

/// Makes sure that there are as many nodes as there are answers.
fn distinct(answers: &[Answer]) -> Result<(), Refusal> {
    if answers.is_empty() {
        return Err(Refusal::NoNodes);
    }
    if answers.len() > FOUNDERS_MAX {
        return Err(Refusal::TooMany(answers.len()));
    }
    for (at, answer) in answers.iter().enumerate() {
        for before in &answers[..at] {
            if before.address == answer.address {
                return Err(Refusal::Twice(answer.address.clone()));
            }
            if before.hello.disk == answer.hello.disk {
                return Err(Refusal::SameDisk {
                    one: before.address.clone(),
                    other: answer.address.clone(),
                    disk: answer.hello.disk,
                });
            }
        }
    }
    Ok(())
}

/// The nodes that were adopted, all into the same cluster, each as another node of it.
fn adopted(answers: &[Answer]) -> Result<Vec<(&str, Membership)>, Refusal> {
    let adopted = answers.iter().filter_map(|Answer { address, hello }| {
        let membership = hello.membership?;
        Some((address.as_str(), membership))
    });
    let adopted: Vec<_> = adopted.collect();
    for (at, (address, of)) in adopted.iter().enumerate() {
        let (one, first) = adopted[0];
        if (of.cluster, of.incarnation) != (first.cluster, first.incarnation) {
            return Err(Refusal::TwoClusters {
                one: one.to_owned(),
                by: first.cluster,
                other: (*address).to_owned(),
                to: of.cluster,
            });
        }
        if of.data_shards != first.data_shards {
            return Err(Refusal::OtherShards {
                address: one.to_owned(),
                theirs: first.data_shards,
                ours: of.data_shards,
            });
        }
        if let Some((before, _)) = adopted[..at].iter().find(|(_, seen)| seen.node == of.node) {
            return Err(Refusal::SameNode {
                one: (*before).to_owned(),
                other: (*address).to_owned(),
                node: of.node,
            });
        }
    }
    Ok(adopted)
}

/// Whom those that were adopted are to found their cluster with: exactly the nodes that gave `answers`.
fn founders(answers: &[Answer]) -> Result<Option<&Founders>, Refusal> {
    let mut adopted = answers.iter().filter_map(|answer| {
        let of = answer.hello.membership?;
        Some((answer, of.cluster))
    });
    let Some((first, cluster)) = adopted.next() else {
        return Ok(None);
    };
    let joins = adopted.chain([(first, cluster)]);
    for (answer, cluster) in joins {
        if answer.hello.founders.is_empty() {
            let address = answer.address.clone();
            return Err(Refusal::Joins { address, cluster });
        }
    }
    let founders = &first.hello.founders;
    let is = |answer: &Answer, founder: &Founder| {
        (&founder.address, founder.disk) == (&answer.address, answer.hello.disk)
    };
    let strangers = answers.iter().filter(|answer| {
        let mut founders = founders.iter();
        !founders.any(|(_, founder)| is(answer, founder))
    });
    let left_out = founders.iter().filter(|(_, founder)| {
        let mut answers = answers.iter();
        !answers.any(|answer| is(answer, founder))
    });
    let strangers = strangers.map(|answer| (&answer.address, true));
    let left_out = left_out.map(|(_, founder)| (&founder.address, false));
    match strangers.chain(left_out).next() {
        None => Ok(Some(founders)),
        Some((other, is_named)) => Err(Refusal::OtherFounders {
            address: first.address.clone(),
            cluster,
            founders: founders.clone(),
            other: other.clone(),
            is_named,
        }),
    }
}

fn stage(answers: &[Answer]) -> Stage {
    if answers.iter().any(|answer| answer.hello.has_begun()) {
        Stage::Founded
    } else if answers.iter().any(|answer| answer.hello.shards_begun > 0) {
        Stage::HalfFounded
    } else {
        Stage::Anew
    }
}

/// Makes sure that a cluster which has begun has all of `members` among its founders.
fn all_belong(answers: &[Answer], members: &[Member], cluster: ClusterId) -> Result<(), Refusal> {
    if let Some(stranger) = members.iter().find(|member| !member.is_adopted) {
        let address = stranger.address.clone();
        return Err(Refusal::Begun { cluster, address });
    }
    let known = answers.iter().map(|answer| &answer.hello.members);
    let Some(founders) = known.max_by_key(|members| members.len()) else {
        return Ok(());
    };
    let left_out = members.iter().find(|of| !founders.contains_key(&of.node));
    match left_out.filter(|_| !founders.is_empty()) {
        None => Ok(()),
        Some(member) => {
            let names = founders.iter().map(|(node, at)| format!("{node} at {at}"));
            let names: Vec<_> = names.collect();
            Err(Refusal::NoFounder {
                address: member.address.clone(),
                node: member.node,
                cluster,
                founders: names.join(", "),
            })
        }
    }
}

#[cfg(test)]
mod tests;
