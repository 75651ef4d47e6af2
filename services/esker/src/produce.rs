//! Appends lines, or JSON objects, to a topic.
//!
//! ```text
//!   files, stdin ─► input ─► lines ─► pages ─► producer ─► settled in order ─► tally
//!                   └──── a thread ─────┘
//! ```

mod input; // files and stdin
mod lines; // bytes into lines
mod pages; // records that go together

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use esker_client::{
    Compression, DeliveryOfAll, Durability, Error, Options, Producer, ProducerOptions, ZstdLevel,
};
use futures::future::OptionFuture;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::config::{Size, Span};
use crate::failure::{Failure, unless};
use crate::headway::{Headway, Waits};
use crate::run::interrupted;
use crate::screen;
use crate::shell::Shell;
use crate::tally::{Share, Tally};
use input::{Form, Input, Sources};
use pages::{Page, Pages, Place};

/// Pages that are read ahead.
const PAGES_AHEAD_MAX: usize = 4;
/// How long an interrupted produce waits for what it has sent.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// Append lines, or JSON objects, to a topic
///
/// A record is the bytes between newlines: CR is kept, an empty line is an empty value, a last line
/// without a newline counts. Records without a key fill one batch after the other, each in another
/// partition; order holds within a partition.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --format json a line is an object such as
  {\"key\":\"k\",\"value\":\"v\",\"headers\":[{\"key\":\"a\",\"value\":\"b\"}],\"timestamp\":1795273200000}
with key_base64 and value_base64 for bytes that are no text; all of it may be left out.

With --json the last line tells records, bytes of values, next offset and the SHA-256 of the
values, each followed by a newline, per partition.")]
pub(crate) struct Args {
    /// Where to
    topic: String,
    /// Files, one after the other; `-` is stdin [default: stdin]
    files: Vec<PathBuf>,
    /// What a line is
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// Send everything to this partition
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// What stands between key and value of a line, \t for a tab; a key picks the partition, as in
    /// Kafka
    #[arg(long, value_name = "TEXT", value_parser = separator)]
    key_separator: Option<String>,
    /// How batches are compressed [default: as the topic says]
    #[arg(long, value_enum)]
    compression: Option<Codec>,
    /// Bytes of records that make a batch full [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    batch_bytes: Option<usize>,
    /// How long records wait for others to share their batch [default: 5ms]
    #[arg(long, value_name = "TIME", value_parser = span)]
    linger: Option<Duration>,
    /// Give up that retries are recognised
    #[arg(long)]
    no_idempotence: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Lines,
    Json,
}

/// How batches are compressed, as people name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// What producers take.
    pub(crate) const fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd(ZstdLevel::FAST),
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = Size::parse(text).and_then(|Size(bytes)| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| "write a size such as 256KiB".to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).map(|Span(span)| span);
    span.ok_or_else(|| "write a time such as 5ms".to_owned())
}

fn separator(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it may not be empty".to_owned());
    }
    let mut meant = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' => match letters.next() {
                Some('t') => '\t',
                Some('0') => '\0',
                Some('\\') => '\\',
                _ => return Err(r"behind a \ stands t (a tab), 0 or another \".to_owned()),
            },
            letter => letter,
        };
        meant.push(letter);
    }
    Ok(meant)
}

impl Args {
    fn options(&self) -> ProducerOptions {
        let options = ProducerOptions::default();
        ProducerOptions {
            linger: self.linger.unwrap_or(options.linger),
            batch_bytes: self.batch_bytes.unwrap_or(options.batch_bytes),
            compression: self.compression.map(Codec::compression),
            idempotent: !self.no_idempotence,
            ..options
        }
    }

    fn form(&self) -> Form {
        match self.format {
            Format::Json => Form::Json,
            Format::Lines => Form::Line {
                separator: self.key_separator.clone(),
            },
        }
    }
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    if args.format == Format::Json && args.key_separator.is_some() {
        let text = "--key-separator is for lines; a JSON object has its key in `key`";
        return Err(Failure::usage(text));
    }
    let mut interrupt = std::pin::pin!(interrupted());
    let sources = Arc::new(Sources::new(&args.files));
    let total = sources.bytes()?;
    let topic = args.topic.as_str();
    let opening = async {
        let client = shell.client_with(Options::default()).await?;
        let producer = client.producer(topic, args.options()).await;
        let producer = producer.map_err(|e| Failure::reading(&e).of_topic(shell, topic))?;
        Ok((client, producer))
    };
    let opened = unless(interrupt.as_mut(), opening).await;
    let opened = opened.map_err(|failure| failure.and_also("nothing was written"));
    let (client, producer) = opened?;
    let began = shell.env.clock.monotonic();
    let template = match total {
        Some(_) => {
            "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        }
        None => "{binary_bytes}, {binary_bytes_per_sec}",
    };
    let bar = screen::progress(total, template);
    let waits = Waits::Writing(args.options().linger);
    let mut appending = Appending {
        sources: Arc::clone(&sources),
        sent: VecDeque::new(),
        tally: Tally::default(),
        farthest: None,
        behind: None,
        failed: None,
        unsure: false,
        broken: BTreeSet::new(),
        waiting: 0,
        headway: Headway::watch(shell, &client, &bar, waits),
        bar,
    };
    let pages = read(&args, shell, &producer, sources);
    let stopped = appending.append(producer, pages, interrupt).await;
    appending.bar.finish_and_clear();
    if let Err(failure) = appending.outcome(stopped) {
        let failure = failure.of_topic(shell, topic);
        return Err(failure.with_field("written", appending.tally.object(topic)));
    }
    let seconds = shell.env.clock.monotonic().since(began).as_secs_f64();
    let mut answer = appending.tally.object(topic);
    answer["seconds"] = seconds.into();
    shell.answer(&answer, || {
        let rate = screen::rate(appending.tally.bytes(), seconds);
        format!(
            "appended {} to {topic} in {seconds:.1} s, {rate}\n",
            appending.tally.text()
        )
    })
}

/// Starts to read.
fn read(
    args: &Args,
    shell: &Shell,
    producer: &Producer,
    sources: Arc<Sources>,
) -> mpsc::Receiver<Result<Page, Failure>> {
    let partitions = producer.partitions();
    let first = shell.env.entropy.next_u64() % u64::from(partitions);
    let first = u32::try_from(first).expect("below the partitions");
    let (out, pages) = mpsc::channel(PAGES_AHEAD_MAX);
    let mut input = Some(Input {
        sources,
        form: args.form(),
        partition: args.partition,
        producer: producer.clone(),
        topic: args.topic.clone(),
        pages: Pages::new(partitions, first, producer.batch_bytes(), shell.json),
        out,
    });
    let worker = Box::new(move || input.take().into_iter().for_each(Input::run));
    shell.env.workers.start("esker-input", worker).wake();
    pages
}

/// A page on its way.
struct Sent {
    delivery: DeliveryOfAll,
    partition: u32,
    first: Place,
    last: Place,
    records: u64,
    after: Share,
}

/// A page on its way with what it left behind, or which page could not be handed over and why.
type Handed = Result<(Sent, Option<Place>), (u32, Place, Error)>;

/// Hands `page` over; waits for the producer's memory, and has done nothing if it is dropped before.
async fn send(producer: Producer, page: Page) -> Handed {
    let records = page.records.len() as u64;
    let delivery = producer.send_together(Some(page.partition), page.records);
    match delivery.await {
        Ok(delivery) => {
            let sent = Sent {
                delivery,
                partition: page.partition,
                first: page.first,
                last: page.last,
                records,
                after: page.after,
            };
            Ok((sent, page.behind))
        }
        Err(error) => Err((page.partition, page.first, error)),
    }
}

struct Appending {
    sources: Arc<Sources>,
    sent: VecDeque<Sent>,
    /// What is synced on a quorum of disks.
    tally: Tally,
    /// Of what is, the last line.
    farthest: Option<Place>,
    /// The first record that read pages left behind, or that waits to be handed over.
    behind: Option<Place>,
    /// The first record that is not, and why.
    failed: Option<(Place, Error)>,
    /// What failed may be written all the same.
    unsure: bool,
    /// Partitions that something of is missing.
    broken: BTreeSet<u32>,
    /// Records of `sent`, and of the page that waits to be handed over.
    waiting: u64,
    headway: Headway,
    bar: ProgressBar,
}

impl Appending {
    /// Appends all there is. Why the input ended before its end is returned.
    async fn append(
        &mut self,
        producer: Producer,
        pages: mpsc::Receiver<Result<Page, Failure>>,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        // Without them nothing more is read, and what was sent does not linger.
        let mut open = Some((producer, pages));
        // It may wait for memory for as long as nothing is settled.
        let mut sending = None;
        let mut stopped = Ok(());
        let mut grace = None;
        loop {
            if self.failed.is_some() {
                (open, sending) = (None, None);
            }
            if open.is_none() && sending.is_none() && self.sent.is_empty() {
                return stopped;
            }
            let told = self.sent.front_mut().map(|sent| &mut sent.delivery);
            let page = open.as_mut().filter(|_| sending.is_none());
            let page = page.map(|(_, pages)| pages.recv());
            tokio::select! {
                biased;
                Some(told) = OptionFuture::from(told) => self.settle(told),
                () = &mut interrupt, if grace.is_none() => {
                    (open, sending) = (None, None);
                    grace = Some(Box::pin(tokio::time::sleep(INTERRUPT_GRACE)));
                    stopped = Err(Failure::new("interrupted"));
                }
                Some(()) = OptionFuture::from(grace.as_mut()), if grace.is_some() => {
                    return stopped;
                }
                Some(handed) = OptionFuture::from(sending.as_mut()) => {
                    sending = None;
                    self.handed(handed);
                }
                Some(page) = OptionFuture::from(page) => match (page, &open) {
                    (Some(Ok(page)), Some((producer, _))) => {
                        self.behind = page.behind.into_iter().chain([page.first]).min();
                        self.waiting += page.records.len() as u64;
                        self.headway.waiting(self.waiting);
                        sending = Some(Box::pin(send(producer.clone(), page)));
                    }
                    (Some(Err(failure)), _) => (open, stopped) = (None, Err(failure)),
                    _ => open = None,
                }
            }
        }
    }

    /// A page was handed over, or could not be.
    fn handed(&mut self, handed: Handed) {
        match handed {
            Ok((sent, behind)) => {
                self.behind = behind;
                self.sent.push_back(sent);
            }
            Err((partition, first, error)) => self.fail(partition, first, error),
        }
    }

    /// The oldest page is settled.
    fn settle(&mut self, told: Result<esker_client::AckedAll, Error>) {
        let Some(mut sent) = self.sent.pop_front() else {
            return;
        };
        self.waiting -= sent.records;
        self.headway.waiting(self.waiting);
        if told.is_ok() {
            self.headway.step();
            self.farthest = self.farthest.max(Some(sent.last));
        }
        match told {
            Ok(acked) if !self.broken.contains(&sent.partition) => {
                sent.after.next_offset = acked.offsets.end().get();
                self.tally.set(sent.partition, sent.after);
                self.bar
                    .set_position(self.tally.bytes() + self.tally.records());
            }
            Ok(_) => {}
            Err(error) => self.fail(sent.partition, sent.first, error),
        }
    }

    fn fail(&mut self, partition: u32, first: Place, error: Error) {
        self.broken.insert(partition);
        self.unsure |= error.durability() != Durability::NotWritten;
        if self.failed.as_ref().is_none_or(|(place, _)| first < *place) {
            self.failed = Some((first, error));
        }
    }

    /// What it came to, if not to all there was.
    fn outcome(&mut self, stopped: Result<(), Failure>) -> Result<(), Failure> {
        // Given up after an interrupt, they may be written.
        let left = self.sent.iter().map(|sent| sent.first);
        let failed = self.failed.as_ref().map(|(first, _)| *first);
        let first = left.chain(self.behind).chain(failed).min();
        let unsure = self.unsure || !self.sent.is_empty();
        let more = (unsure || (first.is_some() && self.farthest > first)).then(|| {
            let may = if unsure { "may be" } else { "is" };
            format!("some of what follows {may} written: see how far the topic goes")
        });
        let known = more.is_none();
        if let (Some((_, error)), Some(first)) = (&self.failed, first) {
            let next = more.unwrap_or_else(|| {
                let (line, name) = (first.line, self.sources.name(first.source));
                format!("go on with line {line} of {name}")
            });
            let failure = Failure::writing(error).and_next(next);
            // The error itself says that nothing was written.
            return Err(match known && first == Place::FIRST {
                true => failure,
                false => failure.and_also(&self.durable(Some(first), known)),
            });
        }
        stopped.map_err(|failure| {
            let failure = failure.and_also(&self.durable(first, known));
            match more {
                Some(more) => failure.and_next(more),
                None => failure,
            }
        })
    }

    /// How far everything is durable; `known`: what follows is not written.
    fn durable(&self, before: Option<Place>, known: bool) -> String {
        match before {
            Some(Place::FIRST) if known => "nothing was written".to_owned(),
            Some(Place::FIRST) => "nothing is known to be durable".to_owned(),
            Some(Place { source, line }) => {
                let name = self.sources.name(source);
                format!("everything before line {line} of {name} is durable")
            }
            None if self.tally.records() == 0 => "nothing was written".to_owned(),
            None => format!("durable: {}", self.tally.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_may_be_written_with_escapes() {
        for (text, meant) in [
            ("=", "="),
            (r"\t", "\t"),
            (r"a\\b\0", "a\\b\0"),
            (": ", ": "),
        ] {
            assert_eq!(separator(text).as_deref(), Ok(meant));
        }
        for text in ["", r"\", r"\n", r"\x09"] {
            assert!(separator(text).is_err(), "{text}");
        }
    }
}
