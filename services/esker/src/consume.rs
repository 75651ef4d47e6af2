//! Prints what topics hold.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use esker_client::{Code, Detail, Error};
use esker_env::{Monotonic, WallMs};
use futures::TryFutureExt as _;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::direct;
use crate::failure::{Failure, of_stdout, unless};
use crate::headway::Headway;
use crate::positions::{Position, Positions};
use crate::reading::{Bounds, Form, Piece, Printer, Reading, Source, Stretch, plan};
use crate::run::interrupted;
use crate::screen;
use crate::shell::Shell;
use crate::tally::{Share, Tally};
use crate::when::{Place, check, in_order};

/// Partitions that are followed at a time: each has a connection of its own.
const FOLLOWED_MAX: usize = 256;
/// Batches of followed partitions that wait to be printed.
const PIECES_MAX: usize = 16;
/// How long after a signal a process goes on waiting for who reads its stdout.
const STDOUT_GRACE: Duration = Duration::from_secs(2);
/// How often positions are kept.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Print a topic's values, one a line
///
/// Partitions come one after the other, each up to where it ended at the start; with --follow, as
/// records arrive, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
PLACE is earliest, end, a time, or with --partition an offset. A time is RFC 3339
(2026-11-21T15:00:00Z), a date (2026-11-21: its first moment, in UTC), milliseconds since 1970
(@1795273200000) or before now (-2h), and stands for the first record, in the order of offsets, of
this time or later.

With --json the last line on stderr tells records, bytes of values, next offset and the SHA-256 of
the values, each followed by a newline, per partition.")]
pub(crate) struct Args {
    /// What to read
    topic: String,
    /// Of one partition only
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Where to begin [default: earliest, or where --offsets-file says]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<Place>,
    /// Where to end: before this record
    #[arg(long, value_name = "PLACE", default_value = "end")]
    #[arg(allow_hyphen_values = true, conflicts_with = "follow")]
    until: Place,
    /// Go on with what is appended
    #[arg(long, conflicts_with = "direct")]
    follow: bool,
    /// Read what is not in the bucket yet from nodes that do not lead: the same records, and less work
    /// for who does
    #[arg(long, conflicts_with = "direct")]
    prefer_followers: bool,
    /// Print offset, time, key, value and headers as a JSON object a line, as `produce --format
    /// json` takes them
    #[arg(long)]
    json_records: bool,
    /// Keep in FILE how far was printed, and go on from there next time; after a crash records may
    /// come twice, none is left out. What is gone by then is an error, unless --from earliest is
    /// given, too
    #[arg(long, value_name = "FILE")]
    offsets_file: Option<PathBuf>,
    /// Print so many records at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    direct: direct::Bucket,
}

impl Args {
    fn bounds(&self, now: WallMs) -> Result<Bounds, Failure> {
        let from = self.from.unwrap_or(Place::Earliest);
        for (option, place) in [("--from", from), ("--until", self.until)] {
            check(option, place, self.partition).map_err(Failure::usage)?;
        }
        in_order(from, ("--until", self.until), now).map_err(Failure::usage)?;
        Ok(Bounds {
            from,
            until: self.until,
            follow: self.follow,
            backfill: false,
            prefer_followers: self.prefer_followers,
            past_gone: self.from == Some(Place::Earliest),
        })
    }
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    let bounds = args.bounds(shell.env.clock.wall())?;
    let mut interrupt = std::pin::pin!(interrupted());
    tokio::spawn(give_up_on_stdout(interrupted()));
    let topic = args.topic.as_str();
    let opening = async {
        let source = Source::open(shell, &args.direct).await?;
        let Some(path) = &args.offsets_file else {
            return Ok((source, None));
        };
        let id = source.topic_id(shell, topic).await?;
        let files = Arc::clone(&shell.env.files);
        let positions = Positions::open(files, path, topic, id)?;
        let elsewhere = args.from.is_some_and(|from| from != Place::Earliest);
        if elsewhere && !positions.resumed().is_empty() {
            let text = format!(
                "{} says where to go on: leave out --from, or name another file; with `--from \
                 earliest` what is gone is passed over",
                path.display()
            );
            return Err(Failure::usage(text));
        }
        Ok((source, Some(positions)))
    };
    let (source, positions) = unless(interrupt.as_mut(), opening).await?;
    let resumed = positions.as_ref().map(Positions::resumed);
    let form = match args.json_records {
        true => Form::Objects,
        false => Form::Values,
    };
    let printer = Printer::new(form, args.limit);
    let reading = Printing::new(shell, &source, topic, printer, positions);
    let of = args.partition.as_slice();
    reading
        .print(of, &bounds, &resumed.unwrap_or_default(), interrupt)
        .await
}

/// Records on their way to stdout.
pub(crate) struct Printing<'a> {
    shell: &'a Shell,
    source: &'a Source,
    topic: &'a str,
    printer: Printer,
    shares: BTreeMap<u32, Share>,
    /// Incarnations that partitions are read in.
    lives: BTreeMap<u32, Option<u32>>,
    positions: Option<Positions>,
    kept_at: Monotonic,
    headway: Headway,
}

impl<'a> Printing<'a> {
    pub(crate) fn new(
        shell: &'a Shell,
        source: &'a Source,
        topic: &'a str,
        printer: Printer,
        positions: Option<Positions>,
    ) -> Self {
        Self {
            shell,
            source,
            topic,
            printer,
            shares: BTreeMap::new(),
            lives: BTreeMap::new(),
            positions,
            kept_at: shell.env.clock.monotonic(),
            headway: source.headway(shell, &ProgressBar::hidden()),
        }
    }

    /// Prints `partitions`, or all, up to `interrupt`, and then what it came to.
    pub(crate) async fn print(
        mut self,
        partitions: &[u32],
        bounds: &Bounds,
        resumed: &BTreeMap<u32, Position>,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let began = self.shell.env.clock.monotonic();
        let now = self.shell.env.clock.wall();
        let planning = plan(self.source, self.topic, partitions, bounds, resumed, now);
        let planning = planning.map_err(|error| self.failed(&error));
        let stretches = unless(interrupt.as_mut(), planning).await?;
        if let Some(positions) = &self.positions {
            // It may have been made anew since the file was opened.
            let mut topics = stretches.iter().filter_map(Stretch::topic_id);
            topics.try_for_each(|id| positions.check(id))?;
        }
        for stretch in &stretches {
            if let Some((from, to)) = stretch.gone() {
                passed_over(self.shell, stretch.partition, from.get(), to.get());
            }
        }
        let lives = stretches.iter();
        let lives = lives.map(|stretch| (stretch.partition, stretch.incarnation()));
        self.lives = lives.collect();
        let asked = !self.printer.is_done();
        let printed = match bounds.follow {
            _ if !asked => Ok(()),
            true => self.follow(&stretches, interrupt).await,
            false => self.one_by_one(&stretches, interrupt).await,
        };
        if matches!(printed, Err(Failure::Unread)) {
            return printed;
        }
        // What was printed before a failure is no less printed.
        self.write()?;
        self.keep()?;
        let mut tally = Tally::default();
        for (partition, share) in std::mem::take(&mut self.shares) {
            tally.set(partition, share);
        }
        printed.map_err(|failure| failure.with_field("read", tally.object(self.topic)))?;
        let seconds = self.shell.env.clock.monotonic().since(began).as_secs_f64();
        summarise(self.shell, self.topic, &tally, seconds);
        if asked && tally.records() == 0 && !bounds.follow && !self.shell.json {
            let resumed = !resumed.is_empty();
            screen::note(&nothing(
                self.shell, self.topic, partitions, bounds, resumed,
            ));
        }
        Ok(())
    }

    async fn one_by_one(
        &mut self,
        stretches: &[Stretch],
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let mut left = stretches.iter();
        let mut next = unless(interrupt.as_mut(), self.open(left.next())).await?;
        while let Some(mut reading) = next {
            // It is read ahead while this one is printed.
            next = unless(interrupt.as_mut(), self.open(left.next())).await?;
            loop {
                let piece = self
                    .headway
                    .of(reading.next())
                    .map_err(|error| self.failed(&error));
                let Some(piece) = unless(interrupt.as_mut(), piece).await? else {
                    break;
                };
                self.take(reading.partition, &piece);
                if self.printer.is_done() {
                    return Ok(());
                }
                if self.printer.is_full() {
                    self.write()?;
                    self.keep_now_and_then()?;
                }
            }
            self.share(reading.partition).next_offset = reading.end_offset().get();
        }
        Ok(())
    }

    async fn open(&mut self, stretch: Option<&Stretch>) -> Result<Option<Reading>, Failure> {
        let Some(stretch) = stretch else {
            return Ok(None);
        };
        let opened = stretch.open(self.source, self.topic).await;
        let reading = opened.map_err(|error| self.failed(&error))?;
        if let Some(next) = reading.next_offset() {
            self.share(reading.partition).next_offset = next.get();
        }
        Ok(Some(reading))
    }

    async fn follow(
        &mut self,
        stretches: &[Stretch],
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        if stretches.len() > FOLLOWED_MAX {
            let text = format!(
                "topic {} has {} partitions, at most {FOLLOWED_MAX} are followed at a time; say \
                 which with --partition",
                self.topic,
                stretches.len()
            );
            return Err(Failure::new(text));
        }
        let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
        let mut readings = JoinSet::new();
        for stretch in stretches {
            let opened = unless(interrupt.as_mut(), self.open(Some(stretch))).await?;
            if let Some(reading) = opened {
                readings.spawn(hand_on(reading, pieces.clone()));
            }
        }
        drop(pieces);
        loop {
            if arriving.is_empty() || self.printer.is_full() {
                self.write()?;
                self.keep_now_and_then()?;
            }
            let arrived = tokio::select! {
                biased;
                () = &mut interrupt => return Ok(()),
                arrived = arriving.recv() => arrived,
                () = tokio::time::sleep(KEEP_EVERY), if self.positions.is_some() => continue,
            };
            let Some((partition, piece)) = arrived else {
                return Ok(());
            };
            let piece = piece.map_err(|error| self.failed(&error))?;
            self.take(partition, &piece);
            if self.printer.is_done() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, partition: u32, piece: &Piece) {
        self.headway.step();
        let hashing = self.shell.json;
        let new = || Share::new(hashing);
        let share = self.shares.entry(partition).or_insert_with(new);
        self.printer.print(partition, piece, share);
    }

    fn share(&mut self, partition: u32) -> &mut Share {
        let hashing = self.shell.json;
        let new = || Share::new(hashing);
        self.shares.entry(partition).or_insert_with(new)
    }

    fn write(&mut self) -> Result<(), Failure> {
        let mut out = screen::out().lock();
        let written = out.write_all(self.printer.text());
        let written = written.and_then(|()| out.flush());
        self.printer.written();
        written.map_err(|error| of_stdout(&error))
    }

    fn keep_now_and_then(&mut self) -> Result<(), Failure> {
        let now = self.shell.env.clock.monotonic();
        if now.since(self.kept_at) < KEEP_EVERY {
            return Ok(());
        }
        self.kept_at = now;
        self.keep()
    }

    /// Keeps how far was printed; all of it must have been written.
    fn keep(&mut self) -> Result<(), Failure> {
        let Some(positions) = &mut self.positions else {
            return Ok(());
        };
        let life = |partition| self.lives.get(partition).copied().flatten();
        let shares = self.shares.iter();
        positions
            .keep(shares.map(|(partition, share)| (*partition, share.next_offset, life(partition))))
    }

    fn failed(&self, error: &Error) -> Failure {
        let failure = self.source.failed(self.shell, self.topic, error);
        match &self.positions {
            Some(positions) if error.code() == Code::OtherIncarnation => {
                let name = positions.path().display();
                failure.and_next(format!(
                    "{name} holds positions of the life before: name another file, or remove this \
                     one, and say by --from where to begin"
                ))
            }
            Some(positions) if are_gone(&positions.resumed(), error) => {
                let name = positions.path().display();
                failure.and_next(format!(
                    "{name} says to go on there: with `--from earliest` besides, a partition whose \
                     next records are gone goes on with the first record kept, all others where the \
                     file says"
                ))
            }
            _ => failure,
        }
    }
}

/// Whether it failed because records of which `resumed` tells are gone, by retention or by hand.
fn are_gone(resumed: &BTreeMap<u32, Position>, error: &Error) -> bool {
    match error.detail() {
        Some(Detail::OutOfRange(range)) => {
            let mut kept = resumed.values();
            kept.any(|at| at.next.get() < range.log_start)
        }
        _ => false,
    }
}

/// Hands on what is read of a partition, until that fails.
async fn hand_on(mut reading: Reading, pieces: mpsc::Sender<(u32, Result<Piece, Error>)>) {
    let partition = reading.partition;
    while let Some(piece) = reading.next().await.transpose() {
        let failed = piece.is_err();
        if pieces.send((partition, piece)).await.is_err() || failed {
            return;
        }
    }
}

/// Ends the process after a signal that it cannot heed, because nobody reads what it writes.
pub(crate) async fn give_up_on_stdout(interrupt: impl Future<Output = ()>) {
    interrupt.await;
    tokio::time::sleep(STDOUT_GRACE).await;
    screen::note("esker: interrupted, and nobody reads stdout");
    std::process::exit(1);
}

/// Says that a partition does not go on where it was.
fn passed_over(shell: &Shell, partition: u32, from: u64, to: u64) {
    let gone = to - from;
    screen::note(&match shell.json {
        true => json!({ "partition": partition, "from": from, "to": to, "gone": gone }).to_string(),
        false => format!(
            "esker: partition {partition} goes on at {to}, not at {from}: {} gone",
            match gone {
                1 => "1 record is".to_owned(),
                _ => format!("{gone} records are"),
            }
        ),
    });
}

/// That there was nothing to read, which an empty stdout alone may not tell.
pub(crate) fn nothing(
    shell: &Shell,
    topic: &str,
    partitions: &[u32],
    bounds: &Bounds,
    resumed: bool,
) -> String {
    let of = match partitions {
        [partition] => format!("partition {partition} of topic {topic}"),
        _ => format!("topic {topic}"),
    };
    match (bounds.from, bounds.until) {
        _ if resumed => format!("esker: no records in {of} since the positions that were kept"),
        (Place::Earliest, Place::End) => format!("esker: no records in {of}"),
        _ => {
            let (program, option) = (&shell.program, &shell.option);
            format!(
                "esker: no records in {of} between these places; `{program} topic describe \
                 {topic}{option}` shows what it holds"
            )
        }
    }
}

/// Says what it came to, where it does not stand among records.
fn summarise(shell: &Shell, topic: &str, tally: &Tally, seconds: f64) {
    let mut answer = tally.object(topic);
    answer["seconds"] = seconds.into();
    if shell.json {
        screen::note(&answer.to_string());
    } else if screen::is_apart() {
        let rate = screen::rate(tally.bytes(), seconds);
        screen::note(&format!("read {} in {seconds:.1} s, {rate}", tally.text()));
    }
}
