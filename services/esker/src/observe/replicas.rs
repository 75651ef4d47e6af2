//! How the replicas in this process stand: what agents cannot know of a node.

use std::fmt;

use esker_shard::Data;
use esker_types::ShardId;
use esker_wal::Replica;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;

use super::figures::{Pen, gauge};

/// One of them, at one moment.
#[derive(Debug)]
struct Stands {
    shard: ShardId,
    leads: bool,
    leaderless: bool,
    catching_up: bool,
    term: u64,
    applied: u64,
    last: u64,
    checkpointed: u64,
    damaged: u64,
    producers: u64,
    voters: u64,
    /// Entries that others lack, by node; known where this one leads.
    lags: Vec<(String, u64)>,
}

impl Stands {
    fn of(replica: &Replica) -> Self {
        let (shard, members) = (replica.shard(), replica.members());
        let bounds = replica.wal().bounds(shard);
        let state = replica.state();
        // Who leads lacks nothing.
        let leader = replica.leader().map(|leader| leader.node);
        let others = members.all.keys().filter(|node| Some(**node) != leader);
        let lags = others.filter_map(|node| Some((node.to_string(), replica.lag(*node)?)));
        Self {
            shard,
            leads: replica.leads_in().is_some(),
            leaderless: leader.is_none(),
            catching_up: replica.awaits().is_some(),
            term: bounds.vote.unwrap_or_default().term.0,
            applied: state.applied().index.0,
            last: bounds.last.index.0,
            checkpointed: replica.checkpointed().0.0,
            damaged: replica.damaged() as u64,
            producers: state.data().map_or(0, Data::producer_count) as u64,
            voters: members.voters.len() as u64,
            lags: lags.collect(),
        }
    }
}

pub(super) fn figures(replicas: &[Replica], pen: &mut Pen<'_>) -> fmt::Result {
    let stand: Vec<_> = replicas.iter().map(Stands::of).collect();
    let of = |figure: fn(&Stands) -> u64| {
        let each = stand.iter();
        each.map(move |stands| (stands.shard.0.to_string(), gauge(figure(stands))))
    };
    let mut replica = |name, help, figure| pen.each(name, help, "shard", of(figure));
    replica("replica_leads", "1 while this node leads", |of| {
        u64::from(of.leads)
    })?;
    let help = "1 while this node knows of no leader";
    replica("replica_leaderless", help, |of| u64::from(of.leaderless))?;
    let help =
        "1 while this node does not count for a quorum: it has not caught up since its start";
    replica("replica_catching_up", help, |of| u64::from(of.catching_up))?;
    let help = "Raft term of its last vote; it changes with every election";
    replica("replica_term", help, |of| of.term)?;
    let help = "Raft index of the last entry applied on this node";
    replica("replica_applied_index", help, |of| of.applied)?;
    let help = "Raft index of the last entry in its log";
    replica("replica_last_index", help, |of| of.last)?;
    let help = "Raft index of its last checkpoint";
    replica("replica_checkpoint_index", help, |of| of.checkpointed)?;
    let help = "Entries in its log that were found damaged on this disk, and are not released yet";
    replica("replica_damaged_entries", help, |of| of.damaged)?;
    let help = "Producers that its partitions remember, one of two partitions twice; 2^20 at most";
    replica("replica_producers", help, |of| of.producers)?;
    let help = "Nodes that vote, as far as this node knows";
    replica("replica_voters", help, |of| of.voters)?;
    let help = "Entries that another node lacks, known to who leads";
    pen.family("replica_lag_entries", help, MetricType::Gauge, |encoder| {
        for stands in &stand {
            let shard = stands.shard.0.to_string();
            for (node, lag) in &stands.lags {
                let labels = [("shard", shard.as_str()), ("node", node.as_str())];
                gauge(*lag).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    })
}
