//! Everything out again, from the start.

use std::sync::Arc;

use esker_client::{Client, Error, ReadOptions};
use esker_env::Env;
use futures::{StreamExt as _, TryStreamExt as _};

use super::writing::Total;

/// Partitions that are read at the same time, as `esker replay` does.
const AT_ONCE_MAX: usize = 4;

/// What was read, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    pub(crate) total: Total,
    pub(crate) seconds: f64,
}

/// Reads all partitions of `topic` from the first record to where they end now; `backfill` leaves
/// the cache of those who read the tail alone.
pub(crate) async fn replay(
    env: &Env,
    client: &Client,
    topic: &str,
    backfill: bool,
) -> Result<Replayed, Error> {
    let clock = Arc::clone(&env.clock);
    let began = clock.monotonic();
    let partitions = client.offsets(topic, &[], None).await?;
    let reads = partitions.iter().map(|offsets| {
        let (client, topic, partition) = (client.clone(), topic.to_owned(), offsets.partition);
        // On any thread, so that several work at the same time.
        let read = tokio::spawn(async move { read(&client, &topic, partition, backfill).await });
        async { read.await.expect("it is neither aborted nor does it panic") }
    });
    let reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE_MAX);
    let total = reads.try_fold(Total::default(), async |sum, one| {
        Ok(Total {
            records: sum.records + one.records,
            bytes: sum.bytes + one.bytes,
        })
    });
    Ok(Replayed {
        total: total.await?,
        seconds: clock.monotonic().since(began).as_secs_f64(),
    })
}

async fn read(
    client: &Client,
    topic: &str,
    partition: u32,
    backfill: bool,
) -> Result<Total, Error> {
    let options = ReadOptions {
        backfill,
        ..ReadOptions::default()
    };
    let mut reader = client.read(topic, partition, options).await?;
    let mut total = Total::default();
    while let Some(batch) = reader.next().await? {
        total.records += batch.range().len();
        let values = batch.records().filter_map(|record| record.value);
        total.bytes += values.map(|value| value.len() as u64).sum::<u64>();
    }
    Ok(total)
}
