//! Damaged and hostile objects: refused with a name, never read wrong, never a panic.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use bytes::Bytes;
use esker_record::codec::Decoder;
use esker_segment::{Depth, Error, Opened, Opening, Part};
use esker_types::SegmentId;
use proptest::prelude::*;

mod sample;

/// Lengths of footer and position, from the trailer.
fn footer_of(object: &[u8]) -> std::ops::Range<usize> {
    let trailer = &object[object.len() - 48..];
    let position = u64::from_le_bytes(trailer[..8].try_into().unwrap());
    let bytes = u32::from_le_bytes(trailer[8..12].try_into().unwrap());
    let start = usize::try_from(position).unwrap();
    start..start + bytes as usize
}

/// Sets the CRCs of a changed footer and of the trailer right again.
fn seal_footer(object: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&object[footer_of(object)]);
    let trailer = object.len() - 48;
    object[trailer + 12..trailer + 16].copy_from_slice(&crc.to_le_bytes());
    seal_trailer(object);
}

fn seal_trailer(object: &mut [u8]) {
    let trailer = object.len() - 48;
    let crc = crc_fast::crc32_iscsi(&object[trailer..trailer + 36]);
    object[trailer + 36..trailer + 40].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn every_flipped_byte_is_found_and_none_is_read_wrong() {
    let written = sample::write(&sample::small());
    for at in 0..written.bytes.len() {
        let mut bytes = written.bytes.to_vec();
        bytes[at] ^= 0x10;
        let object = Bytes::from(bytes);
        assert!(
            sample::verify(&object, Depth::Checksums).is_err(),
            "byte {at} went unseen"
        );
        for (id, batches) in &written.batches {
            for (expected, placement) in batches {
                if let Ok(Some(batch)) = sample::read(&object, *id, placement.offset) {
                    assert_eq!(batch.bytes(), expected, "byte {at} was read wrong");
                }
            }
        }
    }
}

#[test]
fn a_cut_or_lengthened_object_is_refused() {
    let written = sample::write(&sample::small());
    for cut in 0..written.bytes.len() {
        let object = written.bytes.slice(..cut);
        assert!(sample::open(&object).is_err(), "cut at {cut}");
        let object = written.bytes.slice(cut.max(1)..);
        assert!(sample::open(&object).is_err(), "cut before {cut}");
    }
    let long = Bytes::from([&written.bytes[..], &[0]].concat());
    assert!(sample::open(&long).is_err());
}

#[test]
fn an_object_under_anothers_key_is_refused() {
    let written = sample::write(&sample::small());
    let opening = Opening::new(SegmentId(1), written.summary.length).unwrap();
    let bytes = sample::get(&written.bytes, opening.wants());
    let error = opening.take(bytes).unwrap_err();
    assert!(error.to_string().contains("footer: segment id"), "{error}");
}

#[test]
fn a_later_version_is_refused_with_both_numbers() {
    let written = sample::write(&sample::small());
    let mut bytes = written.bytes.to_vec();
    let trailer = bytes.len() - 48;
    bytes[trailer + 32] = 2;
    seal_trailer(&mut bytes);
    let Err(Error::Version { found, known, .. }) = sample::open(&bytes.into()) else {
        panic!("a later version was opened");
    };
    assert_eq!((found, known), (2, 1));
}

#[test]
fn an_error_names_the_segment_the_part_and_the_offsets() {
    let written = sample::write(&sample::small());
    let mut bytes = written.bytes.to_vec();
    bytes[20] ^= 1;
    let error = sample::verify(&bytes.into(), Depth::Checksums).unwrap_err();
    let Error::Damaged(damage) = &error else {
        panic!("{error}");
    };
    assert_eq!(damage.segment, sample::segment_id());
    assert!(matches!(damage.part, Part::Block(_)));
    let touched = (sample::partition_id(1, 0), sample::range(40, 50));
    assert_eq!(damage.touches, Some(touched));
    let text = error.to_string();
    let end = "; touches offsets [40, 50) of t1.1/0";
    assert!(
        text.contains("block 0: checksum mismatch") && text.ends_with(end),
        "{text}"
    );
}

#[test]
fn huge_counts_under_a_right_checksum_are_refused_before_anything_is_allocated() {
    let written = sample::write(&sample::small());
    // Count of blocks at byte 60 of the footer; the two others follow their lists.
    let blocks = 60;
    let directory = blocks + 4 + 24;
    let tombstones = directory + 4 + 32;
    for (at, of) in [
        (blocks, "blocks"),
        (directory, "directory pages"),
        (tombstones, "tombstones"),
    ] {
        let mut bytes = written.bytes.to_vec();
        let footer = footer_of(&bytes);
        let at = footer.start + at;
        assert_eq!(bytes[at], 1, "a count of 1 stands at byte {at}");
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        seal_footer(&mut bytes);
        let error = sample::open(&bytes.into()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("4294967295 {of} are declared")),
            "{text}"
        );
    }
}

/// Where `range` of the object lies in memory.
fn span(range: std::ops::Range<u64>) -> std::ops::Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// A segment of one batch, changed by `edit`, with every checksum set right again: what a defect
/// of a writer would leave behind. `edit` gets the object and where block, index page and
/// directory page lie.
fn forged(edit: impl FnOnce(&mut [u8], [std::ops::Range<usize>; 3])) -> Bytes {
    let mut plans = sample::small();
    plans.truncate(1);
    plans[0].batches.truncate(2);
    // Packed first: the block is stored as it is, so that its batches can be changed in place.
    plans[0].batches.swap(0, 1);
    plans[0].batches[0].records = 40;
    let written = sample::write(&plans);
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let partition = sample::find(&written.bytes, &segment, plans[0].facts.id);
    let page = partition.unwrap().unwrap().pages[0];
    let block = segment.blocks()[0];
    assert_eq!(block.stored_bytes, block.raw_bytes);
    let listed = segment.directory_pages()[0];
    let parts = [
        span(block.position..block.end()),
        span(page.position..page.end()),
        span(listed.position..listed.end()),
    ];
    let mut bytes = written.bytes.to_vec();
    edit(&mut bytes, parts.clone());
    let [block, index, directory] = parts;
    let old = page.crc.to_le_bytes();
    let mut windows = bytes[directory.clone()].windows(4);
    let at = directory.start + windows.position(|four| four == old).unwrap();
    let footer = footer_of(&bytes).start;
    // The block's CRC stands 16 bytes into its entry, the page's 12 bytes into its own.
    for (part, at) in [
        (index, at),
        (directory, footer + 60 + 4 + 24 + 4 + 12),
        (block, footer + 60 + 4 + 16),
    ] {
        let crc = crc_fast::crc32_iscsi(&bytes[part]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    seal_footer(&mut bytes);
    let trailer = bytes.len() - 48;
    let body = crc_fast::crc64_nvme(&bytes[..trailer]);
    bytes[trailer + 16..trailer + 24].copy_from_slice(&body.to_le_bytes());
    seal_trailer(&mut bytes);
    bytes.into()
}

#[test]
fn a_content_hash_that_lies_is_found_by_the_deep_verification_alone() {
    let honest = forged(|_, _| ());
    sample::verify(&honest, Depth::Content).unwrap();
    // The hash ends two bytes before its entry, the last one of the page, does.
    let object = forged(|bytes, [_, index, _]| bytes[index.end - 3] ^= 1);
    sample::verify(&object, Depth::Checksums).unwrap();
    let error = sample::verify(&object, Depth::Content).unwrap_err();
    assert!(error.to_string().contains("content hash"), "{error}");
}

#[test]
fn a_batch_at_another_offset_than_its_entry_says_is_not_read() {
    let object = forged(|bytes, [block, ..]| bytes[block.start + 7] ^= 1);
    let first = sample::read(&object, sample::partition_id(1, 0), sample::offset(40));
    for error in [
        first.unwrap_err(),
        sample::verify(&object, Depth::Checksums).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("base offset is 41, expected 40"), "{text}");
        assert!(
            text.ends_with("touches offsets [40, 80) of t1.1/0"),
            "{text}"
        );
    }
}

#[test]
fn leader_epochs_that_the_batches_do_not_bear_out_are_found() {
    // The first epoch follows topic (14 bytes and its name), partition (37 bytes) and two counts.
    let epoch = 4 + 14 + "topic-1".len() + 37 + 4;
    let object = forged(|bytes, [_, _, directory]| {
        assert_eq!(bytes[directory.start + epoch], 1);
        bytes[directory.start + epoch] = 2;
    });
    let error = sample::verify(&object, Depth::Checksums).unwrap_err();
    assert!(error.to_string().contains("leader epochs"), "{error}");
}

#[test]
fn a_body_checksum_that_lies_is_found() {
    let written = sample::write(&sample::small());
    let mut bytes = written.bytes.to_vec();
    let trailer = bytes.len() - 48;
    bytes[trailer + 16] ^= 1;
    seal_trailer(&mut bytes);
    let error = sample::verify(&bytes.into(), Depth::Checksums).unwrap_err();
    assert!(
        error.to_string().contains("whole object: checksum"),
        "{error}"
    );
}

#[test]
fn every_flipped_byte_of_a_page_is_refused_by_who_reads_the_page() {
    let written = sample::write(&sample::small());
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let listed = &segment.directory_pages()[0];
    let page = sample::get(&written.bytes, listed.position..listed.end());
    let directory = segment.decode_directory_page(listed, &page).unwrap();
    for at in 0..page.len() {
        let mut page = page.to_vec();
        page[at] ^= 0x40;
        assert!(
            segment.decode_directory_page(listed, &page).is_err(),
            "byte {at}"
        );
    }
    for partition in directory.partitions() {
        for place in &partition.pages {
            let page = sample::get(&written.bytes, place.position..place.end());
            for at in 0..page.len() {
                let mut page = page.to_vec();
                page[at] ^= 0x40;
                let result = segment.decode_index_page(partition, place, &page);
                assert!(result.is_err(), "byte {at}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_tails_never_panic(tail in proptest::collection::vec(any::<u8>(), 64..600)) {
        let mut tail = tail;
        let magic = tail.len() - 8;
        tail[magic..].copy_from_slice(b"ESKERSEG");
        seal_trailer(&mut tail);
        prop_assert!(sample::open(&tail.into()).is_err());
    }

    #[test]
    fn changed_parts_under_right_checksums_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let written = sample::write(&sample::small());
        let (segment, _, _) = sample::open(&written.bytes).unwrap();
        let changed = |range: std::ops::Range<u64>| {
            let mut part = sample::get(&written.bytes, range).to_vec();
            for (at, value) in &edits {
                let at = at.index(part.len());
                part[at] = *value;
            }
            let crc = crc_fast::crc32_iscsi(&part);
            (part, crc)
        };
        let mut place = segment.directory_pages()[0];
        let original = sample::get(&written.bytes, place.position..place.end());
        let partition = segment.decode_directory_page(&place, &original).unwrap().into_partitions().remove(0);
        let (part, crc) = changed(place.position..place.end());
        place.crc = crc;
        let _ = segment.decode_directory_page(&place, &part);
        let mut place = partition.pages[0];
        let (part, crc) = changed(place.position..place.end());
        place.crc = crc;
        let _ = segment.decode_index_page(&partition, &place, &part);
        let mut bytes = written.bytes.to_vec();
        let footer = footer_of(&bytes);
        let (part, _) = changed(footer.start as u64..footer.end as u64);
        bytes[footer].copy_from_slice(&part);
        seal_footer(&mut bytes);
        let object = Bytes::from(bytes);
        let opening = Opening::new(sample::segment_id(), object.len() as u64).unwrap();
        let bytes = sample::get(&object, opening.wants());
        if let Ok(Opened::Done(changed, _)) = opening.take(bytes) {
            for number in 0..2 {
                let stored = object.slice(16..64);
                let number = esker_segment::BlockNumber(number);
                prop_assert!(changed.decode_block(number, stored, &mut Decoder::new()).is_err());
            }
            // A footer under a right checksum may be anything; verification must still end.
            let mut verifier = esker_segment::Verifier::new(changed, Depth::Content);
            while let Some(range) = verifier.wants() {
                if range.end > object.len() as u64 || verifier.take(sample::get(&object, range)).is_err() {
                    break;
                }
            }
        }
    }
}
