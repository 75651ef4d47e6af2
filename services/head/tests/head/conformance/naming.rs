//! Topics and their pages.

use std::sync::Arc;

use esker_log::{Head, Listing, Mark};
use esker_shard::{
    CatalogRefusal, Command, ConfigChange, CreateTopic, Outcome, Refusal, RequestId, TopicConfig,
};
use esker_types::{ShardId, TopicId, TopicName, TopicVersion};

use crate::site::{SHARD, make_topic, name};

super::conform!(
    a_topic_is_found_by_name_and_as_it_was_made,
    what_the_catalog_refuses_comes_back_as_it_said,
    listings_come_in_pages_and_miss_nothing,
    a_topic_that_ended_leaves_a_tombstone,
    ids_are_given_once,
);

async fn a_topic_is_found_by_name_and_as_it_was_made(head: Arc<dyn Head>) {
    assert_eq!(head.topic(&name("gravel")).await, Ok(None));
    let placed = make_topic(&*head, "gravel", 5).await;
    let view = head.topic(&name("gravel")).await.expect("it answers");
    let view = view.expect("it was made");
    assert_eq!((&view.name, view.ending), (&name("gravel"), None));
    let placement: Vec<_> = placed.iter().map(|(shard, _)| *shard).collect();
    assert_eq!(view.placement, placement);
    let changes = [
        "retention.ms=5000",
        "storage_class=COLD",
        "compression=gzip",
    ];
    let changes = changes.map(|text| {
        let (key, value) = text.split_once('=').expect("a setting");
        ConfigChange::parse(key, value).expect("in bounds")
    });
    let alter = Command::AlterTopic {
        topic: view.id,
        expected: Some(view.version),
        changes: changes.to_vec(),
    };
    let altered = head.propose(ShardId::CATALOG, alter).await;
    let version = view.version.next();
    assert_eq!(altered, Ok(Outcome::TopicAltered { version }));
    // The name's answer may be one that was known; the listing's is the quorum's.
    let page = head.topics(view.id.before(), 1).await.expect("it answers");
    let expected = changes
        .iter()
        .fold(TopicConfig::default(), |config, change| {
            config.with(change).expect("in bounds")
        });
    assert_eq!(
        (page.items[0].version, &page.items[0].config),
        (version, &expected)
    );
}

async fn what_the_catalog_refuses_comes_back_as_it_said(head: Arc<dyn Head>) {
    let placed = make_topic(&*head, "gravel", 1).await;
    let topic = placed[0].1.topic;
    let propose = async |command| match head.propose(ShardId::CATALOG, command).await {
        Ok(Outcome::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let again = Command::CreateTopic(CreateTopic {
        request: RequestId(77),
        name: name("gravel"),
        partitions: 1,
        config: TopicConfig::default(),
    });
    let taken = Refusal::Catalog(CatalogRefusal::NameTaken { topic });
    assert_eq!(propose(again).await, taken);
    let old = Command::AlterTopic {
        topic,
        expected: Some(TopicVersion(9)),
        changes: Vec::new(),
    };
    let other = Refusal::Catalog(CatalogRefusal::OtherVersion {
        current: TopicVersion::FIRST,
        expected: TopicVersion(9),
    });
    assert_eq!(propose(old).await, other);
    let unknown = TopicId::new(topic.incarnation(), 99).expect("small");
    let refused = propose(Command::DeleteTopic { topic: unknown }).await;
    assert_eq!(refused, Refusal::UnknownTopic { topic: unknown });
    let elsewhere = head.propose(SHARD, Command::AllocateNode).await;
    let wrong = Refusal::WrongShard { shard: SHARD };
    assert_eq!(elsewhere, Ok(Outcome::Refused(wrong)));
}

/// All items, in pages of `count`.
async fn walk<T>(
    count: usize,
    mut page: impl AsyncFnMut(Option<TopicId>, usize) -> Listing<T>,
    id: impl Fn(&T) -> TopicId,
) -> (Vec<TopicId>, usize) {
    let (mut ids, mut pages, mut mark): (Vec<TopicId>, _, Option<Mark>) = (Vec::new(), 0, None);
    loop {
        let next = page(ids.last().copied(), count).await;
        assert!(next.items.len() <= count);
        assert!(mark.is_none_or(|mark| mark <= next.mark), "it is older");
        mark = Some(next.mark);
        ids.extend(next.items.iter().map(&id));
        pages += 1;
        if !next.more {
            return (ids, pages);
        }
        assert!(!next.items.is_empty(), "a page says nothing and has more");
    }
}

async fn listings_come_in_pages_and_miss_nothing(head: Arc<dyn Head>) {
    let mut made = Vec::new();
    for number in 1..=7 {
        let placed = make_topic(&*head, &"t".repeat(number), 4).await;
        made.push(placed[0].1.topic);
    }
    for (count, pages) in [(1, 7), (3, 3), (7, 1), (usize::MAX, 1)] {
        let topics = async |after, count| head.topics(after, count).await.expect("it answers");
        let walked = walk(count, topics, |it| it.id).await;
        assert_eq!(walked, (made.clone(), pages));
        let topics = async |after, count| {
            let page = head.shard_topics(SHARD, after, count).await;
            page.expect("it answers")
        };
        let walked = walk(count, topics, |it| {
            assert_eq!(it.partitions.len(), 2);
            it.id
        });
        assert_eq!(walked.await, (made.clone(), pages));
    }
    let none = head.topics(made.last().copied(), 5).await;
    let none = none.expect("it answers");
    assert_eq!((none.items.len(), none.more), (0, false));
}

async fn a_topic_that_ended_leaves_a_tombstone(head: Arc<dyn Head>) {
    let mut made = Vec::new();
    for number in 1..=3 {
        let topic = make_topic(&*head, &"t".repeat(number), 2).await[0].1.topic;
        let deleted = head
            .propose(ShardId::CATALOG, Command::DeleteTopic { topic })
            .await;
        let awaiting = head.shards();
        assert_eq!(deleted, Ok(Outcome::TopicDeleted { awaiting }));
        let version = TopicVersion(2);
        let ended = head
            .propose(SHARD, Command::EndTopic { topic, version })
            .await;
        assert_eq!(ended, Ok(Outcome::TopicEnded));
        made.push(topic);
    }
    let page = head.topics(None, 10).await.expect("it answers");
    let ending: Vec<_> = page.items.iter().map(|it| it.ending.clone()).collect();
    assert_eq!(ending, vec![Some(head.shards()); 3]);
    // One that is made anew has the name, and is none of them.
    let anew = make_topic(&*head, "tt", 2).await[0].1.topic;
    for (name, after, found) in [
        ("tt", None, vec![made[1]]),
        ("tt", Some(made[0]), vec![made[1]]),
        ("tt", Some(made[1]), vec![]),
        ("tttt", None, vec![]),
    ] {
        let name = TopicName::new(name).expect("a name");
        let page = head.ending(&name, after, 10).await.expect("it answers");
        let ids: Vec<_> = page.items.iter().map(|it| it.id).collect();
        assert_eq!(
            (ids, page.more),
            (found, false),
            "{name}, made anew as {anew}"
        );
    }
    for (count, pages) in [(1, 3), (2, 2), (5, 1)] {
        let stones = async |after, count| {
            let page = head.tombstones(SHARD, after, count).await;
            page.expect("it answers")
        };
        let walked = walk(count, stones, |(topic, ranges)| {
            assert_eq!(*ranges, 0);
            *topic
        });
        assert_eq!(walked.await, (made.clone(), pages));
    }
}

async fn ids_are_given_once(head: Arc<dyn Head>) {
    let mut given = Vec::new();
    for _ in 0..3 {
        let block = Command::AllocateProducers { count: 10 };
        match head.propose(ShardId::CATALOG, block).await {
            Ok(Outcome::Producers { first, count: 10 }) => given.push(first.as_u64()),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        given.windows(2).all(|pair| pair[0] + 10 <= pair[1]),
        "{given:?}"
    );
}
