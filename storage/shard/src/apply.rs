//! A command's effect: the one place where a state changes.

mod append; // batches get offsets, or not
mod catalog; // topics are made, changed and deleted; ids are given
mod flush; // a segment becomes part of the log
mod swap; // segments leave the manifest
mod sweep; // producers long silent are forgotten
mod topic; // a data shard gets a topic, ends it, forgets it
mod trim; // a log start moves

use esker_types::{EntryId, Incarnation, LeaderEpoch, RaftIndex, ShardId, ShardTime};

use crate::catalog::Catalog;
use crate::command::Command;
use crate::data::Data;
use crate::invariants;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::state::{Body, State};

/// What a command sees of the entry it came in and of the shard around the body.
#[derive(Clone, Copy)]
struct Now {
    entry: EntryId,
    /// The applied index before this entry.
    applied: RaftIndex,
    /// Shard time, this command's included.
    time: ShardTime,
    incarnation: Incarnation,
    shard: ShardId,
    leader_epoch: LeaderEpoch,
}

impl State {
    /// Applies the command of the next entry. What becomes of it depends on this state and on the
    /// command alone; a refusal changes nothing but the applied index.
    ///
    /// # Panics
    /// If `entry` is not the next one: an entry lost or applied twice must end the process. In
    /// debug builds also if an invariant is broken.
    pub fn apply(&mut self, entry: EntryId, command: &Command) -> Outcome {
        let applied = self.advance(entry);
        let outcome = self
            .execute(entry, applied, command)
            .unwrap_or_else(Outcome::Refused);
        if cfg!(debug_assertions) {
            invariants::check_after_apply(self);
        }
        outcome
    }

    /// Applies an entry that carries no command, as raft itself writes them (a new leader's first
    /// entry, a change of membership): the applied index moves and nothing else.
    ///
    /// # Panics
    /// As [`State::apply`].
    pub fn apply_blank(&mut self, entry: EntryId) {
        self.advance(entry);
    }

    /// Moves the applied entry, and gives the index before.
    fn advance(&mut self, entry: EntryId) -> RaftIndex {
        let before = self.applied;
        assert!(
            entry.index == before.index.next() && entry.term >= before.term,
            "{}: entry {entry} does not follow {before}",
            self.shard
        );
        self.applied = entry;
        before.index
    }

    fn execute(
        &mut self,
        entry: EntryId,
        applied: RaftIndex,
        command: &Command,
    ) -> Result<Outcome, Refusal> {
        if command.level() > self.level {
            return Err(Refusal::AboveLevel {
                needed: command.level(),
                level: self.level,
            });
        }
        let mut now = Now {
            entry,
            applied,
            time: self.time.get(),
            incarnation: self.incarnation,
            shard: self.shard,
            leader_epoch: self.leader_epoch(),
        };
        match (command, &mut self.body) {
            (Command::Tick { time }, body) => {
                self.time.raise(*time);
                now.time = self.time.get();
                if let Body::Data(data) = body {
                    data.sweep_producers(now.time);
                }
                Ok(Outcome::Ticked)
            }
            (Command::RaiseLevel { level }, _) => {
                self.level = self.level.max(*level);
                Ok(Outcome::Level(self.level))
            }
            (Command::Append(append), Body::Data(data)) => {
                self.time.raise(append.time);
                now.time = self.time.get();
                Ok(Outcome::Appended(data.append(&now, &append.batches)))
            }
            (command, Body::Data(data)) => execute_data(data, &now, command),
            (command, Body::Catalog(catalog)) => execute_catalog(catalog, &now, command),
        }
    }
}

fn execute_data(data: &mut Data, now: &Now, command: &Command) -> Result<Outcome, Refusal> {
    match command {
        Command::CommitSegment(commit) => data.commit_segment(now, commit),
        Command::Swap(swap) => data.swap(now, swap),
        Command::RaiseGcBoundary { to } => data.raise_gc_boundary(now, *to),
        Command::PutTopic(put) => data.put_topic(put),
        Command::EndTopic { topic, version } => Ok(data.end_topic(now, *topic, *version)),
        Command::DropTombstone { topic, plan_index } => {
            data.drop_tombstone(now, *topic, *plan_index)
        }
        Command::Trim(trim) => data.trim(trim),
        _ => Err(Refusal::WrongShard { shard: now.shard }),
    }
}

fn execute_catalog(
    catalog: &mut Catalog,
    now: &Now,
    command: &Command,
) -> Result<Outcome, Refusal> {
    match command {
        Command::CreateTopic(create) => catalog.create_topic(now, create),
        Command::AlterTopic {
            topic,
            expected,
            changes,
        } => catalog.alter_topic(*topic, *expected, changes),
        Command::AddPartitions {
            topic,
            expected,
            total,
        } => catalog.add_partitions(*topic, *expected, *total),
        Command::DeleteTopic { topic } => catalog.delete_topic(*topic, now),
        Command::TopicEnded { topic, shard } => catalog.topic_ended(*topic, *shard, now),
        Command::AllocateProducers { count } => catalog.allocate_producers(now, *count),
        Command::AllocateNode => catalog.allocate_node(now),
        _ => Err(Refusal::WrongShard { shard: now.shard }),
    }
}

/// An index that a proposer says it has read must have been applied.
fn check_applied(index: RaftIndex, now: &Now) -> Result<(), Refusal> {
    if index > now.applied {
        return Err(Refusal::NotApplied {
            index,
            applied: now.applied,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::state::Genesis;
    use esker_types::Term;

    fn catalog() -> State {
        State::new(Genesis {
            shard: ShardId::CATALOG,
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        })
    }

    fn entry(term: u64, index: u64) -> EntryId {
        EntryId {
            term: Term(term),
            index: RaftIndex(index),
        }
    }

    #[test]
    fn a_command_above_the_level_is_refused_and_changes_nothing() {
        let mut state = catalog();
        // No build has been at level 0; it stands for a shard that is behind the command.
        state.level = Level(0);
        let mut blank = state.clone();
        let refusal = Refusal::AboveLevel {
            needed: Level::FIRST,
            level: Level(0),
        };
        let outcome = state.apply(entry(1, 1), &Command::AllocateNode);
        assert_eq!(outcome, Outcome::Refused(refusal));
        blank.apply_blank(entry(1, 1));
        assert_eq!(state, blank);
    }

    #[test]
    fn an_entry_that_is_not_next_ends_the_process() {
        for wrong in [entry(1, 0), entry(1, 1), entry(1, 3), entry(0, 2)] {
            let mut state = catalog();
            state.apply_blank(entry(1, 1));
            let applied = std::panic::catch_unwind(move || state.apply_blank(wrong));
            assert!(applied.is_err(), "{wrong} after 1@1");
        }
    }
}
