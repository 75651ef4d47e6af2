//! Topics that end, and what fails half-way.

use std::sync::Arc;

use esker_log::{Alteration, AppendError, EngineOptions, HeadError, TopicError};
use esker_shard::{Command, ConfigChange, RequestId, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, topic};
use esker_types::{Durability, Offset, PartitionIndex, ShardId};

use crate::engine_over;

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free_at_once() {
    run(async {
        let mut site = Site::new(14);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        whole
            .append("gravel", 1, &[b"old".to_vec()], None)
            .await
            .expect("appended");
        whole
            .engine
            .topics()
            .delete(&topic("gravel"))
            .await
            .expect("deleted");
        let error = whole.append("gravel", 1, &[b"late".to_vec()], None).await;
        let error = error.expect_err("nobody has it");
        assert!(
            matches!(error, AppendError::Topic(TopicError::Unknown { .. })),
            "{error}"
        );
        assert_eq!(error.durability(), Durability::NotWritten);
        whole.create("gravel", 1).await;
        assert_eq!(whole.read("gravel", 0, 0).await, []);
    });
}

#[test]
fn a_trim_goes_by_the_partition_that_was_found() {
    run(async {
        let mut site = Site::new(19);
        let whole = site.start().await.expect("started");
        let (name, index) = (topic("gravel"), PartitionIndex(0));
        let topics = whole.engine.topics();
        whole.create("gravel", 1).await;
        let (_, shard, partition) = topics.partition(&name, index).await.expect("there");
        topics.delete(&name).await.expect("deleted");
        let error = topics.trim(&name, shard, partition, Offset::ZERO).await;
        let error = error.expect_err("nobody has it");
        assert!(matches!(error, TopicError::Unknown { .. }), "{error}");

        whole.create("gravel", 1).await;
        let values = [b"acknowledged".to_vec()];
        let appended = whole.append("gravel", 0, &values, None).await;
        appended.expect("appended");
        let error = topics.trim(&name, shard, partition, Offset::ZERO).await;
        let error = error.expect_err("another has the name");
        assert!(matches!(error, TopicError::MadeAnew { .. }), "{error}");
        assert_eq!(error.durability(), Durability::NotWritten);
        assert_eq!(whole.read("gravel", 0, 0).await.len(), 1);
    });
}

#[test]
fn what_failed_half_way_says_what_was_done_and_is_not_said_to_be_undone() {
    run(async {
        let mut site = Site::new(18);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        let name = topic("gravel");
        let topics = whole.engine.topics();
        let version = topics.find(&name).await.expect("there").version;
        let alteration = Alteration {
            changes: vec![ConfigChange::RetentionBytes(Some(1 << 30))],
            partitions: Some(1),
            expected: None,
        };
        let error = topics.alter(&name, alteration).await;
        let error = error.expect_err("it has two");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        assert!(
            error.to_string().contains("settings were changed"),
            "{error}"
        );
        let view = topics.find(&name).await.expect("there");
        assert!(view.version > version);

        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        head.answer = Box::new(|shard, command| {
            let pushed = match command {
                // The other one is looked for first, and pushed again.
                Command::PutTopic(put) => put.name == topic("sand"),
                Command::EndTopic { .. } => true,
                _ => false,
            };
            let what = "somebody else leads".to_owned();
            pushed.then_some(Err(HeadError::NotLeader {
                shard,
                leader: None,
                what,
            }))
        });
        let engine = engine_over(&whole, head, EngineOptions::default());
        let request = RequestId(77);
        let config = TopicConfig::default();
        let sand = topic("sand");
        let created = engine.topics().create(request, &sand, 2, config);
        let error = created.await.expect_err("no shard takes it");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        let deleted = engine.topics().delete(&name).await;
        let error = deleted.expect_err("no shard ends it");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        assert!(error.to_string().contains("its name is free"), "{error}");
    });
}

#[test]
fn a_shard_that_is_away_takes_no_others_partitions_with_it() {
    run(async {
        let mut site = Site::new(21);
        let whole = site.start().await.expect("started");
        let shards = whole.engine.head().shards();
        let away = *shards.last().expect("there are some");
        assert!(shards.len() > 1);
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        head.answer = Box::new(move |shard, _| {
            let what = "nobody leads it".to_owned();
            let leader = None;
            let error = HeadError::NotLeader {
                shard,
                leader,
                what,
            };
            (shard == away).then_some(Err(error))
        });
        let engine = engine_over(&whole, head, EngineOptions::default());
        let (name, config) = (topic("sand"), TopicConfig::default());
        let count = u32::try_from(shards.len()).expect("few");
        let created = engine.topics().create(RequestId(78), &name, count, config);
        created.await.expect_err("one shard does not take it");
        for index in (0..count).map(PartitionIndex) {
            let found = engine.topics().partition(&name, index).await;
            match found {
                Ok((_, shard, _)) => assert_ne!(shard, away),
                Err(error) => assert!(matches!(error, TopicError::Head(_)), "{error}"),
            }
        }
        engine
            .topics()
            .find(&name)
            .await
            .expect_err("not all have it");
        // Once it is back, whoever asks for what it holds has it pushed.
        for index in (0..count).map(PartitionIndex) {
            let found = whole.engine.topics().partition(&name, index).await;
            found.expect("it is there");
        }
    });
}

/// Who knew the old one a moment ago must not be told that what is about to go is done.
#[test]
fn a_name_is_given_anew_once_the_old_topic_has_ended_everywhere() {
    run(async {
        let mut site = Site::new(62);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        let name = topic("gravel");
        let old = whole.engine.topics().find(&name).await.expect("there").id;
        let mut dying = Hooked::over(Arc::clone(whole.engine.head()));
        dying.answer = Box::new(|shard, command| {
            let ends = matches!(command, Command::EndTopic { .. });
            ends.then(|| Err(nobody_leads(shard)))
        });
        let dying = engine_over(&whole, dying, EngineOptions::default());
        let deleted = dying.topics().delete(&name).await;
        deleted.expect_err("no shard ends it");

        let other = Hooked::over(Arc::clone(whole.engine.head()));
        let other = engine_over(&whole, other, EngineOptions::default());
        let config = TopicConfig::default();
        let made = other.topics().create(RequestId(79), &name, 2, config).await;
        let made = made.expect("the name is free");
        assert_ne!(made.id, old);
        let values = [b"new".to_vec()];
        let error = whole.append("gravel", 0, &values, None).await;
        let error = error.expect_err("this engine knew the old one");
        assert!(matches!(error, AppendError::MadeAnew { .. }), "{error}");
        assert_eq!(error.durability(), Durability::NotWritten);
        let again = whole.append("gravel", 0, &values, None).await;
        again.expect("it goes to the new one");
        assert_eq!(whole.read("gravel", 0, 0).await.len(), 1);
    });
}

/// Of what was cut off, all that can be done is: what ends makes room.
#[test]
fn a_shard_that_is_away_holds_up_no_others_endings() {
    run(async {
        let mut site = Site::new(63);
        let whole = site.start().await.expect("started");
        let shards = whole.engine.head().shards();
        let away = *shards.first().expect("there are some");
        let count = u32::try_from(shards.len()).expect("few");
        let head = |only: Option<ShardId>| {
            let mut head = Hooked::over(Arc::clone(whole.engine.head()));
            head.answer = Box::new(move |shard, command| {
                let ends = matches!(command, Command::EndTopic { .. });
                let refused = ends && only.is_none_or(|only| only == shard);
                refused.then(|| Err(nobody_leads(shard)))
            });
            engine_over(&whole, head, EngineOptions::default())
        };
        let names = [topic("gravel"), topic("sand")];
        for name in &names {
            whole.create(name.as_str(), count).await;
            let deleted = head(None).topics().delete(name).await;
            deleted.expect_err("no shard ends it");
        }
        let settled = head(Some(away)).topics().settle_all().await;
        settled.expect_err("one shard is away");
        for shard in shards {
            let left = whole.engine.head().shard_topics(shard, None, 10).await;
            let left = left.expect("it answers").items.len();
            let held = if shard == away { names.len() } else { 0 };
            assert_eq!(left, held, "{shard}");
        }
    });
}

fn nobody_leads(shard: ShardId) -> HeadError {
    HeadError::NotLeader {
        shard,
        leader: None,
        what: "nobody leads it".to_owned(),
    }
}
