//! What a producer's task does when something came in or time went by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Monotonic, WorkersExt};
use esker_proto::v1::{AppendRequest, append_request};
use esker_record::Batch;
use esker_types::{Durability, ProducerStamp};

use super::super::gather::{Bundle, Press, Sealed};
use super::super::link::Link;
use super::super::settings::Settings;
use super::super::window::Failed;
use super::{Done, Filed, IDLE, Partition, Pressed, Pump, Renewed, SEAL_HERE_BYTES};
use crate::error::{Code, Error};

impl Pump {
    /// Does all that can be done now, for those partitions that something happened to: there may
    /// be very many. True if batches wait for room in the stream.
    pub(super) fn work(&mut self) -> bool {
        let now = self.now();
        while let Some(&(due, index)) = self.dues.first()
            && due <= now
        {
            self.dues.pop_first();
            self.partition(index).filed.due = None;
        }
        self.look_after_link(now);
        let mut worked = std::mem::take(&mut self.touched);
        for &index in &worked {
            self.expire(index, now);
            self.renew_session(index);
            while self.seal(index, now) {}
            if self.partition(index).window.wants_to_send(now) {
                self.sending.insert(index);
            } else {
                self.sending.remove(&index);
            }
        }
        let blocked = self.send(now, &mut worked);
        for index in worked {
            self.file(index, now);
        }
        // They were worked on just now.
        self.touched.clear();
        self.tell_flushes();
        blocked
    }

    /// Puts a partition where it will be found when it is due.
    fn file(&mut self, index: u32, now: Monotonic) {
        let Some(partition) = self.partitions.get_mut(&index) else {
            return;
        };
        let before = partition.filed;
        let after = Filed {
            due: partition.due(&self.settings, now),
            oldest: partition.oldest(),
        };
        partition.filed = after;
        if before.due != after.due {
            before.due.map(|due| self.dues.remove(&(due, index)));
            after.due.map(|due| self.dues.insert((due, index)));
        }
        if before.oldest != after.oldest {
            before
                .oldest
                .map(|oldest| self.unsettled.remove(&(oldest, index)));
            after
                .oldest
                .map(|oldest| self.unsettled.insert((oldest, index)));
        }
    }

    fn expire(&mut self, index: u32, now: Monotonic) {
        let timeout = self.settings.delivery_timeout();
        for Failed { batch, durability } in self.partition(index).window.expire(now) {
            let error = match durability {
                Durability::NotWritten => self.not_written(timeout),
                _ => self.unknown(timeout),
            };
            batch.receipts.fail(&error);
        }
        // Behind an older batch that expires first.
        let over = |bundle: &Bundle| bundle.opened.0 + timeout <= now.0;
        loop {
            let partition = self.partition(index);
            let is_over = partition.sealing.is_none()
                && partition.window.is_empty()
                && partition.gather.front().is_some_and(over);
            let Some(bundle) = is_over.then(|| partition.gather.take()).flatten() else {
                return;
            };
            bundle.fail(&self.not_written(timeout));
        }
    }

    fn unknown(&self, timeout: Duration) -> Error {
        let text = self.too_late(timeout);
        Error::new(Code::OutcomeUnknown, Durability::Unknown, text)
    }

    /// What was certainly not written is an error of the kind that kept it from being so.
    fn not_written(&self, timeout: Duration) -> Error {
        let code = self.last_failure.as_ref().map(Error::code);
        let text = self.too_late(timeout);
        Error::new(
            code.unwrap_or(Code::Unavailable),
            Durability::NotWritten,
            text,
        )
    }

    fn too_late(&self, timeout: Duration) -> String {
        let last = self.last_failure.as_ref().map(Error::message);
        let last = last.unwrap_or("no answer came");
        format!("not settled within delivery_timeout, {timeout:?}; at last: {last}")
    }

    /// Begins to make anew what is left of a session that is over: up to a window of batches, each
    /// decoded and compressed again, so it is done on another thread. Meanwhile nothing of the
    /// partition is sent or sealed, for its window is between sessions.
    fn renew_session(&mut self, index: u32) {
        let partition = self.partition(index);
        let busy = partition.sealing.is_some() || partition.renewing;
        if busy || !partition.window.is_between_sessions() {
            return;
        }
        let next = partition.window.next_session();
        let Some(mut session) = next.filter(|_| !partition.window.is_empty()) else {
            return self.begin_session(index, Vec::new());
        };
        partition.renewing = true;
        let window = &partition.window;
        let left = window.batches().map(|sealed| sealed.batch.clone());
        let left: Vec<_> = window.serials().zip(left).collect();
        let mut press = self.press();
        let renew = move || {
            let anew = left.into_iter().map(|(serial, batch)| {
                let anew = press.restamp(&batch, session.stamp()).ok();
                if anew.is_some() {
                    session.advance(batch.header().records);
                }
                (serial, anew)
            });
            let batches = anew.collect();
            Renewed {
                partition: index,
                press,
                batches,
            }
        };
        let workers = Arc::clone(&self.env.workers);
        let job = async move { Done::Renewed(workers.run(renew).await) };
        self.pressing.push(Box::pin(job));
    }

    /// What was made anew takes its place, unless some of it expired meanwhile: then what is left
    /// has to begin with the session's first sequence.
    pub(super) fn take_renewed(&mut self, renewed: Renewed) {
        let Renewed {
            partition: index,
            press,
            batches,
        } = renewed;
        self.keep(press);
        let partition = self.partition(index);
        partition.renewing = false;
        let made = batches.iter().map(|(serial, _)| *serial);
        if made.eq(partition.window.serials()) {
            let batches = batches.into_iter().map(|(_, batch)| batch);
            self.begin_session(index, batches.collect());
        }
    }

    fn begin_session(&mut self, index: u32, batches: Vec<Option<Batch>>) {
        let mut batches = batches.into_iter();
        let restamp = |sealed: &mut Sealed, stamp: ProducerStamp| {
            let anew = batches.next().flatten();
            let anew = anew.filter(|batch| batch.header().producer == Some(stamp));
            anew.map(|batch| sealed.batch = batch).is_some()
        };
        let failed = self.partition(index).window.begin_session(restamp);
        for Failed { batch, durability } in failed {
            let text = "the batch cannot go on in another session; make another producer";
            batch
                .receipts
                .fail(&Error::new(Code::LimitReached, durability, text));
        }
    }

    fn press(&mut self) -> Press {
        let Settings {
            compression,
            max_batch_bytes,
            ..
        } = *self.settings;
        let kept = self.presses.pop();
        kept.unwrap_or_else(|| Press::new(compression, max_batch_bytes))
    }

    /// Makes a batch of what is due. True if it was made at once.
    fn seal(&mut self, index: u32, now: Monotonic) -> bool {
        let (hurry, linger) = (self.flush_before, self.settings.linger());
        let (target, closed) = (self.settings.target_bytes, self.closed);
        let partition = self.partition(index);
        let Some(front) = partition.gather.front() else {
            return false;
        };
        let linger = match closed || front.number() < hurry {
            true => Duration::ZERO,
            false => linger,
        };
        let due = partition
            .gather
            .due(target, linger)
            .is_some_and(|due| due <= now);
        if !due || partition.sealing.is_some() || !partition.window.has_room() {
            return false;
        }
        let Some(bundle) = partition.gather.take() else {
            return false;
        };
        partition.sealing = Some(bundle.number());
        let stamp = partition.window.stamp();
        if index == self.sticky {
            self.move_on();
        }
        let mut press = self.press();
        let (opened, here) = (bundle.opened, bundle.bytes() <= SEAL_HERE_BYTES);
        let seal = move || {
            let sealed = press.seal(bundle, stamp);
            Pressed {
                partition: index,
                press,
                opened,
                sealed,
            }
        };
        if here {
            self.take_pressed(seal());
        } else {
            let workers = Arc::clone(&self.env.workers);
            let job = async move { Done::Pressed(workers.run(seal).await) };
            self.pressing.push(Box::pin(job));
        }
        here
    }

    fn look_after_link(&mut self, now: Monotonic) {
        let timeout = self.settings.reply_timeout();
        // A partition whose oldest try is due was touched.
        let windows = self.touched.iter().filter_map(|i| self.partitions.get(i));
        let oldest = windows.filter_map(|p| p.window.oldest_try()).min();
        if oldest.is_some_and(|since| now.since(since) >= timeout) {
            self.take_break(&format!("no reply within {timeout:?}"));
        }
    }

    /// Sends what may be sent. True if there was no room for all of it.
    fn send(&mut self, now: Monotonic, worked: &mut BTreeSet<u32>) -> bool {
        if self.link.is_down() {
            if self.sending.is_empty() || self.link_rests_until > now {
                return false;
            }
            self.link = Link::open(self.client.clone());
            self.link_began_at = self.requests;
        }
        while let Some(&index) = self.sending.first() {
            let Some(partition) = self.partitions.get_mut(&index) else {
                break;
            };
            worked.insert(index);
            while partition.window.wants_to_send(now) {
                if !self.link.has_room() {
                    return true;
                }
                let Some((serial, sealed)) = partition.window.next_to_send(now) else {
                    break;
                };
                self.requests += 1;
                self.tries.insert(self.requests, (index, serial));
                self.link.send(AppendRequest {
                    request_id: self.requests,
                    topic: self.settings.topic.clone(),
                    partition: index,
                    payload: Some(append_request::Payload::Batch(sealed.batch.bytes().clone())),
                    ..AppendRequest::default()
                });
            }
            self.sending.remove(&index);
        }
        false
    }

    fn tell_flushes(&mut self) {
        let oldest = self
            .unsettled
            .first()
            .map_or(u64::MAX, |&(oldest, _)| oldest);
        for waiting in self
            .flushes
            .extract_if(.., |waiting| waiting.before <= oldest)
        {
            // Who does not wait any more does not want to know.
            let _ = waiting.settled.send(());
        }
    }

    /// How long until something is due although nothing comes in.
    pub(super) fn until_next_due(&self) -> Duration {
        let now = self.now();
        let rest =
            (self.link.is_down() && !self.sending.is_empty()).then_some(self.link_rests_until);
        let next = self.dues.first().map(|&(due, _)| due);
        let wait = rest.into_iter().chain(next).min();
        let wait = wait.map_or(IDLE, |due| due.since(now));
        wait.clamp(Duration::from_millis(1), IDLE)
    }
}

impl Partition {
    /// When there is something to do although nothing comes in. What was due before and is still
    /// here waits for something else.
    fn due(&self, settings: &Settings, now: Monotonic) -> Option<Monotonic> {
        let lingers = self.gather.due(settings.target_bytes, settings.linger());
        let expires = self.gather.front();
        let expires = expires.map(|b| Monotonic(b.opened.0 + settings.delivery_timeout()));
        let tried = self.window.oldest_try();
        let silent = tried.map(|since| Monotonic(since.0 + settings.reply_timeout()));
        let [deadline, rest] = self.window.next_dues();
        let dues = [lingers, expires, silent, deadline, rest];
        dues.into_iter().flatten().filter(|&due| due > now).min()
    }
}
