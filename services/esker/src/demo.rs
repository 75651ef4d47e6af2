//! `esker demo`: the main job once through, on a scratch folder: logs in, flushed, the cache
//! dropped, the process's parts started anew, out from the bucket, compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use esker_client::{Client, Options, ProducerOptions, ReadOptions, Record};
use esker_env::Env;
use esker_types::limits::MIB;

use crate::config::{Config, Kind, Size};
use crate::run::{Failed, say};
use crate::sample::Lines;
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
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let bytes = Size::parse(&self.bytes);
        let bytes = bytes
            .ok_or_else(|| Failed::new(format!("--bytes {}: no size; write 64MiB", self.bytes)))?;
        let env = Env::real();
        let scratch = crate::run::scratch(&format!("esker-demo-{:016x}", env.entropy.next_u64()));
        let done = Demo {
            env,
            scratch: scratch.clone(),
            args: self.clone(),
            bytes: bytes.0,
        }
        .run()
        .await;
        if self.keep || done.is_err() {
            say(&format!("the scratch folder is {}\n", scratch.display()));
        } else {
            crate::run::remove(&scratch);
        }
        done
    }
}

struct Demo {
    env: Env,
    scratch: PathBuf,
    args: DemoArgs,
    bytes: u64,
}

impl Demo {
    async fn run(&self) -> Result<(), Failed> {
        let began = self.env.clock.monotonic();
        let server = self.start().await?;
        say(&format!(
            "1. started everything in {}\n",
            self.scratch.display()
        ));
        let client = self.connect(&server).await?;
        client
            .admin()
            .create_topic(TOPIC, PARTITIONS, &BTreeMap::new())
            .await?;

        let (written, took) = self.timed(self.write(&client)).await?;
        self.figure("2. appended, each batch synced to the WAL", &written, took);

        let (live, took) = self.timed(self.read(&client, false)).await?;
        compare(&written, &live)?;
        self.figure("3. read back and compared", &written, took);

        let (flushed, took) = self
            .timed(async { Ok(client.admin().flush().await?) })
            .await?;
        let stored = self.stored(&client).await?;
        say(&format!(
            "4. flushed to the bucket: {} segments just now, {:.1} MiB in it ({:.1} times smaller), in {:.2} s\n",
            flushed.segments,
            mib(stored),
            written.bytes() as f64 / stored.max(1) as f64,
            took.as_secs_f64(),
        ));
        drop(client);
        server.close().await;
        crate::run::remove(&cache_directory(&self.scratch));
        let server = self.start().await?;
        say("5. stopped, dropped the cache, started again\n");

        let client = self.connect(&server).await?;
        let before = server.bucket_counters();
        let (history, took) = self.timed(self.read(&client, true)).await?;
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
        self.figure("6. read from the bucket and compared", &written, took);
        say(&format!(
            "   {gets} ranged GETs, {:.1} MiB fetched\n",
            mib(got)
        ));
        server.close().await;
        let took = self.env.clock.monotonic().since(began);
        say(&format!(
            "done in {:.1} s: every record is where it was acknowledged, twice.\n",
            took.as_secs_f64()
        ));
        Ok(())
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
        let endpoint = format!("http://{}", server.address());
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
        say(&format!(
            "{what}: {} records, {:.1} MiB, in {seconds:.2} s: {:.0} MiB/s\n",
            total.records(),
            mib(total.bytes()),
            mib(total.bytes()) / seconds.max(0.001),
        ));
    }

    /// Writes the sample; what each partition got.
    async fn write(&self, client: &Client) -> Result<Tally, Failed> {
        let producer = client.producer(TOPIC, ProducerOptions::default()).await?;
        let mut shares = vec![Share::new(true); PARTITIONS as usize];
        let mut waiting = Vec::with_capacity(DELIVERIES_WAITING);
        let mut source = self.source()?;
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
                    delivery.await?;
                }
            }
            number += 1;
        }
        producer.flush().await?;
        for delivery in waiting {
            delivery.await?;
        }
        let mut written = Tally::default();
        for (partition, share) in (0..PARTITIONS).zip(shares) {
            written.set(partition, share);
        }
        Ok(written)
    }

    /// Reads everything back.
    async fn read(&self, client: &Client, backfill: bool) -> Result<Tally, Failed> {
        let mut tally = Tally::default();
        for partition in 0..PARTITIONS {
            let options = ReadOptions {
                backfill,
                ..ReadOptions::default()
            };
            let mut reader = client.read(TOPIC, partition, options).await?;
            let mut share = Share::new(true);
            while let Some(batch) = reader.next().await? {
                for record in batch.records() {
                    share.add(record.value.unwrap_or_default());
                }
            }
            tally.set(partition, share);
        }
        Ok(tally)
    }

    /// Bytes of the bucket's segments; fails if something is not in it.
    async fn stored(&self, client: &Client) -> Result<u64, Failed> {
        let status = client.admin().cluster_status().await?;
        let unflushed: u64 = status.shards.iter().map(|shard| shard.head_batches).sum();
        if unflushed > 0 {
            return Err(Failed::new(format!(
                "{unflushed} batches are not in the bucket after a flush"
            )));
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
        "partition {partition} does not read back as it was written: {} records of {} bytes in, {} \
         records of {} bytes out",
        written.records, written.bytes, read.records, read.bytes
    )))
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
