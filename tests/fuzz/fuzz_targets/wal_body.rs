//! The body of an entry and a node's checkpoint file: whatever decodes can be sliced anywhere.
#![no_main]

use bytes::Bytes;
use esker_wal::disk::{Body, Checkpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = Checkpoint::decode(&bytes);
    if let Some(body) = Body::decode(bytes.clone()) {
        let (head, payload) = (body.head().len(), body.payload_bytes());
        assert_eq!(4 + head + payload, bytes.len());
        for at in [0, payload / 2, payload, payload + 1, usize::MAX] {
            for length in [0, 1, payload, usize::MAX] {
                let inside = at.checked_add(length).is_some_and(|end| end <= payload);
                assert_eq!(body.slice(at, length).is_some(), inside);
            }
        }
    }
});
