//! A reader that knows nothing but a segment's key and length.

use std::collections::BTreeMap;

use esker_object::{Key, Store};
use esker_record::codec::Decoder;
use esker_record::{Batch, Scratch};
use esker_segment::{Depth, Opened, Opening, Partition, Segment, Verifier};
use esker_types::limits::MIB;
use esker_types::{Lane, PartitionId, SegmentId};

/// Offset and value of every record of a partition, in order.
pub type Values = Vec<(u64, Vec<u8>)>;

/// Every record of the segment, by partition; the whole object is verified first.
pub async fn records(store: &Store, key: &Key, id: SegmentId) -> BTreeMap<PartitionId, Values> {
    let length = store.head(key).await.expect("it is there");
    let get = async |range| {
        store
            .get_range(key, range, Lane::Tail)
            .await
            .expect("readable")
    };
    let segment = open(id, length, &get).await;
    let mut verifier = Verifier::new(segment.clone(), Depth::Content);
    while let Some(range) = verifier.wants() {
        verifier.take(get(range).await).expect("whole");
    }
    assert_eq!(verifier.finish().length, length);

    let mut records = BTreeMap::new();
    for page in segment.directory_pages() {
        let bytes = get(page.position..page.position + u64::from(page.bytes)).await;
        let page = segment.decode_directory_page(page, &bytes).expect("whole");
        for partition in page.partitions() {
            records.insert(partition.id, of_partition(&segment, partition, &get).await);
        }
    }
    records
}

/// The partitions of the segment, with what they say beside their batches.
pub async fn partitions(store: &Store, key: &Key, id: SegmentId) -> Vec<Partition> {
    let length = store.head(key).await.expect("it is there");
    let get = async |range| {
        store
            .get_range(key, range, Lane::Tail)
            .await
            .expect("readable")
    };
    let segment = open(id, length, &get).await;
    let mut partitions = Vec::new();
    for page in segment.directory_pages() {
        let bytes = get(page.position..page.position + u64::from(page.bytes)).await;
        let page = segment.decode_directory_page(page, &bytes).expect("whole");
        partitions.extend(page.into_partitions());
    }
    partitions
}

async fn open(
    id: SegmentId,
    length: u64,
    get: &impl AsyncFn(std::ops::Range<u64>) -> bytes::Bytes,
) -> Segment {
    let mut opening = Opening::new(id, length).expect("long enough");
    loop {
        let bytes = get(opening.wants()).await;
        match opening.take(bytes).expect("a segment") {
            Opened::Done(segment, _) => return segment,
            Opened::More(more) => opening = more,
        }
    }
}

async fn of_partition(
    segment: &Segment,
    partition: &Partition,
    get: &impl AsyncFn(std::ops::Range<u64>) -> bytes::Bytes,
) -> Values {
    let mut values = Values::new();
    for page in &partition.pages {
        let bytes = get(page.position..page.position + u64::from(page.bytes)).await;
        let index = segment
            .decode_index_page(partition, page, &bytes)
            .expect("whole");
        for entry in index.entries() {
            let span = segment
                .block_span(entry.block..=entry.block)
                .expect("it is there");
            let block = segment.decode_block(entry.block, get(span).await, &mut Decoder::default());
            let batch = segment
                .batch(partition.id, entry, &block.expect("whole"))
                .expect("whole");
            values.extend(of_batch(&batch));
        }
    }
    values
}

fn of_batch(batch: &Batch) -> Values {
    let mut scratch = Scratch::new(MIB);
    let plain = scratch.decode(batch).expect("it was admitted once");
    let records = plain.records().map(|record| {
        let record = record.expect("it was admitted once");
        (
            record.offset.get(),
            record.value.unwrap_or_default().to_vec(),
        )
    });
    records.collect()
}
