//! Bytes as a raw block, under every checksum but the batches' own: what comes out of an entry is
//! the batch that the entry names, or an error.
#![no_main]

use bytes::Bytes;
use esker_record::codec::Decoder;
use esker_segment::{BlockNumber, Entry, Extensions, Opened, Opening};
use esker_types::{ContentHash, Incarnation, Offset, PartitionId, PartitionIndex};
use esker_types::{SegmentId, ShardTime, Timestamp, TopicId};
use libfuzzer_sys::fuzz_target;

const GOLDEN: &[u8] = include_bytes!("../../../storage/segment/tests/golden/small.seg");
const GOLDEN_ID: SegmentId = SegmentId::from_parts(1_700_000_000_000, 0x5EED);

fuzz_target!(|data: &[u8]| {
    let Some((header, block)) = data.split_first_chunk::<12>() else {
        return;
    };
    let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("12 bytes"));
    let opening = Opening::new(GOLDEN_ID, GOLDEN.len() as u64).expect("the golden segment");
    let Ok(Opened::Done(segment, _)) = opening.take(Bytes::from_static(GOLDEN)) else {
        unreachable!("the golden segment opens at once");
    };
    let stored = Bytes::copy_from_slice(block);
    let _ = segment.decode_block(BlockNumber(word(8)), stored.clone(), &mut Decoder::new());
    let entry = Entry {
        offset: Offset::ZERO,
        records: 1,
        block: BlockNumber(0),
        position: word(0),
        bytes: word(4),
        crc: word(8),
        max_timestamp: Timestamp(0),
        append_time: ShardTime::ZERO,
        hash: ContentHash(0),
        extensions: Extensions::default(),
    };
    let partition = PartitionId {
        topic: TopicId::new(Incarnation::FIRST, 1).expect("a small sequence"),
        index: PartitionIndex(0),
    };
    if let Ok(batch) = segment.batch(partition, &entry, &stored) {
        assert_eq!(batch.header().crc, entry.crc);
        assert_eq!(batch.bytes().len(), entry.bytes as usize);
    }
});
