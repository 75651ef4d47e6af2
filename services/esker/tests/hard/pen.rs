//! The history, and what is open in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use esker_checker::{
    Append, Call, History, Mode, Offset, OpId, Outcome, Read, Recorder, Refusal, Reply, Session,
    Stream, ValueHash, View,
};
use esker_client::{Code, Error};
use esker_env::Env;
use esker_types::Durability;

use crate::claimant::BROKEN;

/// What an agent says that stops.
const STOPS: &str = "the agent stops: what has no reply was not taken";

type Clock = Box<dyn FnMut() -> u64 + Send>;

/// Notes calls and answers. Clones write into one history.
#[derive(Clone)]
pub(crate) struct Pen(Arc<Mutex<Book>>);

struct Book {
    recorder: Recorder<Clock, BufWriter<File>>,
    open: BTreeMap<OpId, Session>,
    unknown: BTreeSet<OpId>,
    /// Who was acknowledged something in this life of the server.
    connected: BTreeSet<Session>,
    /// What looks and reads were refused with, and how often.
    refusals: BTreeMap<String, u32>,
    /// What appends were answered with instead of an acknowledgement, and how often.
    misses: BTreeMap<String, u32>,
    acked_batches: u64,
    acked_records: u64,
}

/// What became of the appends that were noted so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) unknown: usize,
}

impl Pen {
    /// A history of its own, its lines in `file`.
    pub(crate) fn new(file: &Path) -> Self {
        let clock = Env::real().clock;
        let clock: Clock =
            Box::new(move || u64::try_from(clock.monotonic().0.as_nanos()).expect("a short test"));
        let lines = BufWriter::new(File::create(file).expect("a file"));
        Self(Arc::new(Mutex::new(Book {
            recorder: Recorder::new(clock, lines),
            open: BTreeMap::new(),
            unknown: BTreeSet::new(),
            connected: BTreeSet::new(),
            refusals: BTreeMap::new(),
            misses: BTreeMap::new(),
            acked_batches: 0,
            acked_records: 0,
        })))
    }

    /// A call is about to be made.
    pub(crate) fn invoke(&self, session: Session, partition: u32, call: Call) -> OpId {
        let mut book = self.book();
        let append = matches!(call, Call::Append(_));
        let stream = Stream(partition.into());
        let op = book.recorder.invoke(session, stream, call);
        let op = op.expect("well formed");
        if append {
            book.open.insert(op, session);
        }
        op
    }

    pub(crate) fn append(&self, session: Session, partition: u32, append: Append) -> OpId {
        self.invoke(session, partition, Call::Append(append))
    }

    pub(crate) fn read(
        &self,
        session: Session,
        partition: u32,
        from: u64,
        mode: Mode,
        view: &View,
    ) -> OpId {
        let read = Read {
            from: Offset(from),
            max: u64::MAX,
            mode,
            view: view.clone(),
        };
        self.invoke(session, partition, Call::Read(read))
    }

    /// An append was answered.
    pub(crate) fn appended(&self, session: Session, op: OpId, answer: Result<(u64, u64), &Error>) {
        let mut book = self.book();
        book.open.remove(&op);
        if let Err(error) = answer {
            let miss = format!("{:?}: {error}", error.durability());
            *book.misses.entry(miss).or_default() += 1;
        }
        let outcome = match answer {
            Ok((base, count)) => {
                book.connected.insert(session);
                book.acked_batches += 1;
                book.acked_records += count;
                let base = Offset(base);
                Outcome::Ok(Reply::Append { base, count })
            }
            Err(error) if error.durability() == Durability::NotWritten => {
                Outcome::Fail(Refusal::Other)
            }
            Err(_) => {
                book.unknown.insert(op);
                Outcome::Unknown
            }
        };
        book.recorder.complete(op, outcome).expect("it is open");
    }

    /// An append on condition was answered, or will never be. What it was told.
    pub(crate) fn claimed(&self, op: OpId, outcome: Outcome, told: String) {
        let mut book = self.book();
        book.open.remove(&op);
        // Somebody else was first, which is an answer.
        let is_lost = matches!(&outcome, Outcome::Fail(Refusal::ExpectedEnd { .. }));
        if !is_lost && !matches!(&outcome, Outcome::Ok(_)) {
            *book.misses.entry(told).or_default() += 1;
        }
        match &outcome {
            Outcome::Ok(_) => {
                book.acked_batches += 1;
                book.acked_records += 1;
            }
            Outcome::Fail(_) => {}
            Outcome::Unknown => _ = book.unknown.insert(op),
        }
        book.recorder.complete(op, outcome).expect("it is open");
    }

    /// Records were read; the end of the log, if it was told.
    pub(crate) fn was_read(&self, op: OpId, records: Vec<(Offset, ValueHash)>, tail: Option<u64>) {
        let tail = tail.map(Offset);
        self.answer(op, Outcome::Ok(Reply::Read { records, tail }));
    }

    pub(crate) fn answer(&self, op: OpId, outcome: Outcome) {
        let mut book = self.book();
        book.recorder.complete(op, outcome).expect("it is open");
    }

    /// A read or a look was refused, or failed.
    pub(crate) fn failed(&self, op: OpId, error: &Error) {
        assert_ne!(error.code(), Code::DataLoss, "{error}");
        *self.book().refusals.entry(error.to_string()).or_default() += 1;
        self.answer(op, Outcome::Fail(Refusal::Other));
    }

    /// Another life of the server begins: nobody is connected.
    pub(crate) fn new_life(&self) {
        self.book().connected.clear();
    }

    /// How many were acknowledged something in this life.
    pub(crate) fn connected(&self) -> usize {
        self.book().connected.len()
    }

    /// Appends without an answer, of those who are connected: they are on their way, there or back.
    pub(crate) fn in_flight(&self) -> BTreeSet<OpId> {
        let book = self.book();
        let mut open = book.open.clone();
        open.retain(|_, session| book.connected.contains(session));
        open.into_keys().collect()
    }

    /// Appends of which nobody will ever know.
    pub(crate) fn unknown(&self) -> BTreeSet<OpId> {
        self.book().unknown.clone()
    }

    /// What looks and reads were refused with, and how often.
    pub(crate) fn refusals(&self) -> BTreeMap<String, u32> {
        self.book().refusals.clone()
    }

    /// What appends were answered with instead of an acknowledgement, and how often.
    pub(crate) fn misses(&self) -> BTreeMap<String, u32> {
        self.book().misses.clone()
    }

    /// No append was told anything instead of an offset but by what `stops` agents say that are asked to: who tries
    /// once and never again is told so, or has one try in doubt for each time that one does.
    pub(crate) fn missed_nothing(&self, stops: usize) {
        let mut misses = self.misses();
        println!("what appends were told instead of an offset: {misses:#?}");
        misses.retain(|told, _| !told.starts_with(STOPS));
        let broken = misses.remove(BROKEN).unwrap_or_default();
        assert!(broken as usize <= stops, "{broken} are in doubt");
        assert!(misses.is_empty(), "{misses:#?}");
    }

    pub(crate) fn tally(&self) -> Tally {
        let book = self.book();
        Tally {
            batches: book.acked_batches,
            records: book.acked_records,
            unknown: book.unknown.len(),
        }
    }

    /// What was noted so far.
    pub(crate) fn history(&self) -> History {
        self.book().recorder.history().clone()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the checker knows records by.
pub(crate) fn seen(batch: &esker_client::Batch) -> Vec<(Offset, ValueHash)> {
    let records = batch.records().map(|record| {
        let value = record.value.unwrap_or_default();
        (Offset(record.offset.get()), ValueHash::of(value))
    });
    records.collect()
}
