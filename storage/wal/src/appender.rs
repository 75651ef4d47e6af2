//! The leader's queue: everything that waits while earlier entries are in flight joins the next.
//!
//! ```text
//!   append ─► admitted (bytes in flight, head's share, room taken on disk) ─► queue
//!                                                                        │ all that waits, up to an entry
//!                          answers ◄── apply ◄── raft ◄── one entry ◄────┘
//! ```
//! No timer: on an idle shard an append leaves at once, alone. Appends are proposed in the order in
//! which [`Appender::append`] was called.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::Clock;
use esker_shard::{Append, AppendBatch, AppendOutcome, Command, Outcome, State};
use esker_types::limits::{
    APPEND_BYTES_IN_FLIGHT, APPENDS_WAITING_MAX, BATCH_BYTES_MAX, ENTRIES_IN_FLIGHT,
    ENTRY_BATCHES_MAX, ENTRY_PAYLOAD_BYTES_MAX, HEAD_BATCHES_MAX, PRODUCERS_OF_SHARD_MAX,
};
use esker_types::{Durability, EntryId, ShardId, Term};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::disk::{Full, Promise, Purpose};
use crate::members::Cramped;
use crate::office::{Elsewhere, Office};
use crate::propose::ProposeError;
use crate::replica::Replica;
use crate::shard_clock::{Behind, Stamp};

/// Bytes that describe one batch in an entry's head, at most.
const DESCRIBED_BYTES_MAX: usize = 256;

/// Why an append did not end with an answer of the shard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendRefusal {
    /// More unflushed bytes than the shard's share of the head allows: the bucket is behind.
    #[error(
        "{shard} has {held} unflushed bytes of the {share} that its head may hold; retry once the \
         bucket has taken some"
    )]
    HeadFull {
        /// The shard.
        shard: ShardId,
        /// Unflushed bytes, with what is in flight.
        held: u64,
        /// Its share.
        share: u64,
    },
    /// More unflushed batches than a head may hold, however small: the bucket is behind.
    #[error(
        "{shard} has {batches} unflushed batches of the {share} that its head may hold; retry once \
         the bucket has taken some, and send larger batches"
    )]
    HeadCrowded {
        /// The shard.
        shard: ShardId,
        /// Unflushed batches.
        batches: u64,
        /// Its share.
        share: u64,
    },
    /// A producer that its partition does not remember, and the shard remembers as many as it may.
    #[error(
        "{shard} remembers {producers} producers of its partitions, of the {limit} that it may; nothing is \
         written: write with those that wrote to the partition before, begin fewer, or append without a \
         producer id; each is forgotten a day after its last append, hours later where they are many, and \
         then it may be retried"
    )]
    ProducersFull {
        /// The shard.
        shard: ShardId,
        /// Remembered, one of two partitions twice.
        producers: u64,
        /// The bound.
        limit: u64,
    },
    /// The WAL disk has no room above its reserve.
    #[error(
        "the WAL of this node has {room} bytes of room above its reserve, the append needs {bytes}; \
         {}", Full::what_to_do(*disk_full)
    )]
    DiskFull {
        /// Bytes left.
        room: u64,
        /// Bytes needed.
        bytes: u64,
        /// It is the file system that is full, not the WAL's budget.
        disk_full: bool,
    },
    /// No quorum of the voters has room above its reserve.
    #[error(
        "of the {voters} voters of {shard} only {with_room} have room in their WAL above its reserve; \
         retry once the bucket has taken some"
    )]
    QuorumFull {
        /// The shard.
        shard: ShardId,
        /// Voters that have room.
        with_room: usize,
        /// All voters.
        voters: usize,
        /// Bytes of the batch.
        bytes: usize,
    },
    /// The batch is larger than any topic may allow.
    #[error("a batch of {bytes} bytes is above the limit of {BATCH_BYTES_MAX}")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
    },
    /// Raft did not take it, or lost sight of it.
    #[error(transparent)]
    Proposal(#[from] ProposeError),
}

impl AppendRefusal {
    /// Whether the batch may have been written all the same.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        match self {
            Self::Proposal(ProposeError::Unknown { .. }) => Durability::Unknown,
            _ => Durability::NotWritten,
        }
    }
}

/// What became of an append.
pub type AppendAnswer = Result<(EntryId, AppendOutcome), AppendRefusal>;

/// The queue of one shard's leader. Clones share it; its task ends with the last of them.
#[derive(Clone)]
pub struct Appender {
    replica: Replica,
    queue: mpsc::Sender<Waiting>,
    in_flight: Arc<Semaphore>,
    /// Held from admission to the queue: whoever waits for room lets nobody overtake.
    door: Arc<Mutex<()>>,
    share: watch::Sender<Share>,
    office: Office,
}

/// What a shard's head may hold, and its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Payload bytes that are in no segment yet.
    pub bytes: u64,
    /// Batches that are in no segment yet. Default: [`HEAD_BATCHES_MAX`].
    pub batches: u64,
    /// Producers that its partitions remember. Default: [`PRODUCERS_OF_SHARD_MAX`].
    pub producers: u64,
}

impl Share {
    /// A share of `bytes`, in as many batches as a head can name, of as many producers as a state may.
    #[must_use]
    pub const fn of(bytes: u64) -> Self {
        Self {
            bytes,
            batches: HEAD_BATCHES_MAX,
            producers: PRODUCERS_OF_SHARD_MAX as u64,
        }
    }
}

/// An append on its way.
struct Waiting {
    /// The term it was admitted in: it is proposed in that, or not at all.
    term: Term,
    batch: AppendBatch,
    bytes: Bytes,
    answer: oneshot::Sender<AppendAnswer>,
    /// Its bytes in flight, given back once it is answered.
    permit: OwnedSemaphorePermit,
    /// Its room on disk, given back if it is never written.
    room: Promise,
}

impl Appender {
    /// Starts the queue of `replica`, which takes appends whenever it leads. Its head may hold
    /// `share`. A shard that has no time yet holds its wall clock against the latest `elsewhere`, of
    /// the node's other shards.
    #[must_use]
    pub fn start(
        replica: Replica,
        clock: Arc<dyn Clock>,
        share: Share,
        elsewhere: Elsewhere,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(APPENDS_WAITING_MAX);
        let office = Office::new(replica.clone(), clock, elsewhere);
        let task = Task {
            replica: replica.clone(),
            office: office.clone(),
            turns: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT)),
            stopped: false,
        };
        tokio::spawn(task.run(waiting));
        let in_flight = Arc::new(Semaphore::new(APPEND_BYTES_IN_FLIGHT));
        Self {
            replica,
            queue,
            in_flight,
            door: Arc::default(),
            share: watch::Sender::new(share),
            office,
        }
    }

    /// Waits until the queue takes nothing any more: its task has died.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Takes the office of the leader, if this replica leads and does not hold it yet: from then on it
    /// tells time, and whether its clock can be right. The first append would do it, too.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn take_office(&self) -> Result<(), ProposeError> {
        self.office.hold().await.map(|_| ())
    }

    /// Asks the other voters for their clocks once more, if time stands still since this replica took office
    /// because too few agreed with its own.
    pub async fn ask_clocks_again(&self) {
        self.office.ask_again().await;
    }

    /// The time that an entry would be stamped with now; `None` before this replica ever led.
    #[must_use]
    pub fn time(&self) -> Option<Stamp> {
        self.office.stamp()
    }

    /// Accepts the wall clock as it is, after a jump: time goes on from here.
    ///
    /// # Errors
    /// [`ProposeError`] if this replica does not lead; [`Behind`] within: the clock is far behind
    /// the shard's time. Nothing has changed.
    pub async fn accept_time(&self) -> Result<Result<(), Behind>, ProposeError> {
        self.office.hold().await?;
        Ok(self.office.accept())
    }

    /// Writes the time into the log, so that it passes on a shard to which nobody appends. Does
    /// nothing while time stands still.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn tick(&self) -> Result<(), ProposeError> {
        self.office.hold().await?;
        let Some(Stamp::Time(time)) = self.office.stamp() else {
            return Ok(());
        };
        let tick = Command::Tick { time };
        let ticked = self.replica.propose(&tick, Vec::new()).await?;
        ticked.await.map(|_| ())
    }

    /// Changes what the head may hold: an idle shard lends its share.
    pub fn set_share(&self, share: Share) {
        self.share.send_replace(share);
    }

    /// What the head may hold.
    #[must_use]
    pub fn share(&self) -> Share {
        *self.share.borrow()
    }

    /// Queues a batch, `batch.bytes` long, and returns a future of its answer. Waits while too
    /// much is in flight, and while the WAL writes the files for it. Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`AppendRefusal`] of the kinds that are decided before the batch is queued.
    pub async fn append(
        &self,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Result<impl Future<Output = AppendAnswer> + Send + use<>, AppendRefusal> {
        debug_assert_eq!(batch.bytes as usize, bytes.len());
        let permits = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= BATCH_BYTES_MAX);
        let permits = permits.ok_or(AppendRefusal::TooLarge { bytes: bytes.len() })?;
        let shard = self.replica.shard();
        let ended = || ProposeError::NotLeader {
            shard,
            leader: None,
        };
        let _turn = self.door.lock().await;
        let in_flight = Arc::clone(&self.in_flight)
            .acquire_many_owned(permits.max(1))
            .await;
        let permit = in_flight.map_err(|_| ended())?;
        let term = self.office.hold().await?;
        self.admit(&batch, bytes.len())?;
        let room = self.take_room(bytes.len()).await?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            term,
            batch,
            bytes,
            answer,
            permit,
            room,
        };
        self.queue.send(waiting).await.map_err(|_| ended())?;
        Ok(async move {
            answered.await.unwrap_or_else(|_| {
                let what = "raft, or the leader's queue, ended".into();
                Err(ProposeError::Unknown { shard, what }.into())
            })
        })
    }

    fn admit(&self, batch: &AppendBatch, bytes: usize) -> Result<(), AppendRefusal> {
        match self.replica.cramped() {
            None => {}
            Some(Cramped::Silent) => return Err(self.replica.no_quorum().into()),
            Some(Cramped::Full { room, voters }) => {
                return Err(AppendRefusal::QuorumFull {
                    shard: self.replica.shard(),
                    with_room: room,
                    voters,
                    bytes,
                });
            }
        }
        let flying = (APPEND_BYTES_IN_FLIGHT - self.in_flight.available_permits()) as u64;
        let state = self.replica.state();
        let head = state.head_size();
        let held = head.bytes + flying;
        let share = *self.share.borrow();
        if held > share.bytes {
            let (shard, share) = (self.replica.shard(), share.bytes);
            return Err(AppendRefusal::HeadFull { shard, held, share });
        }
        if head.batches >= share.batches {
            let (shard, batches, share) = (self.replica.shard(), head.batches, share.batches);
            return Err(AppendRefusal::HeadCrowded {
                shard,
                batches,
                share,
            });
        }
        self.admit_producer(&state, batch, share.producers)
    }

    /// Refuses a batch that would have the shard remember a producer more than `limit`.
    fn admit_producer(
        &self,
        state: &State,
        batch: &AppendBatch,
        limit: u64,
    ) -> Result<(), AppendRefusal> {
        let (Some(stamp), Some(data)) = (batch.producer, state.data()) else {
            return Ok(());
        };
        let producers = data.producer_count() as u64;
        // What is wrong with an append to no partition, apply says.
        let partition = data.partition(batch.partition);
        if producers < limit || partition.is_none_or(|known| known.remembers(stamp.id)) {
            return Ok(());
        }
        Err(AppendRefusal::ProducersFull {
            shard: self.replica.shard(),
            producers,
            limit,
        })
    }

    /// Room on the disk that this shard shares with the others of the node.
    async fn take_room(&self, bytes: usize) -> Result<Promise, AppendRefusal> {
        let bytes = (bytes + DESCRIBED_BYTES_MAX) as u64;
        let promise = self.replica.wal().promise(Purpose::Append, bytes);
        promise.await.map_err(|full| AppendRefusal::DiskFull {
            room: full.room,
            bytes,
            disk_full: full.disk_full,
        })
    }
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("shard", &self.replica.shard())
            .finish_non_exhaustive()
    }
}

struct Task {
    replica: Replica,
    office: Office,
    turns: Arc<Semaphore>,
    /// Shard time stands still; said once.
    stopped: bool,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut held_over = None;
        loop {
            // The turn comes first: what arrives while earlier entries are in flight joins this.
            let turns = Arc::clone(&self.turns);
            let turn = turns
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let first = match held_over.take() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => break,
                },
            };
            let bytes_max = self.replica.wal().entry_bytes_max();
            let (joined, rest) = join(first, &mut queue, bytes_max);
            held_over = rest;
            self.propose(joined, turn).await;
        }
    }

    async fn propose(&mut self, joined: Vec<Waiting>, turn: OwnedSemaphorePermit) {
        let mut batches = Vec::with_capacity(joined.len());
        let mut payload = Vec::with_capacity(joined.len());
        let mut answers = Vec::with_capacity(joined.len());
        let mut room: Option<Promise> = None;
        let term = joined.first().expect("an entry joins at least one").term;
        for waiting in joined {
            match &room {
                Some(room) => room.join(&waiting.room),
                None => room = Some(waiting.room),
            }
            batches.push(waiting.batch);
            payload.push(waiting.bytes);
            answers.push((waiting.answer, waiting.permit));
        }
        let command = Command::Append(Append {
            time: self.stamp().time(),
            batches,
        });
        let room = room.expect("an entry joins at least one");
        let shard = self.replica.shard();
        let told = move |outcome| {
            let _turn = turn;
            tell(shard, answers, outcome);
        };
        let proposed = self.replica.propose_in(term, &command, payload, room, told);
        proposed.await;
    }

    fn stamp(&mut self) -> Stamp {
        let stamp = self
            .office
            .stamp()
            .expect("it was held when they were admitted");
        let stopped = matches!(stamp, Stamp::Stopped { .. });
        if let Stamp::Stopped { skew, ahead, .. } = stamp
            && !self.stopped
        {
            let shard = self.replica.shard();
            tracing::error!(%shard, ?skew, ahead, "the wall clock jumped: expiry and retention stand still");
        }
        self.stopped = stopped;
        stamp
    }
}

/// All that waits and fits one entry with `first`, and the one that no longer fits.
fn join(
    first: Waiting,
    queue: &mut mpsc::Receiver<Waiting>,
    entry_bytes_max: usize,
) -> (Vec<Waiting>, Option<Waiting>) {
    let (mut bytes, term) = (first.bytes.len(), first.term);
    let mut joined = vec![first];
    while joined.len() < ENTRY_BATCHES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.bytes.len();
        let described = (joined.len() + 1) * DESCRIBED_BYTES_MAX;
        let fits = bytes <= ENTRY_PAYLOAD_BYTES_MAX && bytes + described <= entry_bytes_max;
        if next.term != term || !fits {
            return (joined, Some(next));
        }
        joined.push(next);
    }
    (joined, None)
}

/// Hands each append its part of the outcome. Whoever has gone needs none.
fn tell(
    shard: ShardId,
    answers: Vec<(oneshot::Sender<AppendAnswer>, OwnedSemaphorePermit)>,
    outcome: Result<(EntryId, Outcome), ProposeError>,
) {
    match outcome {
        Ok((entry, Outcome::Appended(outcomes))) => {
            assert_eq!(
                outcomes.len(),
                answers.len(),
                "apply answers every batch of an entry"
            );
            for ((answer, _permit), outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(Ok((entry, outcome)));
            }
        }
        // Above the level that all replicas know: the state has not changed.
        Ok((entry, Outcome::Refused(why))) => {
            let what = format!("{why}, says entry {entry}");
            tell_all(answers, &ProposeError::Refused { shard, what });
        }
        Ok((entry, other)) => {
            let what = format!("entry {entry} answers appends with {other:?}");
            tell_all(answers, &ProposeError::Unknown { shard, what });
        }
        Err(error) => tell_all(answers, &error),
    }
}

fn tell_all(
    answers: Vec<(oneshot::Sender<AppendAnswer>, OwnedSemaphorePermit)>,
    error: &ProposeError,
) {
    for (answer, _permit) in answers {
        let _ = answer.send(Err(error.clone().into()));
    }
}
