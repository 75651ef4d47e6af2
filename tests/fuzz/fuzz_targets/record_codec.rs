//! Bytes as compressed input, the first one choosing the codec: no panic, no byte past the cap.
#![no_main]

use esker_record::Codec;
use esker_record::codec::Decoder;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Some((&first, input)) = data.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(first) % Codec::ALL.len()];
    let mut out = Vec::new();
    if Decoder::new().decode(codec, input, LIMIT, &mut out).is_ok() {
        assert!(out.len() <= LIMIT);
    }
});
