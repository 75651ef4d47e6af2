//! Bytes as a run of batches: opening never panics, and what opens is consistent.
#![no_main]

use bytes::Bytes;
use esker_record::{Batch, Records};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut run = Bytes::copy_from_slice(data);
    while let Ok(Some(batch)) = Batch::split_first(&mut run) {
        assert_eq!(batch.bytes().len(), batch.header().bytes);
        let _ = Records::new(batch.header(), batch.payload()).count();
    }
});
