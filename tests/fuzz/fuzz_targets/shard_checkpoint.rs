//! A shard's checkpoint: whatever decodes is written back byte for byte and can be read. The
//! checksums are made right first, else nothing would ever get past them.
#![no_main]

use std::convert::Infallible;

use esker_shard::checkpoint;
use libfuzzer_sys::fuzz_target;

/// Bytes before the first section, and before and after a section's payload.
const FILE_HEADER: usize = 10;
const SECTION_HEADER: usize = 9;
const SECTION_CRC: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    make_checksums_right(&mut bytes);
    let Ok(decoded) = checkpoint::decode(&bytes) else {
        return;
    };
    let state = decoded.state;
    let mut again = Vec::new();
    let written = checkpoint::encode(&state, decoded.scope, |chunk| {
        again.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    written.expect("memory takes everything");
    assert_eq!(again, bytes);
    assert!(state.flushed() <= state.applied().index);
    let plan = state.flush_plan(u64::MAX, state.applied().index);
    assert_eq!(plan.is_some(), state.head_size().batches > 0);
});

fn make_checksums_right(bytes: &mut [u8]) {
    let (mut covered, mut at) = (0, FILE_HEADER);
    while let Some(header) = bytes.get(at..at + SECTION_HEADER) {
        let length = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
        let Some(end) = (at + SECTION_HEADER).checked_add(length as usize) else {
            return;
        };
        if bytes.len().saturating_sub(end) < SECTION_CRC {
            return;
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[covered..end]);
        bytes[end..end + SECTION_CRC].copy_from_slice(&(crc as u32).to_le_bytes());
        covered = end + SECTION_CRC;
        at = covered;
    }
}
