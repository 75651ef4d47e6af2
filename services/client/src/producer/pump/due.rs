//! What a producer's task does when something came in or time went by.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Monotonic, WorkersExt};
use esker_proto::v1::{AppendRequest, append_request};
use esker_types::{Durability, ProducerStamp};

use super::super::gather::{Bundle, Press, Sealed};
use super::super::link::Link;
use super::super::settings::Settings;
use super::super::window::Failed;
use super::{IDLE, Partition, Pressed, Pump, SEAL_HERE_BYTES};
use crate::error::{Code, Error};

impl Pump {
    /// Does all that can be done now. True if batches wait for room in the stream.
    pub(super) fn work(&mut self) -> bool {
        let now = self.now();
        for index in self.active.iter().copied().collect::<Vec<_>>() {
            self.expire(index, now);
            self.renew_session(index);
            while self.seal(index, now) {}
        }
        self.look_after_link(now);
        let blocked = self.send(now);
        let partitions = &self.partitions;
        self.active
            .retain(|index| partitions.get(index).is_some_and(|p| !p.is_settled()));
        self.tell_flushes();
        blocked
    }

    fn expire(&mut self, index: u32, now: Monotonic) {
        let timeout = self.settings.delivery_timeout();
        let error = self.too_late(timeout);
        let partition = self.partition(index);
        for failed in partition.window.expire(now) {
            let error = error.clone().with_durability(failed.durability);
            failed.batch.receipts.fail(&error);
        }
        // Behind an older batch that expires first.
        let over = |bundle: &Bundle| bundle.opened.0 + timeout <= now.0;
        while partition.sealing.is_none()
            && partition.window.is_empty()
            && partition.gather.front().is_some_and(over)
        {
            if let Some(bundle) = partition.gather.take() {
                bundle.fail(&error.clone().with_durability(Durability::NotWritten));
            }
        }
    }

    fn too_late(&self, timeout: Duration) -> Error {
        let last = self.last_failure.as_deref().unwrap_or("no answer came");
        let text = format!("not settled within delivery_timeout, {timeout:?}; at last: {last}");
        Error::new(Code::OutcomeUnknown, Durability::Unknown, text)
    }

    fn renew_session(&mut self, index: u32) {
        let partition = self.partition(index);
        if partition.sealing.is_some() || !partition.window.is_between_sessions() {
            return;
        }
        let mut press = self.press();
        let restamp = |sealed: &mut Sealed, stamp: ProducerStamp| {
            let again = press.restamp(&sealed.batch, stamp);
            again.map(|batch| sealed.batch = batch).is_ok()
        };
        let failed = self.partition(index).window.begin_session(restamp);
        self.presses.push(press);
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
            let job = async move { workers.run(seal).await };
            self.pressing.push(Box::pin(job));
        }
        here
    }

    fn look_after_link(&mut self, now: Monotonic) {
        let timeout = self.settings.reply_timeout();
        let windows = || self.active.iter().filter_map(|i| self.partitions.get(i));
        let oldest = windows().filter_map(|p| p.window.oldest_try()).min();
        if oldest.is_some_and(|since| now.since(since) >= timeout) {
            self.take_break(&format!("no reply within {timeout:?}"));
            return;
        }
        let wanted = windows().any(|p| p.window.wants_to_send(now));
        if self.link.is_down() && wanted && self.link_rests_until <= now {
            self.link = Link::open(self.client.clone());
            self.link_began_at = self.requests;
        }
    }

    /// Sends what may be sent. True if there was no room for all of it.
    fn send(&mut self, now: Monotonic) -> bool {
        if self.link.is_down() {
            return false;
        }
        for &index in &self.active {
            let Some(partition) = self.partitions.get_mut(&index) else {
                continue;
            };
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
        }
        false
    }

    fn tell_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let unsettled = self.active.iter().filter_map(|i| self.partitions.get(i));
        let oldest = unsettled.filter_map(Partition::oldest).min();
        let oldest = oldest.unwrap_or(u64::MAX);
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
        let (settings, timeout) = (&self.settings, self.settings.delivery_timeout());
        let partitions = self.active.iter().filter_map(|i| self.partitions.get(i));
        let dues = partitions.flat_map(|p| {
            let lingers = p.gather.due(settings.target_bytes, settings.linger());
            let expires = p.gather.front().map(|b| Monotonic(b.opened.0 + timeout));
            let tried = p.window.oldest_try();
            let silent = tried.map(|since| Monotonic(since.0 + settings.reply_timeout()));
            [lingers, expires, silent, p.window.next_due()]
        });
        // What was due before and is still here waits for something else.
        let later = dues
            .flatten()
            .chain([self.link_rests_until])
            .filter(|&due| due > now);
        let wait = later.min().map_or(IDLE, |due| due.since(now));
        wait.clamp(Duration::from_millis(1), IDLE)
    }
}
