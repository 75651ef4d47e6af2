//! The task of a producer: takes records, makes batches, sends them, and tells what became of
//! them. It alone holds state, so nothing is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Monotonic, WorkersExt};
use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{self, AppendReply, AppendRequest, append_reply, append_request};
use esker_types::{Durability, Offset, ProducerStamp};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;

use super::gather::{Bundle, Gather, Letter, Press, Receipts, Sealed};
use super::link::Link;
use super::settings::Settings;
use super::window::{Failed, Refusal, Serial, Session, Window};
use crate::client::Client;
use crate::error::{Code, Error};
use crate::patience::Rests;

/// Orders that wait for the task, and that it takes at once.
pub(super) const LETTERS_MAX: usize = 256;
/// Flushes waited for at a time.
const FLUSHES_MAX: usize = 1024;
/// Bytes of a batch up to which compressing it is quicker than handing it to another thread.
const SEAL_HERE_BYTES: usize = 16 << 10;
/// Presses kept for the next batch: each has buffers of its own.
const PRESSES_MAX: usize = 4;
/// How long the task sleeps if nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What a producer's handles ask for.
#[derive(Debug)]
pub(super) enum Order {
    Append(Letter),
    Flush(oneshot::Sender<()>),
}

struct Partition {
    gather: Gather,
    /// Number of the first record of the batch that is being made, if one is.
    sealing: Option<u64>,
    window: Window<Sealed>,
}

struct Pressed {
    partition: u32,
    press: Press,
    opened: Monotonic,
    sealed: Result<Sealed, (Receipts, esker_record::Error)>,
}

struct Waiting {
    before: u64,
    settled: oneshot::Sender<()>,
}

pub(super) struct Pump {
    settings: Arc<Settings>,
    env: Env,
    client: LogClient<Channel>,
    rests: Rests,
    orders: mpsc::Receiver<Order>,
    closed: bool,
    partitions: BTreeMap<u32, Partition>,
    /// Those with something that is not settled.
    active: BTreeSet<u32>,
    pressing: FuturesUnordered<Pin<Box<dyn Future<Output = Pressed> + Send>>>,
    presses: Vec<Press>,
    link: Link,
    link_failures: u32,
    link_rests_until: Monotonic,
    /// Why a try failed last, for the error of what is not settled in time.
    last_failure: Option<String>,
    /// Tries under way, by request id.
    tries: BTreeMap<u64, (u32, Serial)>,
    requests: u64,
    /// Records taken.
    taken: u64,
    /// Where records without a key go at present.
    sticky: u32,
    flushes: Vec<Waiting>,
    /// Records below this number do not linger.
    flush_before: u64,
}

impl Pump {
    pub(super) fn new(
        client: &Client,
        settings: Arc<Settings>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let first = client.env.entropy.next_u64() % u64::from(settings.partitions);
        Self {
            sticky: u32::try_from(first).expect("below the number of partitions"),
            settings,
            env: client.env.clone(),
            client: client.log(),
            rests: Rests::new(&client.env),
            orders,
            closed: false,
            partitions: BTreeMap::new(),
            active: BTreeSet::new(),
            pressing: FuturesUnordered::new(),
            presses: Vec::new(),
            link: Link::Down,
            link_failures: 0,
            link_rests_until: client.env.clock.monotonic(),
            last_failure: None,
            tries: BTreeMap::new(),
            requests: 0,
            taken: 0,
            flushes: Vec::new(),
            flush_before: 0,
        }
    }

    /// Runs until all handles are gone and everything is settled.
    pub(super) async fn run(mut self) {
        let mut orders = Vec::with_capacity(LETTERS_MAX);
        loop {
            let blocked = self.work();
            if self.closed && self.active.is_empty() {
                return;
            }
            let wake = self.until_next_due();
            let room = Link::room(if blocked { self.link.requests() } else { None });
            tokio::select! {
                biased;
                reply = self.link.reply() => match reply {
                    Ok(reply) => self.take_reply(reply),
                    Err(error) => self.take_break(&error.to_string()),
                },
                Some(pressed) = self.pressing.next() => self.take_pressed(pressed),
                () = room => {}
                count = self.orders.recv_many(&mut orders, LETTERS_MAX), if !self.closed => {
                    self.closed = count == 0;
                    let now = self.now();
                    orders.drain(..).for_each(|order| self.take_order(order, now));
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn now(&self) -> Monotonic {
        self.env.clock.monotonic()
    }

    fn partition(&mut self, index: u32) -> &mut Partition {
        self.active.insert(index);
        let producer = self.settings.producer;
        self.partitions.entry(index).or_insert_with(|| Partition {
            gather: Gather::default(),
            sealing: None,
            window: Window::new(producer.map(|(id, epoch)| Session::new(id, epoch))),
        })
    }

    // ── What comes in ────────────────────────────────────────────────────────────────────────

    fn take_order(&mut self, order: Order, now: Monotonic) {
        match order {
            Order::Append(letter) => {
                let target = self.settings.target_bytes;
                let index = self.choose(&letter, target);
                let number = self.taken;
                self.taken += 1;
                self.partition(index)
                    .gather
                    .add(letter, number, target, now);
            }
            Order::Flush(settled) if self.flushes.len() < FLUSHES_MAX => {
                self.flush_before = self.taken;
                let before = self.taken;
                self.flushes.push(Waiting { before, settled });
            }
            // Its sender is dropped, which says so.
            Order::Flush(_) => {}
        }
    }

    fn choose(&mut self, letter: &Letter, target: usize) -> u32 {
        if let Some(partition) = letter.partition {
            return partition;
        }
        let open = self.partitions.get(&self.sticky);
        if open.is_some_and(|p| p.gather.is_full_for(letter.bytes, target)) {
            self.move_on();
        }
        self.sticky
    }

    /// Records without a key go elsewhere from now on: the batch they went into is closed.
    fn move_on(&mut self) {
        self.sticky = (self.sticky + 1) % self.settings.partitions;
    }

    fn take_pressed(&mut self, pressed: Pressed) {
        let Pressed {
            partition: index,
            press,
            opened,
            sealed,
        } = pressed;
        if self.presses.len() < PRESSES_MAX {
            self.presses.push(press);
        }
        let deadline = Monotonic(opened.0 + self.settings.delivery_timeout());
        let partition = self.partition(index);
        partition.sealing = None;
        match sealed {
            Ok(sealed) => {
                let records = sealed.batch.header().records;
                partition.window.push(sealed, records, deadline);
            }
            Err((receipts, error)) => receipts.fail(&refused_here(&error)),
        }
    }

    fn take_reply(&mut self, reply: AppendReply) {
        self.link_failures = 0;
        let Some((index, serial)) = self.tries.remove(&reply.request_id) else {
            return;
        };
        let now = self.now();
        match reply.result {
            Some(append_reply::Result::Appended(appended)) => {
                let acked = self.partition(index).window.acked(serial);
                if let Some(sealed) = acked {
                    settle(index, &appended, sealed);
                }
            }
            Some(append_reply::Result::Error(error)) => {
                self.take_refusal(index, serial, error.into(), now);
            }
            None => {
                let error = Error::odd_reply("an append is neither done nor refused");
                self.take_refusal(index, serial, error, now);
            }
        }
    }

    fn take_refusal(&mut self, index: u32, serial: Serial, error: Error, now: Monotonic) {
        let refusal = Refusal {
            code: error.code(),
            durability: error.durability(),
            retriable: error.is_retriable(),
        };
        let rests = self.rests.clone();
        let window = &mut self.partition(index).window;
        match window.refused(serial, refusal) {
            Some(Failed { batch, durability }) => {
                batch.receipts.fail(&error.with_durability(durability));
            }
            None => {
                window.rest(now, |failures| rests.after(failures));
                self.last_failure = Some(error.to_string());
            }
        }
    }

    /// The stream broke, or is given up.
    fn take_break(&mut self, why: &str) {
        self.link = Link::Down;
        self.tries.clear();
        self.link_failures = self.link_failures.saturating_add(1);
        let rest = self.rests.after(self.link_failures);
        self.link_rests_until = Monotonic(self.now().0 + rest);
        let text = format!("the stream broke after the batch was sent: {why}");
        let error = Error::new(Code::OutcomeUnknown, Durability::Unknown, text);
        for index in &self.active {
            let Some(partition) = self.partitions.get_mut(index) else {
                continue;
            };
            for failed in partition.window.cut() {
                let durability = failed.durability;
                let error = error.clone().with_durability(durability);
                failed.batch.receipts.fail(&error);
            }
        }
        self.last_failure = Some(why.to_owned());
    }

    // ── What is due ──────────────────────────────────────────────────────────────────────────

    /// Does all that can be done now. True if batches wait for room in the stream.
    fn work(&mut self) -> bool {
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
    fn until_next_due(&self) -> Duration {
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

impl Partition {
    fn is_settled(&self) -> bool {
        self.oldest().is_none()
    }

    /// Number of the first record that is not settled.
    fn oldest(&self) -> Option<u64> {
        let sent = self.window.batches().next().map(|b| b.receipts.number);
        let gathered = self.gather.front().map(Bundle::number);
        sent.or(self.sealing).or(gathered)
    }
}

fn settle(partition: u32, appended: &v1::Appended, sealed: Sealed) {
    let records = u64::from(sealed.batch.header().records);
    let base = Offset::new(appended.base_offset);
    match base.and_then(|base| Some((base, base.checked_add(records)?))) {
        Some((base, end)) if end.get() == appended.end => sealed.receipts.ack(partition, base),
        _ => {
            let (base, end) = (appended.base_offset, appended.end);
            let text = format!("{records} records are said to be at [{base}, {end})");
            let error = Error::odd_reply(text).with_durability(Durability::Durable);
            sealed.receipts.fail(&error);
        }
    }
}

/// What cannot be made a batch was not sent.
fn refused_here(error: &esker_record::Error) -> Error {
    use esker_record::Error as Cause;
    let new = |code| Error::new(code, Durability::NotWritten, error.to_string());
    match *error {
        Cause::TooLarge { bytes, limit } => new(Code::BatchTooLarge).with_limit(limit, bytes),
        Cause::DecodedTooLarge { at_least, limit } => {
            new(Code::BatchTooLarge).with_limit(limit, at_least)
        }
        _ => new(Code::InvalidRequest),
    }
}
