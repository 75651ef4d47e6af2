//! Bytes as a claim on a bucket: whatever decodes is written again, and reads the same.
#![no_main]

use esker_log::Claim;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(claim) = Claim::decode(data) {
        let again = Claim::decode(&claim.encode()).expect("what we write we read");
        assert_eq!(again, claim);
    }
});
