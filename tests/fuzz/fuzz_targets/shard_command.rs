//! A shard's command: whatever decodes is written back byte for byte.
#![no_main]

use esker_shard::Command;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(command) = Command::decode(bytes) {
        let again = command.encode().expect("what was decoded is within limits");
        assert_eq!(&again[..], bytes);
    }
});
