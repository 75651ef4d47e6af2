//! Load against an agent, and what it came to.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_client::{Client, Code, Options, Producer, ProducerOptions};
use serde_json::{Value, json};

use super::history::{Replayed, replay};
use super::payload::Payload;
use super::plan::Args;
use super::schedule::Times;
use super::tail::{Read, Tail};
use super::writing::{LATE, Writing, Written};
use crate::config::Span;
use crate::failure::{Failure, unless};
use crate::run::interrupted;
use crate::screen;
use crate::shell::Shell;

/// Bytes of records that are not settled, beyond one batch.
const MEMORY_BYTES: usize = 64 << 20;
/// What each record takes beside its bytes while it waits, at most.
const RECORD_BYTES: usize = 512;

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) topic: String,
    pub(crate) times: Times,
    /// Written before that, and not counted.
    pub(crate) warmup: Span,
    pub(crate) batch_bytes: u64,
    /// Between two batches.
    pub(crate) interval: Option<Duration>,
    pub(crate) written: Written,
    pub(crate) tail: Option<Read>,
    pub(crate) replayed: Option<Replayed>,
}

pub(crate) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let mut interrupt = std::pin::pin!(interrupted());
    let opening = async {
        let client = shell.client_with(Options::default()).await?;
        let (topic, made) = topic(args, shell, &client).await?;
        Ok((client, topic, made))
    };
    let (client, topic, made) = unless(interrupt.as_mut(), opening).await?;
    let loaded = tokio::select! {
        biased;
        () = interrupt => Err(Failure::new("interrupted; nothing was measured")),
        loaded = load(args, shell, &client, &topic) => loaded,
    };
    let wrong = loaded.as_ref().ok().and_then(|loaded| loaded.wrong(made));
    // Its own, and nobody asked for it; one that lacks records is for somebody to look at.
    if made && args.topic.is_none() && !args.keep && wrong.is_none() {
        let deleted = client.admin().delete_topic(&topic).await;
        deleted.map_err(|error| Failure::writing(&error))?;
    }
    let loaded = loaded?;
    shell.answer(&loaded.object(args), || loaded.text())?;
    match (wrong, loaded.failed()) {
        (Some(wrong), _) => {
            let kept = format!("topic {topic} is kept");
            Err(Failure::new(wrong).and_also(&kept))
        }
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(()),
    }
}

/// The topic to write to, and whether it was made for this.
pub(crate) async fn topic(
    args: &Args,
    shell: &Shell,
    client: &Client,
) -> Result<(String, bool), Failure> {
    let now = shell.env.clock.wall().0;
    let name = args.topic.clone().unwrap_or_else(|| format!("bench-{now}"));
    // Batches of any size that may be asked for.
    let settings = BTreeMap::from([("max_batch_bytes".to_owned(), (8 << 20).to_string())]);
    let admin = client.admin();
    match admin.create_topic(&name, args.partitions, &settings).await {
        Ok(_) => Ok((name, true)),
        Err(error) if error.code() == Code::TopicExists && args.topic.is_some() => {
            Ok((name, false))
        }
        Err(error) => Err(Failure::writing(&error)),
    }
}

/// Loads `topic` as `args` say.
pub(crate) async fn load(
    args: &Args,
    shell: &Shell,
    client: &Client,
    topic: &str,
) -> Result<Loaded, Failure> {
    let env = &shell.env;
    let run = env.entropy.next_u64();
    let payload = Payload::new(args.batch_bytes, args.record_bytes, args.seed, run);
    let interval = args.interval(payload.batch_bytes)?;
    let producer = producer(args, client, topic, &payload).await;
    let producer = producer.map_err(|error| Failure::writing(&error))?;
    let batch_bytes = payload.batch_bytes;
    let times = Times::new(env.clock.monotonic(), args.warmup, args.seconds);
    let reading = |error: esker_client::Error| Failure::reading(&error);
    let tail = match args.tail {
        true => {
            let tail = Tail::start(client, &env.clock, topic, times, run).await;
            Some(tail.map_err(reading)?)
        }
        false => None,
    };
    let bar = screen::progress(
        None,
        "{binary_bytes} durable, {elapsed}, {binary_bytes_per_sec}",
    );
    let writing = Writing {
        env,
        producer,
        payload,
        times,
        interval,
        in_flight: usize::try_from(args.in_flight).unwrap_or(usize::MAX),
        bar: bar.clone(),
    };
    let written = writing.run().await;
    let written = written.map_err(|error| Failure::writing(&error))?;
    bar.finish_and_clear();
    let tail = match tail {
        Some(tail) => Some(tail.finish(&written.ends).await.map_err(reading)?),
        None => None,
    };
    let replayed = match args.replay {
        true => Some(replay(env, client, topic, true).await.map_err(reading)?),
        false => None,
    };
    Ok(Loaded {
        topic: topic.to_owned(),
        times,
        warmup: Span(args.warmup),
        batch_bytes,
        interval,
        written,
        tail,
        replayed,
    })
}

async fn producer(
    args: &Args,
    client: &Client,
    topic: &str,
    payload: &Payload,
) -> Result<Producer, esker_client::Error> {
    let largest = payload.encoded_bytes;
    let records = payload.records;
    let options = ProducerOptions {
        // Each parcel is a batch: it is full by itself, and leaves at once.
        linger: Duration::ZERO,
        batch_bytes: usize::try_from(args.batch_bytes)
            .unwrap_or(usize::MAX)
            .max(1 << 10),
        compression: args.compression.map(crate::produce::Codec::compression),
        memory_bytes: MEMORY_BYTES.max(largest + records * RECORD_BYTES),
        ..ProducerOptions::default()
    };
    client.producer(topic, options).await
}

impl Loaded {
    /// What did not come back as it was written. `made`: the topic held nothing before, and nobody
    /// else writes to it.
    pub(crate) fn wrong(&self, made: bool) -> Option<String> {
        let unseen = self.tail.as_ref().map_or(0, |tail| tail.unseen);
        if unseen > 0 {
            let unseen = screen::count(unseen, "durable record");
            return Some(format!("{unseen} did not come to who read along"));
        }
        let (written, sure) = (self.written.all, self.written.unsure == 0);
        let read = self.replayed.as_ref().filter(|_| made)?.total;
        let fewer = read.records < written.records || read.bytes < written.bytes;
        // What is unknown may be there beside what is known to be.
        let differs = fewer || (sure && read != written);
        differs.then(|| {
            format!(
                "durable: {} of {}; read again: {} of {}",
                screen::count(written.records, "record"),
                screen::count(written.bytes, "byte"),
                screen::count(read.records, "record"),
                screen::count(read.bytes, "byte"),
            )
        })
    }

    /// Why not all was written.
    pub(crate) fn failed(&self) -> Option<Failure> {
        let (failed, first) = (self.written.failed, self.written.first_failure.as_ref()?);
        let text = match failed {
            1 => "1 batch failed".to_owned(),
            _ => format!("{failed} batches failed, this first"),
        };
        Some(Failure::writing(first).and_also(&text))
    }

    /// Batches that were due while it was measured, and were not even handed over.
    fn missed(&self) -> u64 {
        let due = self.interval.map_or(0, |interval| self.times.due(interval));
        due.saturating_sub(self.written.sent)
    }

    /// Bytes of values that became durable, a second.
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.written.bytes as f64 / self.times.seconds()
    }

    /// For a program.
    pub(crate) fn object(&self, args: &Args) -> Value {
        let written = &self.written;
        let due = self.interval.map(|interval| self.times.due(interval));
        let mut object = json!({
            "topic": self.topic,
            "seconds": self.times.seconds(),
            "warmup_seconds": self.warmup.0.as_secs_f64(),
            "batch_bytes": self.batch_bytes,
            "in_flight": args.in_flight,
            "interval_us": self.interval.map(|interval| interval.as_micros()),
            "due": due,
            "sent": written.sent,
            "late": written.late,
            "missed": self.missed(),
            "failed": written.failed,
            "written": { "records": written.all.records, "bytes": written.all.bytes },
            "append": {
                "batches": written.batches,
                "bytes": written.bytes,
                "mb_per_s": self.bytes_per_second() / 1e6,
                "latency": written.latency.object(),
            },
        });
        if let Some(tail) = &self.tail {
            object["tail"] = json!({
                "latency": tail.latency.object(),
                "unseen_records": tail.unseen,
            });
        }
        if let Some(replayed) = &self.replayed {
            object["replay"] = replayed.object();
        }
        object
    }

    fn text(&self) -> String {
        let written = &self.written;
        let warmup = self.warmup;
        let rate = screen::rate(written.bytes, self.times.seconds());
        let mut text = format!(
            "append  {} of {} in {:.1} s, {rate}, behind a warm-up of {warmup}\n        {}\n",
            screen::count(written.batches, "batch"),
            screen::bytes(self.batch_bytes),
            self.times.seconds(),
            written.latency.text(),
        );
        if let Some(tail) = &self.tail {
            text += &format!("tail    {}\n", tail.latency.text());
            if tail.unseen > 0 {
                let unseen = screen::count(tail.unseen, "durable record");
                text += &format!("        {unseen} did not come\n");
            }
        }
        if let Some(replayed) = &self.replayed {
            let (total, seconds) = (replayed.total, replayed.seconds);
            let rate = screen::rate(total.bytes, seconds);
            let bytes = screen::bytes(total.bytes);
            let records = screen::count(total.records, "record");
            text += &format!("replay  {records}, {bytes} in {seconds:.1} s, {rate}\n");
        }
        let missed = self.missed();
        if missed > 0 {
            text += &format!(
                "the load was not kept up: {} not handed over when due; --in-flight or the service \
                 is the limit\n",
                screen::count(missed, "batch"),
            );
        }
        if written.late > 0 {
            text += &format!(
                "{} handed over more than {} ms late, which the latency tells\n",
                screen::count(written.late, "batch"),
                LATE.as_millis(),
            );
        }
        text
    }
}

impl Replayed {
    /// Bytes of values.
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.total.bytes as f64 / self.seconds.max(1e-6)
    }

    /// For a program.
    pub(crate) fn object(&self) -> Value {
        json!({
            "records": self.total.records,
            "bytes": self.total.bytes,
            "seconds": self.seconds,
            "mb_per_s": self.bytes_per_second() / 1e6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::histogram::Histogram;
    use crate::bench::writing::Total;
    use esker_env::Monotonic;

    /// Of 1000 durable records, with `unsure` batches beside them.
    fn loaded(unseen: u64, unsure: u64, read: (u64, u64)) -> Loaded {
        let total = |(records, bytes)| Total { records, bytes };
        let second = Duration::from_secs(1);
        Loaded {
            topic: "t".to_owned(),
            times: Times::new(Monotonic(Duration::ZERO), Duration::ZERO, second),
            warmup: Span(Duration::ZERO),
            batch_bytes: 100,
            interval: None,
            written: Written {
                unsure,
                all: total((1000, 5000)),
                ..Written::new(1)
            },
            tail: Some(Read {
                latency: Histogram::new(),
                unseen,
            }),
            replayed: Some(Replayed {
                total: total(read),
                seconds: 1.0,
            }),
        }
    }

    #[test]
    fn what_does_not_come_back_is_wrong() {
        let all = (1000, 5000);
        assert_eq!(loaded(0, 0, all).wrong(true), None);
        let unseen = loaded(7, 0, all).wrong(false).unwrap();
        assert!(unseen.starts_with("7 durable records"), "{unseen}");
        let unseen = loaded(1, 0, all).wrong(false).unwrap();
        assert!(unseen.starts_with("1 durable record did not"), "{unseen}");
        for read in [(999, 4995), (1001, 5005), (1000, 4999)] {
            let wrong = loaded(0, 0, read).wrong(true).unwrap();
            let told = format!("read again: {} records of {} bytes", read.0, read.1);
            assert!(wrong.contains(&told), "{wrong}");
            // Others may have written there, or trimmed it.
            assert_eq!(loaded(0, 0, read).wrong(false), None);
        }
        let one = loaded(0, 0, (1, 1)).wrong(true).unwrap();
        assert!(one.ends_with("read again: 1 record of 1 byte"), "{one}");
        // What is unknown may be written.
        assert_eq!(loaded(0, 1, (1010, 5050)).wrong(true), None);
        assert!(loaded(0, 1, (999, 5000)).wrong(true).is_some());
    }
}
