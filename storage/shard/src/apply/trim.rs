//! A log start moves: up to the end, never back.

use std::sync::Arc;

use crate::command::Trim;
use crate::data::Data;
use crate::outcome::Outcome;
use crate::refusal::{Refusal, TrimRefusal};

impl Data {
    pub(super) fn trim(&mut self, trim: &Trim) -> Result<Outcome, Refusal> {
        let id = trim.partition;
        if self.has_ended(id.topic) {
            return Err(Refusal::TopicEnded { topic: id.topic });
        }
        let (Some(topic), Some(partition)) = (self.topic(id.topic), self.partition(id)) else {
            return Err(TrimRefusal::UnknownPartition { partition: id }.into());
        };
        let current = topic.version;
        if let Some(planned) = trim.planned_version.filter(|&planned| planned < current) {
            return Err(TrimRefusal::OldVersion { planned, current }.into());
        }
        let (to, end) = (trim.to, partition.end());
        if to > end {
            return Err(TrimRefusal::OutOfRange { to, end }.into());
        }
        let partition = Arc::make_mut(self.partitions.get_mut(&id).expect("it was looked up"));
        partition.trim(to);
        Ok(Outcome::Trimmed {
            log_start: partition.log_start(),
        })
    }
}
