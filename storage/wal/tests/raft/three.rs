//! Three replicas through deaths, cuts and snapshots.

use std::time::Duration;

use esker_env::sim::Crash;
use esker_shard::Command;
use esker_types::limits::{ELECTION_MAX, HEARTBEAT, READ_INDEX_MAX, SUCCESSION_TURN};
use esker_types::{EntryId, ShardTime, Term};
use esker_wal::disk::Vote;
use esker_wal::peers::AppendRequest;
use esker_wal::{AppendRefusal, ProposeError};
use tokio::time::{sleep, timeout};

use super::trio::{BYTES, NODES, PATIENCE, Trio};
use super::world::{batch, node_id, payload, run};

#[test]
fn what_is_acknowledged_is_on_every_disk_in_the_same_order() {
    run(async {
        let trio = Trio::new(1).await;
        for number in 0..20 {
            assert_eq!(trio.append(number).await, number);
        }
        trio.converge().await;
        for node in trio.up() {
            assert_eq!(trio.head(node).await, (0..20).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_answers_nothing() {
    run(async {
        let trio = Trio::new(2).await;
        trio.append(0).await;
        let old = trio.leader().await;
        for node in trio.up() {
            trio.mesh.cut(old, node);
        }
        let waiting = timeout(Duration::from_secs(5), trio.append_at(old, 1));
        let alone = waiting.await;
        assert!(
            !matches!(alone, Ok(Ok(_))),
            "a minority acknowledged: {alone:?}"
        );
        let read = timeout(2 * READ_INDEX_MAX, trio.replica(old).read_index()).await;
        let refused = matches!(read, Ok(Err(ProposeError::NotLeader { .. })));
        assert!(refused, "a minority answered, or asks for ever: {read:?}");
        let new = trio.leader().await;
        assert_ne!(new, old);
        let offset = trio.append_at(new, 1).await.expect("a majority goes on");
        assert_eq!(offset, 1);
        trio.mesh.heal();
        // The same batch again, through whoever leads: it keeps its place.
        assert_eq!(trio.append(1).await, 1);
        trio.converge().await;
        for node in trio.up() {
            assert_eq!(trio.head(node).await, [0, 1]);
        }
    });
}

/// Appends that a leader took and could not get through are not written by a later office of its
/// own: whoever sent them has sent them elsewhere meanwhile.
#[test]
fn what_a_leader_took_in_one_term_it_does_not_write_in_another() {
    for seed in 0..10 {
        run(async {
            let trio = Trio::new(400 + seed).await;
            trio.append(0).await;
            let old = trio.leader().await;
            let term = trio.replica(old).leads_in().expect("it leads");
            for node in trio.up() {
                trio.mesh.cut(old, node);
            }
            let appender = trio.running(old).appender.clone();
            let taken = tokio::spawn(async move {
                for number in 100..140 {
                    let (batch, bytes) = (batch(number, BYTES), payload(number, BYTES));
                    // Nobody waits for it: what is queued stays so.
                    drop(appender.append(batch, bytes).await);
                }
            });
            assert_eq!(trio.append(1).await, 1, "seed {seed}");
            trio.mesh.heal();
            trio.converge().await;
            trio.lead(old).await;
            let now = trio.replica(old).leads_in().expect("it leads");
            assert!(now > term, "seed {seed}");
            taken.abort();
            assert_eq!(trio.append(2).await, 2, "seed {seed}");
            trio.converge().await;
            for node in trio.up() {
                assert_eq!(trio.head(node).await, [0, 1, 2], "seed {seed}");
            }
        });
    }
}

/// Followers may have on disk what a leader had not synced itself when it died. Back so soon that nobody
/// has missed it, it must not go on in its term: there it would give others' entries new contents.
#[test]
fn who_led_and_died_leads_again_in_a_later_term_only() {
    for seed in 0..10 {
        run(async {
            let mut trio = Trio::new(600 + seed).await;
            assert_eq!(trio.append(0).await, 0);
            let old = trio.leader().await;
            let term = trio.replica(old).leads_in().expect("it leads");
            trio.crash(old, Crash::Kill).await;
            trio.start(old).await;
            assert_eq!(trio.append(1).await, 1, "seed {seed}");
            let new = trio.leader().await;
            let now = trio.replica(new).leads_in().expect("it leads");
            assert!(
                now > term,
                "seed {seed}: {old} led in {term}, {new} in {now}"
            );
            trio.converge().await;
        });
    }
}

/// That a leader lives costs no stream of its own.
#[test]
fn who_has_nothing_to_append_beats() {
    run(async {
        let trio = Trio::new(620).await;
        trio.append(0).await;
        tokio::time::sleep(10 * HEARTBEAT).await;
        let (appends, beats) = trio.mesh.said();
        tokio::time::sleep(10 * HEARTBEAT).await;
        let (more_appends, more_beats) = trio.mesh.said();
        assert_eq!(more_appends, appends);
        let beats = more_beats - beats;
        assert!((10..=30).contains(&beats), "{beats} beats to two followers");
    });
}

/// A copy of a node, or one that says that it is another, must not make it lead.
#[test]
fn nobody_is_told_that_he_leads() {
    run(async {
        let trio = Trio::new(630).await;
        trio.append(0).await;
        let follower = trio.follower().await;
        let replica = trio.replica(follower);
        for (node, committed) in [(follower.as_u64(), true), (node_id(9).as_u64(), false)] {
            let vote = Vote {
                term: Term(99),
                node,
                committed,
            };
            let request = AppendRequest {
                vote,
                previous: EntryId::default(),
                entries: Vec::new(),
                committed: EntryId::default(),
            };
            let told = replica.heard_beat(request.clone()).await;
            told.expect_err("no leader says so");
            let requests = futures::stream::iter([request]);
            let mut told = replica.heard_appends(Box::pin(requests)).await;
            let told = futures::StreamExt::next(&mut told).await;
            told.expect("an answer").expect_err("no leader says so");
        }
        assert_eq!(replica.leads_in(), None);
        assert_eq!(trio.append(1).await, 1);
    });
}

#[test]
fn who_does_not_lead_takes_no_append_and_time_goes_on_under_the_next_leader() {
    run(async {
        let mut trio = Trio::new(5).await;
        trio.append(0).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        let refused = trio.append_at(follower, 1).await;
        let Err(AppendRefusal::Proposal(ProposeError::NotLeader {
            leader: Some(by), ..
        })) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(by.node, leader);
        assert_eq!(trio.running(follower).appender.time(), None);
        let time = trio.replica(leader).state().time();
        assert!(time > ShardTime::ZERO);
        sleep(Duration::from_secs(10)).await;
        trio.crash(leader, Crash::Kill).await;
        trio.append(1).await;
        let next = trio.leader().await;
        let passed = trio.replica(next).state().time().since(time);
        assert!(passed >= Duration::from_secs(10), "{passed:?}");
    });
}

#[test]
fn leaders_die_one_after_the_other_and_nothing_is_lost_or_doubled() {
    for seed in 0..20 {
        run(async {
            let mut trio = Trio::new(100 + seed).await;
            let how = if seed % 2 == 0 {
                Crash::Kill
            } else {
                Crash::PowerCut
            };
            let mut number = 0;
            for _ in 0..6 {
                for _ in 0..5 {
                    assert_eq!(trio.append(number).await, number, "seed {seed}");
                    number += 1;
                }
                let leader = trio.leader().await;
                trio.crash(leader, how).await;
                assert_eq!(trio.append(number).await, number, "seed {seed}");
                number += 1;
                trio.start(leader).await;
            }
            trio.converge().await;
            for node in trio.up() {
                assert_eq!(
                    trio.head(node).await,
                    (0..number).collect::<Vec<_>>(),
                    "seed {seed}"
                );
            }
        });
    }
}

#[test]
fn the_power_goes_for_all_of_them_and_everything_acknowledged_is_there() {
    for seed in 0..20 {
        run(async {
            let mut trio = Trio::new(200 + seed).await;
            for number in 0..10 {
                trio.append(number).await;
            }
            for node in NODES.map(node_id) {
                trio.crash(node, Crash::PowerCut).await;
            }
            for node in NODES.map(node_id) {
                trio.start(node).await;
            }
            trio.leader().await;
            trio.converge().await;
            for node in trio.up() {
                assert_eq!(
                    trio.head(node).await,
                    (0..10).collect::<Vec<_>>(),
                    "seed {seed}"
                );
            }
        });
    }
}

#[test]
fn who_is_too_far_behind_gets_a_snapshot_with_the_head_that_it_names() {
    run(async {
        let mut trio = Trio::new(3).await;
        trio.append(0).await;
        let late = trio.follower().await;
        trio.crash(late, Crash::PowerCut).await;
        for number in 1..50 {
            trio.append(number).await;
        }
        for node in trio.up() {
            trio.replica(node).checkpoint().await.expect("room for it");
        }
        // The two forget the entries that the third lacks, once raft has heard of the checkpoints.
        let forgotten = timeout(PATIENCE, async {
            for node in trio.up() {
                let replica = trio.replica(node);
                while replica.wal().bounds(replica.shard()).purged.index < replica.checkpointed().0
                {
                    replica.forget().await.expect("raft runs");
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
        forgotten.await.expect("the log below a checkpoint goes");
        trio.start(late).await;
        trio.append(50).await;
        trio.converge().await;
        assert!(trio.mesh.snapshots() > 0, "it came by entries");
        assert_eq!(trio.head(late).await, (0..=50).collect::<Vec<_>>());
        // And it is on its disk: it comes back with it, and counts.
        trio.crash(late, Crash::PowerCut).await;
        trio.start(late).await;
        let other = trio.follower().await;
        if other != late {
            trio.crash(other, Crash::PowerCut).await;
        }
        trio.append(51).await;
        trio.converge().await;
        assert_eq!(trio.head(late).await, (0..=51).collect::<Vec<_>>());
    });
}

#[test]
fn a_follower_takes_no_command_and_says_who_leads() {
    run(async {
        let trio = Trio::new(4).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        trio.converge().await;
        let put = Command::Tick { time: ShardTime(9) };
        let answer = trio.replica(follower).propose(&put, Vec::new()).await;
        let refused = answer.expect("it is taken, and passed on to nobody").await;
        let told = Err(ProposeError::NotLeader {
            shard: trio.replica(follower).shard(),
            leader: Some(esker_wal::Leader {
                node: leader,
                address: format!("n{}:1", leader.sequence()),
            }),
        });
        assert_eq!(refused, told);
    });
}

/// Raft's own timers would take from 1.5 to 2 times the lease.
#[test]
fn another_leads_as_soon_as_the_lease_of_a_dead_one_is_over() {
    let mut longest = Duration::ZERO;
    for seed in 0..30 {
        run(async {
            let mut trio = Trio::new(700 + seed).await;
            trio.append(0).await;
            // Anywhere between two beats.
            sleep(Duration::from_millis(1000 + 7 * seed)).await;
            let old = trio.leader().await;
            trio.crash(old, Crash::Kill).await;
            let died = tokio::time::Instant::now();
            assert_eq!(trio.append(1).await, 1, "seed {seed}");
            longest = longest.max(died.elapsed());
        });
    }
    assert!(longest <= ELECTION_MAX + 3 * SUCCESSION_TURN, "{longest:?}");
}

/// What a disk lost that had acknowledged it is no part of a quorum; the next leader begins anew with it.
#[test]
fn a_disk_that_was_set_back_acknowledges_nothing_to_who_knows_better() {
    run(async {
        let mut trio = Trio::new(800).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        trio.append(0).await;
        trio.converge().await;
        let image = trio.image(follower, 1);
        for number in 1..10 {
            trio.append(number).await;
        }
        trio.converge().await;
        trio.set_back(follower, image).await;
        trio.start(follower).await;
        trio.append(10).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(trio.replica(leader).leads_in(), Some(Term(1)));
        assert!(trio.head(follower).await.len() < 10);
        let other = trio
            .up()
            .into_iter()
            .find(|node| ![leader, follower].contains(node));
        let other = other.expect("a third");
        trio.mesh.cut(leader, other);
        let waiting = timeout(Duration::from_secs(2), trio.append_at(leader, 11)).await;
        assert!(!matches!(waiting, Ok(Ok(_))), "{waiting:?}");
        trio.mesh.heal();
        trio.lead(other).await;
        assert_eq!(trio.append(11).await, 11);
        trio.converge().await;
        assert_eq!(trio.head(follower).await, (0..12).collect::<Vec<_>>());
    });
}

#[test]
fn replicas_that_applied_the_same_are_alike() {
    run(async {
        let trio = Trio::new(900).await;
        for number in 0..10 {
            trio.append(number).await;
        }
        let leader = trio.leader().await;
        assert_eq!(trio.replica(leader).likeness(), None);
        let ours = trio.replica(leader).compare().await.expect("it leads");
        assert_eq!(ours.at, trio.replica(leader).state().applied());
        trio.append(10).await;
        trio.converge().await;
        sleep(Duration::from_secs(1)).await;
        for node in trio.up() {
            assert_eq!(trio.replica(node).likeness(), Some(ours), "{node}");
        }
        let follower = trio.follower().await;
        let refused = trio.replica(follower).compare().await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
        let again = trio.replica(leader).compare().await.expect("it leads");
        assert!(again.at > ours.at && again.hash != ours.hash);
    });
}

/// Who asks while others do waits for a round with them: two at most, one that was under way and the next.
#[test]
fn many_who_ask_a_quorum_at_one_time_ask_it_twice_at_most() {
    run(async {
        let trio = Trio::new(640).await;
        trio.append(0).await;
        let leader = trio.leader().await;
        let replica = trio.replica(leader);
        let (_, before) = trio.mesh.said();
        let asking = (0..500).map(|_| {
            let replica = replica.clone();
            tokio::spawn(async move { replica.read_index().await })
        });
        let asking: Vec<_> = asking.collect();
        // Some of them go away before they are answered, the first among them.
        tokio::task::yield_now().await;
        assert!(!asking[0].is_finished());
        for gone in asking.iter().step_by(2) {
            gone.abort();
        }
        let stands = replica.state().applied().index;
        for asked in asking.into_iter().skip(1).step_by(2) {
            let answer = asked.await.expect("nobody ends it");
            assert_eq!(answer, Ok(stands));
        }
        let (_, after) = trio.mesh.said();
        let followers = NODES.len() as u64 - 1;
        let rounds = (after - before).div_ceil(followers);
        assert!(
            (1..=3).contains(&rounds),
            "{rounds} rounds, a beat of its own among them"
        );
    });
}
