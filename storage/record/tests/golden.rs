//! Batches as they lie in buckets: what was written once is read for ever. `ESKER_BLESS=1`
//! writes files that are missing; a file that is there is never written again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "golden files are real files")]

use std::path::PathBuf;

use bytes::Bytes;
use esker_record::{Batch, Codec, Depth, Rules, Scratch, admit};
use esker_types::limits::BATCH_BYTES_DEFAULT;

mod sample;

/// XXH3-128 of the samples' canonical form, the same under every codec.
const CONTENT_HASH: u128 = 0xf554_95e3_34ea_b054_abff_6b10_f0c7_c294;

fn golden(name: &str, now: &Batch) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ESKER_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, now.bytes()).unwrap();
    }
    std::fs::read(path).unwrap().into()
}

#[test]
fn a_batch_of_every_codec_is_read_as_on_the_day_it_was_written() {
    let rules = Rules {
        batch_bytes_max: BATCH_BYTES_DEFAULT,
        depth: Depth::Deep,
    };
    for codec in Codec::ALL {
        let now = sample::build(
            &sample::records(),
            sample::compression(codec),
            Some(sample::stamp()),
        );
        let bytes = golden(&format!("{codec}.batch"), &now);
        let checked = admit(bytes, &rules, &mut Scratch::new(0)).unwrap();
        assert_eq!(checked.batch.header().attributes.codec(), codec);
        assert_eq!(checked.batch.header().producer, Some(sample::stamp()));
        assert_eq!(sample::read(&checked.batch), sample::records(), "{codec}");
        assert_eq!(checked.hash.0, CONTENT_HASH, "{codec}: {}", checked.hash);
    }
}

#[test]
fn plain_records_are_written_as_on_the_first_day() {
    let now = sample::build(
        &sample::records(),
        sample::compression(Codec::None),
        Some(sample::stamp()),
    );
    assert_eq!(golden("none.batch", &now), now.bytes());
}
