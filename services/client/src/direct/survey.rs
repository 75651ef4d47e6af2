//! What stands in a bucket: the newest life, its shards, and of each the newest checkpoint and the
//! segments above it.

use std::collections::{BTreeMap, BTreeSet};

use esker_object::{Cursor, Key, Object, Prefix};
use esker_shard::checkpoint::{self, Scope};
use esker_shard::{MixedSegment, State};
use esker_types::{
    Incarnation, Offset, OffsetRange, PartitionId, PartitionIndex, RaftIndex, RaftRange, SegmentId,
    ShardId, TopicId, TopicName,
};
use futures::StreamExt;

use super::bucket::{Bucket, Place, lost};
use super::chain::{Candidate, chain, gap};
use crate::error::{Code, Error};

/// Segments that are being opened at the same time.
pub(super) const OPENS_AHEAD: usize = 8;
/// Times that checkpoints are listed: a cluster that runs replaces them meanwhile.
const LOOKS_MAX: usize = 3;

/// Lives in a row of which nothing stands in an unclaimed bucket before no more is looked for.
const LIVES_MISSED_MAX: u32 = 4;

/// One shard as the bucket has it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    /// The state of its newest checkpoint, if it has one.
    pub(super) state: Option<State>,
    /// The log, in order.
    pub(super) segments: Vec<Place>,
    /// The last entry it holds.
    pub(super) end: RaftIndex,
    /// Why it does not go on, although there is more.
    pub(super) broken: Option<String>,
    /// Its last hole, if no checkpoint says where it begins and that it has none.
    pub(super) hole: Option<Hole>,
    /// What segments above the checkpoint say of their partitions.
    pub(super) partitions: BTreeMap<PartitionId, Seen>,
    /// Topics of which such a segment says that they have ended.
    pub(super) ended: BTreeSet<TopicId>,
}

/// Entries that no segment holds: those that did were removed, once all in them was trimmed, or they
/// are lost. What partitions lack by it shows where their offsets go on.
#[derive(Debug)]
pub(super) struct Hole {
    entries: RaftRange,
    /// In words.
    why: String,
}

/// A partition as segments and checkpoint show it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) topic: TopicName,
    pub(super) log_start: Offset,
    pub(super) end: Offset,
    /// The last entry of the last segment that has something of it; that of the checkpoint.
    at: RaftIndex,
}

/// What one segment says.
struct Look {
    partitions: Vec<(PartitionId, TopicName, OffsetRange, Offset)>,
    ended: Vec<TopicId>,
}

/// The newest life that is whole enough to be read. One that was begun from an older one counts
/// once each shard has its checkpoint: before that, its recovery has not ended.
pub(super) async fn newest_incarnation(
    bucket: &Bucket,
    notes: &mut Vec<String>,
) -> Result<Incarnation, Error> {
    let mut lives = BTreeSet::new();
    for object in bucket.list(Prefix::Clusters).await? {
        if let Key::Cluster { incarnation, .. } = object.key {
            lives.insert(incarnation);
        }
    }
    if lives.is_empty() {
        lives = unclaimed(bucket).await?;
        if !lives.is_empty() {
            notes.push("no cluster has claimed this bucket; what stands in it is read".into());
        }
    }
    let mut lives: Vec<_> = lives.into_iter().collect();
    while let Some(life) = lives.pop() {
        let Some(before) = lives.last() else {
            return Ok(life);
        };
        let mut whole = true;
        for shard in shards(bucket, *before).await? {
            let prefix = Prefix::Checkpoints(life, shard);
            whole &= bucket.first_after(prefix, None).await?.is_some();
        }
        if whole {
            return Ok(life);
        }
        notes.push(format!(
            "the recovery that began incarnation {life} has not ended; incarnation {before} is read"
        ));
    }
    let url = bucket.0.url();
    let text = format!("nothing of a cluster stands in {url}; is the prefix the right one?");
    Err(Error::invalid(text))
}

/// Lives that have objects, from the first one on. Each is looked for by its name: to list all that
/// stands there may take very long where it is no bucket of ours.
async fn unclaimed(bucket: &Bucket) -> Result<BTreeSet<Incarnation>, Error> {
    let mut lives = BTreeSet::new();
    let (mut next, mut missed) = (Some(Incarnation::FIRST), 0);
    while let Some(life) = next.filter(|_| missed < LIVES_MISSED_MAX) {
        let found = bucket.first_after(Prefix::Incarnation(life), None).await?;
        missed = match found {
            Some(_) => 0,
            None => missed + 1,
        };
        lives.extend(found.map(|_| life));
        next = life.next();
    }
    Ok(lives)
}

/// Shards that have objects in `incarnation`, found by jumping from one to the next.
pub(super) async fn shards(
    bucket: &Bucket,
    incarnation: Incarnation,
) -> Result<Vec<ShardId>, Error> {
    let prefix = Prefix::Incarnation(incarnation);
    // `partitions` comes before `shards`, and has no end.
    let partitions = Key::PartitionSegment {
        incarnation,
        partition: PartitionId {
            topic: TopicId::new(Incarnation::MAX, TopicId::SEQUENCE_MAX).expect("the largest"),
            index: PartitionIndex(u32::MAX),
        },
        plan: RaftIndex(u64::MAX),
        base: Offset::MAX,
        id: SegmentId(u128::MAX),
    };
    let (mut shards, mut after) = (Vec::new(), Some(Cursor::after(&partitions)));
    while let Some(key) = bucket.first_after(prefix, after).await? {
        let (Key::FlushedSegment { shard, .. }
        | Key::GatheredSegment { shard, .. }
        | Key::Checkpoint { shard, .. }) = key
        else {
            break; // nothing comes behind the shards
        };
        shards.push(shard);
        let last = last_of(incarnation, shard);
        after = Some(Cursor::after(&last));
    }
    Ok(shards)
}

/// Behind every key of `shard`: of its folders, `segments` comes last.
const fn last_of(incarnation: Incarnation, shard: ShardId) -> Key {
    let range = RaftRange {
        from: RaftIndex(u64::MAX),
        to: RaftIndex(u64::MAX),
    };
    Key::FlushedSegment {
        incarnation,
        shard,
        range,
        id: SegmentId(u128::MAX),
    }
}

impl Shard {
    /// Reads what stands of shard `id` in `incarnation`.
    pub(super) async fn survey(
        bucket: &Bucket,
        incarnation: Incarnation,
        id: ShardId,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let state = newest_checkpoint(bucket, incarnation, id, notes).await?;
        let mut shard = Self::of(id, state);
        let listed = bucket.list(Prefix::Flushed(incarnation, id)).await?;
        let candidates: Vec<_> = listed.iter().filter_map(candidate).collect();
        let mut follow = Follow {
            bucket,
            incarnation,
            shard: &mut shard,
            damaged: BTreeMap::new(),
            notes,
        };
        follow.chain(&candidates).await?;
        let damaged = follow.damaged;
        shard.broken = shard.why_broken(&candidates, &damaged);
        for (passed, why) in &damaged {
            if shard.broken.is_none() {
                notes.push(format!("{id}: segment {passed} was passed over: {why}"));
            }
        }
        Ok(shard)
    }

    /// What a checkpoint says, and nothing else.
    fn of(id: ShardId, state: Option<State>) -> Self {
        let data = state.as_ref().and_then(State::data);
        let place = |segment: &MixedSegment| Place {
            incarnation: segment.incarnation,
            shard: id,
            raft: segment.raft,
            id: segment.segment,
            length: segment.length,
        };
        let segments = data.map_or(Vec::new(), |data| data.manifest().map(place).collect());
        let end = data.map_or(RaftIndex::ZERO, esker_shard::Data::flush_position);
        let mut partitions = BTreeMap::new();
        for (partition, known) in data.into_iter().flat_map(esker_shard::Data::partitions) {
            let topic = data.and_then(|data| data.topic(partition.topic));
            let Some(topic) = topic else { continue };
            let seen = Seen {
                topic: topic.name().clone(),
                log_start: known.log_start(),
                end: known.tiered_end().max(known.log_start()),
                at: end,
            };
            partitions.insert(partition, seen);
        }
        Self {
            id,
            segments,
            end,
            broken: None,
            hole: None,
            partitions,
            ended: BTreeSet::new(),
            state,
        }
    }

    /// Why there may be more of a partition than is seen of it.
    pub(super) fn why_more(&self, seen: Option<&Seen>) -> Option<&String> {
        // What goes on behind a hole shows itself what it lacks.
        let hole = self.hole.as_ref();
        let hole = hole.filter(|hole| seen.is_none_or(|seen| seen.at <= hole.entries.from));
        self.broken.as_ref().or(hole.map(|hole| &hole.why))
    }

    fn take(&mut self, place: Place, look: Look) {
        self.end = place.raft.to;
        self.segments.push(place);
        self.ended.extend(look.ended);
        for (partition, topic, range, log_start) in look.partitions {
            let fresh = || Seen {
                topic,
                log_start,
                end: range.end(),
                at: place.raft.to,
            };
            let seen = self.partitions.entry(partition).or_insert_with(fresh);
            seen.at = place.raft.to;
            seen.log_start = seen.log_start.max(log_start);
            seen.end = seen.end.max(range.end()).max(seen.log_start);
        }
    }

    fn why_broken(
        &self,
        candidates: &[Candidate],
        damaged: &BTreeMap<SegmentId, Error>,
    ) -> Option<String> {
        let end = self.end;
        if let Some(candidate) = goes_on(end, candidates, damaged) {
            let why = damaged[&candidate.id].message();
            return Some(format!("the log of {} ends at {end}: {why}", self.id));
        }
        let missing = gap(end, candidates)?;
        Some(format!(
            "the log of {} ends at {end}: no segment holds the entries {missing}, and segments \
             above them are there; look for lost objects under `{}`",
            self.id,
            Prefix::Flushed(self.incarnation_of(), self.id)
        ))
    }

    fn incarnation_of(&self) -> Incarnation {
        let of_segments = self.segments.last().map(|place| place.incarnation);
        let of_state = self.state.as_ref().map(State::incarnation);
        of_state.or(of_segments).unwrap_or(Incarnation::FIRST)
    }
}

/// A damaged segment that would lead on from `end`.
fn goes_on<'a>(
    end: RaftIndex,
    candidates: &'a [Candidate],
    damaged: &BTreeMap<SegmentId, Error>,
) -> Option<&'a Candidate> {
    candidates.iter().find(|candidate| {
        damaged.contains_key(&candidate.id) && candidate.raft.from <= end && candidate.raft.to > end
    })
}

fn candidate(object: &Object) -> Option<Candidate> {
    match object.key {
        Key::FlushedSegment { range, id, .. } => Some(Candidate {
            raft: range,
            id,
            length: object.length,
        }),
        _ => None,
    }
}

/// Follows the chain, segment by segment.
struct Follow<'a> {
    bucket: &'a Bucket,
    incarnation: Incarnation,
    shard: &'a mut Shard,
    damaged: BTreeMap<SegmentId, Error>,
    notes: &'a mut Vec<String>,
}

impl Follow<'_> {
    /// Takes the longest chain of segments that can be opened. What cannot is passed over if
    /// another leads on: it may be what a flush that failed has left. By segments alone the chain
    /// begins at the lowest one there is, and anew behind a hole: any segment may have been removed
    /// once nothing in it could be read any more.
    async fn chain(&mut self, candidates: &[Candidate]) -> Result<(), Error> {
        loop {
            let sound = candidates.iter().copied();
            let sound = sound.filter(|candidate| !self.damaged.contains_key(&candidate.id));
            let links = chain(self.shard.end, &sound.collect::<Vec<_>>());
            if self.take(links).await? {
                continue;
            }
            let end = self.shard.end;
            if self.shard.state.is_some() || goes_on(end, candidates, &self.damaged).is_some() {
                return Ok(());
            }
            let Some(entries) = gap(end, candidates) else {
                return Ok(());
            };
            let why = format!(
                "no segment holds the entries {entries} of {}: they were removed once all in them \
                 was trimmed, or they are lost, and there is no checkpoint to tell",
                self.shard.id
            );
            self.notes.push(why.clone());
            self.shard.end = entries.to;
            self.shard.hole = Some(Hole { entries, why });
        }
    }

    /// Takes `links` in order; whether one is damaged, which ends it.
    async fn take(&mut self, links: Vec<Candidate>) -> Result<bool, Error> {
        let (bucket, shard, incarnation) = (self.bucket, self.shard.id, self.incarnation);
        let places = links.into_iter().map(move |link| Place {
            incarnation,
            shard,
            raft: link.raft,
            id: link.id,
            length: link.length,
        });
        let looks = places.map(|place| async move { (place, look(bucket, &place).await) });
        let mut looks = std::pin::pin!(futures::stream::iter(looks).buffered(OPENS_AHEAD));
        while let Some((place, look)) = looks.next().await {
            match look {
                Ok(look) => self.shard.take(place, look),
                Err(error) if error.code() == Code::DataLoss => {
                    self.damaged.insert(place.id, error);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

async fn look(bucket: &Bucket, place: &Place) -> Result<Look, Error> {
    let open = bucket.open(place).await?;
    let mut partitions = Vec::new();
    for page in open.segment.directory_pages() {
        let page = open.directory_page(page).await?;
        let all = page.into_partitions().into_iter();
        partitions.extend(all.map(|of| (of.id, of.topic, of.range, of.log_start)));
    }
    let tombstones = open.segment.tombstones().iter();
    Ok(Look {
        partitions,
        ended: tombstones.map(|tombstone| tombstone.topic).collect(),
    })
}

/// The newest checkpoint that can be read: one that cannot may be what a PUT that failed has left.
pub(super) async fn newest_checkpoint(
    bucket: &Bucket,
    incarnation: Incarnation,
    id: ShardId,
    notes: &mut Vec<String>,
) -> Result<Option<State>, Error> {
    let mut passed = Vec::new();
    for _ in 0..LOOKS_MAX {
        passed.clear();
        let listed = bucket.list(Prefix::Checkpoints(incarnation, id)).await?;
        for object in listed.iter().rev() {
            let key = object.key;
            let read = match bucket.whole(&key, object.length).await {
                Ok(bytes) => decode(&key, &bytes, incarnation, id),
                Err(error) => Err(error),
            };
            match read {
                Ok(state) => {
                    notes.append(&mut passed);
                    return Ok(Some(state));
                }
                Err(error) if error.code() == Code::DataLoss => {
                    passed.push(format!("checkpoint `{key}` was passed over: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        if listed.is_empty() {
            return Ok(None);
        }
    }
    notes.append(&mut passed);
    Ok(None)
}

fn decode(key: &Key, bytes: &[u8], life: Incarnation, shard: ShardId) -> Result<State, Error> {
    let decoded = checkpoint::decode(bytes).map_err(|error| match error {
        esker_shard::Error::Level { .. } => Error::invalid(format!("`{key}`: {error}")),
        _ => lost(format!("`{key}`: {error}")),
    })?;
    let state = decoded.state;
    if decoded.scope != Scope::Bucket || state.shard() != shard || state.incarnation() != life {
        return Err(lost(format!(
            "`{key}` holds the checkpoint of another shard"
        )));
    }
    Ok(state)
}
