//! What zstd does with the same lines, on one core.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use esker_client::{Compression, ZstdLevel};
use esker_env::{Clock, Env, WorkersExt};
use esker_record::Codec;
use esker_record::codec::{Decoder, Encoder, Fault};

use crate::sample::Lines;

/// Texts that are taken in turn.
const TEXTS: usize = 16;

/// What zstd did, in plain bytes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zstd {
    pub(crate) encoded: f64,
    pub(crate) decoded: f64,
    /// Plain bytes for each compressed one.
    pub(crate) ratio: f64,
}

/// Compresses and decompresses lines in pieces of `bytes`, each for as long as `lasting`, at the
/// level that producers use.
pub(crate) async fn measure(env: &Env, bytes: u64, lasting: Duration) -> Result<Zstd, Fault> {
    let clock = Arc::clone(&env.clock);
    let work = move || {
        run(
            &*clock,
            usize::try_from(bytes).unwrap_or(usize::MAX),
            lasting,
        )
    };
    env.workers.run(work).await
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn run(clock: &dyn Clock, bytes: usize, lasting: Duration) -> Result<Zstd, Fault> {
    let mut lines = Lines::new(3);
    let texts: Vec<_> = (0..TEXTS).map(|_| text(&mut lines, bytes)).collect();
    let plain: usize = texts.iter().map(Vec::len).sum();
    let level = Compression::Zstd(ZstdLevel::FAST);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let mut packed = vec![Vec::new(); TEXTS];
    let mut encode = || {
        let mut pairs = texts.iter().zip(&mut packed);
        pairs.try_for_each(|(text, out)| encoder.encode(level, text, out))
    };
    let encoded = rounds(clock, lasting, &mut encode)? * plain as f64;
    let mut out = Vec::new();
    let mut decode = || {
        packed.iter().try_for_each(|packed| {
            decoder.decode(Codec::Zstd, packed, 2 * bytes + 1024, &mut out)?;
            black_box(&out);
            Ok(())
        })
    };
    let decoded = rounds(clock, lasting, &mut decode)? * plain as f64;
    let small: usize = packed.iter().map(Vec::len).sum();
    Ok(Zstd {
        encoded,
        decoded,
        ratio: plain as f64 / small.max(1) as f64,
    })
}

/// Rounds of `work` a second.
fn rounds(
    clock: &dyn Clock,
    lasting: Duration,
    work: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<f64, Fault> {
    // Buffers grow before the clock runs.
    work()?;
    let (began, mut done) = (clock.monotonic(), 0_u32);
    loop {
        let lasted = clock.monotonic().since(began);
        if lasted >= lasting {
            return Ok(f64::from(done) / lasted.as_secs_f64());
        }
        work()?;
        done += 1;
    }
}

fn text(lines: &mut Lines, bytes: usize) -> Vec<u8> {
    let (mut text, mut line) = (Vec::new(), Vec::new());
    while text.len() < bytes {
        lines.write(&mut line);
        text.extend_from_slice(&line);
    }
    text
}
