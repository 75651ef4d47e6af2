//! A WAL file as an operator looks into it, with its checksums repaired first, so that what lies
//! behind them is reached.
#![no_main]

use crc_fast::{CrcAlgorithm, Digest};
use esker_wal::disk::FileReport;
use libfuzzer_sys::fuzz_target;

const PAGE: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    let _ = FileReport::decode(&bytes);
    if repair(&mut bytes).is_none() {
        return;
    }
    if let Some(report) = FileReport::decode(&bytes) {
        assert!(report.end as usize <= bytes.len().next_multiple_of(PAGE));
        for pair in report.groups.windows(2) {
            assert!(pair[0].offset < pair[1].offset);
        }
    }
});

fn crc(uuid: &[u8], parts: &[&[u8]]) -> [u8; 4] {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(uuid);
    parts.iter().for_each(|part| digest.update(part));
    (digest.finalize() as u32).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Makes every checksum right that the lengths, as they stand, lead to.
fn repair(bytes: &mut [u8]) -> Option<()> {
    bytes.get_mut(..12)?.copy_from_slice(b"ESKERWAL\x01\0\0\0");
    let length = number(bytes, 12)?;
    let uuid = bytes.get(16..32)?.to_vec();
    let end = length.checked_sub(4)?;
    let sum = crc(&uuid, &[bytes.get(..end)?]);
    bytes.get_mut(end..length)?.copy_from_slice(&sum);

    let mut at = length.next_multiple_of(PAGE);
    while at + 48 <= bytes.len() {
        bytes[at..at + 4].copy_from_slice(b"EGRP");
        bytes[at + 32..at + 40].copy_from_slice(&(at as u64).to_le_bytes());
        let (frames, frame_bytes) = (number(bytes, at + 4)?, number(bytes, at + 8)?);
        let mut headers = Vec::new();
        let mut frame = at + 48;
        for _ in 0..frames.min(64) {
            let payload = frame + 32..frame + 32 + number(bytes, frame)?;
            let sum = crc(&uuid, &[bytes.get(payload.clone())?]);
            bytes.get_mut(frame + 28..frame + 32)?.copy_from_slice(&sum);
            headers.extend_from_slice(&bytes[frame..frame + 32]);
            frame = payload.end;
        }
        let sum = crc(&uuid, &[&headers]);
        bytes[at + 40..at + 44].copy_from_slice(&sum);
        let sum = crc(&uuid, &[&bytes[at..at + 44]]);
        bytes[at + 44..at + 48].copy_from_slice(&sum);
        at = (at + 48).checked_add(frame_bytes)?.next_multiple_of(PAGE);
    }
    Some(())
}
