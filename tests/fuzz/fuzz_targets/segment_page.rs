//! Bytes as a page of the directory or of an index, under a right checksum: no panic.
#![no_main]

use bytes::Bytes;
use esker_segment::{DirectoryPageRef, Opened, Opening, Segment};
use esker_types::{SegmentId, TopicId};
use libfuzzer_sys::fuzz_target;

/// The golden segment of the crate: pages are read as if they were its own.
const GOLDEN: &[u8] = include_bytes!("../../../storage/segment/tests/golden/small.seg");
const GOLDEN_ID: SegmentId = SegmentId::from_parts(1_700_000_000_000, 0x5EED);

fn golden() -> Segment {
    let opening = Opening::new(GOLDEN_ID, GOLDEN.len() as u64).expect("the golden segment");
    match opening.take(Bytes::from_static(GOLDEN)) {
        Ok(Opened::Done(segment, _)) => segment,
        other => unreachable!("the golden segment opens at once: {other:?}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[which, partitions], page)) = data.split_first_chunk::<2>() else {
        return;
    };
    let segment = golden();
    let listed = segment.directory_pages()[0];
    let crc = crc_fast::crc32_iscsi(page);
    if which % 2 == 0 {
        let first = page.get(4..12).and_then(|raw| raw.try_into().ok());
        let topic = first.and_then(|raw| TopicId::from_u64(u64::from_le_bytes(raw)));
        let mut place = DirectoryPageRef {
            bytes: page.len() as u32,
            crc,
            partitions: partitions.into(),
            ..listed
        };
        place.first.topic = topic.unwrap_or(listed.first.topic);
        let _ = segment.decode_directory_page(&place, page);
        return;
    }
    let range = listed.position as usize..listed.end() as usize;
    let directory = segment
        .decode_directory_page(&listed, &GOLDEN[range])
        .expect("the golden directory");
    let partition = &directory.partitions()[0];
    let mut place = partition.pages[0];
    place.bytes = page.len() as u32;
    place.crc = crc;
    if let Some(Ok(raw)) = page.get(..4).map(TryInto::try_into) {
        place.entries = u32::from_le_bytes(raw);
    }
    if let Ok(page) = segment.decode_index_page(partition, &place, page) {
        for entry in page.entries() {
            assert!(page.by_offset(entry.offset).is_some());
            let _ = entry.extensions.iter().count();
        }
    }
});
