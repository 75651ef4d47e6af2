//! A read that a follower may answer: one is asked, once. If it has neither batches nor that they are in the
//! bucket by now, who leads is asked, and that follower not again for a while.

use esker_log::ReadFrom;
use esker_types::{PartitionId, ShardId};
use tokio::sync::Semaphore;

use super::asking::{Asked, ask_once};
use super::ways::Ways;
use crate::words::{self, Question, Reply};

/// Asks `question` of a follower of `shard`, if one may answer. Who waits for one takes a place of `places`,
/// and of no question that only who leads can answer; where there is none, he asks that one.
pub(super) async fn ask(
    ways: &Ways,
    shard: ShardId,
    question: &Question,
    places: &Semaphore,
) -> Option<Reply> {
    match question {
        Question::Read { partition, who, .. } if *who != ReadFrom::Leader => {
            let _place = places.try_acquire().ok()?;
            of_follower(ways, shard, *partition, question).await
        }
        _ => None,
    }
}

async fn of_follower(
    ways: &Ways,
    shard: ShardId,
    partition: PartitionId,
    question: &Question,
) -> Option<Reply> {
    let node = ways.follower(shard, turn(partition))?;
    let asked = words::question(None, question).ok()?;
    if let Ok(channel) = ways.channel(&node)
        && let Asked::Answered(reply @ Reply::Read(_)) =
            ask_once(ways, shard, question, asked, channel).await
    {
        ways.follows(shard, &node);
        return Some(reply);
    }
    ways.follows_not(shard, &node);
    None
}

/// Readers of a partition stay with one follower, whose answers follow on each other; those of others
/// are spread.
fn turn(partition: PartitionId) -> u64 {
    let number = partition.topic.as_u64() ^ u64::from(partition.index.0);
    // Multiplied by 2^64 over the golden ratio, neighbours come far apart in the upper half.
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    use esker_types::{Incarnation, PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn partitions_of_a_shard_are_spread_over_its_followers() {
        let topic = TopicId::new(Incarnation::FIRST, 7).expect("small");
        for shards in [1, 2, 3, 4, 16] {
            for followers in [2, 4] {
                let mut of = [0; 4];
                for number in 0..256 {
                    let index = PartitionIndex(number * shards);
                    let at = turn(PartitionId { topic, index }) % followers;
                    of[usize::try_from(at).expect("small")] += 1;
                }
                let fair = 256 / followers;
                let of = &of[..usize::try_from(followers).expect("small")];
                assert!(
                    of.iter()
                        .all(|count| (fair / 2..=fair * 3 / 2).contains(count)),
                    "{shards} shards: {of:?}"
                );
            }
        }
    }
}
