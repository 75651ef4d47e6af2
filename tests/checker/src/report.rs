//! The verdict: which invariant, which calls, why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::Op;
use crate::limits::VIOLATIONS_MAX;
use crate::name::{OpId, Stream};

/// What a log promises, one id for each kind of fault. One fault is reported under one id where the
/// promises overlap; each file under `invariants` says where it stops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// No acknowledged record is lost.
    I1,
    /// Nothing is read that nobody appended, or whose append failed.
    I2,
    /// One value for each offset, one offset for each value.
    I3,
    /// Offsets are dense; a batch is contiguous, all of it or nothing.
    I4,
    /// A producer's batches lie in the order of their sequences.
    I5,
    /// An append that began after another was acknowledged lies above it.
    I6,
    /// Tails and reads are linearizable.
    I7,
    /// A session does not unsee.
    I8,
    /// A read is a contiguous slice of the log that remains.
    I9,
    /// A conditional append lies where it expected the end.
    I10,
    /// No append with an older token after a newer one.
    I11,
    /// Every tier serves the same records.
    I12,
    /// A retry adds nothing and is answered alike.
    I13,
    /// A trim takes what was asked, no more, and for ever.
    I14,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// In which log.
    pub stream: Stream,
    /// The calls that prove it.
    pub ops: Vec<OpId>,
    /// What they say.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant,
            stream,
            text,
            ops,
        } = self;
        write!(f, "{invariant} stream {stream}: {text} (ops")?;
        for op in ops {
            write!(f, " {op}")?;
        }
        f.write_str(")")
    }
}

/// How much a verdict rests on. A clean report over nothing proves nothing: look here first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Calls.
    pub ops: usize,
    /// Calls that were done.
    pub ok: usize,
    /// Calls that were definitely not done.
    pub failed: usize,
    /// Calls of which nobody knows, those without an answer among them.
    pub unknown: usize,
    /// Batches that were acknowledged.
    pub acked_batches: usize,
    /// Records in answers to reads.
    pub records_read: usize,
    /// Logs.
    pub streams: usize,
    /// Full reads at the end, by log and view.
    pub final_reads: usize,
    /// Violations found, spelt out or not.
    pub violations: BTreeMap<Invariant, usize>,
}

/// What [`crate::check`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// At most [`VIOLATIONS_MAX`] for each invariant, in order of invariant within a stream.
    pub violations: Vec<Violation>,
    /// What the verdict rests on.
    pub counts: Counts,
}

impl Report {
    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.violations.is_empty()
    }

    /// The promises that were broken.
    #[must_use]
    pub fn broken(&self) -> BTreeSet<Invariant> {
        self.counts.violations.keys().copied().collect()
    }

    pub(crate) fn add<'h>(
        &mut self,
        invariant: Invariant,
        ops: impl IntoIterator<Item = &'h Op>,
        text: String,
    ) {
        let found = self.counts.violations.entry(invariant).or_default();
        *found += 1;
        if *found > VIOLATIONS_MAX {
            return;
        }
        let mut stream = Stream::default();
        let ops = ops.into_iter().map(|op| {
            stream = op.stream;
            op.id
        });
        let ops = ops.collect();
        self.violations.push(Violation {
            invariant,
            stream,
            ops,
            text,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            ops,
            ok,
            failed,
            unknown,
            acked_batches,
            records_read,
            streams,
            final_reads,
            violations,
        } = &self.counts;
        writeln!(
            f,
            "{ops} ops on {streams} streams: {ok} ok, {failed} failed, {unknown} unknown; \
             {acked_batches} batches acknowledged, {records_read} records read, \
             {final_reads} final reads"
        )?;
        for (invariant, found) in violations {
            writeln!(f, "{invariant}: {found} violations")?;
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}
