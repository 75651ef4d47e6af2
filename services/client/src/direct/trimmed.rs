//! What cannot be read because it is not kept any more: no loss.

use esker_types::{Durability, Offset};

use super::out_of_range;
use super::read::{Plan, Wanted};
use super::survey::newest_checkpoint;
use crate::error::{Code, Detail, Error};

impl Plan {
    /// What is lost from `at` on may have been trimmed since the bucket was opened, its segments
    /// collected: the newest checkpoint tells. Any other error stays as it is, and so does this one
    /// if the checkpoint cannot be read or knows no better.
    pub(super) async fn or_trimmed(&self, error: Error, at: Offset) -> Error {
        let (Code::DataLoss, Some(shard)) = (error.code(), &self.shard) else {
            return error;
        };
        let (life, mut notes) = (self.incarnation, Vec::new());
        let newest = newest_checkpoint(&self.bucket, life, shard.id, &mut notes).await;
        let Ok(Some(state)) = newest else {
            return error;
        };
        let Wanted {
            topic,
            partition,
            to,
            ..
        } = &self.wanted;
        let data = state.data();
        if data.is_some_and(|data| data.has_ended(partition.topic)) {
            let text = format!("topic `{topic}` was deleted since the bucket was opened");
            return Error::new(Code::UnknownTopic, Durability::Unknown, text);
        }
        match data.and_then(|data| data.partition(*partition)) {
            Some(known) if known.log_start() > at => {
                let start = known.log_start();
                let end = known.tiered_end().max(start).max(*to);
                out_of_range(topic, partition.index.0, at, start, end)
            }
            _ => error,
        }
    }

    /// The same, of an error that names the offsets.
    pub(super) async fn or_trimmed_there(&self, error: Error) -> Error {
        let lost = match error.detail() {
            Some(Detail::Damage(damage)) => Offset::new(damage.start),
            _ => None,
        };
        match lost {
            Some(at) => self.or_trimmed(error, at).await,
            None => error,
        }
    }
}
