//! Three nodes and two agents through bad days, judged by a checker that knows nothing of the product.

use esker_checker::{Options, check};
use esker_tests::node::run_seeded;
use esker_tests::simulation::{Run, seeds};
use esker_tests::troubles::{final_views, simulate_cluster};

/// Seeds of every test run. More: `ESKER_SEEDS=200 cargo test -p esker-tests --test cluster`.
const SEEDS: u64 = 2;
const DAYS: u32 = 6;

fn judged(seed: u64) -> Run {
    let done = run_seeded(seed, simulate_cluster(seed, DAYS));
    let options = Options {
        final_views: final_views(),
        retention: false,
    };
    let report = check(&done.history, &options);
    assert!(report.is_clean(), "seed {seed}: {}\n{report:?}", done.lives);
    done
}

#[test]
fn what_was_acknowledged_is_read_once_in_order_at_its_offset_whatever_befalls_the_nodes() {
    let (seeds, mut acked) = (seeds(SEEDS), 0);
    let least = 50 * usize::try_from(seeds.end - seeds.start).expect("small");
    for seed in seeds {
        let done = judged(seed);
        acked += check(&done.history, &Options::default())
            .counts
            .acked_batches;
    }
    assert!(acked > least, "{acked} batches acked");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let (first, second) = (judged(100), judged(100));
    assert_eq!(first.differs(&second), None);
}
