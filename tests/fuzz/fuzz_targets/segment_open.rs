//! Bytes as the tail of an object, trailer and footer checksums set right so that the fuzzer
//! reaches the footer: opening never panics, and what opens can be walked without a panic.
#![no_main]

use bytes::Bytes;
use esker_segment::{BlockNumber, Depth, Opened, Opening, Verifier};
use esker_types::SegmentId;
use libfuzzer_sys::fuzz_target;

const TRAILER_BYTES: usize = 48;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() < 16 + TRAILER_BYTES {
        return;
    }
    seal(&mut bytes);
    let object = Bytes::from(bytes);
    let segment = SegmentId(0);
    let opening = Opening::new(segment, object.len() as u64).expect("it is long enough");
    let Ok(Opened::Done(segment, _)) = opening.take(object.clone()) else {
        return;
    };
    let _ = segment.block_span(BlockNumber(0)..=BlockNumber(u32::MAX));
    let mut verifier = Verifier::new(segment, Depth::Content);
    while let Some(range) = verifier.wants() {
        let (start, end) = (range.start as usize, range.end as usize);
        if end > object.len() || verifier.take(object.slice(start..end)).is_err() {
            return;
        }
    }
    let verified = verifier.finish();
    assert_eq!(verified.length, object.len() as u64);
});

/// Magic, version, length and checksums of an object whose footer begins where its trailer says,
/// within bounds.
fn seal(bytes: &mut [u8]) {
    let trailer = bytes.len() - TRAILER_BYTES;
    let start =
        16 + u16::from_le_bytes([bytes[trailer], bytes[trailer + 1]]) as usize % (trailer - 15);
    let crc = crc_fast::crc32_iscsi(&bytes[start..trailer]);
    let length = bytes.len() as u64;
    bytes[trailer..trailer + 8].copy_from_slice(&(start as u64).to_le_bytes());
    bytes[trailer + 8..trailer + 12].copy_from_slice(&((trailer - start) as u32).to_le_bytes());
    bytes[trailer + 12..trailer + 16].copy_from_slice(&crc.to_le_bytes());
    bytes[trailer + 24..trailer + 32].copy_from_slice(&length.to_le_bytes());
    bytes[trailer + 32..trailer + 36].copy_from_slice(&1u32.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[trailer..trailer + 36]);
    bytes[trailer + 36..trailer + 40].copy_from_slice(&crc.to_le_bytes());
    bytes[trailer + 40..].copy_from_slice(b"ESKERSEG");
}
