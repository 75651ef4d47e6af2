//! `esker demo`: the main job once through, on a scratch folder: logs in, flushed, the cache
//! dropped, the process's parts started anew, out from the bucket, compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use esker_client::{Acked, Client, Offset, Options, ProducerOptions, ReadOptions, Record};
use esker_env::Env;
use esker_types::limits::MIB;
use serde_json::{Value, json};

use crate::config::{Config, Kind, Size};
use crate::run::{Failed, asked, say};
use crate::sample::Lines;
use crate::screen;
use crate::serve::{Server, cache_directory};
use crate::tally::{Share, Tally};

const TOPIC: &str = "demo";
const PARTITIONS: u32 = 4;
/// Lines that go to one partition before it is the next one's turn.
const LINES_IN_TURN: u64 = 500;
/// Deliveries that are waited for at once.
const DELIVERIES_WAITING: usize = 10_000;

/// What `esker demo` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// How much to write, of made-up log lines.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    bytes: String,
    /// Seed of the lines.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the text files of this folder in place of made-up lines.
    #[arg(long, value_name = "DIR", env = "ESKER_SAMPLE_DIR")]
    sample_dir: Option<PathBuf>,
    /// Keep the scratch folder.
    #[arg(long)]
    keep: bool,
}

impl DemoArgs {
    /// Runs it; says each step, or with `json` all of them at the end, in one object.
    pub(crate) async fn run(self, json: bool) -> Result<(), Failed> {
        let bytes = Size::parse(&self.bytes);
        let bytes = bytes.ok_or_else(|| {
            Failed::usage(format!("--bytes {}: no size; write 64MiB", self.bytes))
        })?;
        let env = Env::real();
        let name = format!("esker-demo-{:016x}", env.entropy.next_u64());
        let scratch = crate::run::scratch(&name)?;
        let demo = Demo {
            env,
            scratch: scratch.clone(),
            args: self.clone(),
            bytes: bytes.0,
            json,
        };
        let done = tokio::select! {
            biased;
            code = asked() => {
                // Its server may still write there: what is removed under it is nobody's loss.
                match self.keep {
                    true => kept(&scratch, json),
                    false => crate::run::remove(&scratch),
                }
                std::process::exit(code);
            }
            done = demo.run() => done,
        };
        match self.keep || done.is_err() {
            true => kept(&scratch, json),
            false => crate::run::remove(&scratch),
        }
        let told = done?;
        if json {
            say(&format!("{told}\n"));
        }
        Ok(())
    }
}

/// Says where the folder is that stays; with `json`, where no program listens.
fn kept(scratch: &Path, json: bool) {
    let text = format!("the scratch folder is {}", scratch.display());
    match json {
        true => screen::note(&text),
        false => say(&(text + "\n")),
    }
}

struct Demo {
    env: Env,
    scratch: PathBuf,
    args: DemoArgs,
    bytes: u64,
    /// A program reads what is said: nothing before the end.
    json: bool,
}

impl Demo {
    /// What it came to, for a program.
    async fn run(&self) -> Result<Value, Failed> {
        let began = self.env.clock.monotonic();
        let server = self.start().await?;
        self.say(&format!(
            "1. started everything in {}\n",
            self.scratch.display()
        ));
        let client = self.connect(&server).await?;
        client
            .admin()
            .create_topic(TOPIC, PARTITIONS, &BTreeMap::new())
            .await?;

        let (written, appended) = self.timed(self.write(&client)).await?;
        self.figure(
            "2. appended, each batch synced to the WAL",
            &written,
            appended,
        );

        let (live, read) = self.timed(self.read(&client, false)).await?;
        compare(&written, &live)?;
        self.figure("3. read back and compared", &written, read);

        let (flushed, flush) = self
            .timed(async { Ok(client.admin().flush().await?) })
            .await?;
        let stored = self.stored(&client).await?;
        self.say(&format!(
            "4. flushed to the bucket: {} just now, {:.1} MiB in it ({:.1} times smaller), in {:.2} s\n",
            screen::count(flushed.segments.into(), "segment"),
            mib(stored),
            written.bytes() as f64 / stored.max(1) as f64,
            flush.as_secs_f64(),
        ));
        drop(client);
        server.close().await;
        crate::run::remove(&cache_directory(&self.scratch));
        let server = self.start().await?;
        self.say("5. stopped, dropped the cache, started again\n");

        let client = self.connect(&server).await?;
        let before = server.bucket_counters();
        let (history, replay) = self.timed(self.read(&client, true)).await?;
        compare(&written, &history)?;
        let after = server.bucket_counters();
        let (gets, got) = (
            after.get.done - before.get.done,
            after.read_bytes - before.read_bytes,
        );
        if got < stored / 2 {
            return Err(Failed::new(format!(
                "the bucket served {got} bytes of the {stored} it holds: what was read came from elsewhere"
            )));
        }
        self.figure("6. read from the bucket and compared", &written, replay);
        self.say(&format!(
            "   {}, {:.1} MiB fetched\n",
            screen::count(gets, "ranged GET"),
            mib(got)
        ));
        server.close().await;
        let took = self.env.clock.monotonic().since(began);
        self.say(&format!(
            "done in {:.1} s: every record is where it was acknowledged, twice.\n",
            took.as_secs_f64()
        ));
        let mut told = written.object(TOPIC);
        told["append_seconds"] = appended.as_secs_f64().into();
        told["read_seconds"] = read.as_secs_f64().into();
        told["flush"] = json!({
            "segments": flushed.segments,
            "stored_bytes": stored,
            "seconds": flush.as_secs_f64(),
        });
        told["bucket"] = json!({
            "gets": gets,
            "bytes": got,
            "read_seconds": replay.as_secs_f64(),
        });
        told["seconds"] = took.as_secs_f64().into();
        Ok(told)
    }

    /// Says it to a person.
    fn say(&self, text: &str) {
        if !self.json {
            say(text);
        }
    }

    async fn start(&self) -> Result<Server, Failed> {
        let flags = [
            ("data_dir", self.scratch.display().to_string()),
            ("listen.public", "127.0.0.1:0".to_owned()),
            ("listen.metrics", "127.0.0.1:0".to_owned()),
            // Flushing by hand shows the difference.
            ("flush.age", "1h".to_owned()),
        ];
        let config = Config::build(Kind::Dev, None, &BTreeMap::new(), &flags)?;
        Ok(Server::start(&self.env, &config, BTreeMap::new()).await?)
    }

    async fn connect(&self, server: &Server) -> Result<Client, Failed> {
        let endpoint = format!("http://{}", server.address().expect("it serves clients"));
        Ok(Client::connect(&endpoint, Options::default(), &self.env).await?)
    }

    async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<(T, Duration), Failed> {
        let began = self.env.clock.monotonic();
        let done = work.await?;
        Ok((done, self.env.clock.monotonic().since(began)))
    }

    fn figure(&self, what: &str, total: &Tally, took: Duration) {
        let seconds = took.as_secs_f64();
        self.say(&format!(
            "{what}: {}, {:.1} MiB, in {seconds:.2} s: {:.0} MiB/s\n",
            screen::count(total.records(), "record"),
            mib(total.bytes()),
            mib(total.bytes()) / seconds.max(0.001),
        ));
    }

    /// Writes the sample; what each partition got.
    async fn write(&self, client: &Client) -> Result<Tally, Failed> {
        let producer = client.producer(TOPIC, ProducerOptions::default()).await?;
        let mut shares = vec![Share::new(true); PARTITIONS as usize];
        let mut waiting = Vec::with_capacity(DELIVERIES_WAITING);
        let (mut source, mut places) = (self.source()?, Places::default());
        let (mut number, mut line) = (0u64, Vec::new());
        while source.next(&mut line)? {
            let turn = number / LINES_IN_TURN % u64::from(PARTITIONS);
            let partition = u32::try_from(turn).expect("below the partitions");
            shares[partition as usize].add(&line);
            let mut record = Record::value(line.clone());
            record.partition = Some(partition);
            waiting.push(producer.send(record).await?);
            if waiting.len() == DELIVERIES_WAITING {
                for delivery in waiting.drain(..) {
                    let acked: Acked = delivery.await?;
                    places.take("acknowledged", acked.partition, acked.offset)?;
                }
            }
            number += 1;
        }
        producer.flush().await?;
        for delivery in waiting {
            let acked: Acked = delivery.await?;
            places.take("acknowledged", acked.partition, acked.offset)?;
        }
        let mut written = Tally::default();
        for (partition, mut share) in (0..PARTITIONS).zip(shares) {
            share.next_offset = places.end(partition);
            written.set(partition, share);
        }
        Ok(written)
    }

    /// Reads everything back.
    async fn read(&self, client: &Client, backfill: bool) -> Result<Tally, Failed> {
        let (mut tally, mut places) = (Tally::default(), Places::default());
        for partition in 0..PARTITIONS {
            let options = ReadOptions {
                backfill,
                ..ReadOptions::default()
            };
            let mut reader = client.read(TOPIC, partition, options).await?;
            let mut share = Share::new(true);
            while let Some(batch) = reader.next().await? {
                for record in batch.records() {
                    places.take("read", partition, record.offset)?;
                    share.add(record.value.unwrap_or_default());
                }
            }
            share.next_offset = places.end(partition);
            tally.set(partition, share);
        }
        Ok(tally)
    }

    /// Bytes of the bucket's segments; fails if something is not in it.
    async fn stored(&self, client: &Client) -> Result<u64, Failed> {
        let status = client.admin().cluster_status().await?;
        let unflushed: u64 = status.shards.iter().map(|shard| shard.head_batches).sum();
        if unflushed > 0 {
            let unflushed = screen::count(unflushed, "batch");
            let text = format!("after a flush the bucket lacks {unflushed}");
            return Err(Failed::new(text));
        }
        Ok(status.shards.iter().map(|shard| shard.segment_bytes).sum())
    }

    fn source(&self) -> Result<Source, Failed> {
        match &self.args.sample_dir {
            None => Ok(Source::Made {
                lines: Lines::new(self.args.seed),
                left: self.bytes,
            }),
            Some(directory) => {
                let files = crate::run::text_files(directory)?;
                if files.is_empty() {
                    let text = format!("{} holds no file to write", directory.display());
                    return Err(Failed::new(text));
                }
                Ok(Source::Files {
                    files: files.into_iter(),
                    open: None,
                })
            }
        }
    }
}

/// Where records are, of a topic that nobody else writes to: each in the order in which it was sent,
/// at the next offset of its partition. What is so for what was acknowledged and for what is read is
/// where it was acknowledged, if the values are the same in the same order.
#[derive(Debug, Default)]
struct Places {
    ends: BTreeMap<u32, u64>,
}

impl Places {
    fn take(&mut self, what: &str, partition: u32, offset: Offset) -> Result<(), Failed> {
        let due = self.ends.entry(partition).or_default();
        if offset.get() != *due {
            return Err(Failed::new(format!(
                "the record that is due at offset {due} of partition {partition} was {what} at \
                 {offset}"
            )));
        }
        *due += 1;
        Ok(())
    }

    fn end(&self, partition: u32) -> u64 {
        self.ends.get(&partition).copied().unwrap_or_default()
    }
}

/// Where lines come from.
enum Source {
    Made {
        lines: Lines,
        left: u64,
    },
    Files {
        files: std::vec::IntoIter<PathBuf>,
        open: Option<crate::run::LineFile>,
    },
}

impl Source {
    /// The next line; `false` after the last.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, Failed> {
        match self {
            Self::Made { lines, left } => {
                if *left == 0 {
                    return Ok(false);
                }
                lines.write(line);
                *left = left.saturating_sub(line.len() as u64 + 1);
                Ok(true)
            }
            Self::Files { files, open } => loop {
                if let Some(file) = open
                    && file.next(line)?
                {
                    return Ok(true);
                }
                let Some(path) = files.next() else {
                    return Ok(false);
                };
                *open = Some(crate::run::LineFile::open(&path)?);
            },
        }
    }
}

fn compare(written: &Tally, read: &Tally) -> Result<(), Failed> {
    let Some((partition, written, read)) = written.differs(read) else {
        return Ok(());
    };
    Err(Failed::new(format!(
        "partition {partition} does not read back as it was written: {} of {} in, {} of {} out",
        screen::count(written.records, "record"),
        screen::count(written.bytes, "byte"),
        screen::count(read.records, "record"),
        screen::count(read.bytes, "byte"),
    )))
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_elsewhere_is_told() {
        let mut places = Places::default();
        let mut take = |partition, offset| {
            let offset = Offset::new(offset).unwrap();
            places.take("read", partition, offset)
        };
        for offset in 0..3 {
            take(0, offset).unwrap();
            take(2, offset).unwrap();
        }
        for wrong in [2, 4] {
            let said = take(2, wrong).unwrap_err().to_string();
            let told = format!("due at offset 3 of partition 2 was read at {wrong}");
            assert!(said.contains(&told), "{said}");
        }
        assert_eq!((places.end(2), places.end(1)), (3, 0));
    }
}
