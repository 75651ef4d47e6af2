//! Connecting, and calls that are made again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use esker_client::v1::{Truncation, VerifyDepth};
use esker_client::{Client, Code, Detail, Durability, Options, ProducerOptions};
use esker_env::sim::SimNetwork;
use esker_env::{Env, Network, Tcp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::service::Service;
use crate::{ADDRESS, TOPIC, World, numbered, numbers};

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_named() {
    let (env, ..) = Env::simulated(1);
    let error = Client::connect("http://nobody:1", Options::default(), &env)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("nobody:1"), "{error}");
    for wrong in ["no address", "ftp://nobody:1", "nobody:1"] {
        let tried = Client::connect(wrong, Options::default(), &env).await;
        assert_eq!(tried.unwrap_err().code(), Code::InvalidRequest, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_arrive_with_their_details() {
    let world = World::new(1, &[]).await;
    let admin = world.client.admin();
    let error = admin.describe_topic("other").await.unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::UnknownTopic, Durability::NotWritten)
    );
    let error = admin
        .alter_topic(esker_client::v1::AlterTopicRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.detail(), Some(&Detail::Version(7)));
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_asked_again_and_recognised() {
    let world = World::new(1, &[]).await;
    world.service.state().topics.lost_replies = 3;
    let topic = world
        .client
        .admin()
        .create_topic("new", 5, &BTreeMap::new())
        .await
        .unwrap();
    assert_eq!((topic.name.as_str(), topic.partitions), ("new", 5));
    let error = world
        .client
        .admin()
        .create_topic("new", 5, &BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        Code::TopicExists,
        "another call is another topic"
    );
    let (topics, more) = world.client.admin().list_topics("").await.unwrap();
    assert_eq!((topics.len(), more), (2, false));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_may_be_done_is_not_asked_again() {
    let world = World::new(1, &[]).await;
    let error = world.client.admin().delete_topic(TOPIC).await.unwrap_err();
    assert_eq!(error.durability(), Durability::Unknown);
    assert_eq!(world.service.state().topics.deletions, 1);
}

/// What came in between would go, acknowledged or not.
#[tokio::test(start_paused = true)]
async fn a_truncation_to_the_end_is_one_to_the_end_it_was_asked_at() {
    let world = World::new(2, &[]).await;
    world.fill(0..6).await;
    world.service.state().topics.truncations_failing = 2;
    let truncations =
        [(0, None), (1, Some(0))].map(|(partition, before)| Truncation { partition, before });
    let admin = world.client.admin();
    let truncated = admin
        .truncate_topic(TOPIC, None, truncations.to_vec())
        .await;
    let starts: Vec<_> = truncated.unwrap().iter().map(|one| one.log_start).collect();
    assert_eq!(starts, [6, 0], "as it was before anything came in");
}

/// What is in a namesake was never meant.
#[tokio::test(start_paused = true)]
async fn a_truncation_that_is_asked_again_spares_a_topic_made_anew() {
    for (before, seen) in [
        (None, None),
        (Some(4), None),
        (None, Some(1)),
        (Some(4), Some(1)),
    ] {
        let world = World::new(1, &[]).await;
        world.fill(0..6).await;
        world.service.state().topics.truncations_overtaken = 1;
        let truncations = vec![Truncation {
            partition: 0,
            before,
        }];
        let admin = world.client.admin();
        let truncated = admin.truncate_topic(TOPIC, seen, truncations).await;
        assert_eq!(truncated.unwrap_err().code(), Code::UnknownTopic);
        let state = world.service.state();
        let asked: Vec<_> = state.truncations.iter().map(|one| one.topic_id).collect();
        assert_eq!(asked, [Some(1), Some(1)]);
        assert_eq!(state.partitions[&(TOPIC.to_owned(), 0)].log_start, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_outlives_its_connection() {
    let world = World::new(1, &[]).await;
    world.network.refuse(ADDRESS, true);
    assert_eq!(world.network.cut(ADDRESS), 1);
    let network = world.network.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        network.refuse(ADDRESS, false);
    });
    world.client.admin().cluster_status().await.unwrap();
    world.client.admin().flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_that_nobody_answers_has_changed_nothing() {
    let world = World::new(1, &[]).await;
    world.network.refuse(ADDRESS, true);
    assert_eq!(world.network.cut(ADDRESS), 1);
    let error = world.client.admin().cluster_status().await.unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::Unavailable, Durability::NotWritten),
        "{error}"
    );
    assert!(error.message().contains("can be tried again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_agent_is_not_asked_twice() {
    let network = SimNetwork::new();
    let (env, ..) = Env::simulated(1);
    let env = Env {
        network: Arc::new(network.clone()),
        ..env
    };
    let mut listener = network.listen(ADDRESS).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let said = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            connection.write_all(said).await.unwrap();
        }
    });
    let client = Client::connect("http://agent:7070", Options::default(), &env)
        .await
        .unwrap();
    let error = client
        .admin()
        .create_topic("t", 1, &BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::Unavailable, Durability::NotWritten)
    );
    assert!(error.message().contains("speaks HTTP/1"), "{error}");
    assert!(error.message().contains("try 7069"), "{error}");
    assert!(!client.is_heard());
    assert!(asked.load(Ordering::Relaxed) <= 2);
}

/// As hyper's server of HTTP/1 does.
#[tokio::test(start_paused = true)]
async fn what_hangs_up_is_asked_in_http_1() {
    let network = SimNetwork::new();
    let (env, ..) = Env::simulated(1);
    let env = Env {
        network: Arc::new(network.clone()),
        ..env
    };
    let mut listener = network.listen(ADDRESS).await.unwrap();
    tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            let mut first = [0; 3];
            connection.read_exact(&mut first).await.unwrap();
            if first == *b"GET" {
                let said = b"HTTP/1.0 404 Not Found\r\n\r\n";
                connection.write_all(said).await.unwrap();
            }
        }
    });
    let client = Client::connect("http://agent:7070", Options::default(), &env)
        .await
        .unwrap();
    let error = client.admin().flush().await.unwrap_err();
    assert_eq!(error.durability(), Durability::NotWritten);
    assert!(error.message().contains("speaks HTTP/1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_verification_tells_how_far_it_is() {
    let world = World::new(1, &[]).await;
    let mut verification = world
        .client
        .admin()
        .verify(VerifyDepth::Content)
        .await
        .unwrap();
    let mut done = Vec::new();
    while let Some(report) = verification.next().await.unwrap() {
        done.push(report.done);
    }
    assert_eq!(done, [false, true]);
}

/// The one test with the real network, clock and threads.
#[tokio::test]
async fn it_goes_over_tcp() {
    let service = Service::new();
    service.state().topics.create(TOPIC, 1, &[]);
    let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.address());
    service.serve(listener);
    let client = Client::connect(&uri, Options::default(), &Env::real())
        .await
        .unwrap();
    let options = ProducerOptions {
        batch_bytes: 64 << 10,
        ..ProducerOptions::default()
    };
    let producer = client.producer(TOPIC, options).await.unwrap();
    for number in 0..20_000 {
        let _delivery = producer.send(numbered(0, number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(service.values(TOPIC, 0), numbers(0..20_000));
    let mut reader = client
        .read(TOPIC, 0, esker_client::ReadOptions::default())
        .await
        .unwrap();
    let mut count = 0;
    while let Some(batch) = reader.next().await.unwrap() {
        count += batch.records().count();
    }
    assert_eq!(count, 20_000);
}
