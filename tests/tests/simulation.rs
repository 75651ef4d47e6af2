//! One node through bad days, judged by a checker that knows nothing of the product.

use esker_checker::{Options, check};
use esker_tests::node::run_seeded;
use esker_tests::simulation::{Run, final_views, seeds, simulate};

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
    let (seeds, mut acked, mut faults) = (seeds(SEEDS), 0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let done = judged(seed);
        faults += done.bucket_faults;
        let options = Options::default();
        acked += check(&done.history, &options).counts.acked_batches;
    }
    assert!(
        acked > 100 * usize::try_from(count).expect("small"),
        "{acked} batches acked"
    );
    assert!(faults > count, "{faults} faults of the bucket");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let seed = 100;
    let (first, second) = (judged(seed), judged(seed));
    assert!(first.lines.len() > 10_000);
    assert_eq!(first.differs(&second), None);
    assert_ne!(judged(seed + 1).lines, first.lines);
}
