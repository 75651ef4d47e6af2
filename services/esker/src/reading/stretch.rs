//! A stretch of a partition: from a place to another, to the record.

use std::collections::BTreeMap;

use esker_client::v1::Mark;
use esker_client::{Batch, Error, From, Offset, ReadOptions, Timestamp, Until};
use esker_env::WallMs;

use super::source::{Batches, Source};
use crate::positions::Position;
use crate::when::Place;

/// What is to be read of each partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) from: Place,
    pub(crate) until: Place,
    /// Has no end, whatever `until` is.
    pub(crate) follow: bool,
    /// Leaves the cache of those who read the tail alone.
    pub(crate) backfill: bool,
    /// What is not in the bucket yet comes from nodes that do not lead.
    pub(crate) prefer_followers: bool,
    /// Who goes on with records that are gone goes on with the first that is kept.
    pub(crate) past_gone: bool,
}

/// What is to be read of a partition, ends settled.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) partition: u32,
    options: ReadOptions,
    /// What comes before the first record of this time is left out.
    since: Option<Timestamp>,
    /// What comes from the first record of this time on is left out.
    till: Option<Timestamp>,
    /// Where it begins, if that is known.
    next: Option<Offset>,
    /// Where the partition ended when this was settled.
    end: Offset,
    /// What was left to read and is gone: from, and up to.
    gone: Option<(Offset, Offset)>,
    /// No record lies in it, by what the partition held then.
    holds_nothing: bool,
}

/// Settles what is to be read of `partitions`, or of all: in ascending order, up to where they end
/// now. `resumed` tells where some go on.
pub(crate) async fn plan(
    source: &Source,
    topic: &str,
    partitions: &[u32],
    bounds: &Bounds,
    resumed: &BTreeMap<u32, Position>,
    now: WallMs,
) -> Result<Vec<Stretch>, Error> {
    let found = source.ends(topic, partitions).await?;
    let stretches = found.into_iter().map(|offsets| {
        let (start, end) = (offsets.start, offsets.end);
        let resumed = resumed.get(&offsets.partition);
        let seen = resumed.and_then(|at| at.incarnation);
        let seen = seen.map(|incarnation| Mark {
            incarnation,
            index: 0,
        });
        // Who comes from another life hears of it, even if there is nothing to read.
        let life = |mark: Option<Mark>| mark.map(|mark| mark.incarnation);
        let same_life = seen.is_none() || life(seen) == life(offsets.mark);
        let gone = resumed.filter(|at| bounds.past_gone && same_life && at.next < start);
        let gone = gone.map(|at| (at.next, start));
        let next = gone.map_or(resumed.map(|at| at.next), |(_, start)| Some(start));
        let place = next.map_or(bounds.from, Place::Offset);
        let (from, since, next) = match place {
            Place::Earliest => (From::Earliest, None, Some(start)),
            Place::End => (From::Offset(end), None, Some(end)),
            Place::Offset(offset) => (From::Offset(offset), None, Some(offset)),
            Place::Time(when) => {
                let time = when.resolve(now);
                (From::Time(time), Some(time), None)
            }
        };
        let (until, till) = match bounds.until {
            Place::Earliest => (start, None),
            Place::End => (end, None),
            Place::Offset(offset) => (offset.min(end), None),
            Place::Time(when) => (end, Some(when.resolve(now))),
        };
        let nothing = match from {
            From::Earliest => until <= start,
            // Where it begins beyond the end, the service says what there is.
            From::Offset(from) => from >= until && from <= end,
            From::Time(_) | From::End => start >= end,
        };
        Stretch {
            partition: offsets.partition,
            options: ReadOptions {
                from,
                until: match bounds.follow {
                    true => Until::End,
                    false => Until::Offset(until),
                },
                follow: bounds.follow,
                backfill: bounds.backfill,
                prefer_followers: bounds.prefer_followers,
                mark: seen.or(offsets.mark),
                topic_id: offsets.topic_id,
                ..ReadOptions::default()
            },
            since,
            till: till.filter(|_| !bounds.follow),
            next,
            end,
            gone,
            holds_nothing: nothing && same_life && !bounds.follow,
        }
    });
    Ok(stretches.collect())
}

impl Stretch {
    /// The life of the cluster that it is of, if that is known.
    pub(crate) fn incarnation(&self) -> Option<u32> {
        self.options.mark.map(|mark| mark.incarnation)
    }

    /// The id of its topic, if that is known.
    pub(crate) const fn topic_id(&self) -> Option<u64> {
        self.options.topic_id
    }

    /// What was left to read and is gone, so that it begins behind that: from, and up to.
    pub(crate) const fn gone(&self) -> Option<(Offset, Offset)> {
        self.gone
    }

    /// Begins to read.
    pub(crate) async fn open(&self, source: &Source, topic: &str) -> Result<Reading, Error> {
        let options = self.options.clone();
        let batches = source.read(topic, self.partition, options, self.end, self.holds_nothing);
        Ok(Reading {
            partition: self.partition,
            batches: batches.await?,
            since: self.since,
            till: self.till,
            next: self.next,
            end: self.end,
            over: false,
        })
    }
}

/// A stretch being read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) partition: u32,
    batches: Batches,
    since: Option<Timestamp>,
    till: Option<Timestamp>,
    next: Option<Offset>,
    end: Offset,
    over: bool,
}

/// Records of one batch, those that belong to the stretch.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) batch: Batch,
    /// Records at its beginning that do not.
    skip: usize,
    /// Those that do.
    pub(crate) count: usize,
}

impl Piece {
    pub(crate) fn records(&self) -> impl Iterator<Item = esker_record::Record<'_>> {
        self.batch.records().skip(self.skip).take(self.count)
    }

    /// Behind the first `count` records that belong to the stretch.
    pub(crate) fn offset_behind(&self, count: usize) -> u64 {
        self.batch.range().start().get() + (self.skip + count) as u64
    }
}

impl Reading {
    /// Records of the next batch; `None` at the end. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Error> {
        while !self.over {
            let Some(batch) = self.batches.next().await? else {
                self.over = true;
                break;
            };
            let piece = self.cut(batch);
            self.next = Offset::new(piece.offset_behind(piece.count));
            if piece.count > 0 {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Where to go on. Unknown before the first record of a read that begins with a time.
    pub(crate) const fn next_offset(&self) -> Option<Offset> {
        self.next
    }

    /// Where to go on after the end.
    pub(crate) fn end_offset(&self) -> Offset {
        self.next.unwrap_or(self.end)
    }

    fn cut(&mut self, batch: Batch) -> Piece {
        let whole = usize::try_from(batch.range().len()).unwrap_or(usize::MAX);
        let first = |time: Timestamp, from: usize| {
            let mut records = batch.records().skip(from);
            let at = records.position(|record| record.timestamp >= time);
            at.map(|at| at + from)
        };
        let skip = match self.since {
            Some(since) => first(since, 0).unwrap_or(whole),
            None => 0,
        };
        if skip < whole {
            // They are in the order of offsets, not of times: none is left out from here on.
            self.since = None;
        }
        // The end may come before the beginning; then there is nothing between.
        let end = self.till.and_then(|till| first(till, 0));
        self.over |= end.is_some();
        let end = end.unwrap_or(whole);
        Piece {
            batch,
            skip: skip.min(end),
            count: end.saturating_sub(skip),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use esker_client::{Client, Code, Options, ProducerOptions, Record};
    use esker_env::Env;

    use super::*;
    use crate::config::{Config, Kind};
    use crate::serve::Server;

    const PARTITIONS: u32 = 300;

    async fn started(folder: &tempfile::TempDir) -> Server {
        let flags = [
            ("data_dir", folder.path().display().to_string()),
            ("listen.public", "127.0.0.1:0".to_owned()),
            ("listen.metrics", "127.0.0.1:0".to_owned()),
        ];
        let config = Config::build(Kind::Dev, None, &BTreeMap::new(), &flags).expect("bounds");
        let server = Server::start(&Env::real(), &config, BTreeMap::new()).await;
        server.expect("started")
    }

    #[tokio::test]
    async fn partitions_that_hold_nothing_are_read_without_a_call() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = started(&folder).await;
        let endpoint = format!("http://{}", server.address().expect("it serves clients"));
        let options = Options {
            patience: Duration::from_millis(100),
            ..Options::default()
        };
        let client = Client::connect(&endpoint, options, &Env::real()).await;
        let client = client.expect("it listens");
        let (admin, defaults) = (client.admin(), BTreeMap::new());
        let created = admin.create_topic("t", PARTITIONS, &defaults).await;
        created.expect("created");
        let producer = client.producer("t", ProducerOptions::default()).await;
        let producer = producer.expect("a producer");
        let mut record = Record::value("hello");
        record.partition = Some(7);
        let sent = producer.send(record).await.expect("sent");
        sent.await.expect("acknowledged");

        let source = Source::Agent(Box::new(client));
        let bounds = |from, until| Bounds {
            from,
            until,
            follow: false,
            backfill: false,
            prefer_followers: false,
            past_gone: false,
        };
        let (resumed, now) = (BTreeMap::new(), WallMs(0));
        let settle = async |from, until| {
            let bounds = bounds(from, until);
            let plan = plan(&source, "t", &[], &bounds, &resumed, now).await;
            plan.expect("settled")
        };
        let all = settle(Place::Earliest, Place::End).await;
        let none = settle(Place::End, Place::End).await;
        // Where nobody answers, a call fails.
        server.close().await;
        for stretch in none.iter().chain(all.iter().filter(|it| it.partition != 7)) {
            let mut reading = stretch.open(&source, "t").await.expect("not asked");
            assert!(reading.next().await.expect("not asked").is_none());
            let end = u64::from(stretch.partition == 7);
            assert_eq!(reading.end_offset().get(), end);
        }
        assert_eq!((none.len(), all.len()), (300, 300));
        let asked = all[7].open(&source, "t").await.map(drop);
        assert_eq!(asked.expect_err("it is asked").code(), Code::Unavailable);
    }
}
