//! Objects of a bucket, read and checked, with errors in this client's words.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use esker_object::{Cursor, Key, Kind, Object, Prefix, Store};
use esker_segment::{
    DirectoryPage, DirectoryPageRef, IndexPage, Opened, Opening, Partition, Segment, Tail,
};
use esker_types::limits::{MIXED_SEGMENTS_MAX, OBJECT_GET_BYTES_MAX, OBJECT_PUT_BYTES_MAX};
use esker_types::{Durability, Incarnation, Lane, PartitionId, RaftRange, SegmentId, ShardId};

use crate::error::{Code, Error};

/// Objects that one listing brings at most: the segments that a shard's manifest may hold, and as
/// many orphans.
const LISTED_MAX: usize = 2 * MIXED_SEGMENTS_MAX;

/// A bucket that is only read.
#[derive(Clone, Debug)]
pub(super) struct Bucket(pub(super) Store);

/// Where a segment is, and what it must say of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) incarnation: Incarnation,
    pub(super) shard: ShardId,
    pub(super) raft: RaftRange,
    pub(super) id: SegmentId,
    pub(super) length: u64,
}

/// A segment that is opened.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) key: Key,
    pub(super) segment: Segment,
    tail: Tail,
    bucket: Bucket,
}

/// One partition's part of a segment.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) open: Arc<OpenSegment>,
    pub(super) partition: Partition,
}

impl Place {
    pub(super) const fn key(&self) -> Key {
        Key::FlushedSegment {
            incarnation: self.incarnation,
            shard: self.shard,
            range: self.raft,
            id: self.id,
        }
    }
}

impl Bucket {
    /// All objects under `prefix`, by name.
    pub(super) async fn list(&self, prefix: Prefix) -> Result<Vec<Object>, Error> {
        let (mut objects, mut after) = (Vec::new(), None);
        loop {
            let page = self.0.list(prefix, after.as_ref()).await;
            let page = page.map_err(|error| refused(&error))?;
            objects.extend(page.objects);
            if objects.len() > LISTED_MAX {
                let found = objects.len();
                let text = format!(
                    "{found} objects or more under `{prefix}`, of which {LISTED_MAX} are read at \
                     most; let the cluster collect what nothing names"
                );
                let error = Error::new(Code::LimitReached, Durability::Unknown, text);
                return Err(error.with_limit(LISTED_MAX, found));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(objects),
            }
        }
    }

    /// The first object under `prefix` behind `after`, if there is one.
    pub(super) async fn first_after(
        &self,
        prefix: Prefix,
        after: Option<Cursor>,
    ) -> Result<Option<Key>, Error> {
        let mut after = after;
        loop {
            let page = self.0.list(prefix, after.as_ref()).await;
            let page = page.map_err(|error| refused(&error))?;
            match (page.objects.first(), page.next) {
                (Some(object), _) => return Ok(Some(object.key)),
                (None, Some(next)) => after = Some(next),
                (None, None) => return Ok(None),
            }
        }
    }

    /// The whole object `key`, of a length that a listing has told.
    pub(super) async fn whole(&self, key: &Key, length: u64) -> Result<Bytes, Error> {
        if length > OBJECT_PUT_BYTES_MAX as u64 {
            let text = format!("`{key}` has {length} bytes, no object of ours has as many");
            return Err(lost(text));
        }
        let mut bytes = BytesMut::new();
        let mut at = 0;
        while at < length {
            let end = length.min(at + OBJECT_GET_BYTES_MAX as u64);
            bytes.extend_from_slice(&self.get(key, at..end).await?);
            at = end;
        }
        Ok(bytes.freeze())
    }

    /// Opens the segment at `place`: one GET, or two if its footer is large.
    pub(super) async fn open(&self, place: &Place) -> Result<Arc<OpenSegment>, Error> {
        let key = place.key();
        let mut opening = Opening::new(place.id, place.length).map_err(|error| damaged(&error))?;
        let (segment, tail) = loop {
            let bytes = self.get(&key, opening.wants()).await?;
            match opening.take(bytes).map_err(|error| damaged(&error))? {
                Opened::Done(segment, tail) => break (segment, tail),
                Opened::More(more) => opening = more,
            }
        };
        let origin = segment.origin();
        let says = (origin.incarnation, origin.shard, origin.raft);
        if says != (place.incarnation, place.shard, place.raft) {
            return Err(lost(format!(
                "the object `{key}` says of itself that it holds {} of {} in incarnation {}",
                origin.raft, origin.shard, origin.incarnation
            )));
        }
        Ok(Arc::new(OpenSegment {
            key,
            segment,
            tail,
            bucket: self.clone(),
        }))
    }

    pub(super) async fn get(&self, key: &Key, range: Range<u64>) -> Result<Bytes, Error> {
        let got = self.0.get_range(key, range, Lane::Backfill).await;
        got.map_err(|error| refused(&error))
    }
}

impl OpenSegment {
    /// What it holds of `partition`, if anything.
    pub(super) async fn share(
        self: &Arc<Self>,
        partition: PartitionId,
    ) -> Result<Option<Share>, Error> {
        let Some(place) = self.segment.directory_page(partition) else {
            return Ok(None);
        };
        let page = self.directory_page(place).await?;
        Ok(page.find(partition).cloned().map(|partition| Share {
            open: Arc::clone(self),
            partition,
        }))
    }

    pub(super) async fn directory_page(
        &self,
        place: &DirectoryPageRef,
    ) -> Result<DirectoryPage, Error> {
        let bytes = self.page(place.position..place.end()).await?;
        let page = self.segment.decode_directory_page(place, &bytes);
        page.map_err(|error| damaged(&error))
    }

    /// Bytes of a page: often they came when the segment was opened.
    async fn page(&self, range: Range<u64>) -> Result<Bytes, Error> {
        match self.tail.get(range.clone()) {
            Some(bytes) => Ok(bytes),
            None => self.bucket.get(&self.key, range).await,
        }
    }
}

impl Share {
    /// The page `number` of the partition's index.
    pub(super) async fn index_page(&self, number: usize) -> Result<Option<IndexPage>, Error> {
        let Some(place) = self.partition.pages.get(number) else {
            return Ok(None);
        };
        let bytes = self.open.page(place.position..place.end()).await?;
        let segment = &self.open.segment;
        let page = segment.decode_index_page(&self.partition, place, &bytes);
        page.map(Some).map_err(|error| damaged(&error))
    }
}

/// What was written is not there, or not as it was written.
pub(super) fn lost(message: impl Into<String>) -> Error {
    Error::new(Code::DataLoss, Durability::Unknown, message)
}

pub(super) fn damaged(error: &esker_segment::Error) -> Error {
    match error {
        esker_segment::Error::Version { .. } => Error::invalid(error.to_string()),
        _ => lost(error.to_string()),
    }
}

/// The bucket did not give what was asked for.
pub(super) fn refused(error: &esker_object::Error) -> Error {
    let code = match error.kind() {
        Kind::NotFound | Kind::Corrupt => Code::DataLoss,
        Kind::Unavailable => Code::BucketUnavailable,
        Kind::Overloaded => Code::Overloaded,
        Kind::Denied | Kind::Invalid => Code::InvalidRequest,
    };
    Error::new(code, Durability::Unknown, error.to_string())
}
