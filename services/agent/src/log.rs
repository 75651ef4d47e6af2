//! The service Log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use esker_env::Env;
use esker_log::{Bounds, Engine, ReadError};
use esker_proto::v1;
use esker_proto::v1::log_server::Log;
use esker_types::limits::{
    APPEND_STREAMS_MAX, PARTITIONS_PER_TOPIC_MAX, PRODUCER_ID_BLOCK, READ_REPLIES_WAITING,
    READ_STREAMS_MAX, STREAM_APPENDS_MAX,
};
use esker_types::{Lane, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::append::{Appending, Taking};
use crate::budget::{Budget, Budgets};
use crate::fault;
use crate::plain::Scratches;
use crate::position::{Found, partitions, resolve};
use crate::read::{Reading, Reads, mark};
use crate::server::Stopping;
use crate::stream::{Replies, replies};
use crate::traffic::Traffic;

/// Partitions that one request looks for a time in at once.
const OFFSETS_IN_FLIGHT: usize = 8;

/// Serves appends and reads. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct LogService {
    engine: Engine,
    env: Env,
    traffic: Traffic,
    /// Producer ids that the catalog gave this agent and nobody has yet.
    producers: Arc<Mutex<Producers>>,
    append_budget: Budget,
    append_places: Arc<Semaphore>,
    reads: Reads,
    read_places: Arc<Semaphore>,
    stopping: Stopping,
}

#[derive(Debug, Default)]
struct Producers {
    next: Option<ProducerId>,
    left: u64,
}

impl LogService {
    pub(crate) fn new(
        engine: Engine,
        env: Env,
        traffic: Traffic,
        budgets: Budgets,
        stopping: Stopping,
    ) -> Self {
        Self {
            engine,
            producers: Arc::default(),
            append_budget: Budget::new(budgets.append_bytes, traffic.appends_held()),
            append_places: Arc::new(Semaphore::new(APPEND_STREAMS_MAX)),
            reads: Reads {
                env: env.clone(),
                budget: Budget::new(budgets.read_bytes, traffic.reads_held()),
                scratches: Scratches::default(),
            },
            read_places: Arc::new(Semaphore::new(READ_STREAMS_MAX)),
            env,
            traffic,
            stopping,
        }
    }

    /// A partition of the topic of this name, if that is the one that was `seen`.
    async fn find(
        &self,
        topic: &str,
        seen: Option<TopicId>,
        partition: u32,
    ) -> Result<Found, v1::Error> {
        let topic = fault::topic_name(topic)?;
        let (topics, index) = (self.engine.topics(), PartitionIndex(partition));
        let mut before = None;
        loop {
            let found = topics.partition_of(&topic, seen, index).await;
            let (_, shard, partition) = found.map_err(fault::of_topic)?;
            let bounds = self.engine.readers().bounds(shard, partition).await;
            if let Err(ReadError::UnknownPartition { .. }) = bounds
                && before != Some(partition)
            {
                // What is known here may be a moment old, and the topic made anew since.
                topics.forget(&topic);
                before = Some(partition);
                continue;
            }
            let bounds = bounds.map_err(|error| fault::of_read(&error, &topic))?;
            return Ok(Found {
                topic,
                shard,
                partition,
                bounds,
            });
        }
    }

    async fn reading(&self, request: v1::ReadRequest) -> Result<Reading, v1::Error> {
        let place = Arc::clone(&self.read_places).try_acquire_owned();
        // Before anything is looked up: who has no place costs nobody anything.
        let place = place.map_err(|_| fault::no_place("reads", READ_STREAMS_MAX))?;
        let v1::ReadRequest { format, follow, .. } = request;
        let format = v1::ReadFormat::try_from(format).map_err(|_| {
            fault::invalid(format!(
                "the format {format} is unknown; 0 is BATCHES, 1 is RECORDS"
            ))
        })?;
        let v1::ReadRequest { preference, .. } = request;
        let preference = v1::ReadPreference::try_from(preference).map_err(|_| {
            fault::invalid(format!(
                "the preference {preference} is unknown; 0 is LEADER, 1 is FOLLOWER"
            ))
        })?;
        if follow && request.until.is_some() {
            return Err(fault::invalid(
                "`follow` goes on for ever: leave `until` out",
            ));
        }
        let seen = fault::topic_id(request.topic_id)?;
        let found = self.find(&request.topic, seen, request.partition).await?;
        check_mark(request.mark, &found)?;
        let readers = self.engine.readers();
        let start = found.bounds.log_start;
        let from = resolve(readers, &found, request.from, start).await?;
        let end = found.bounds.end;
        let until = resolve(readers, &found, request.until, end).await?.min(end);
        let lane = if request.backfill {
            Lane::Backfill
        } else {
            Lane::Tail
        };
        let reader = readers.open(found.shard, found.partition, from, lane).await;
        let reader = reader.map_err(|error| fault::of_read(&error, &found.topic))?;
        Ok(Reading {
            topic: found.topic,
            reader: match preference {
                v1::ReadPreference::Leader => reader,
                v1::ReadPreference::Follower => reader.prefer_followers(),
            },
            from,
            until: (!follow).then_some(until),
            format,
            skip_damaged: request.skip_damaged,
            open: self.traffic.read(),
            agent: self.reads.clone(),
            _place: place,
        })
    }

    /// Where `found` begins and ends, and what `at` stands for in it.
    async fn offsets_of(
        &self,
        found: Found,
        at: Option<v1::Position>,
    ) -> Result<v1::PartitionOffsets, v1::Error> {
        let looked_up = match at {
            None => None,
            Some(at) => {
                let end = found.bounds.end;
                let offset = resolve(self.engine.readers(), &found, Some(at), end).await?;
                Some(offset.get())
            }
        };
        let Bounds {
            log_start,
            tiered_end,
            end,
            mark: at_mark,
        } = found.bounds;
        Ok(v1::PartitionOffsets {
            partition: found.partition.index.0,
            log_start: log_start.get(),
            tiered_end: tiered_end.get(),
            end: end.get(),
            found: looked_up,
            mark: Some(mark(at_mark)),
            topic_id: Some(found.partition.topic.as_u64()),
        })
    }

    /// The partitions of `topic` that are asked for, in that order; all of them if none is named.
    async fn wanted(&self, topic: &str, wanted: &[u32]) -> Result<Vec<Found>, v1::Error> {
        if let [only] = wanted {
            return Ok(vec![self.find(topic, None, *only).await?]);
        }
        let name = fault::topic_name(topic)?;
        let view = self.engine.topics().find(&name).await;
        let view = view.map_err(fault::of_topic)?;
        let all = partitions(&self.engine, &view).await?;
        let known: BTreeMap<_, _> = all
            .iter()
            .map(|found| (found.partition.index.0, found))
            .collect();
        let asked = match wanted {
            [] => (0..view.partitions()).collect(),
            some => some.to_vec(),
        };
        let mut found = Vec::with_capacity(asked.len());
        for index in asked {
            found.push(match known.get(&index) {
                Some(known) => Found::clone(known),
                // One that its shard has yet to hear of, or none at all.
                None => self.find(topic, Some(view.id), index).await?,
            });
        }
        Ok(found)
    }

    async fn producer(&self) -> Result<ProducerId, v1::Error> {
        if let Some(id) = self.producers().take() {
            return Ok(id);
        }
        let count = u32::try_from(PRODUCER_ID_BLOCK).expect("a thousand");
        let first = self.engine.topics().allocate_producers(count).await;
        let first = first.map_err(fault::of_head)?;
        let mut producers = self.producers();
        // Two may have asked at once: what is left of the other's block is given up.
        *producers = Producers {
            next: Some(first),
            left: PRODUCER_ID_BLOCK,
        };
        Ok(producers.take().expect("a block was just put in"))
    }

    fn producers(&self) -> std::sync::MutexGuard<'_, Producers> {
        self.producers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producers {
    fn take(&mut self) -> Option<ProducerId> {
        let id = self.next?;
        self.left = self.left.checked_sub(1)?;
        self.next = ProducerId::new(id.incarnation(), id.sequence() + 1);
        Some(id)
    }
}

/// A client that has seen another life of the cluster, or more of this one than there is.
fn check_mark(seen: Option<v1::Mark>, found: &Found) -> Result<(), v1::Error> {
    let Some(seen) = seen else { return Ok(()) };
    let (incarnation, _) = seen.place()?;
    let current = found.bounds.mark.incarnation;
    if incarnation == current {
        // The bounds were read by the word of a quorum: no mark of this life lies above them.
        return Ok(());
    }
    let end = found.bounds.end.get();
    let text = format!(
        "the cluster was rebuilt: it lives in incarnation {current}, the reader comes from \
         {incarnation}; the partition ends at {end} now"
    );
    let error = v1::Error::new(
        v1::Code::OtherIncarnation,
        esker_types::Durability::Durable,
        text,
    );
    Err(error.with_detail(v1::error::Detail::End(end)))
}

#[tonic::async_trait]
impl Log for LogService {
    type AppendStream = Replies<v1::AppendReply>;
    type ReadStream = Replies<v1::ReadReply>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let place = Arc::clone(&self.append_places).try_acquire_owned();
        let agent = Taking {
            appends: self.engine.appends().clone(),
            env: self.env.clone(),
            traffic: self.traffic.clone(),
            budget: self.append_budget.clone(),
            stopping: self.stopping.clone(),
            _place: place.map_err(|_| fault::no_place("appends", APPEND_STREAMS_MAX))?,
        };
        let requests = request.into_inner();
        let stream = replies(STREAM_APPENDS_MAX, |replies| {
            Appending::new(agent, requests, replies).run()
        });
        Ok(Response::new(stream))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let (follows, stopping) = (request.follow, self.stopping.clone());
        let reading = self.reading(request).await?;
        let stream = replies(READ_REPLIES_WAITING, |replies| async move {
            tokio::select! {
                biased;
                ended = reading.run(replies) => ended,
                // It would never end by itself.
                () = stopping.told(), if follows => Err(fault::stops_read()),
            }
        });
        Ok(Response::new(stream))
    }

    async fn offsets(
        &self,
        request: Request<v1::OffsetsRequest>,
    ) -> Result<Response<v1::OffsetsReply>, Status> {
        let v1::OffsetsRequest {
            topic,
            partitions: wanted,
            at,
        } = request.into_inner();
        if wanted.len() > PARTITIONS_PER_TOPIC_MAX as usize {
            let (limit, value) = (PARTITIONS_PER_TOPIC_MAX, wanted.len());
            let text = format!("the request names {value} partitions, the limit is {limit}");
            let error = fault::invalid(text).with_limit(limit.into(), value as u64);
            return Err(error.into());
        }
        let found = self.wanted(&topic, &wanted).await?;
        let offsets = stream::iter(found).map(|found| self.offsets_of(found, at));
        let offsets = offsets.buffered(OFFSETS_IN_FLIGHT).try_collect().await?;
        let reply = v1::OffsetsReply {
            partitions: offsets,
        };
        Ok(Response::new(reply))
    }

    async fn allocate_producer(
        &self,
        _: Request<v1::AllocateProducerRequest>,
    ) -> Result<Response<v1::AllocateProducerReply>, Status> {
        let id = self.producer().await?;
        Ok(Response::new(v1::AllocateProducerReply {
            producer_id: id.as_u64(),
            epoch: ProducerEpoch::FIRST.as_i16().cast_unsigned().into(),
        }))
    }
}
