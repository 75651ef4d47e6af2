//! Taking in batches: opened once, checked whole, handed to the leader of their shard.
//!
//! ```text
//!   check  (any order, any thread)         deep check ─► content hash
//!   submit (in the order of the producer)  Head ─► answer of apply
//! ```

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use esker_env::{Env, WorkersExt};
use esker_record::{Checked, Depth, Rules, Scratch, admit, decoded_bytes_most};
use esker_shard::{AppendBatch, AppendOutcome};
use esker_types::limits::{CHECK_INLINE_BYTES, SCRATCH_BYTES, SCRATCHES_MAX};
use esker_types::{
    Durability, FencingToken, Offset, OffsetRange, PartitionIndex, ShardId, TopicName,
};

use crate::error::HeadError;
use crate::head::Head;
use crate::topics::{TopicError, Topics};

/// Takes in batches. Clones share everything.
#[derive(Clone)]
pub struct Appends {
    head: Arc<dyn Head>,
    topics: Topics,
    env: Env,
    scratches: Arc<Mutex<Vec<Scratch>>>,
}

/// One batch on its way in.
#[derive(Clone, Debug)]
pub struct NewAppend {
    /// The topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionIndex,
    /// One record batch.
    pub batch: Bytes,
    /// Append only if the partition ends here.
    pub expected_end: Option<Offset>,
    /// Append only if nobody has appended with a higher token.
    pub fencing: Option<FencingToken>,
}

/// A batch that passed its check.
#[derive(Clone, Debug)]
pub struct Ready {
    topic: TopicName,
    index: PartitionIndex,
    shard: ShardId,
    described: AppendBatch,
    bytes: Bytes,
}

/// A batch that is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Its offsets.
    pub range: OffsetRange,
    /// It was there before, by an earlier try.
    pub duplicate: bool,
}

/// Why a batch is not in the log, or not known to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// No such topic or partition.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The batch is not what it should be.
    #[error("nothing is stored: {0}")]
    Batch(#[from] esker_record::Error),
    /// The log did not take it.
    #[error("{}{}", rejected(.topic, *.partition, .error), .sent.map(|sent| format!("; the append has {sent}")).unwrap_or_default())]
    Rejected {
        /// The topic.
        topic: TopicName,
        /// Its partition.
        partition: PartitionIndex,
        /// Why.
        error: esker_shard::AppendError,
        /// What the append said of that which `error` tells: its expected end, its fencing token,
        /// its producer's epoch or sequence.
        sent: Option<u64>,
    },
    /// It was meant for the topic that had this name a moment ago, and was deleted.
    #[error("nothing is stored: the topic {topic} was deleted and made anew; send it again")]
    MadeAnew {
        /// The topic.
        topic: TopicName,
    },
    /// The head did not take it, or did not answer.
    #[error(transparent)]
    Head(#[from] HeadError),
}

fn rejected(
    topic: &TopicName,
    partition: PartitionIndex,
    error: &esker_shard::AppendError,
) -> String {
    // Once it may have been.
    let nothing = match error {
        esker_shard::AppendError::DuplicateExpired => "nothing more is stored",
        _ => "nothing is stored",
    };
    format!("{nothing} in {topic}/{partition}: {error}")
}

/// What `batch` said of that which `error` tells.
fn sent(batch: &AppendBatch, error: &esker_shard::AppendError) -> Option<u64> {
    use esker_shard::AppendError as Why;
    let stamp = batch.producer;
    let sequence = || stamp.map(|stamp| u64::from(stamp.sequence.as_i32().cast_unsigned()));
    match error {
        Why::ExpectedEnd { .. } => batch.expected_end.map(Offset::get),
        Why::Fenced { .. } => batch.fencing.map(|token| token.0),
        Why::StaleProducerEpoch { .. } => {
            stamp.map(|stamp| u64::from(stamp.epoch.as_i16().cast_unsigned()))
        }
        Why::SequenceGap { .. } | Why::SequenceReused | Why::DuplicateExpired => sequence(),
        _ => None,
    }
}

impl AppendError {
    /// Whether it may have been written all the same.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        match self {
            Self::Head(error) => error.durability(),
            Self::Topic(_) | Self::Batch(_) | Self::Rejected { .. } | Self::MadeAnew { .. } => {
                Durability::NotWritten
            }
        }
    }
}

impl Appends {
    pub(crate) fn new(head: Arc<dyn Head>, topics: Topics, env: Env) -> Self {
        Self {
            head,
            topics,
            env,
            scratches: Arc::default(),
        }
    }

    /// Checks a batch by the rules of its topic. Checks of several may run at the same time;
    /// nothing is written yet.
    ///
    /// # Errors
    /// [`AppendError::Topic`], [`AppendError::Batch`].
    pub async fn check(&self, new: NewAppend) -> Result<Ready, AppendError> {
        let found = self.topics.partition(&new.topic, new.partition).await?;
        let (topic, shard, partition) = found;
        let rules = Rules {
            batch_bytes_max: topic.config.max_batch_bytes() as usize,
            depth: if topic.config.deep_check() {
                Depth::Deep
            } else {
                Depth::Shallow
            },
        };
        let checked = self.open(new.batch, rules).await?;
        let header = checked.batch.header();
        let described = AppendBatch {
            partition,
            bytes: u32::try_from(header.bytes).expect("bounded by BATCH_BYTES_MAX"),
            records: header.records,
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
            producer: header.producer,
            hash: checked.hash,
            expected_end: new.expected_end,
            fencing: new.fencing,
        };
        Ok(Ready {
            topic: new.topic,
            index: new.partition,
            shard,
            described,
            bytes: checked.batch.into_bytes(),
        })
    }

    /// Queues a batch at its shard and returns a future of what becomes of it. Await this before
    /// the next call to keep batches in order; waits while too much is in flight. Dropping the
    /// future that comes back changes nothing.
    ///
    /// # Errors
    /// [`AppendError::Head`]: nothing was queued, and nothing written.
    pub async fn submit(
        &self,
        ready: Ready,
    ) -> Result<impl Future<Output = Result<Appended, AppendError>> + Send + use<>, AppendError>
    {
        let Ready {
            topic,
            index,
            shard,
            described,
            bytes,
        } = ready;
        let asked = described.clone();
        let answer = self.head.append(shard, described, bytes).await?;
        let topics = self.topics.clone();
        Ok(async move {
            match answer.await? {
                AppendOutcome::Accepted { range, .. } => Ok(Appended {
                    range,
                    duplicate: false,
                }),
                AppendOutcome::Duplicate { range } => Ok(Appended {
                    range,
                    duplicate: true,
                }),
                AppendOutcome::Rejected(error) => {
                    if matches!(
                        error,
                        esker_shard::AppendError::UnknownPartition
                            | esker_shard::AppendError::PartitionEnded
                    ) {
                        topics.forget(&topic);
                        if let Ok((now, ..)) = topics.partition(&topic, index).await
                            && now.id != asked.partition.topic
                        {
                            return Err(AppendError::MadeAnew { topic });
                        }
                    }
                    Err(AppendError::Rejected {
                        topic,
                        partition: index,
                        sent: sent(&asked, &error),
                        error,
                    })
                }
            }
        })
    }

    async fn open(&self, bytes: Bytes, rules: Rules) -> Result<Checked, AppendError> {
        let quick = bytes.len() + decoded_bytes_most(&bytes) <= CHECK_INLINE_BYTES;
        let scratches = Arc::clone(&self.scratches);
        let check = move || {
            let lock = || scratches.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = lock().pop();
            let mut scratch = kept.unwrap_or_else(|| Scratch::new(SCRATCH_BYTES));
            let checked = admit(bytes, &rules, &mut scratch);
            let mut all = lock();
            if all.len() < SCRATCHES_MAX {
                all.push(scratch);
            }
            checked
        };
        if quick {
            // A thread's wake-up would cost more than the check.
            return Ok(check()?);
        }
        Ok(self.env.workers.run(check).await?)
    }
}

impl fmt::Debug for Appends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appends").finish_non_exhaustive()
    }
}
