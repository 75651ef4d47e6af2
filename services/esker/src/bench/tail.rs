//! Batches out as they arrive, timed from when they were due.

use std::sync::Arc;
use std::time::Duration;

use esker_client::{Client, Error, From, Offset, ReadOptions, Reader};
use esker_env::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::histogram::Histogram;
use super::payload::due_of;
use super::schedule::Times;

/// How long after the last append a reader may take to see it.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// Readers along with a load, one for each partition.
pub(crate) struct Tail {
    readers: JoinSet<Result<Read, Error>>,
    ends: watch::Sender<Option<Arc<[u64]>>>,
}

/// What a reader came to.
#[derive(Debug)]
pub(crate) struct Read {
    /// From due to read and decoded, of batches that were due while it was measured.
    pub(crate) latency: Histogram,
    /// Records that were durable and had not come when it gave up.
    pub(crate) unseen: u64,
}

/// What all readers know.
#[derive(Clone)]
struct Watch {
    clock: Arc<dyn Clock>,
    times: Times,
    run: u64,
    ends: watch::Receiver<Option<Arc<[u64]>>>,
}

impl Tail {
    /// Begins to read `partitions` of `topic` where each ends now.
    pub(crate) async fn start(
        client: &Client,
        clock: &Arc<dyn Clock>,
        topic: &str,
        times: Times,
        run: u64,
    ) -> Result<Self, Error> {
        let (ends, told) = watch::channel(None);
        let watch = Watch {
            clock: Arc::clone(clock),
            times,
            run,
            ends: told,
        };
        let mut readers = JoinSet::new();
        for offsets in client.offsets(topic, &[], None).await? {
            let options = ReadOptions {
                from: From::Offset(Offset::new(offsets.end).unwrap_or(Offset::MAX)),
                follow: true,
                ..ReadOptions::default()
            };
            let reader = client.read(topic, offsets.partition, options).await?;
            readers.spawn(watch.clone().read(reader, offsets.partition));
        }
        Ok(Self { readers, ends })
    }

    /// Ends, once everything before `ends` was read.
    pub(crate) async fn finish(mut self, ends: &[u64]) -> Result<Read, Error> {
        // A reader that failed is heard below.
        let _ = self.ends.send(Some(ends.into()));
        let mut all = Read {
            latency: Histogram::new(),
            unseen: 0,
        };
        while let Some(read) = self.readers.join_next().await {
            let read = read.expect("it is neither aborted nor does it panic")?;
            all.latency.merge(&read.latency);
            all.unseen += read.unseen;
        }
        Ok(all)
    }
}

impl Watch {
    async fn read(mut self, mut reader: Reader, partition: u32) -> Result<Read, Error> {
        let mut latency = Histogram::new();
        let mut end = None;
        let mut last = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            let next = reader.next_offset().map_or(0, Offset::get);
            if end.is_some_and(|end| next >= end) {
                return Ok(Read { latency, unseen: 0 });
            }
            tokio::select! {
                biased;
                batch = reader.next() => {
                    let Some(batch) = batch? else { continue };
                    let at = self.clock.monotonic();
                    let first = batch.records().next();
                    let due = first.and_then(|record| due_of(self.run, record.key));
                    if let Some(due) = due.filter(|due| self.times.is_measured(*due)) {
                        latency.add(at.since(due));
                    }
                }
                told = self.ends.wait_for(Option::is_some), if end.is_none() => {
                    let ends = told.ok().and_then(|ends| ends.clone());
                    // Nobody waits any more: nothing was written, then.
                    end = Some(ends.map_or(0, |ends| ends[partition as usize]));
                    last.set(tokio::time::sleep(BEHIND_MAX));
                }
                () = &mut last => {
                    let unseen = end.unwrap_or(next).saturating_sub(next);
                    return Ok(Read { latency, unseen });
                }
            }
        }
    }
}
