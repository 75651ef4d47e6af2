//! One node through bad days, judged by a checker that knows nothing of the product.

use esker_checker::{Options, check};
use esker_tests::node::run_seeded;
use esker_tests::simulation::{Run, final_views, simulate};

/// Seeds of every test run. More: `ESKER_SEEDS=200 cargo test -p esker-tests --test simulation`.
const SEEDS: u64 = 4;
const LIVES: u32 = 5;

fn judged(seed: u64) -> Run {
    let done = run_seeded(seed, simulate(seed, LIVES));
    let options = Options {
        final_views: final_views(),
        retention: false,
    };
    let report = check(&done.history, &options);
    assert!(report.is_clean(), "seed {seed}: {}\n{report:?}", done.lives);
    done
}

#[test]
fn what_was_acknowledged_is_read_once_in_order_at_its_offset_whatever_happens() {
    let seeds = std::env::var("ESKER_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| {
        seeds.parse().expect("ESKER_SEEDS is a number")
    });
    let (mut acked, mut faults) = (0, 0);
    for seed in 0..seeds {
        let done = judged(seed);
        faults += done.bucket_faults;
        let options = Options::default();
        acked += check(&done.history, &options).counts.acked_batches;
    }
    assert!(
        acked > 100 * usize::try_from(seeds).expect("small"),
        "{acked} batches acked"
    );
    assert!(faults > seeds, "{faults} faults of the bucket");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let seed = 100;
    let (first, second) = (judged(seed), judged(seed));
    assert!(first.lines.len() > 10_000);
    let differs = first
        .lines
        .iter()
        .zip(&second.lines)
        .position(|(a, b)| a != b);
    if let Some(at) = differs {
        let tell = |lines: &[u8]| {
            let from = at.saturating_sub(300);
            String::from_utf8_lossy(&lines[from..lines.len().min(at + 200)]).into_owned()
        };
        let (first, second) = (tell(&first.lines), tell(&second.lines));
        unreachable!("seed {seed} differs at byte {at}:\n{first}\n---\n{second}");
    }
    assert_eq!(first.lines.len(), second.lines.len());
    assert_eq!(first.lives, second.lives);
    assert_ne!(judged(seed + 1).lines, first.lines);
}
