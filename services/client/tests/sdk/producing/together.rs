//! Records that are sent together are in one batch.

use esker_client::{Code, Compression, Durability, ProducerOptions, ReadOptions, Record};

use super::small;
use crate::{TOPIC, World};

/// Groups of one to seven, some by name of the partition, among single records.
#[tokio::test(start_paused = true)]
async fn what_is_sent_together_is_together() {
    let world = World::new(3, &[]).await;
    let producer = world.producer(small()).await;
    let (mut all, mut singles) = (Vec::new(), Vec::new());
    for group in 0..40u32 {
        let records: Vec<_> = (0..group % 7 + 1)
            .map(|at| Record::value(format!("{group} {at}")))
            .collect();
        let partition = (group % 2 == 0).then_some(group % 3);
        let count = u64::from(group % 7 + 1);
        let delivery = producer.send_together(partition, records).await.unwrap();
        all.push((group, partition, count, delivery));
        singles.push(producer.send(Record::value("alone")).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut found = Vec::new();
    for (group, partition, count, delivery) in all {
        let acked = delivery.await.unwrap();
        assert_eq!(acked.offsets.len(), count);
        assert!(partition.is_none_or(|wanted| wanted == acked.partition));
        for (at, offset) in (0..count).zip(acked.offsets.start().get()..) {
            found.push((acked.partition, offset, format!("{group} {at}")));
        }
    }
    for single in singles {
        let acked = single.await.unwrap();
        found.push((acked.partition, acked.offset.get(), "alone".to_owned()));
    }
    found.sort();
    let mut stored = Vec::new();
    for partition in 0..3 {
        let options = ReadOptions::default();
        let mut reader = world.client.read(TOPIC, partition, options).await.unwrap();
        while let Some(batch) = reader.next().await.unwrap() {
            for record in batch.records() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                stored.push((partition, record.offset.get(), value));
            }
        }
    }
    assert_eq!(stored, found);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_together_is_refused_whole() {
    let world = World::new(1, &[("max_batch_bytes", "2000")]).await;
    let options = ProducerOptions {
        compression: Some(Compression::None),
        ..ProducerOptions::default()
    };
    let producer = world.producer(options).await;
    assert_eq!(producer.max_batch_bytes(), 2000);
    let none = producer.send_together(None, Vec::new()).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidRequest);
    let elsewhere = producer
        .send_together(Some(1), vec![Record::value("x")])
        .await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::UnknownPartition);

    let many = |count| vec![Record::value(vec![b'x'; 100]); count];
    let error = producer
        .send_together(None, many(25))
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::BatchTooLarge, Durability::NotWritten)
    );
    let acked = producer
        .send_together(None, many(15))
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!((acked.offsets.start().get(), acked.offsets.len()), (0, 15));
}
