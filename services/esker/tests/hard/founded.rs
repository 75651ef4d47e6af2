//! `kill -9` of a server that founds its cluster in empty folders: whatever stands there by then,
//! the next start makes a whole of it.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_client::{Client, Options, ProducerOptions, Record};
use esker_env::Env;
use esker_env::sim::SeededEntropy;

use crate::killed::{SETTINGS, kills, seed};
use crate::site::Site;
use crate::turn;

/// How often a founding is cut, before there is a whole one.
const CUTS_MAX: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_founding_was_cut_is_whole_after_the_next_start() {
    let Some(_turn) = turn().await else { return };
    let (foundings, seed) = (kills().div_ceil(5), seed());
    println!("{foundings} foundings: ESKER_SEED={seed}");
    let random = SeededEntropy::new(seed);
    let (mut cuts, mut took) = (0, Duration::from_millis(500));
    for _ in 0..foundings {
        let mut site = Site::new(SETTINGS, None);
        for _ in 0..=random.below(CUTS_MAX) {
            let server = site.spawn();
            let within = u64::try_from(took.as_micros()).expect("short");
            tokio::time::sleep(Duration::from_micros(random.below(within))).await;
            server.kill();
            cuts += 1;
        }
        let mut server = site.spawn();
        took = tokio::task::block_in_place(|| server.ready());
        takes_a_record(&site).await;
        let errors = server.saying().errors();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        server.kill();
    }
    println!("{foundings} foundings cut {cuts} times; the last start took {took:?}");
}

async fn takes_a_record(site: &Site) {
    let client = Client::connect(&site.endpoint(), Options::default(), &Env::real()).await;
    let client = client.expect("the server is ready");
    let (admin, settings) = (client.admin(), BTreeMap::new());
    let topic = admin.create_topic("gravel", 1, &settings).await;
    topic.expect("a topic");
    let producer = client.producer("gravel", ProducerOptions::default()).await;
    let delivery = producer
        .expect("a producer")
        .send(Record::value("a stone"))
        .await;
    let acked = delivery.expect("taken").await.expect("acknowledged");
    assert_eq!(acked.offset.get(), 0);
}
