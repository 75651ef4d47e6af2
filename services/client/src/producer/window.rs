//! The batches of one partition that are not settled: which may be sent, and what each answer, or
//! the lack of one, means. Pure: no I/O, no clock of its own.
//!
//! ```text
//!             push        next_to_send           acked
//!   records ───────► idle ────────────► in flight ─────► gone
//!                     ▲                    │ refused for now, stream broken
//!                     └────────────────────┘ (go back: the rest is answered first)
//! ```
//!
//! An idempotent producer's batch is *in doubt* once a try of it ended without an answer that it
//! was not written. A batch in doubt is sent again as it is, in its place, until an answer settles
//! it; it is never stamped anew, for then the first try could still come to be written beside the
//! second. When a batch fails, those behind it lack a predecessor, and the service refuses them as
//! a gap. So the session ends: once nothing is in flight and nothing in doubt, what is left, all of
//! it known not to be written, is stamped with the next epoch, from sequence 0. An epoch once seen
//! fences what is left of the one before.
//!
//! Without a producer id a batch is sent once, unless it was refused before anything was written,
//! and only one is in flight, or a refusal would let the next one overtake it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use esker_env::Monotonic;
use esker_types::limits::APPENDS_IN_FLIGHT_PER_PARTITION;
use esker_types::{Durability, ProducerEpoch, ProducerId, ProducerStamp, Sequence};

use crate::error::Code;

/// Sessions a batch may be the first of: what the service keeps calling a gap will stay one.
const SESSIONS_PER_BATCH_MAX: u32 = 3;

/// An idempotent producer's standing with one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    id: ProducerId,
    epoch: ProducerEpoch,
    next: Sequence,
}

impl Session {
    pub(super) const fn new(id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self {
            id,
            epoch,
            next: Sequence::ZERO,
        }
    }

    pub(super) const fn stamp(&self) -> ProducerStamp {
        ProducerStamp {
            id: self.id,
            epoch: self.epoch,
            sequence: self.next,
        }
    }

    /// A batch of so many records has its stamp.
    pub(super) fn advance(&mut self, records: u32) {
        self.next = self.next.after(records);
    }
}

/// Names a batch within its window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Serial(u64);

#[derive(Debug)]
struct Entry<B> {
    serial: Serial,
    batch: B,
    records: u32,
    deadline: Monotonic,
    /// Since when, if a try is under way.
    in_flight: Option<Monotonic>,
    doubt: bool,
    /// Sessions that began with it.
    sessions: u32,
}

/// A batch that ended without an acknowledgement.
#[derive(Debug)]
pub(super) struct Failed<B> {
    pub(super) batch: B,
    pub(super) durability: Durability,
}

/// What an answer says of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) durability: Durability,
    pub(super) retriable: bool,
}

#[derive(Debug)]
pub(super) struct Window<B> {
    session: Option<Session>,
    entries: VecDeque<Entry<B>>,
    serials: u64,
    /// Something goes back: nothing is sent before all that is in flight is answered.
    settling: bool,
    /// The session is over.
    broken: bool,
    rest_until: Option<Monotonic>,
    failures: u32,
}

impl<B> Window<B> {
    /// An empty one; idempotent if there is a session.
    pub(super) const fn new(session: Option<Session>) -> Self {
        Self {
            session,
            entries: VecDeque::new(),
            serials: 0,
            settling: false,
            broken: false,
            rest_until: None,
            failures: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more batch may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < APPENDS_IN_FLIGHT_PER_PARTITION && !self.broken
    }

    /// What the next batch is to be stamped with.
    pub(super) fn stamp(&self) -> Option<ProducerStamp> {
        self.session.as_ref().map(Session::stamp)
    }

    /// Takes a batch, stamped with [`Window::stamp`]. It fails if it is not settled by `deadline`,
    /// which must not lie before that of the batch before.
    pub(super) fn push(&mut self, batch: B, records: u32, deadline: Monotonic) {
        if let Some(session) = &mut self.session {
            session.advance(records);
        }
        self.serials += 1;
        self.entries.push_back(Entry {
            serial: Serial(self.serials),
            batch,
            records,
            deadline,
            in_flight: None,
            doubt: false,
            sessions: 0,
        });
    }

    /// The batch to send now, if any; it counts as in flight then.
    pub(super) fn next_to_send(&mut self, now: Monotonic) -> Option<(Serial, &B)> {
        let at = self.sendable(now)?;
        self.settling = false;
        self.rest_until = None;
        let entry = &mut self.entries[at];
        entry.in_flight = Some(now);
        Some((entry.serial, &entry.batch))
    }

    /// Whether there is a batch to send now.
    pub(super) fn wants_to_send(&self, now: Monotonic) -> bool {
        self.sendable(now).is_some()
    }

    fn sendable(&self, now: Monotonic) -> Option<usize> {
        let in_flight = self.in_flight().count();
        let most = match self.session {
            Some(_) => APPENDS_IN_FLIGHT_PER_PARTITION,
            None => 1,
        };
        let resting = self.rest_until.is_some_and(|until| until > now);
        if resting || in_flight >= most || (self.settling && in_flight > 0) {
            return None;
        }
        // In a session that is over, only what is in doubt is asked about.
        // Of a producer the service remembers as many batches as may be in flight, the last ones:
        // nothing may follow that makes it forget the oldest one here, which may be written.
        let Serial(oldest) = self.entries.front()?.serial;
        let due = |entry: &Entry<B>| {
            let near = entry.serial.0 - oldest < APPENDS_IN_FLIGHT_PER_PARTITION as u64;
            entry.in_flight.is_none() && near && (entry.doubt || !self.broken)
        };
        self.entries.iter().position(due)
    }

    fn in_flight(&self) -> impl Iterator<Item = Monotonic> {
        self.entries.iter().filter_map(|entry| entry.in_flight)
    }

    /// Since when the oldest try is under way.
    pub(super) fn oldest_try(&self) -> Option<Monotonic> {
        self.in_flight().min()
    }

    /// When there is something to do even if no answer comes, but for [`Window::oldest_try`]: the oldest
    /// batch's time is over, a rest is.
    pub(super) fn next_dues(&self) -> [Option<Monotonic>; 2] {
        let deadline = self.entries.front().map(|entry| entry.deadline);
        [deadline, self.rest_until]
    }

    /// The batches, oldest first.
    pub(super) fn batches(&self) -> impl Iterator<Item = &B> {
        self.entries.iter().map(|entry| &entry.batch)
    }

    /// It is written. `None` if it is not here any more.
    pub(super) fn acked(&mut self, serial: Serial) -> Option<B> {
        let at = self.find(serial)?;
        self.failures = 0;
        self.entries.remove(at).map(|entry| entry.batch)
    }

    /// It was refused. Comes back if it has failed; else it stays, to be sent again after a rest
    /// or in another session.
    pub(super) fn refused(&mut self, serial: Serial, refusal: Refusal) -> Option<Failed<B>> {
        let at = self.find(serial)?;
        let entry = &mut self.entries[at];
        entry.in_flight = None;
        let is_forgotten = refusal.code == Code::DuplicateExpired;
        // What is forgotten is what became of other tries. This one is refused, and of those before
        // it the window knows itself whether any may have been written.
        let unknown = refusal.durability == Durability::Unknown && !is_forgotten;
        if self.session.is_none() {
            if refusal.retriable && refusal.durability == Durability::NotWritten {
                self.settling = true;
                return None;
            }
            return self.fail(at, refusal.durability);
        }
        entry.doubt |= unknown;
        if refusal.durability == Durability::Durable {
            return self.fail(at, Durability::Durable);
        }
        if refusal.retriable || unknown {
            self.settling = true;
            return None;
        }
        let is_gap = refusal.code == Code::SequenceGap || is_forgotten;
        if is_gap && !(entry.doubt && (at == 0 || self.broken)) {
            if at > 0 {
                // One before it is not written yet: that one decides.
                self.settling = true;
                return None;
            }
            // Those before it are settled, so the service has forgotten the session.
            entry.sessions += 1;
            if entry.sessions <= SESSIONS_PER_BATCH_MAX {
                self.broken = true;
                return None;
            }
        }
        let durability = match entry.doubt {
            true => Durability::Unknown,
            false => Durability::NotWritten,
        };
        self.fail(at, durability)
    }

    /// It had not left when the stream broke, or was refused with it, and now it will not.
    pub(super) fn recalled(&mut self, serial: Serial) {
        if let Some(at) = self.find(serial) {
            self.entries[at].in_flight = None;
        }
    }

    /// The stream broke: nothing that is in flight will be answered. What may not be sent again
    /// comes back.
    pub(super) fn cut(&mut self) -> Vec<Failed<B>> {
        let mut failed = Vec::new();
        for at in (0..self.entries.len()).rev() {
            if self.entries[at].in_flight.take().is_none() {
                continue;
            }
            if self.session.is_some() {
                self.entries[at].doubt = true;
            } else {
                failed.extend(self.fail(at, Durability::Unknown));
            }
        }
        failed
    }

    /// Nothing more is sent until `rest` is over.
    pub(super) fn rest(&mut self, now: Monotonic, rest: impl FnOnce(u32) -> Duration) {
        if self.rest_until.is_none() {
            self.failures = self.failures.saturating_add(1);
            self.rest_until = Some(Monotonic(now.0 + rest(self.failures)));
        }
    }

    /// Those whose time is over.
    pub(super) fn expire(&mut self, now: Monotonic) -> Vec<Failed<B>> {
        let mut failed = Vec::new();
        while let Some(entry) = self.entries.front()
            && entry.deadline <= now
        {
            let durability = match entry.doubt || entry.in_flight.is_some() {
                true => Durability::Unknown,
                false => Durability::NotWritten,
            };
            failed.extend(self.fail(0, durability));
        }
        failed
    }

    /// Whether the next session may begin: nothing of the one that is over is left in the air.
    pub(super) fn is_between_sessions(&self) -> bool {
        let in_the_air = |entry: &Entry<B>| entry.doubt || entry.in_flight.is_some();
        self.broken && !self.entries.iter().any(in_the_air)
    }

    /// The next session; `None` if there is no epoch left.
    pub(super) fn next_session(&self) -> Option<Session> {
        let session = self.session.as_ref()?;
        let epoch = session.epoch.as_i16().checked_add(1)?;
        Some(Session::new(session.id, ProducerEpoch::from_i16(epoch)?))
    }

    /// Names of the batches, oldest first.
    pub(super) fn serials(&self) -> impl Iterator<Item = Serial> {
        self.entries.iter().map(|entry| entry.serial)
    }

    /// Begins the next session: `restamp` makes each batch anew with a stamp of it. What it cannot
    /// make, and everything if there is no epoch left, comes back as failed.
    pub(super) fn begin_session(
        &mut self,
        mut restamp: impl FnMut(&mut B, ProducerStamp) -> bool,
    ) -> Vec<Failed<B>> {
        debug_assert!(
            self.is_between_sessions(),
            "what is in doubt keeps its stamp"
        );
        let next = self.next_session();
        let entries = std::mem::take(&mut self.entries);
        let mut failed = Vec::new();
        let Some(mut session) = next else {
            failed.extend(entries.into_iter().map(|entry| Failed {
                batch: entry.batch,
                durability: Durability::NotWritten,
            }));
            return failed;
        };
        for mut entry in entries {
            if restamp(&mut entry.batch, session.stamp()) {
                session.advance(entry.records);
                self.entries.push_back(entry);
            } else {
                failed.push(Failed {
                    batch: entry.batch,
                    durability: Durability::NotWritten,
                });
            }
        }
        self.session = Some(session);
        self.broken = false;
        self.settling = false;
        failed
    }

    fn find(&self, serial: Serial) -> Option<usize> {
        self.entries.iter().position(|entry| entry.serial == serial)
    }

    fn fail(&mut self, at: usize, durability: Durability) -> Option<Failed<B>> {
        // What was written leaves no hole.
        self.broken |= self.session.is_some() && durability != Durability::Durable;
        let batch = self.entries.remove(at)?.batch;
        Some(Failed { batch, durability })
    }
}
