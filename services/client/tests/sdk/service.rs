//! A service in memory that keeps the public contract, and has bad days when told to.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use esker_client::{Code, Durability};
use esker_proto::v1::append_request::Payload;
use esker_proto::v1::log_server::{Log, LogServer};
use esker_proto::v1::{self, AppendReply, AppendRequest, ReadReply, ReadRequest, append_reply};
use esker_proto::{transport, tuning};
use esker_record::{Batch, Depth, Rules, Scratch, admit};
use esker_types::limits::PRODUCER_WINDOW;
use esker_types::{Incarnation, ProducerId, ProducerStamp, RaftIndex};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::admin::Topics;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What becomes of one append.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Decided by the log.
    Decide,
    /// The same, later.
    Late(Duration),
    /// Refused before the log sees it.
    Refuse(Code, Durability),
    /// Decided by the log, but nobody knows.
    Unheard,
    /// Decided by the log; the stream breaks in place of the reply.
    Break,
    /// The stream breaks before the log sees it.
    BreakBefore,
    /// The service stops: neither this nor what follows is taken, and it says so.
    Stop,
    /// Neither seen nor answered.
    Silence,
}

type Fates = Box<dyn FnMut(&AppendRequest) -> Fate + Send>;

/// One partition.
#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) log_start: u64,
    pub(crate) end: u64,
    pub(crate) batches: Vec<(u64, Bytes)>,
    /// What is known of each producer; a service forgets who is silent for a day.
    pub(crate) producers: BTreeMap<u64, Known>,
    pub(crate) damaged: Option<(u64, u64)>,
}

pub(crate) struct Known {
    epoch: i16,
    next: i32,
    window: VecDeque<(ProducerStamp, u32, u64)>,
}

pub(crate) struct State {
    pub(crate) topics: Topics,
    pub(crate) partitions: BTreeMap<(String, u32), Partition>,
    fates: Fates,
    /// Replies after which each read breaks.
    pub(crate) read_breaks_after: Option<usize>,
    /// What of each partition nobody has answered, and the most there was of it.
    unanswered: BTreeMap<u32, usize>,
    pub(crate) unanswered_max: usize,
    pub(crate) append_requests: usize,
    pub(crate) reads: Vec<ReadRequest>,
    pub(crate) truncations: Vec<v1::TruncateTopicRequest>,
    producers: u64,
    appended: watch::Sender<u64>,
    /// Sent in place of the batch at this offset.
    pub(crate) flip: Option<(u64, Bytes)>,
    /// The life that marks tell of.
    pub(crate) incarnation: Incarnation,
    /// What the next append streams are refused with, each once.
    pub(crate) append_refusals: VecDeque<v1::Error>,
}

#[derive(Clone)]
pub(crate) struct Service(Arc<Mutex<State>>);

impl Service {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            topics: Topics::default(),
            partitions: BTreeMap::new(),
            fates: Box::new(|_| Fate::Decide),
            read_breaks_after: None,
            unanswered: BTreeMap::new(),
            unanswered_max: 0,
            append_requests: 0,
            reads: Vec::new(),
            truncations: Vec::new(),
            producers: 0,
            appended: watch::Sender::new(0),
            flip: None,
            incarnation: Incarnation::FIRST,
            append_refusals: VecDeque::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fates(&self, fates: impl FnMut(&AppendRequest) -> Fate + Send + 'static) {
        self.state().fates = Box::new(fates);
    }

    /// Serves on `listener` until the runtime ends.
    pub(crate) fn serve(&self, listener: Box<dyn esker_env::Listener>) {
        let log = LogServer::new(self.clone())
            .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX);
        let served = tuning::server()
            .add_service(log)
            .add_service(self.admin())
            .serve_with_incoming(transport::incoming(listener));
        tokio::spawn(async move { served.await.unwrap() });
    }

    /// Values of a partition as they stand in the log.
    pub(crate) fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        let state = self.state();
        let Some(found) = state.partitions.get(&(topic.to_owned(), partition)) else {
            return Vec::new();
        };
        let mut scratch = Scratch::new(0);
        let mut values = Vec::new();
        for (_, bytes) in &found.batches {
            let batch = Batch::open(bytes.clone()).unwrap();
            let plain = scratch.decode(&batch).unwrap();
            for record in esker_record::Records::new(batch.header(), &plain) {
                let value = record.unwrap().value.unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        values
    }
}

pub(crate) fn error(code: Code, durability: Durability) -> v1::Error {
    v1::Error::new(code, durability, format!("told to say {code:?}"))
}

impl State {
    /// Somebody deletes the topic and makes it anew, and writes as many records as there were.
    pub(crate) fn make_anew(&mut self, name: &str) {
        let partitions = self.topics.get(name).unwrap().partitions;
        self.topics.create(name, partitions, &[]);
        let of_topic = self.partitions.iter_mut().filter(|((of, _), _)| of == name);
        of_topic.for_each(|(_, partition)| partition.log_start = 0);
    }

    /// A service by the rules of the log: duplicates, sequence, offsets.
    fn append(&mut self, request: &AppendRequest) -> Result<v1::Appended, Code> {
        let Some(topic) = self.topics.get(&request.topic) else {
            return Err(Code::UnknownTopic);
        };
        if request.partition >= topic.partitions {
            return Err(Code::UnknownPartition);
        }
        let Some(Payload::Batch(bytes)) = &request.payload else {
            return Err(Code::InvalidRequest);
        };
        let rules = Rules {
            batch_bytes_max: topic.settings["max_batch_bytes"].parse().unwrap(),
            depth: Depth::Deep,
        };
        let Ok(checked) = admit(bytes.clone(), &rules, &mut Scratch::new(0)) else {
            return Err(Code::MalformedBatch);
        };
        let header = *checked.batch.header();
        let key = (request.topic.clone(), request.partition);
        let partition = self.partitions.entry(key).or_default();
        let appended = |base, duplicate| v1::Appended {
            base_offset: base,
            end: base + u64::from(header.records),
            duplicate,
        };
        if let Some(stamp) = header.producer {
            match partition.check(&stamp, header.records) {
                Ok(Some(base)) => return Ok(appended(base, true)),
                Ok(None) => partition.remember(stamp, header.records),
                Err(code) => return Err(code),
            }
        }
        let base = partition.end;
        partition.batches.push((base, bytes.clone()));
        partition.end += u64::from(header.records);
        self.appended.send_modify(|count| *count += 1);
        Ok(appended(base, false))
    }

    fn flipped(&self, mut reply: ReadReply) -> ReadReply {
        for batch in &mut reply.batches {
            if let Some((_, bytes)) = self
                .flip
                .as_ref()
                .filter(|flip| flip.0 == batch.base_offset)
            {
                batch.data = bytes.clone();
            }
        }
        reply
    }

    fn received(&mut self, partition: u32) {
        self.append_requests += 1;
        let open = self.unanswered.entry(partition).or_default();
        *open += 1;
        self.unanswered_max = self.unanswered_max.max(*open);
    }

    fn answered(&mut self, partition: u32) {
        *self.unanswered.get_mut(&partition).unwrap() -= 1;
    }
}

/// What a refusal of the log says of the batch: if what would tell is forgotten, nothing.
const fn durability(code: Code) -> Durability {
    match code {
        Code::DuplicateExpired => Durability::Unknown,
        _ => Durability::NotWritten,
    }
}

impl Partition {
    fn check(&self, stamp: &ProducerStamp, records: u32) -> Result<Option<u64>, Code> {
        let (epoch, sequence) = (stamp.epoch.as_i16(), stamp.sequence.as_i32());
        let Some(known) = self.producers.get(&stamp.id.as_u64()) else {
            return if sequence == 0 {
                Ok(None)
            } else {
                Err(Code::DuplicateExpired)
            };
        };
        let same = |mark: &&(ProducerStamp, u32, u64)| (mark.0, mark.1) == (*stamp, records);
        if let Some((.., base)) = known.window.iter().find(same) {
            return Ok(Some(*base));
        }
        let next = if epoch > known.epoch { 0 } else { known.next };
        if epoch < known.epoch {
            Err(Code::StaleProducerEpoch)
        } else if sequence > next {
            Err(Code::SequenceGap)
        } else if sequence < next {
            Err(Code::SequenceReused)
        } else {
            Ok(None)
        }
    }

    fn remember(&mut self, stamp: ProducerStamp, records: u32) {
        let base = self.end;
        let known = self.producers.entry(stamp.id.as_u64()).or_insert(Known {
            epoch: stamp.epoch.as_i16(),
            next: 0,
            window: VecDeque::new(),
        });
        if stamp.epoch.as_i16() > known.epoch {
            known.epoch = stamp.epoch.as_i16();
            known.window.clear();
        }
        known.window.push_back((stamp, records, base));
        while known.window.len() > PRODUCER_WINDOW {
            known.window.pop_front();
        }
        known.next = stamp.sequence.after(records).as_i32();
    }

    fn found(&self, at: Option<v1::Position>) -> u64 {
        match at.and_then(|position| position.at) {
            None => self.log_start,
            Some(v1::position::At::Edge(edge)) if edge == i32::from(v1::Edge::End) => self.end,
            Some(v1::position::At::Edge(_)) => self.log_start,
            Some(v1::position::At::Offset(offset)) => offset,
            Some(v1::position::At::TimestampMs(ms)) => {
                let late = |(_, bytes): &&(u64, Bytes)| {
                    let batch = Batch::open(bytes.clone()).unwrap();
                    batch.header().max_timestamp.0 >= ms
                };
                self.batches
                    .iter()
                    .find(late)
                    .map_or(self.end, |(base, _)| *base)
            }
        }
    }

    /// What one reply of a read holds: at most two batches from the one that holds `next`.
    fn reply(
        &self,
        life: Incarnation,
        next: u64,
        until: u64,
        skip: bool,
    ) -> Result<ReadReply, Status> {
        let mark = v1::Mark::new(life, RaftIndex(self.end));
        let mut reply = ReadReply {
            mark: Some(mark),
            log_start: self.log_start,
            end: self.end,
            next_offset: next,
            ..ReadReply::default()
        };
        for (base, bytes) in &self.batches {
            let end = base + u64::from(Batch::open(bytes.clone()).unwrap().header().records);
            if end <= reply.next_offset || *base >= until || reply.batches.len() == 2 {
                continue;
            }
            if let Some((start, stop)) = self.damaged.filter(|range| range.0 == *base) {
                if !reply.batches.is_empty() {
                    break;
                }
                let damage = v1::Damage {
                    topic: "t".to_owned(),
                    partition: 0,
                    start,
                    end: stop,
                    object: String::new(),
                };
                let told = error(Code::DataLoss, Durability::Durable)
                    .with_detail(v1::error::Detail::Damage(damage));
                if !skip {
                    return Err(told.into());
                }
                reply.skipped = Some(told);
            } else {
                reply.batches.push(v1::Batch {
                    base_offset: *base,
                    data: bytes.clone(),
                });
            }
            reply.next_offset = end;
        }
        Ok(reply)
    }
}

#[tonic::async_trait]
impl Log for Service {
    type AppendStream = Replies<AppendReply>;
    type ReadStream = Replies<ReadReply>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (service, mut requests) = (self.clone(), request.into_inner());
        let refusal = service.state().append_refusals.pop_front();
        if let Some(refusal) = refusal {
            // By then some of them are on their way.
            tokio::time::sleep(Duration::from_millis(10)).await;
            return Err(refusal.into());
        }
        // Requests are taken as they come, so that what a client has in flight is seen here.
        let (queue, queued) = mpsc::channel(1024);
        tokio::spawn({
            let service = service.clone();
            async move {
                while let Some(Ok(request)) = requests.next().await {
                    service.state().received(request.partition);
                    if queue.send(request).await.is_err() {
                        break;
                    }
                }
            }
        });
        let broken = || Status::unavailable("told to break");
        let replies = stream::unfold((queued, false), move |(mut queued, over)| {
            let service = service.clone();
            async move {
                loop {
                    let request = if over { None } else { queued.recv().await }?;
                    let fate = (service.state().fates)(&request);
                    if let Fate::Late(wait) = fate {
                        tokio::time::sleep(wait).await;
                    }
                    let mut state = service.state();
                    state.answered(request.partition);
                    let result = match fate {
                        Fate::Decide | Fate::Late(_) => state
                            .append(&request)
                            .map_err(|code| error(code, durability(code))),
                        Fate::Refuse(code, durability) => Err(error(code, durability)),
                        Fate::Unheard => {
                            let _ = state.append(&request);
                            Err(error(Code::OutcomeUnknown, Durability::Unknown))
                        }
                        Fate::Break => {
                            let _ = state.append(&request);
                            return Some((Err(broken()), (queued, true)));
                        }
                        Fate::BreakBefore => return Some((Err(broken()), (queued, true))),
                        Fate::Stop => {
                            let stops = error(Code::Unavailable, Durability::NotWritten);
                            return Some((Err(stops.into()), (queued, true)));
                        }
                        Fate::Silence => continue,
                    };
                    let reply = AppendReply {
                        request_id: request.request_id,
                        result: Some(match result {
                            Ok(appended) => append_reply::Result::Appended(appended),
                            Err(error) => append_reply::Result::Error(error),
                        }),
                    };
                    return Some((Ok(reply), (queued, false)));
                }
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let (next, until, breaks, appended) = {
            let mut state = self.state();
            state.reads.push(request.clone());
            let topic = state.topics.get(&request.topic).map(|topic| topic.id);
            if request.topic_id.is_some() && request.topic_id != topic {
                return Err(error(Code::UnknownTopic, Durability::NotWritten).into());
            }
            let (breaks, appended) = (state.read_breaks_after, state.appended.subscribe());
            let life = state.incarnation.get();
            let key = (request.topic.clone(), request.partition);
            let partition = state.partitions.entry(key).or_default();
            if request.mark.is_some_and(|mark| mark.incarnation != life) {
                let told = error(Code::OtherIncarnation, Durability::Durable)
                    .with_detail(v1::error::Detail::End(partition.end));
                return Err(told.into());
            }
            let next = partition.found(request.from);
            if next < partition.log_start || next > partition.end {
                let range = v1::OffsetOutOfRange {
                    log_start: partition.log_start,
                    end: partition.end,
                };
                let told = error(Code::OffsetOutOfRange, Durability::NotWritten)
                    .with_detail(v1::error::Detail::OutOfRange(range));
                return Err(told.into());
            }
            let until = request.until.map(|until| partition.found(Some(until)));
            let until = until.unwrap_or(partition.end);
            let until = if request.follow { u64::MAX } else { until };
            (next, until, breaks, appended)
        };
        let service = self.clone();
        let replies = stream::unfold(
            (next, 0usize, appended),
            move |(next, sent, mut appended)| {
                let (service, request) = (service.clone(), request.clone());
                async move {
                    if next >= until && sent > 0 {
                        return None;
                    }
                    if breaks == Some(sent) {
                        return Some((
                            Err(Status::unavailable("told to break")),
                            (u64::MAX, 1, appended),
                        ));
                    }
                    let reply = loop {
                        appended.borrow_and_update();
                        let reply = {
                            let state = service.state();
                            let key = (request.topic.clone(), request.partition);
                            let (life, skip) = (state.incarnation, request.skip_damaged);
                            let reply = state.partitions[&key].reply(life, next, until, skip);
                            reply.map(|reply| state.flipped(reply))
                        };
                        match reply {
                            Ok(reply) if reply.next_offset == next && sent > 0 => {
                                if appended.changed().await.is_err() {
                                    return None;
                                }
                            }
                            reply => break reply,
                        }
                    };
                    let next = reply.as_ref().map_or(u64::MAX, |reply| reply.next_offset);
                    Some((reply, (next, sent + 1, appended)))
                }
            },
        );
        Ok(Response::new(Box::pin(replies)))
    }

    async fn offsets(
        &self,
        request: Request<v1::OffsetsRequest>,
    ) -> Result<Response<v1::OffsetsReply>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let Some(topic) = state.topics.get(&request.topic) else {
            return Err(error(Code::UnknownTopic, Durability::NotWritten).into());
        };
        let (id, count, life) = (topic.id, topic.partitions, state.incarnation);
        let mut partitions = Vec::new();
        for index in request.partitions {
            if index >= count {
                return Err(error(Code::UnknownPartition, Durability::NotWritten).into());
            }
            let key = (request.topic.clone(), index);
            let partition = state.partitions.entry(key).or_default();
            partitions.push(v1::PartitionOffsets {
                partition: index,
                log_start: partition.log_start,
                tiered_end: 0,
                end: partition.end,
                found: request.at.map(|at| partition.found(Some(at))),
                mark: Some(v1::Mark::new(life, RaftIndex(partition.end))),
                topic_id: Some(id),
            });
        }
        Ok(Response::new(v1::OffsetsReply { partitions }))
    }

    async fn allocate_producer(
        &self,
        _: Request<v1::AllocateProducerRequest>,
    ) -> Result<Response<v1::AllocateProducerReply>, Status> {
        let mut state = self.state();
        state.producers += 1;
        let id = ProducerId::new(Incarnation::FIRST, state.producers).unwrap();
        Ok(Response::new(v1::AllocateProducerReply {
            producer_id: id.as_u64(),
            epoch: 0,
        }))
    }
}
