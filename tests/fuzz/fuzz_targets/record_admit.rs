//! Bytes as a producer's batch, checksum set right so that the fuzzer reaches the records: what
//! is admitted can be read to its end.
#![no_main]

use esker_record::{Depth, Rules, Scratch, admit};
use esker_types::limits::BATCH_BYTES_DEFAULT;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() > 21 {
        let length = (bytes.len() as u32).saturating_sub(12);
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc_fast::crc32_iscsi(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let rules = Rules {
        batch_bytes_max: BATCH_BYTES_DEFAULT,
        depth: Depth::Deep,
    };
    let mut scratch = Scratch::new(1 << 20);
    let Ok(checked) = admit(bytes.into(), &rules, &mut scratch) else {
        return;
    };
    let plain = scratch.decode(&checked.batch).expect("it was admitted");
    let records = plain.records().filter(Result::is_ok).count();
    assert_eq!(records, checked.batch.header().records as usize);
});
