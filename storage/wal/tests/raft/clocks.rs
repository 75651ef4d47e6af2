//! Shard time where several vote: what one wall clock says alone, nobody goes by.

use std::time::Duration;

use esker_env::sim::Crash;
use esker_types::limits::{CLOCK_ASKED_REST, CLOCK_SKEW_MAX};
use esker_types::{NodeId, ShardTime};
use esker_wal::Stamp;
use tokio::time::sleep;

use super::trio::Trio;
use super::world::run;

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than any test here takes by the clock.
const SOON: Duration = Duration::from_secs(600);

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("days")
}

impl Trio {
    /// The time that the shard has everywhere.
    async fn time(&self) -> ShardTime {
        self.converge().await;
        self.replica(self.leader().await).state().time()
    }

    /// Whether time goes on at who leads.
    fn tells(&self, node: NodeId) -> bool {
        matches!(self.running(node).appender.time(), Some(Stamp::Time(_)))
    }
}

#[test]
fn a_clock_that_is_days_off_becomes_nobodys_time_when_its_node_comes_to_lead() {
    for (seed, ahead) in [(1, true), (2, false)] {
        run(async {
            let trio = Trio::new(800 + seed).await;
            trio.append(0).await;
            let before = trio.time().await;
            let wrong = trio.follower().await;
            let off = ms(4 * DAY);
            trio.clock(wrong).jump_wall(if ahead { off } else { -off });
            trio.lead(wrong).await;
            trio.append(1).await;
            assert!(
                !trio.tells(wrong),
                "it told a time that no other clock says"
            );
            let after = trio.time().await;
            assert!(after.since(before) < SOON, "{before:?} became {after:?}");
            // Asked again, the others say the same.
            trio.running(wrong).appender.ask_clocks_again().await;
            assert!(!trio.tells(wrong));
            // Set right, it goes on by itself.
            trio.clock(wrong).jump_wall(if ahead { -off } else { off });
            trio.append(2).await;
            assert!(trio.tells(wrong));
        });
    }
}

#[test]
fn a_standstill_of_all_is_closed_by_the_word_of_a_quorum_and_by_nothing_less() {
    run(async {
        let mut trio = Trio::new(810).await;
        trio.append(0).await;
        let before = trio.time().await;
        let days = 30 * DAY;
        for node in trio.up() {
            trio.clock(node).advance(days);
        }
        let (old, next) = (trio.leader().await, trio.follower().await);
        let mut others = trio.up().into_iter();
        let third = others.find(|node| *node != old && *node != next);
        let third = third.expect("there are three");
        trio.crash(third, Crash::Kill).await;
        // Two clocks of three, and they do not agree.
        let apart = 2 * ms(CLOCK_SKEW_MAX);
        trio.clock(old).jump_wall(apart);
        trio.lead(next).await;
        trio.append(1).await;
        assert!(!trio.tells(next), "by its own word");
        trio.clock(old).jump_wall(-apart);
        sleep(CLOCK_ASKED_REST).await;
        trio.running(next).appender.ask_clocks_again().await;
        assert!(trio.tells(next), "two of three agree");
        let ticked = trio.running(next).appender.tick().await;
        ticked.expect("it leads");
        let after = trio.time().await;
        assert!(after >= before.after(days), "{before:?} became {after:?}");
        // Those who come to lead later find no gap.
        trio.lead(old).await;
        let taken = trio.running(old).appender.take_office().await;
        taken.expect("it leads");
        assert!(trio.tells(old));
    });
}
