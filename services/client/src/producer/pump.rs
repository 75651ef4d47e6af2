//! The task of a producer: takes records, makes batches, sends them, and tells what became of
//! them. It alone holds state, so nothing is locked.

mod due; // what is done when something came in or time went by

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Monotonic};
use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{self, AppendReply, append_reply};
use esker_record::Batch;
use esker_types::{Durability, Offset};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;

use super::gather::{Bundle, Gather, Letter, Press, Receipts, Sealed};
use super::link::{Ended, Link, Told};
use super::settings::Settings;
use super::window::{Failed, Refusal, Serial, Session, Window};
use crate::client::Client;
use crate::error::{Code, Error};
use crate::patience::Rests;
use crate::setback::Setback;

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
    /// Number of the first letter of the batch that is being made, if one is.
    sealing: Option<u64>,
    /// Batches are made anew for the next session.
    renewing: bool,
    window: Window<Sealed>,
    /// As they stand in the pump's sets.
    filed: Filed,
}

/// Where a partition stands in the sets that spare the pump from looking at all of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Filed {
    /// When to look at it although nothing came in.
    due: Option<Monotonic>,
    /// Number of its first letter that is not settled.
    oldest: Option<u64>,
}

struct Pressed {
    partition: u32,
    press: Press,
    opened: Monotonic,
    sealed: Result<Sealed, (Receipts, esker_record::Error)>,
}

/// Batches of a partition made anew for its next session, oldest first; `None` for one that cannot
/// be.
struct Renewed {
    partition: u32,
    press: Press,
    batches: Vec<(Serial, Option<Batch>)>,
}

/// What another thread has done.
enum Done {
    Pressed(Pressed),
    Renewed(Renewed),
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
    /// Those that something happened to.
    touched: BTreeSet<u32>,
    /// Those with a batch to send now.
    sending: BTreeSet<u32>,
    /// Those to look at when it is time.
    dues: BTreeSet<(Monotonic, u32)>,
    /// Those with something that is not settled, by the number of their first such letter.
    unsettled: BTreeSet<(u64, u32)>,
    /// At most one of each partition.
    pressing: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    presses: Vec<Press>,
    link: Link,
    /// Requests before this link's first.
    link_began_at: u64,
    link_failures: u32,
    link_rests_until: Monotonic,
    /// Why a try failed last, for the error of what is not settled in time.
    last_failure: Option<Error>,
    /// The same, until something gets on.
    setback: Setback,
    /// Tries under way, by request id.
    tries: BTreeMap<u64, (u32, Serial)>,
    requests: u64,
    /// Letters taken.
    taken: u64,
    /// Where records without a key go at present.
    sticky: u32,
    flushes: Vec<Waiting>,
    /// Letters below this number do not linger.
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
            touched: BTreeSet::new(),
            sending: BTreeSet::new(),
            dues: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            pressing: FuturesUnordered::new(),
            presses: Vec::new(),
            link: Link::Down,
            link_began_at: 0,
            link_failures: 0,
            link_rests_until: client.env.clock.monotonic(),
            last_failure: None,
            setback: client.setbacks.one(),
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
            if self.unsettled.is_empty() {
                self.setback.over();
                if self.closed {
                    return;
                }
            }
            let wake = self.until_next_due();
            let room = Link::room(if blocked { self.link.requests() } else { None });
            tokio::select! {
                biased;
                told = self.link.told() => match told {
                    Ok(Told::Opened) => {}
                    Ok(Told::Reply(reply)) => self.take_reply(reply),
                    Err(ended) => self.take_end(ended),
                },
                Some(done) = self.pressing.next() => match done {
                    Done::Pressed(pressed) => self.take_pressed(pressed),
                    Done::Renewed(renewed) => self.take_renewed(renewed),
                },
                () = room => {}
                count = self.orders.recv_many(&mut orders, LETTERS_MAX), if !self.closed => {
                    if count == 0 {
                        self.closed = true;
                        self.touch_all();
                    }
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

    fn touch_all(&mut self) {
        self.touched
            .extend(self.unsettled.iter().map(|&(_, index)| index));
    }

    /// The partition, which will be looked at.
    fn partition(&mut self, index: u32) -> &mut Partition {
        self.touched.insert(index);
        let producer = self.settings.producer;
        self.partitions.entry(index).or_insert_with(|| Partition {
            gather: Gather::default(),
            sealing: None,
            renewing: false,
            window: Window::new(producer.map(|(id, epoch)| Session::new(id, epoch))),
            filed: Filed::default(),
        })
    }

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
                self.touch_all();
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
        self.keep(press);
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

    fn keep(&mut self, press: Press) {
        if self.presses.len() < PRESSES_MAX {
            self.presses.push(press);
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
                self.setback.over();
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
                self.failed_for_now(error);
            }
        }
    }

    fn failed_for_now(&mut self, error: Error) {
        self.setback.met(&error);
        self.last_failure = Some(error);
    }

    /// The stream ended, or was never there.
    fn take_end(&mut self, ended: Ended) {
        let recalled = ended.took_nothing_more();
        let error = ended.error;
        if recalled {
            // Whatever was on its way, nothing of it was taken.
            self.link.take_down();
            self.recall(0);
            self.rest_link();
            self.touch_all();
            self.failed_for_now(error);
        } else {
            // The code is said of what it came to, and so is durability.
            self.take_break(error.message());
        }
    }

    /// The stream broke, or is given up.
    fn take_break(&mut self, why: &str) {
        let passed = self.link.take_down();
        self.recall(passed);
        self.rest_link();
        let text = format!("the stream broke after the batch was sent: {why}");
        let error = Error::new(Code::OutcomeUnknown, Durability::Unknown, text);
        self.touch_all();
        for index in self.touched.clone() {
            for failed in self.partition(index).window.cut() {
                let durability = failed.durability;
                let error = error.clone().with_durability(durability);
                failed.batch.receipts.fail(&error);
            }
        }
        self.failed_for_now(Error::new(Code::Unavailable, Durability::Unknown, why));
    }

    /// Of the link's requests only the first `passed` may have reached the service.
    fn recall(&mut self, passed: u64) {
        let passed = self.link_began_at + passed;
        for (request, (index, serial)) in std::mem::take(&mut self.tries) {
            if request > passed {
                self.partition(index).window.recalled(serial);
            }
        }
    }

    /// The next link is not made at once.
    fn rest_link(&mut self) {
        self.link_failures = self.link_failures.saturating_add(1);
        let rest = self.rests.after(self.link_failures);
        self.link_rests_until = Monotonic(self.now().0 + rest);
    }
}

impl Partition {
    /// Number of the first letter that is not settled.
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
