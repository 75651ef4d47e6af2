//! Three nodes and two agents through bad days, judged by a checker that knows nothing of the product.

use std::collections::BTreeSet;
use std::time::Duration;

use esker_checker::{Options, check};
use esker_log::{Head as _, HeadError};
use esker_shard::{Command, ConfigChange, CreateTopic, Outcome, RequestId, TopicConfig};
use esker_tests::cluster::{Cluster, host};
use esker_tests::node::run_seeded;
use esker_tests::simulation::{Run, seeds};
use esker_tests::troubles::{KINDS, final_views, simulate_cluster};
use esker_tests::whole::topic;
use esker_types::ShardId;
use esker_wal::KeeperOptions;

/// Seeds of every test run. More: `ESKER_SEEDS=200 cargo test -p esker-tests --test cluster`.
const SEEDS: u64 = 3;
const DAYS: u32 = 6;

// Every kind of trouble befalls one of them.
const _: () = assert!(SEEDS * DAYS as u64 >= KINDS);

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
    let (seeds, mut acked, mut followed) = (seeds(SEEDS), 0, 0);
    let count = seeds.end - seeds.start;
    let (days, mut troubles) = (count * u64::from(DAYS), BTreeSet::new());
    // From the first on, or from within a deck.
    let all = days >= 2 * KINDS - 1 || seeds.start == 0 && days >= KINDS;
    let least = 50 * usize::try_from(count).expect("small");
    for seed in seeds {
        let done = judged(seed);
        acked += check(&done.history, &Options::default())
            .counts
            .acked_batches;
        followed += done.followed;
        troubles.extend(done.troubles);
    }
    assert!(
        !all || troubles.iter().copied().eq(0..KINDS),
        "{troubles:?}"
    );
    assert!(acked > least, "{acked} batches acked");
    assert!(followed > 10 * count, "{followed} reads by followers");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let (first, second) = (judged(100), judged(100));
    assert_eq!(first.differs(&second), None);
}

/// A leader of the catalog that is cut off and does not know that another leads: it told the settings of a
/// topic as it had them, for as long as somebody asked it.
#[test]
fn who_was_deposed_and_does_not_know_it_tells_nobody_of_a_topic() {
    const CATALOG: ShardId = ShardId::CATALOG;
    run_seeded(1, async {
        let cluster = Cluster::found(1, 3, KeeperOptions::default()).await;
        let old = leader_other_than(&cluster, None).await;
        let create = CreateTopic {
            request: RequestId(1),
            name: topic("gravel"),
            partitions: 1,
            config: TopicConfig::default(),
        };
        let deposed = cluster.head_at(old);
        let created = deposed.propose(CATALOG, Command::CreateTopic(create));
        let created = created.await.expect("it leads");
        let Outcome::TopicCreated { topic: id, .. } = created else {
            unreachable!("{created:?}")
        };
        let others = cluster.nodes().into_iter().filter(|node| *node != old);
        for other in others.map(host) {
            cluster.network.sever(&host(old), &other);
            cluster.network.sever(&other, &host(old));
        }
        let new = leader_other_than(&cluster, Some(old)).await;
        let alter = Command::AlterTopic {
            topic: id,
            expected: None,
            changes: vec![ConfigChange::MaxBatchBytes(4096)],
        };
        let altered = cluster.head_at(new).propose(CATALOG, alter).await;
        let altered = altered.expect("two of three are well");
        assert!(
            matches!(altered, Outcome::TopicAltered { .. }),
            "{altered:?}"
        );

        let stands = deposed.progress(CATALOG).await;
        stands.expect("it believes to lead");
        let told = deposed.topic(&topic("gravel")).await;
        assert!(matches!(told, Err(HeadError::NotLeader { .. })), "{told:?}");
        let told = cluster.head_at(new).topic(&topic("gravel")).await;
        let told = told.expect("it leads").expect("it is there");
        assert_eq!(told.config.max_batch_bytes(), 4096);
    });
}

/// Who leads the catalog, and is not `old`.
async fn leader_other_than(cluster: &Cluster, old: Option<u64>) -> u64 {
    loop {
        match cluster.leader(ShardId::CATALOG) {
            Some(leader) if Some(leader) != old => return leader,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
