//! What the heads of a node may hold, shared out among its shards: what is idle lends to what is
//! busy.

use std::time::Duration;

use esker_types::limits::{HEAD_BATCHES_MAX, KEEP_INTERVAL};
use esker_wal::Share;

use crate::local::Led;

/// How often it is shared out.
const LEND_INTERVAL: Duration = Duration::from_millis(200);

/// Shares out `head_bytes`, and as many batches as a node names, again and again.
pub(crate) async fn lend(led: Vec<Led>, head_bytes: u64) {
    let shards: Vec<_> = led
        .iter()
        .filter_map(|led| Some((led.replica.clone(), led.appender.clone()?)))
        .collect();
    loop {
        let sizes = shards
            .iter()
            .map(|(replica, _)| replica.state().head_size());
        let (bytes, batches): (Vec<_>, Vec<_>) =
            sizes.map(|size| (size.bytes, size.batches)).unzip();
        let bytes = parts(&bytes, head_bytes);
        let batches = parts(&batches, HEAD_BATCHES_MAX);
        for ((_, appender), (bytes, batches)) in shards.iter().zip(bytes.into_iter().zip(batches)) {
            let share = Share {
                batches,
                ..Share::of(bytes)
            };
            appender.set_share(share);
        }
        tokio::time::sleep(Duration::min(KEEP_INTERVAL, LEND_INTERVAL)).await;
    }
}

/// What each of `shards` may hold before anything is known of them.
pub(crate) fn equal_part(head_bytes: u64, shards: u32) -> Share {
    let shards = u64::from(shards).max(1);
    Share {
        batches: (HEAD_BATCHES_MAX / shards).max(1),
        ..Share::of(head_bytes / shards)
    }
}

/// What each may hold, given what each holds: what the others leave of `all`, and each of the
/// others is left half of an equal part, however idle it is.
fn parts(held: &[u64], all: u64) -> Vec<u64> {
    let half = (all / (held.len() as u64).max(1) / 2).max(1);
    let kept = |held: u64| held.max(half);
    let taken: u64 = held.iter().copied().map(kept).sum();
    let part = |own: &u64| all.saturating_sub(taken - kept(*own)).max(half);
    held.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_idle_lends_and_keeps_half_of_its_part() {
        assert_eq!(parts(&[0, 0, 0, 0], 800), [500; 4]);
        assert_eq!(parts(&[500, 0, 0, 0], 800), [500, 100, 100, 100]);
        // One that holds more than there is leaves the others their half, and no less.
        assert_eq!(parts(&[900, 0], 800), [600, 200]);
        assert_eq!(parts(&[7], 800), [800]);
        assert_eq!(parts(&[0; 3], 1), [1; 3], "never none at all");
        // Together they never hold more than all of it and what each is left at least.
        let mut held = [0_u64; 16];
        for turn in 0..100 {
            let parts = parts(&held, 1 << 20);
            held[turn % 16] = parts[turn % 16];
            assert!(
                held.iter().sum::<u64>() <= (1 << 20) + 16 * (1 << 15),
                "{turn}: {held:?}"
            );
        }
    }
}
