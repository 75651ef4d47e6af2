//! Where time stands still, by which clocks, and accepting those.

use std::fmt::Write as _;
use std::time::Duration;

use esker_client::v1::ShardStatus;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::screen;
use crate::shell::Shell;

/// In the place of shards: whichever stand still.
const ALL: &str = "all";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept the wall clocks of the leaders of these shards as they are, or of `all` whose time stands still:
    /// time, and retention by age, go on from there
    #[arg(long, value_name = "SHARD", num_args = 0..)]
    accept: Option<Vec<String>>,
}

pub(super) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let accept = args.accept.as_deref().map(named);
    let accept = accept.transpose().map_err(Failure::usage)?;
    let admin = shell.client().await?.admin();
    if let Some(shards) = accept {
        let accepted = admin.accept_time(&shards).await;
        let accepted = accepted.map_err(|error| Failure::reading(&error))?;
        return shell.answer(&json!({ "accepted": accepted }), || {
            format!(
                "time goes on: {} stood still\n",
                screen::count(accepted.into(), "shard")
            )
        });
    }
    let status = admin.cluster_status().await;
    let status = status.map_err(|error| Failure::reading(&error))?;
    let standing = status.shards.iter();
    let standing: Vec<_> = standing
        .filter(|shard| shard.clock_skew_ms.is_some())
        .collect();
    let list: Vec<_> = standing.iter().map(|shard| object(shard)).collect();
    shell.answer(&json!({ "standing": list }), || text(&standing))
}

/// The shards that are named; none for all.
fn named(shards: &[String]) -> Result<Vec<u32>, String> {
    let which = "which? `esker cluster time` says which shards stand still, and by whose clock: name those whose \
                 leader's clock is right, as in `--accept 3 7`, or write `--accept all`";
    match shards {
        [] => Err(which.to_owned()),
        [all] if all == ALL => Ok(Vec::new()),
        shards => {
            let number = |shard: &String| {
                let number = shard.parse();
                number.map_err(|_| format!("`{shard}` is no shard; {which}"))
            };
            shards.iter().map(number).collect()
        }
    }
}

fn object(shard: &ShardStatus) -> Value {
    let clock = shard.leader_clock.as_ref();
    json!({
        "shard": shard.shard,
        "skew_ms": shard.clock_skew_ms,
        "time_ms": shard.time_ms,
        "leader": clock.map(|clock| &clock.node),
        "wall_ms": clock.map(|clock| clock.wall_ms),
        "ahead": clock.map(|clock| clock.ahead),
    })
}

fn text(standing: &[&ShardStatus]) -> String {
    if standing.is_empty() {
        return "time runs on all shards\n".to_owned();
    }
    let mut text = String::new();
    for shard in standing {
        let skew = span(shard.clock_skew_ms.unwrap_or(0));
        let (number, time) = (shard.shard, utc(shard.time_ms));
        let _ = match &shard.leader_clock {
            Some(clock) => {
                let (node, wall) = (&clock.node, utc(clock.wall_ms));
                let way = if clock.ahead { "ahead" } else { "behind" };
                writeln!(
                    text,
                    "shard {number} stands still: its time is {time}, the clock of {node}, which leads it, says {wall} and \
                     is {skew} {way}"
                )
            }
            // Its leader is of an earlier version.
            None => writeln!(
                text,
                "shard {number} stands still: its time is {time}, the clocks of its leader are {skew} apart"
            ),
        };
    }
    text.push_str(
        "retention by age waits there. Compare `date -u` on every node: set right the clock that is wrong, and time \
         goes on by itself. Only where the leader's clock is right, accept it: cluster time --accept SHARD\n",
    );
    text
}

/// As a person reads it: `2026-11-21T15:00:00Z`.
fn utc(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("@{ms}"), |time| format!("{time:.0}"))
}

fn span(ms: u64) -> String {
    let whole = Duration::from_millis(ms).as_secs();
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60) {
        (0, 0, 0) => format!("{}.{} s", whole % 60, ms % 1000 / 100),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use esker_client::v1::LeaderClock;

    use super::*;

    fn standing(shard: u32, skew_ms: u64, clock: Option<(&str, u64, bool)>) -> ShardStatus {
        ShardStatus {
            shard,
            clock_skew_ms: Some(skew_ms),
            time_ms: 1_795_273_200_000,
            leader_clock: clock.map(|(node, wall_ms, ahead)| LeaderClock {
                node: node.to_owned(),
                wall_ms,
                ahead,
            }),
            ..ShardStatus::default()
        }
    }

    #[test]
    fn it_is_said_whose_clock_says_what_and_which_way_it_is_off() {
        let hours = 7_260_000;
        let shards = [
            standing(3, hours, Some(("n1.2", 1_795_273_200_000 + hours, true))),
            standing(7, 12_345, Some(("n1.1", 1_795_273_187_655, false))),
            standing(8, 90_000_000, None),
        ];
        let said = text(&shards.iter().collect::<Vec<_>>());
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "shard 3 stands still: its time is 2026-11-21T15:00:00Z, the clock of n1.2, which leads it, says \
                 2026-11-21T17:01:00Z and is 2 h 1 min ahead",
                "shard 7 stands still: its time is 2026-11-21T15:00:00Z, the clock of n1.1, which leads it, says \
                 2026-11-21T14:59:47Z and is 12.3 s behind",
                "shard 8 stands still: its time is 2026-11-21T15:00:00Z, the clocks of its leader are 1 d 1 h apart",
            ]
        );
        assert!(
            lines[3].contains("Compare `date -u` on every node"),
            "{said}"
        );
        assert_eq!(text(&[]), "time runs on all shards\n");
        assert_eq!(object(&shards[0])["leader"], "n1.2");
        assert_eq!(utc(u64::MAX), format!("@{}", u64::MAX));
    }

    #[test]
    fn what_is_accepted_is_named() {
        let of = |shards: &[&str]| {
            let shards: Vec<_> = shards.iter().map(|&shard| shard.to_owned()).collect();
            named(&shards)
        };
        assert_eq!(of(&["all"]), Ok(Vec::new()));
        assert_eq!(of(&["3", "7"]), Ok(vec![3, 7]));
        for refused in [&[][..], &["all", "3"], &["s3"]] {
            let said = of(refused).expect_err("not said which");
            assert!(said.contains("--accept all"), "{said}");
        }
    }
}
