//! What the benches of all stations work on: lines as services write them, made the same each time.

use bytes::Bytes;
use esker_record::{Batch, Builder, Compression, NewRecord, ZstdLevel};
use esker_types::Timestamp;
use esker_types::limits::BATCH_BYTES_MAX;

/// Values of a batch, about: what producers send by default.
pub const BATCH_BYTES: usize = 256 << 10;

/// Level that producers use.
pub const ZSTD: Compression = Compression::Zstd(ZstdLevel::FAST);

/// Log lines of together at least `bytes`, whose numbers differ from line to line.
#[must_use]
pub fn lines(bytes: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut draw = || {
        // PCG's multiplier; the high bits are good enough for digits.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    let (mut lines, mut made) = (Vec::new(), 0);
    while made < bytes {
        let (id, path, took, size) = (draw(), draw() % 100_000, draw() % 1000, draw() % 100_000);
        let line = format!(
            "2026-03-14T07:21:58.{:03}Z INFO  gateway request id={id:x} method=GET \
             path=/v1/orders/{path} status=200 bytes={size} took={took}ms",
            draw() % 1000
        );
        made += line.len();
        lines.push(line.into_bytes());
    }
    lines
}

/// Bytes of all `lines`.
#[must_use]
pub fn total(lines: &[Vec<u8>]) -> u64 {
    lines.iter().map(|line| line.len() as u64).sum()
}

/// A batch of `lines`.
///
/// # Panics
/// If they do not fit into the largest batch.
#[must_use]
pub fn batch(lines: &[Vec<u8>], compression: Compression) -> Batch {
    let mut builder = Builder::new(compression, BATCH_BYTES_MAX);
    for line in lines {
        let record = NewRecord::value(Timestamp(1_773_472_918_000), line);
        builder
            .push(&record)
            .expect("a batch has room for the lines of a bench");
    }
    builder
        .finish(None)
        .expect("a batch has room for the lines of a bench")
}

/// What no codec makes smaller.
#[must_use]
pub fn noise(bytes: usize) -> Bytes {
    let mut noise = vec![0; bytes];
    let env = esker_env::Env::real();
    env.entropy.fill(&mut noise);
    noise.into()
}
