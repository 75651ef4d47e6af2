//! A segment as it lies in buckets. `ESKER_BLESS=1` writes it if it is missing; a file that is
//! there is never written again.

#![expect(clippy::disallowed_methods, reason = "golden files are real files")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use bytes::Bytes;
use esker_segment::{Checksum, Depth};

mod sample;

#[test]
fn a_segment_is_written_and_read_as_on_the_first_day() {
    let written = sample::write(&sample::small());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small.seg");
    if std::env::var_os("ESKER_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, &written.bytes).unwrap();
    }
    let golden = Bytes::from(std::fs::read(path).unwrap());
    let verified = sample::verify(&golden, Depth::Content).unwrap();
    assert_eq!(verified.ranges, written.summary.ranges);
    assert_eq!((verified.batches, verified.records), (6, 26));
    assert_eq!(verified.checksum, Checksum(crc_fast::crc64_nvme(&golden)));
    assert_eq!(written.bytes, golden, "the writer changed its bytes");
    assert_eq!(written.summary.checksum, verified.checksum);
}
