//! What a reader finds, by offset and by time, and with how many GETs.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use esker_record::{Codec, Compression};
use esker_segment::{BlockNumber, Depth, Error, Opening, Sealer, Writer};
use esker_types::limits::{BLOCK_BYTES, INDEX_PAGE_BYTES_MAX, SEGMENT_TAIL_BYTES};
use esker_types::{LeaderEpoch, Timestamp};

mod sample;
use sample::{PartitionPlan, Plan};

#[test]
fn a_small_segment_is_opened_with_one_get_that_brings_the_directory_too() {
    let written = sample::write(&sample::small());
    let (segment, tail, gets) = sample::open(&written.bytes).unwrap();
    assert_eq!(gets, 1);
    assert_eq!(segment.origin(), &sample::origin());
    assert_eq!(segment.tombstones(), sample::tombstones());
    assert_eq!((segment.batches(), segment.records()), (6, 26));
    let place = segment.directory_page(sample::partition_id(1, 0)).unwrap();
    let page = tail.get(place.position..place.end()).unwrap();
    let page = segment.decode_directory_page(place, &page).unwrap();
    assert_eq!(page.partitions().len(), 3);
    assert_eq!(tail.get(0..segment.length() + 1), None);
}

#[test]
fn facts_of_a_partition_come_back() {
    let plans = sample::small();
    let written = sample::write(&plans);
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let first = sample::find(&written.bytes, &segment, plans[0].facts.id);
    let first = first.unwrap().unwrap();
    assert_eq!(first.topic.as_str(), "topic-1");
    assert_eq!(first.range, sample::range(40, 50));
    assert_eq!(first.log_start, sample::offset(20));
    assert_eq!(first.fencing, plans[0].facts.fencing);
    assert_eq!(first.producers, plans[0].facts.producers);
    let epochs: Vec<_> = first
        .epochs
        .iter()
        .map(|e| (e.epoch, e.start.get()))
        .collect();
    assert_eq!(epochs, [(LeaderEpoch(1), 40), (LeaderEpoch(4), 48)]);
    let nobody = sample::find(&written.bytes, &segment, sample::partition_id(1, 1));
    assert_eq!(nobody.unwrap(), None);
    let before = sample::find(&written.bytes, &segment, sample::partition_id(0, 0));
    assert_eq!(before.unwrap(), None);
}

#[test]
fn an_entry_carries_what_its_batch_was_placed_with_and_skips_what_it_does_not_know() {
    let written = sample::write(&sample::small());
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let (id, batches) = &written.batches[0];
    let partition = sample::find(&written.bytes, &segment, *id)
        .unwrap()
        .unwrap();
    let place = &partition.pages[0];
    let page = sample::get(&written.bytes, place.position..place.end());
    let page = segment.decode_index_page(&partition, place, &page).unwrap();
    for (entry, (bytes, placement)) in page.entries().iter().zip(batches) {
        assert_eq!(entry.bytes as usize, bytes.len());
        assert_eq!(
            (entry.offset, entry.hash),
            (placement.offset, placement.hash)
        );
        assert_eq!(entry.append_time, placement.append_time);
        let extensions: Vec<_> = entry.extensions.iter().collect();
        assert_eq!(extensions, placement.extensions);
    }
    assert_eq!(page.entries().len(), batches.len());
    assert!(page.by_offset(sample::offset(39)).is_none());
    assert!(page.by_offset(sample::offset(50)).is_none());
}

#[test]
fn every_offset_finds_its_batch_and_offsets_outside_find_none() {
    let written = sample::write(&sample::small());
    sample::assert_reads_back(&written);
    let id = sample::partition_id(1, 0);
    for number in 40..50 {
        let batch = sample::read(&written.bytes, id, sample::offset(number));
        let range = batch.unwrap().unwrap().header().offsets();
        assert!(range.contains(sample::offset(number)));
    }
    for number in [0, 39, 50, 1 << 50] {
        let none = sample::read(&written.bytes, id, sample::offset(number)).unwrap();
        assert_eq!(none, None, "{number}");
    }
}

#[test]
fn blocks_of_compressed_batches_are_stored_as_they_are_and_plain_ones_compressed() {
    let many = |compression| PartitionPlan {
        facts: sample::facts(1, 0, 0),
        batches: vec![
            Plan {
                compression,
                ..Plan::plain(50, 400)
            };
            10
        ],
    };
    let codec = |compression| {
        let written = sample::write(&[many(compression)]);
        sample::assert_reads_back(&written);
        sample::open(&written.bytes).unwrap().0.blocks()[0].codec
    };
    assert_eq!(codec(Compression::None), Codec::Zstd);
    assert_eq!(codec(Compression::Lz4), Codec::None);
}

#[test]
fn a_batch_never_spans_blocks_and_a_large_one_has_a_block_of_its_own() {
    let plan = PartitionPlan {
        facts: sample::facts(1, 0, 0),
        batches: vec![
            Plan::plain(1, 700_000),
            Plan::plain(1, 700_000),
            Plan::plain(1, 3 * BLOCK_BYTES),
            Plan::plain(1, 10),
            Plan::plain(1, 10),
        ],
    };
    let written = sample::write(&[plan]);
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let raw: Vec<_> = segment
        .blocks()
        .iter()
        .map(|b| b.raw_bytes as usize)
        .collect();
    assert_eq!(raw.len(), 4);
    assert!(raw[0] < BLOCK_BYTES && raw[1] < BLOCK_BYTES && raw[2] > 3 * BLOCK_BYTES);
    let span = segment.block_span(BlockNumber(1)..=BlockNumber(3)).unwrap();
    assert_eq!(span.start, segment.blocks()[0].end());
    assert_eq!(span.end, segment.blocks()[3].end());
    assert_eq!(segment.block_span(BlockNumber(0)..=BlockNumber(4)), None);
    sample::assert_reads_back(&written);
    sample::verify(&written.bytes, Depth::Content).unwrap();
}

#[test]
fn an_index_of_many_batches_has_pages_of_bounded_size_and_one_answers_a_lookup() {
    let batches = (0..3000)
        .map(|n| Plan {
            timestamp: 1000 + i64::from(n % 1000) * 10,
            ..Plan::plain(1, 0)
        })
        .collect();
    let plan = PartitionPlan {
        facts: sample::facts(1, 0, 500),
        batches,
    };
    let written = sample::write(&[plan]);
    let (segment, _, _) = sample::open(&written.bytes).unwrap();
    let partition = sample::find(&written.bytes, &segment, sample::partition_id(1, 0));
    let partition = partition.unwrap().unwrap();
    assert!(partition.pages.len() >= 3);
    let page_of = |place: &esker_segment::IndexPageRef| {
        assert!(place.bytes as usize <= INDEX_PAGE_BYTES_MAX);
        let bytes = sample::get(&written.bytes, place.position..place.end());
        segment
            .decode_index_page(&partition, place, &bytes)
            .unwrap()
    };
    for number in [500, 1499, 1500, 3499] {
        let offset = sample::offset(number);
        let page = page_of(partition.page_by_offset(offset).unwrap());
        assert_eq!(page.by_offset(offset).unwrap().offset, offset);
    }
    // Times climb and fall back twice: the first batch at or after the time wins, from log start.
    let by_time = |time, from| {
        partition
            .pages_by_time(Timestamp(time), sample::offset(from))
            .find_map(|place| {
                page_of(place)
                    .by_time(Timestamp(time), sample::offset(from))
                    .cloned()
            })
            .map(|entry| entry.offset.get())
    };
    assert_eq!(by_time(0, 0), Some(500));
    assert_eq!(by_time(1_995, 0), Some(600));
    assert_eq!(by_time(1_995, 601), Some(601));
    assert_eq!(by_time(10_990, 0), Some(1499));
    assert_eq!(by_time(10_990, 1500), Some(2499));
    assert_eq!(by_time(10_991, 0), None);
    let last = partition.pages_by_time(Timestamp(0), sample::offset(3499));
    assert_eq!(last.count(), 1, "pages before the log start are not read");
}

#[test]
fn a_hundred_thousand_partitions_open_with_at_most_one_get_more() {
    let batch = sample::batch(&Plan::plain(1, 0), 0);
    let mut writer = Writer::new(sample::origin());
    let mut sealer = Sealer::new(sample::origin().zstd_level);
    let (mut assembler, header) = esker_segment::Assembler::start();
    let mut object = header.to_vec();
    for index in 0..100_000u32 {
        writer
            .begin(sample::facts(1 + u64::from(index / 7), index, 0))
            .unwrap();
        let placement = esker_segment::Placement {
            offset: sample::offset(0),
            leader_epoch: LeaderEpoch(1),
            append_time: esker_types::ShardTime(1),
            hash: esker_types::ContentHash::from_checksum(batch.header().crc),
            extensions: vec![],
        };
        if let Some(block) = writer.push(&batch, &placement).unwrap() {
            object.extend_from_slice(&assembler.push(block.seal(&mut sealer).unwrap()).concat());
        }
    }
    let (last, index) = writer.finish().unwrap();
    object.extend_from_slice(&assembler.push(last.seal(&mut sealer).unwrap()).concat());
    let (chunks, summary) = assembler.finish(index, vec![]).unwrap();
    chunks
        .iter()
        .for_each(|chunk| object.extend_from_slice(chunk));
    let object = bytes::Bytes::from(object);
    let (segment, _, gets) = sample::open(&object).unwrap();
    assert!(gets <= 2);
    assert!(segment.directory_pages().len() > 100);
    for index in [0, 1, 49_999, 99_999] {
        let id = sample::partition_id(1 + u64::from(index / 7), index);
        assert!(
            sample::find(&object, &segment, id).unwrap().is_some(),
            "{id}"
        );
    }
    assert_eq!(summary.ranges.len(), 100_000);
    let verified = sample::verify(&object, Depth::Checksums).unwrap();
    assert_eq!(verified.ranges, summary.ranges);
}

#[test]
fn a_footer_larger_than_the_first_get_takes_one_more() {
    let incarnation = esker_types::Incarnation::FIRST;
    let tombstones: Vec<_> = (0..20_000)
        .map(|n| esker_segment::Tombstone {
            topic: esker_types::TopicId::new(incarnation, n).unwrap(),
            version: esker_types::TopicVersion(n),
        })
        .collect();
    let written = sample::write_with(&sample::small(), tombstones.clone());
    assert!(written.bytes.len() > SEGMENT_TAIL_BYTES);
    let (segment, tail, gets) = sample::open(&written.bytes).unwrap();
    assert_eq!(gets, 2);
    assert_eq!(segment.tombstones(), tombstones);
    assert!(tail.get(segment.length() - 48..segment.length()).is_some());
    sample::verify(&written.bytes, Depth::Content).unwrap();
}

#[test]
fn a_segment_without_a_batch_is_not_written() {
    let writer = Writer::new(sample::origin());
    assert!(matches!(writer.finish(), Err(Error::Empty { .. })));
    assert!(Opening::new(sample::segment_id(), 63).is_err());
}
