//! Segments of the bucket as a reader meets them: opened once, their pages and blocks fetched
//! when asked for.
//!
//! ```text
//!   MixedSegment ─► OpenSegment (footer, tail)            kept in a bounded cache of its own
//!                       ├─► directory page ─► Share       one partition's part of it
//!                       ├─► index page ─► entries         block cache, or the tail
//!                       └─► block ─► batches              block cache, or a ranged GET of a run
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use esker_cache::{BlockCache, BlockKey};
use esker_env::{Env, Workers, WorkersExt};
use esker_object::{Key, Kind, Store};
use esker_record::codec::Decoder;
use esker_segment::{
    BlockNumber, DirectoryPage, DirectoryPageRef, IndexPage, IndexPageRef, Opened, Opening,
    Partition, Segment, Tail,
};
use esker_shard::MixedSegment;
use esker_types::limits::{
    DIRECTORY_PAGES_KEPT, OBJECT_PUT_BYTES_MAX, SEGMENT_BLOCKS_MAX, SEGMENT_TAIL_BYTES,
};
use esker_types::{Lane, PartitionId, SegmentId, ShardId};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;

use crate::error::ReadError;

/// Pages are cached beside blocks, under their position in the object with this bit set.
const PAGE: u32 = 1 << 31;
const _: () = assert!(SEGMENT_BLOCKS_MAX < PAGE as usize);
const _: () = assert!(OBJECT_PUT_BYTES_MAX < PAGE as usize);
/// Bytes that an opened segment is reckoned at beyond its tail and directory: its footer, decoded.
const OPENED_BYTES: usize = 64 << 10;
/// A decoded page of the directory takes about so many times its bytes.
const DECODED_PAGE_FACTOR: usize = 3;

/// Opens segments and reads them. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    store: Store,
    env: Env,
    blocks: BlockCache<ReadError>,
    opened: Arc<Cache<SegmentId, Arc<OpenSegment>, ByBytes>>,
    /// Read to keep the bucket, not for anybody: no request waits behind those of readers.
    for_upkeep: bool,
}

/// A segment that is opened.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    key: Key,
    segment: Segment,
    tail: Tail,
    /// Pages of the directory that somebody asked for, by position; [`DIRECTORY_PAGES_KEPT`] at
    /// most.
    directory: Mutex<BTreeMap<u64, Arc<DirectoryPage>>>,
}

/// One partition's part of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) segment: Arc<OpenSegment>,
    page: Arc<DirectoryPage>,
    id: PartitionId,
}

/// Stored blocks that one GET brings, whoever of them is asked for first.
#[derive(Debug)]
pub(crate) struct Run {
    span: Range<u64>,
    bytes: OnceCell<Result<Bytes, ReadError>>,
}

#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<SegmentId, Arc<OpenSegment>> for ByBytes {
    fn weight(&self, _: &SegmentId, segment: &Arc<OpenSegment>) -> u64 {
        let tail = segment.segment.length().min(SEGMENT_TAIL_BYTES as u64);
        let mut pages: Vec<_> = segment.segment.directory_pages().iter().collect();
        pages.sort_unstable_by_key(|page| Reverse(page.bytes));
        let kept = pages.iter().take(DIRECTORY_PAGES_KEPT);
        let decoded = kept.map(|page| page.bytes as usize * DECODED_PAGE_FACTOR);
        tail + (OPENED_BYTES + decoded.sum::<usize>()) as u64
    }
}

impl Segments {
    /// Segments in `store`, their blocks in `blocks`, opened ones within `opened_bytes`.
    pub(crate) fn new(
        store: Store,
        env: Env,
        blocks: BlockCache<ReadError>,
        opened_bytes: usize,
    ) -> Self {
        let per_segment = OPENED_BYTES + SEGMENT_TAIL_BYTES;
        let items = (opened_bytes / per_segment).max(1);
        let opened = Cache::with_weighter(items, opened_bytes as u64, ByBytes);
        Self {
            store,
            env,
            blocks,
            opened: Arc::new(opened),
            for_upkeep: false,
        }
    }

    /// Threads for what takes long.
    pub(crate) fn workers(&self) -> &Arc<dyn Workers> {
        &self.env.workers
    }

    /// The same for upkeep, with opened segments and a class of requests of its own: a walk
    /// through all of them leaves those of readers alone.
    pub(crate) fn apart(&self, opened_bytes: usize) -> Self {
        let (store, env) = (self.store.clone(), self.env.clone());
        Self {
            for_upkeep: true,
            ..Self::new(store, env, self.blocks.clone(), opened_bytes)
        }
    }

    /// Opens `segment` of `shard`: one GET, or two if its footer is large; none if it is open.
    pub(crate) async fn open(
        &self,
        shard: ShardId,
        segment: &MixedSegment,
        lane: Lane,
    ) -> Result<Arc<OpenSegment>, ReadError> {
        let id = segment.segment;
        let opening = async {
            let key = Key::FlushedSegment {
                incarnation: segment.incarnation,
                shard,
                range: segment.raft,
                id,
            };
            let length = segment.length;
            self.open_object(key, id, length, lane).await.map(Arc::new)
        };
        self.opened.get_or_insert_async(&id, opening).await
    }

    async fn open_object(
        &self,
        key: Key,
        id: SegmentId,
        length: u64,
        lane: Lane,
    ) -> Result<OpenSegment, ReadError> {
        let mut opening = Opening::new(id, length)?;
        loop {
            let bytes = self.get(&key, id, opening.wants(), lane).await?;
            match opening.take(bytes)? {
                Opened::Done(segment, tail) => {
                    return Ok(OpenSegment {
                        key,
                        segment,
                        tail,
                        directory: Mutex::default(),
                    });
                }
                Opened::More(more) => opening = more,
            }
        }
    }

    /// What `segment` holds of `partition`; `None` if it holds nothing of it.
    pub(crate) async fn share(
        &self,
        segment: &Arc<OpenSegment>,
        id: PartitionId,
        lane: Lane,
    ) -> Result<Option<Share>, ReadError> {
        let Some(place) = segment.segment.directory_page(id) else {
            return Ok(None);
        };
        let page = self.directory_page(segment, place, lane).await?;
        if page.find(id).is_none() {
            return Ok(None);
        }
        Ok(Some(Share {
            segment: Arc::clone(segment),
            page,
            id,
        }))
    }

    /// Every page of the directory, in order of partitions.
    pub(crate) async fn directory(
        &self,
        segment: &Arc<OpenSegment>,
        lane: Lane,
    ) -> Result<Vec<Arc<DirectoryPage>>, ReadError> {
        let mut pages = Vec::new();
        for place in segment.segment.directory_pages() {
            pages.push(self.directory_page(segment, place, lane).await?);
        }
        Ok(pages)
    }

    async fn directory_page(
        &self,
        segment: &Arc<OpenSegment>,
        place: &DirectoryPageRef,
        lane: Lane,
    ) -> Result<Arc<DirectoryPage>, ReadError> {
        if let Some(page) = segment.known_pages().get(&place.position) {
            return Ok(Arc::clone(page));
        }
        let (of, at) = (Arc::clone(segment), *place);
        let decode = move |bytes: &[u8]| Ok(of.segment.decode_directory_page(&at, bytes)?);
        let range = place.position..place.end();
        let page = Arc::new(self.page(segment, range, lane, decode).await?);
        let mut known = segment.known_pages();
        if known.len() >= DIRECTORY_PAGES_KEPT {
            // Whichever: who walks through all of them needs none twice.
            known.pop_first();
        }
        known.insert(place.position, Arc::clone(&page));
        Ok(page)
    }

    /// A page of a partition's index.
    pub(crate) async fn index_page(
        &self,
        share: &Share,
        place: &IndexPageRef,
        lane: Lane,
    ) -> Result<IndexPage, ReadError> {
        let (of, at) = (share.clone(), *place);
        let decode = move |bytes: &[u8]| {
            let segment = &of.segment.segment;
            Ok(segment.decode_index_page(of.partition(), &at, bytes)?)
        };
        let range = place.position..place.end();
        self.page(&share.segment, range, lane, decode).await
    }

    /// A page: from the tail, the cache, or the bucket. What fails its check is kept nowhere, and
    /// fetched anew when it is asked for again.
    async fn page<T>(
        &self,
        segment: &Arc<OpenSegment>,
        range: Range<u64>,
        lane: Lane,
        decode: impl Fn(&[u8]) -> Result<T, ReadError> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        if let Some(bytes) = segment.tail.get(range.clone()) {
            let page = decode(&bytes);
            if page.is_err() {
                self.forget(segment.segment.id());
            }
            return page;
        }
        let position = u32::try_from(range.start).expect("objects are below 2 GiB");
        let key = BlockKey {
            segment: segment.segment.id(),
            block: PAGE | position,
        };
        let (this, segment, check) = (self.clone(), Arc::clone(segment), decode.clone());
        let load = move || async move {
            let id = segment.segment.id();
            let bytes = this.get(&segment.key, id, range, lane).await?;
            check(&bytes).map(|_| bytes)
        };
        let page = decode(&self.blocks.get_or_load(key, lane, load).await?);
        if page.is_err() {
            self.blocks.forget(key);
        }
        page
    }

    /// A raw block, which `run` brings if nobody has it. The work is done by whoever polls.
    pub(crate) async fn block(
        &self,
        segment: &Arc<OpenSegment>,
        number: BlockNumber,
        run: &Arc<Run>,
        lane: Lane,
    ) -> Result<Bytes, ReadError> {
        let key = BlockKey {
            segment: segment.segment.id(),
            block: number.0,
        };
        let (this, segment, run) = (self.clone(), Arc::clone(segment), Arc::clone(run));
        let load = move || async move {
            let stored = this.stored(&segment, number, &run, lane).await?;
            let decode = move || {
                // A plain block would come out as a part of the run: cached, it must stand alone.
                let plain =
                    segment
                        .segment
                        .decode_block(number, stored, &mut Decoder::default())?;
                let alone = plain.is_unique();
                Ok(if alone {
                    plain
                } else {
                    Bytes::copy_from_slice(&plain)
                })
            };
            this.env.workers.run(decode).await
        };
        self.blocks.get_or_load(key, lane, load).await
    }

    /// The stored bytes of a block, out of its run.
    async fn stored(
        &self,
        segment: &Arc<OpenSegment>,
        number: BlockNumber,
        run: &Run,
        lane: Lane,
    ) -> Result<Bytes, ReadError> {
        let id = segment.segment.id();
        let get = || self.get(&segment.key, id, run.span.clone(), lane);
        let bytes = run.bytes.get_or_init(get).await.clone()?;
        let span = segment.segment.block_span(number..=number);
        let span = span.expect("the run was made of this segment's blocks");
        let at = |position: u64| {
            let within = position.checked_sub(run.span.start);
            within
                .and_then(|within| usize::try_from(within).ok())
                .expect("a run spans its blocks")
        };
        Ok(bytes.slice(at(span.start)..at(span.end)))
    }

    async fn get(
        &self,
        key: &Key,
        segment: SegmentId,
        range: Range<u64>,
        lane: Lane,
    ) -> Result<Bytes, ReadError> {
        let got = if self.for_upkeep {
            self.store.get_for_upkeep(key, range).await
        } else {
            self.store.get_range(key, range, lane).await
        };
        got.map_err(|source| match source.kind() {
            Kind::NotFound => ReadError::Gone { segment },
            _ => ReadError::Bucket { segment, source },
        })
    }

    /// Forgets that `segment` is open.
    pub(crate) fn forget(&self, segment: SegmentId) {
        self.opened.remove(&segment);
    }

    /// Forgets a block that turned out to be damaged, wherever it came from.
    pub(crate) fn forget_block(&self, segment: SegmentId, number: BlockNumber) {
        let block = number.0;
        self.blocks.forget(BlockKey { segment, block });
    }
}

impl OpenSegment {
    /// Its footer.
    pub(crate) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// A run of its blocks, to be fetched with one GET.
    pub(crate) fn run(&self, first: BlockNumber, last: BlockNumber) -> Option<Run> {
        Some(Run {
            span: self.segment.block_span(first..=last)?,
            bytes: OnceCell::new(),
        })
    }

    fn known_pages(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<DirectoryPage>>> {
        // A map of whole pages is whole whoever panicked.
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Partitions of the same topic that stand on the same page of the directory.
    pub(crate) fn of_topic(&self) -> impl Iterator<Item = &Partition> {
        let topic = self.id.topic;
        let all = self.page.partitions().iter();
        all.filter(move |partition| partition.id.topic == topic)
    }

    /// The partition's part, as the directory has it.
    pub(crate) fn partition(&self) -> &Partition {
        self.page
            .find(self.id)
            .expect("a share is made of a page that lists its partition")
    }
}
