//! Appends of a shard that have no answer, in order. Pure: what becomes of each when an answer comes,
//! a stream ends, or time is up.
//!
//! ```text
//!    first                       next
//!      ▼                          ▼
//!    │ under way │ answered │ u. w. │ not sent in this attempt │
//! ```
//! What is to be sent again is sent from the first on: nothing overtakes it.

use std::collections::VecDeque;

use esker_env::Monotonic;
use esker_log::{HeadError, Leader};
use esker_shard::{AppendError, AppendOutcome};
use esker_types::ShardId;
use esker_types::limits::HEAD_PATIENCE;

use super::queue::Letter;
use crate::words::Append;

#[derive(Debug)]
pub(super) struct Backlog {
    shard: ShardId,
    /// Number of the first of `kept`.
    first: u64,
    /// `None` once it is answered.
    kept: VecDeque<Option<Kept>>,
    /// The first that was not sent in this attempt.
    next: u64,
    /// Sent in this attempt, and not answered.
    under_way: usize,
    /// Above the last that apply has answered.
    applied: u64,
}

#[derive(Debug)]
struct Kept {
    letter: Letter,
    /// The how-manieth message of this attempt it is.
    place: Option<u64>,
    /// Why it may have been written, although nobody said so.
    doubt: Option<String>,
    /// Since when there is nobody to send it to.
    waits: Option<Monotonic>,
}

/// What an answer has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Apply has answered.
    Outcome,
    /// The head has refused it, for good.
    Refusal,
    /// It is to be sent again, to whoever leads now.
    Again(Option<Leader>),
    /// Nothing: it is not awaited any more.
    Nothing,
}

impl Backlog {
    pub(super) const fn new(shard: ShardId) -> Self {
        Self {
            shard,
            first: 0,
            kept: VecDeque::new(),
            next: 0,
            under_way: 0,
            applied: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether an answer is awaited.
    pub(super) const fn owes(&self) -> bool {
        self.under_way > 0
    }

    /// Takes one more; it `waits` from now on if there is nobody to send it to.
    pub(super) fn push(&mut self, letter: Letter, waits: Option<Monotonic>) {
        self.kept.push_back(Some(Kept {
            letter,
            place: None,
            doubt: None,
            waits,
        }));
    }

    /// There is nobody to send anything to, from now on.
    pub(super) fn wait_from(&mut self, now: Monotonic) {
        for kept in self.kept.iter_mut().flatten() {
            kept.waits.get_or_insert(now);
        }
    }

    /// The next append of this attempt, as message number `place` of it.
    pub(super) fn send(&mut self, place: u64) -> Option<Append> {
        loop {
            let number = self.next;
            let at = usize::try_from(number - self.first).expect("as many as are kept");
            let kept = self.kept.get_mut(at)?;
            self.next += 1;
            let Some(kept) = kept else { continue };
            kept.place = Some(place);
            self.under_way += 1;
            return Some(Append {
                number,
                batch: kept.letter.batch.clone(),
                bytes: kept.letter.bytes.clone(),
            });
        }
    }

    /// Whether [`Backlog::send`] has one.
    pub(super) fn has_next(&self) -> bool {
        let at = usize::try_from(self.next - self.first).expect("as many as are kept");
        self.kept.range(at..).any(Option::is_some)
    }

    /// Append `number` is answered.
    pub(super) fn answered(
        &mut self,
        number: u64,
        outcome: Result<AppendOutcome, HeadError>,
    ) -> Heard {
        // The second is what a producer hears that nothing is known of.
        let overtook = matches!(
            outcome,
            Ok(AppendOutcome::Rejected(
                AppendError::SequenceGap { .. } | AppendError::DuplicateExpired
            ))
        ) && self.follows_one_of_its_producer(number);
        let Some(kept) = self.kept_at(number) else {
            return Heard::Nothing;
        };
        if kept.place.take().is_none() {
            return Heard::Nothing;
        }
        let stamped = kept.letter.batch.producer.is_some();
        let heard = match outcome {
            // Decided without one before it, which is to be sent again: it was not written.
            Ok(_) if overtook => Heard::Again(None),
            Ok(outcome) => {
                let doubt = kept.doubt.take();
                self.applied = self.applied.max(number + 1);
                let outcome = match (doubt, outcome) {
                    (Some(doubt), AppendOutcome::Rejected(error))
                        if !error.excludes_an_earlier_copy() =>
                    {
                        Err(self.unknown(&format!("{doubt}; sent again: {error}")))
                    }
                    (_, outcome) => Ok(outcome),
                };
                self.settle(number, outcome);
                Heard::Outcome
            }
            Err(HeadError::NotLeader { leader, .. }) => Heard::Again(leader),
            Err(HeadError::Unknown { what, .. }) if stamped => {
                kept.doubt = Some(what);
                Heard::Again(None)
            }
            Err(error @ HeadError::Unknown { .. }) => {
                self.settle(number, Err(error));
                Heard::Again(None)
            }
            Err(error) => {
                let error = match kept.doubt.take() {
                    Some(doubt) => self.unknown(&format!("{doubt}; sent again: {error}")),
                    None => error,
                };
                self.settle(number, Err(error));
                Heard::Refusal
            }
        };
        self.under_way -= 1;
        self.trim();
        heard
    }

    /// Whether one before it of the same producer and partition is open.
    fn follows_one_of_its_producer(&mut self, number: u64) -> bool {
        let of = |kept: &Kept| {
            let batch = &kept.letter.batch;
            Some((batch.partition, batch.producer?.id))
        };
        let Some(mine) = self.kept_at(number).map(|kept| of(kept)) else {
            return false;
        };
        let before = usize::try_from(number - self.first).expect("it is kept");
        let mut before = self.kept.range(..before).flatten();
        mine.is_some() && before.any(|kept| of(kept) == mine)
    }

    /// The attempt is over: of its messages only the first `passed` may have reached the node. What
    /// has no producer and may have been written is unknown; the rest is sent again. But what has no
    /// producer, and was refused while one behind it was not, has lost its place: it is not written.
    pub(super) fn cut(&mut self, passed: u64, why: &str) {
        for at in 0..self.kept.len() {
            let Some(kept) = &mut self.kept[at] else {
                continue;
            };
            let left = kept.place.take().is_some_and(|place| place <= passed);
            let number = self.first + at as u64;
            if kept.letter.batch.producer.is_some() {
                if left {
                    kept.doubt = Some(why.to_owned());
                }
            } else if left {
                let error = self.unknown(why);
                self.settle(number, Err(error));
            } else if number < self.applied {
                let error = HeadError::NotLeader {
                    shard: self.shard,
                    leader: None,
                    what: format!("{why}, and an append behind this one was written already"),
                };
                self.settle(number, Err(error));
            }
        }
        self.under_way = 0;
        self.next = self.first;
        self.trim();
    }

    /// Those that have waited for as long as there is patience are answered.
    pub(super) fn expire(&mut self, now: Monotonic) {
        while let Some(due) = self.due()
            && due <= now
        {
            self.give_up(self.first, "patience is over");
        }
    }

    /// When the first of them has waited that long. Those behind it wait no longer than it does.
    pub(super) fn due(&self) -> Option<Monotonic> {
        let waits = self.kept.front()?.as_ref()?.waits?;
        Some(Monotonic(waits.0 + HEAD_PATIENCE))
    }

    /// All are answered: nothing is sent any more.
    pub(super) fn end(&mut self, why: &str) {
        while !self.kept.is_empty() {
            self.give_up(self.first, why);
        }
    }

    fn give_up(&mut self, number: u64, why: &str) {
        let shard = self.shard;
        let Some(kept) = self.kept_at(number) else {
            return;
        };
        let under_way = kept.place.take().is_some();
        let error = match kept.doubt.take() {
            Some(doubt) => self.unknown(&format!("{doubt}; {why}")),
            None if under_way => self.unknown(&format!("it was sent, and {why}")),
            None => HeadError::NotLeader {
                shard,
                leader: None,
                what: format!("no node that leads it has taken the append, and {why}"),
            },
        };
        self.under_way -= usize::from(under_way);
        self.settle(number, Err(error));
        self.trim();
    }

    fn unknown(&self, what: &str) -> HeadError {
        HeadError::Unknown {
            shard: self.shard,
            what: format!("it is unknown whether the append was written: {what}"),
        }
    }

    fn kept_at(&mut self, number: u64) -> Option<&mut Kept> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.kept.get_mut(at)?.as_mut()
    }

    fn settle(&mut self, number: u64, answer: Result<AppendOutcome, HeadError>) {
        let at = usize::try_from(number - self.first).expect("as many as are kept");
        if let Some(Kept { letter, .. }) = self.kept[at].take() {
            // Whoever has gone needs no answer.
            let _ = letter.answer.send(answer);
            drop(letter.room);
        }
    }

    fn trim(&mut self) {
        while let Some(None) = self.kept.front() {
            self.kept.pop_front();
            self.first += 1;
        }
        self.next = self.next.max(self.first);
    }
}

#[cfg(test)]
mod tests;
