//! The language of scenarios. A line is a verb and words; `|` separates batches and removals.
//!
//! ```text
//!   shard 1 of 4 | shard 0 of 4           begin anew
//!   term 2 · blank · tick 1000            of the next entries; an entry of raft's own; time passes
//!   put t1.1 v1 name=logs parts=0,1 max_batch_bytes=100
//!   append time=5 | t1.1/0 n=3 bytes=10 p=7.0.0 h=1 end=0 fence=3 | ...
//!   stream t1.1/0 n=9 p=7.0.0 times=5     the same batch, five times over
//!   commit seg=1 (0,4] t1.1/0=[0,3)       as given
//!   flush seg=1 [to=4] [bytes=100]        as the plan says
//!   swap plan=9 | seg=1 (0,4] t1.1/0=[0,3)
//!   trim t1.1/0 to=3 planned=v1 · end t1.1 v2 · drop t1.1 plan=9 · boundary 9 · level 1
//!   create name=logs parts=3 request=1 key=value · alter t1.1 expect=v1 key=value
//!   add t1.1 total=5 expect=v1 · delete t1.1 · ended t1.1 s2 · producers 10 · node
//!   show · head t1.1/0 5 · plan bytes=100 · restart · bucket
//! ```

mod show; // states and outcomes as lines

use esker_shard::checkpoint::{self, Scope};
use esker_shard::{
    Append, AppendBatch, Command, CommitSegment, ConfigChange, CreateTopic, Genesis, Level,
    ObjectChecksum, PutTopic, RangeList, RequestId, SegmentRemoval, State, Swap, TopicConfig, Trim,
};
use esker_types::{
    ContentHash, EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, SegmentId,
    Sequence, ShardId, ShardTime, Term, Timestamp, TopicId, TopicName, TopicVersion,
};

/// A shard on which a scenario plays.
pub(crate) struct Stage {
    state: State,
    term: Term,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            state: new_shard(1, 4),
            term: Term(1),
        }
    }
}

impl Stage {
    /// Does what a line says and gives the answers; `None` for a line that is none.
    pub(crate) fn speak(&mut self, line: &str) -> Option<Vec<String>> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = Words(rest);
        match verb {
            "shard" => {
                let (shard, of) = rest.split_once(" of ")?;
                *self = Self {
                    state: new_shard(number(shard)?, number(of)?),
                    term: Term(1),
                };
                Some(Vec::new())
            }
            "term" => {
                self.term = Term(number(rest)?);
                Some(Vec::new())
            }
            "blank" => {
                self.state.apply_blank(self.next());
                Some(Vec::new())
            }
            "stream" => self.stream(&words),
            "show" => Some(show::state(&self.state)),
            "head" => {
                let (partition, offset) = rest.split_once(' ')?;
                let (partition, offset) = (partition_id(partition)?, offset_of(offset)?);
                Some(show::head(
                    self.state.data()?.head_lookup(partition, offset),
                ))
            }
            "plan" => Some(show::plan(self.plan(&words)?.as_ref())),
            "restart" => {
                let before = self.state.hash();
                self.state = through(&self.state, Scope::Local);
                Some(vec![format!(
                    "the same hash: {}",
                    before == self.state.hash()
                )])
            }
            "bucket" => Some(show::state(&through(&self.state, Scope::Bucket))),
            _ => {
                let command = self.command(verb, &words)?;
                // Every command of every scenario goes through its bytes.
                let bytes = command.encode().expect("within limits");
                let command = Command::decode(&bytes).expect("as encoded");
                let entry = self.next();
                Some(show::outcome(entry, &self.state.apply(entry, &command)))
            }
        }
    }

    /// The same batch again and again, by one producer; the last answer counts.
    fn stream(&mut self, words: &Words<'_>) -> Option<Vec<String>> {
        let mut batch = batch(words)?;
        let mut stamp = batch.producer?;
        let mut last = Vec::new();
        for _ in 0..number::<u32>(words.value("times")?)? {
            batch.producer = Some(stamp);
            stamp.sequence = stamp.sequence.after(batch.records);
            let append = Append {
                time: self.state.time(),
                batches: vec![batch.clone()],
            };
            let entry = self.next();
            last = show::outcome(entry, &self.state.apply(entry, &Command::Append(append)));
        }
        Some(last)
    }

    fn next(&self) -> EntryId {
        EntryId {
            term: self.term,
            index: self.state.applied().index.next(),
        }
    }

    /// The plan a flush would follow; the inner `None` if there is none.
    fn plan(&self, words: &Words<'_>) -> Option<Option<esker_shard::FlushPlan>> {
        let bytes = words.optional("bytes", number)?.unwrap_or(u64::MAX);
        let to = words
            .optional("to", number)?
            .map_or(RaftIndex(u64::MAX), RaftIndex);
        Some(self.state.flush_plan(bytes, to))
    }

    fn command(&self, verb: &str, words: &Words<'_>) -> Option<Command> {
        Some(match verb {
            "tick" => Command::Tick {
                time: ShardTime(number(words.0)?),
            },
            "level" => Command::RaiseLevel {
                level: Level::new(number(words.0)?)?,
            },
            "append" => append(words)?,
            "flush" => {
                let plan = self.plan(words)?.expect("there is something to flush");
                commit(words, plan.raft, plan.ranges)?
            }
            "commit" => commit(words, words.raft()?, words.ranges()?)?,
            "swap" => swap(words)?,
            "boundary" => Command::RaiseGcBoundary {
                to: RaftIndex(number(words.0)?),
            },
            "put" => Command::PutTopic(PutTopic {
                topic: topic_id(words.nth(0)?)?,
                version: version(words.nth(1)?)?,
                name: TopicName::new(words.value("name")?).ok()?,
                config: words.config()?,
                partitions: words
                    .value("parts")?
                    .split(',')
                    .map(|part| number(part).map(PartitionIndex))
                    .collect::<Option<_>>()?,
            }),
            "end" => Command::EndTopic {
                topic: topic_id(words.nth(0)?)?,
                version: version(words.nth(1)?)?,
            },
            "drop" => Command::DropTombstone {
                topic: topic_id(words.nth(0)?)?,
                plan_index: RaftIndex(number(words.value("plan")?)?),
            },
            "trim" => Command::Trim(Trim {
                partition: partition_id(words.nth(0)?)?,
                to: offset_of(words.value("to")?)?,
                planned_version: words.optional("planned", version)?,
            }),
            _ => return catalog_command(verb, words),
        })
    }
}

fn catalog_command(verb: &str, words: &Words<'_>) -> Option<Command> {
    Some(match verb {
        "create" => Command::CreateTopic(CreateTopic {
            request: RequestId(number(words.value("request")?)?),
            name: TopicName::new(words.value("name")?).ok()?,
            partitions: number(words.value("parts")?)?,
            config: words.config()?,
        }),
        "alter" => Command::AlterTopic {
            topic: topic_id(words.nth(0)?)?,
            expected: words.optional("expect", version)?,
            changes: words.changes()?,
        },
        "add" => Command::AddPartitions {
            topic: topic_id(words.nth(0)?)?,
            expected: words.optional("expect", version)?,
            total: number(words.value("total")?)?,
        },
        "delete" => Command::DeleteTopic {
            topic: topic_id(words.0)?,
        },
        "ended" => Command::TopicEnded {
            topic: topic_id(words.nth(0)?)?,
            shard: ShardId(number(words.nth(1)?.strip_prefix('s')?)?),
        },
        "producers" => Command::AllocateProducers {
            count: number(words.0)?,
        },
        "node" => Command::AllocateNode,
        _ => return None,
    })
}

fn append(words: &Words<'_>) -> Option<Command> {
    let mut parts = words.0.split('|').map(|part| Words(part.trim()));
    let time = ShardTime(parts.next()?.optional("time", number)?.unwrap_or(0));
    let batches = parts.map(|words| batch(&words)).collect::<Option<_>>()?;
    Some(Command::Append(Append { time, batches }))
}

fn batch(words: &Words<'_>) -> Option<AppendBatch> {
    let producer = |text: &str| {
        let mut numbers = text.split('.');
        Some(ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, number(numbers.next()?)?)?,
            epoch: ProducerEpoch::from_i16(number(numbers.next()?)?)?,
            sequence: Sequence::from_i32(number(numbers.next()?)?)?,
        })
    };
    Some(AppendBatch {
        partition: partition_id(words.nth(0)?)?,
        bytes: words.optional("bytes", number)?.unwrap_or(10),
        records: words.optional("n", number)?.unwrap_or(1),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: words.optional("p", producer)?,
        hash: ContentHash(words.optional("h", number)?.unwrap_or(1)),
        expected_end: words.optional("end", offset_of)?,
        fencing: words.optional("fence", number)?.map(FencingToken),
    })
}

fn commit(words: &Words<'_>, raft: RaftRange, ranges: RangeList) -> Option<Command> {
    let segment = number(words.value("seg")?)?;
    let (length, checksum) = (1000, ObjectChecksum(7));
    let segment = SegmentId(segment);
    Some(Command::CommitSegment(CommitSegment {
        segment,
        length,
        checksum,
        raft,
        ranges,
    }))
}

fn swap(words: &Words<'_>) -> Option<Command> {
    let mut parts = words.0.split('|').map(|part| Words(part.trim()));
    let plan_index = RaftIndex(number(parts.next()?.value("plan")?)?);
    let removal = |words: Words<'_>| {
        Some(SegmentRemoval {
            incarnation: Incarnation::FIRST,
            segment: SegmentId(number(words.value("seg")?)?),
            raft: words.raft()?,
            ranges: words.ranges()?,
        })
    };
    let removes = parts.map(removal).collect::<Option<_>>()?;
    Some(Command::Swap(Swap {
        plan_index,
        removes,
    }))
}

fn new_shard(shard: u32, data_shards: u32) -> State {
    State::new(Genesis {
        shard: ShardId(shard),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards,
    })
}

/// The state as its checkpoint gives it back.
fn through(state: &State, scope: Scope) -> State {
    let mut bytes = Vec::new();
    let written = checkpoint::encode(state, scope, |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok::<_, std::convert::Infallible>(())
    });
    written.expect("memory takes everything");
    let decoded = checkpoint::decode(&bytes).expect("as encoded");
    assert_eq!(decoded.scope, scope);
    decoded.state
}

/// Words of a line, separated by spaces; some are `key=value`.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn nth(&self, at: usize) -> Option<&'a str> {
        self.0.split_whitespace().nth(at)
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.pairs()
            .find(|(k, _)| *k == key)
            .map(|(_, value)| value)
    }

    /// The inner `None` if the key is absent, the outer one if its value is none.
    fn optional<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
        match self.value(key) {
            Some(value) => read(value).map(Some),
            None => Some(None),
        }
    }

    /// Every `key=value` whose key is a setting's.
    fn changes(&self) -> Option<Vec<ConfigChange>> {
        let settings = self
            .pairs()
            .filter(|(key, _)| ConfigChange::KEYS.contains(key));
        settings
            .map(|(key, value)| ConfigChange::parse(key, value).ok())
            .collect()
    }

    fn config(&self) -> Option<TopicConfig> {
        let default = Some(TopicConfig::default());
        self.changes()?
            .iter()
            .fold(default, |config, change| config?.with(change).ok())
    }

    /// The word `(1,4]`.
    fn raft(&self) -> Option<RaftRange> {
        let word = self
            .0
            .split_whitespace()
            .find(|word| word.starts_with('('))?;
        let (from, to) = word.strip_prefix('(')?.strip_suffix(']')?.split_once(',')?;
        RaftRange::new(RaftIndex(number(from)?), RaftIndex(number(to)?))
    }

    /// The words `t1.1/0=[0,3)`.
    fn ranges(&self) -> Option<RangeList> {
        let range = |(key, value): (&str, &str)| {
            let (start, end) = value
                .strip_prefix('[')?
                .strip_suffix(')')?
                .split_once(',')?;
            let range = OffsetRange::new(offset_of(start)?, offset_of(end)?)?;
            Some((partition_id(key)?, range))
        };
        self.pairs()
            .filter(|(key, _)| key.contains('/'))
            .map(range)
            .collect()
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn version(text: &str) -> Option<TopicVersion> {
    number(text.strip_prefix('v')?).map(TopicVersion)
}

fn offset_of(text: &str) -> Option<Offset> {
    Offset::new(number(text)?)
}

fn topic_id(text: &str) -> Option<TopicId> {
    let (incarnation, sequence) = text.strip_prefix('t')?.split_once('.')?;
    TopicId::new(Incarnation::new(number(incarnation)?)?, number(sequence)?)
}

fn partition_id(text: &str) -> Option<PartitionId> {
    let (topic, index) = text.split_once('/')?;
    Some(PartitionId {
        topic: topic_id(topic)?,
        index: PartitionIndex(number(index)?),
    })
}
