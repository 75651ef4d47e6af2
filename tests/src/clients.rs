//! Clients of a log that is being troubled: producers that try until it is settled, readers that look
//! everywhere; every call and answer goes into a history.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use esker_checker::{
    Append, Call, History, Mode, OpId, Outcome, Producer, Read, Recorder, Refusal, Reply, Sequence,
    Session, Stream, ValueHash, Values, View,
};
use esker_env::sim::SeededEntropy;
use esker_log::{AppendError, Bounds, Engine, NewAppend, ReadError, Reader};
use esker_record::{Batch, Scratch};
use esker_types::limits::MIB;
use esker_types::{
    Durability, Lane, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp,
};
use tokio::task::JoinSet;

use crate::whole::{batch, topic};

/// The topic they use, and its partitions.
pub const TOPIC: &str = "gravel";
pub const PARTITIONS: u32 = 3;
const PRODUCERS: u64 = 6;
const READERS: u64 = 3;
/// Times that a producer tries a batch in one life before it waits for the next.
const TRIES_MAX: usize = 20;

type Pen = Recorder<Box<dyn FnMut() -> u64 + Send>, Vec<u8>>;

/// What outlives the processes under test: clients, and what they know.
pub struct Driver {
    pen: Arc<Mutex<Pen>>,
    pub random: Arc<SeededEntropy>,
    producers: Vec<Arc<Mutex<Writer>>>,
    /// Milliseconds that a producer rests between two batches, at most.
    rest_max: u64,
}

/// A producer of one partition, which goes on in every life where it stood.
#[derive(Debug)]
struct Writer {
    producer: Producer,
    partition: u32,
    id: Option<ProducerId>,
    values: Values,
    sequence: Sequence,
    /// Records that came before, as the producer's sequence counts.
    records: u32,
    /// The batch that is not settled, sent again until it is.
    open: Option<Vec<Vec<u8>>>,
    /// Its try under way, of which a dying process will never tell.
    trying: Option<OpId>,
}

impl Driver {
    #[must_use]
    pub fn new(seed: u64, rest_max: u64) -> Self {
        // One thread: the order in which calls are noted is the order of time.
        let mut now = 0;
        let clock: Box<dyn FnMut() -> u64 + Send> = Box::new(move || {
            now += 1;
            now
        });
        let producers = (0..PRODUCERS).map(|number| {
            let partition = u32::try_from(number).expect("a few") % PARTITIONS;
            let (stream, producer) = (Stream(partition.into()), Producer(number));
            Arc::new(Mutex::new(Writer {
                producer,
                partition,
                id: None,
                values: Values::new(stream, producer),
                sequence: Sequence::default(),
                records: 0,
                open: None,
                trying: None,
            }))
        });
        Self {
            pen: Arc::new(Mutex::new(Recorder::new(clock, Vec::new()))),
            random: Arc::new(SeededEntropy::new(seed ^ 0xd1ce)),
            producers: producers.collect(),
            rest_max,
        }
    }

    /// Gives every producer an id, once.
    pub async fn name_producers(&self, engine: &Engine) {
        for writer in &self.producers {
            if lock(writer).id.is_none() {
                let topics = engine.topics();
                let id = topics.allocate_producers(1).await.expect("ids are left");
                lock(writer).id = Some(id);
            }
        }
    }

    /// Starts every `of`th producer and reader from the `first` on, with a view of their own.
    #[must_use]
    pub fn start(&self, engine: &Engine, view: &str, (first, of): (u64, u64)) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let turn = |number: &u64| number % of == first;
        for session in (0..PRODUCERS).filter(turn) {
            let client = self.client(engine, view, session);
            tasks.spawn(client.produce(Arc::clone(self.writer(session))));
        }
        for reader in (0..READERS).filter(turn) {
            let client = self.client(engine, view, PRODUCERS + reader);
            tasks.spawn(client.read_about());
        }
        tasks
    }

    #[must_use]
    pub fn client(&self, engine: &Engine, view: &str, session: u64) -> Client {
        Client {
            engine: engine.clone(),
            pen: Arc::clone(&self.pen),
            random: Arc::clone(&self.random),
            session: Session(session),
            view: view.to_owned(),
            rest_max: self.rest_max,
        }
    }

    fn writer(&self, session: u64) -> &Arc<Mutex<Writer>> {
        &self.producers[usize::try_from(session).expect("a few")]
    }

    /// What the clients of a process were doing when it died, nobody will ever tell.
    pub fn forget_tries(&self, (first, of): (u64, u64)) {
        for session in (0..PRODUCERS).filter(|number| number % of == first) {
            let writer = self.writer(session);
            if let Some(op) = lock(writer).trying.take() {
                lock(&self.pen)
                    .complete(op, Outcome::Unknown)
                    .expect("it is open");
            }
        }
    }

    /// Settles every open batch; whether they all are.
    pub async fn settle(&self, engine: &Engine) -> bool {
        for (session, writer) in (0..).zip(&self.producers) {
            if !self.client(engine, "agent", session).settle(writer).await {
                return false;
            }
        }
        true
    }

    /// Everything that was written down: as lines, and to be judged.
    #[must_use]
    pub fn written(self) -> (History, Vec<u8>) {
        let pen = Arc::into_inner(self.pen).expect("every client has ended");
        let pen = pen.into_inner().unwrap_or_else(PoisonError::into_inner);
        pen.finish().expect("memory takes every line")
    }
}

/// Ends `clients`; one that has panicked fails the test.
pub async fn stop(clients: &mut JoinSet<()>) {
    clients.abort_all();
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// A client of one life.
pub struct Client {
    engine: Engine,
    pen: Arc<Mutex<Pen>>,
    random: Arc<SeededEntropy>,
    session: Session,
    /// What it calls the agent it talks to.
    view: String,
    rest_max: u64,
}

impl Client {
    async fn produce(self, writer: Arc<Mutex<Writer>>) {
        loop {
            self.open_batch(&writer);
            for _ in 0..TRIES_MAX {
                if self.try_batch(&writer).await {
                    break;
                }
                let pause = 1 + self.random.below(300);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let pause = self.random.below(self.rest_max);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Tries the open batch, if there is one, until it is settled; whether it is.
    async fn settle(&self, writer: &Arc<Mutex<Writer>>) -> bool {
        for _ in 0..TRIES_MAX {
            if lock(writer).open.is_none() || self.try_batch(writer).await {
                return true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        false
    }

    fn open_batch(&self, writer: &Mutex<Writer>) {
        let mut writer = lock(writer);
        if writer.open.is_some() {
            return;
        }
        let count = 1 + self.random.below(12);
        let sizes = (0..count).map(|_| usize::try_from(self.random.below(2000)).expect("small"));
        let values = sizes.map(|bytes| writer.values.next(bytes)).collect();
        writer.open = Some(values);
    }

    /// One try; whether the batch is settled.
    async fn try_batch(&self, writer: &Arc<Mutex<Writer>>) -> bool {
        let (op, new) = {
            let mut writer = lock(writer);
            let values = writer.open.clone().expect("there is one");
            let call = Call::Append(Append {
                producer: writer.producer,
                sequence: writer.sequence,
                values: values.iter().map(|value| ValueHash::of(value)).collect(),
                expect: None,
                token: None,
                plain: false,
            });
            let stream = Stream(writer.partition.into());
            let op = lock(&self.pen)
                .invoke(self.session, stream, call)
                .expect("well formed");
            writer.trying = Some(op);
            (op, writer.new_append(&values))
        };
        let appends = self.engine.appends();
        let done = async {
            let ready = appends.check(new).await?;
            appends.submit(ready).await?.await
        };
        let done: Result<_, AppendError> = done.await;
        let mut writer = lock(writer);
        writer.trying = None;
        let outcome = match &done {
            Ok(appended) => Outcome::Ok(Reply::Append {
                base: esker_checker::Offset(appended.range.start().get()),
                count: appended.range.len(),
            }),
            Err(error) if error.durability() == Durability::NotWritten => {
                Outcome::Fail(Refusal::Other)
            }
            Err(_) => Outcome::Unknown,
        };
        lock(&self.pen).complete(op, outcome).expect("it is open");
        let Ok(appended) = done else { return false };
        writer.open = None;
        writer.sequence = Sequence(writer.sequence.0 + 1);
        writer.records += u32::try_from(appended.range.len()).expect("small");
        true
    }

    async fn read_about(self) {
        loop {
            let partition = u32::try_from(self.random.below(PARTITIONS.into())).expect("a few");
            if let Some(end) = self.check_tail(partition).await {
                let from = self.random.below(end + 1);
                let max = 1 + self.random.below(400);
                // What it came to is in the history.
                let _ = self
                    .read(partition, from, max, Mode::Linearizable, "live")
                    .await;
            }
            let pause = 1 + self.random.below(200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn check_tail(&self, partition: u32) -> Option<u64> {
        let mode = Mode::Linearizable;
        let op = self.invoke(partition, Call::CheckTail { mode });
        let reader = self.open(partition, None).await;
        let outcome = match &reader {
            Ok(reader) => Outcome::Ok(Reply::Tail {
                start: Some(esker_checker::Offset(reader.bounds().log_start.get())),
                tail: esker_checker::Offset(reader.bounds().end.get()),
            }),
            Err(_) => Outcome::Fail(Refusal::Other),
        };
        lock(&self.pen).complete(op, outcome).expect("it is open");
        reader.ok().map(|reader| reader.bounds().end.get())
    }

    /// Reads a run of records; how far it came, and whether that was the end.
    async fn read(
        &self,
        partition: u32,
        from: u64,
        max: u64,
        mode: Mode,
        tier: &str,
    ) -> Result<(u64, bool), ReadError> {
        let call = Call::Read(Read {
            from: esker_checker::Offset(from),
            max,
            mode,
            view: View::new(&self.view, tier),
        });
        let op = self.invoke(partition, call);
        let read = self.records(partition, from, max).await;
        let outcome = match &read {
            Ok((records, tail)) => Outcome::Ok(Reply::Read {
                records: records.clone(),
                tail: tail.map(esker_checker::Offset),
            }),
            Err(ReadError::OutOfRange { log_start, end, .. }) => {
                Outcome::Fail(Refusal::OutOfRange {
                    start: esker_checker::Offset(log_start.get()),
                    end: esker_checker::Offset(end.get()),
                })
            }
            Err(_) => Outcome::Fail(Refusal::Other),
        };
        lock(&self.pen).complete(op, outcome).expect("it is open");
        let (records, tail) = read?;
        let next = records.last().map_or(from, |(offset, _)| offset.0 + 1);
        Ok((next, tail.is_some()))
    }

    async fn records(
        &self,
        partition: u32,
        from: u64,
        max: u64,
    ) -> Result<(Vec<(esker_checker::Offset, ValueHash)>, Option<u64>), ReadError> {
        let mut reader = self.open(partition, Some(from)).await?;
        if self.random.below(2) == 0 {
            reader = reader.prefer_followers();
        }
        let mut scratch = Scratch::new(MIB);
        let mut records = Vec::new();
        while (records.len() as u64) < max {
            let told = reader.bounds();
            let chunk = reader.step().await?;
            not_taken_back(told, chunk.bounds);
            if chunk.batches.is_empty() {
                return Ok((records, Some(chunk.bounds.end.get())));
            }
            for read in chunk.batches {
                let opened = Batch::open(read.bytes).expect("its checksum was checked");
                let plain = scratch.decode(&opened).expect("it was admitted once");
                for (offset, record) in (read.range.start().get()..).zip(plain.records()) {
                    let value = record.expect("it was admitted once").value;
                    if offset >= from && (records.len() as u64) < max {
                        let hash = ValueHash::of(value.unwrap_or_default());
                        records.push((esker_checker::Offset(offset), hash));
                    }
                }
            }
        }
        Ok((records, None))
    }

    /// The full read of every partition.
    pub async fn read_all(&self, tier: &str) {
        for partition in 0..PARTITIONS {
            let mut from = 0;
            loop {
                let read = self.read(partition, from, 1000, Mode::Final, tier).await;
                let (next, at_end) = read.expect("a healthy log is readable");
                from = next;
                if at_end {
                    break;
                }
            }
        }
    }

    async fn open(&self, partition: u32, from: Option<u64>) -> Result<Reader, ReadError> {
        let index = PartitionIndex(partition);
        let found = self.engine.topics().partition(&topic(TOPIC), index).await;
        let (_, shard, partition) = match found {
            Ok(found) => found,
            Err(esker_log::TopicError::Head(error)) => return Err(error.into()),
            Err(error) => unreachable!("{error}"),
        };
        let readers = self.engine.readers();
        let from = match from {
            Some(from) => Offset::new(from).expect("small"),
            None => readers.bounds(shard, partition).await?.end,
        };
        readers.open(shard, partition, from, Lane::Tail).await
    }

    fn invoke(&self, partition: u32, call: Call) -> OpId {
        let stream = Stream(partition.into());
        let op = lock(&self.pen).invoke(self.session, stream, call);
        op.expect("well formed")
    }
}

impl Writer {
    fn new_append(&self, values: &[Vec<u8>]) -> NewAppend {
        let sequence = i32::try_from(self.records).expect("a short test");
        let stamp = ProducerStamp {
            id: self.id.expect("named at the start of a life"),
            epoch: ProducerEpoch::FIRST,
            sequence: esker_types::Sequence::from_i32(sequence).expect("not negative"),
        };
        NewAppend {
            topic: topic(TOPIC),
            partition: PartitionIndex(self.partition),
            batch: batch(values, Some(stamp)),
            expected_end: None,
            fencing: None,
        }
    }
}

/// Whoever answers a reader, no watermark goes back.
fn not_taken_back(told: Bounds, now: Bounds) {
    let marks = |of: Bounds| [of.log_start, of.tiered_end, of.end];
    let mut pairs = marks(told).into_iter().zip(marks(now));
    assert!(
        told.mark <= now.mark && pairs.all(|(told, now)| told <= now),
        "a reader was told {told:?}, and then {now:?}"
    );
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?} of {})", self.session, self.view)
    }
}
