//! The full read of one view after the workload, put together from its parts.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::event::{Call, Mode, Reply};
use crate::history::{Op, Outcome};
use crate::name::{Nanos, Offset, View};

/// What one view holds in the end.
#[derive(Debug)]
pub(crate) struct Remains<'h> {
    pub(crate) view: &'h View,
    /// Its reads, at least one, in order of invocation.
    pub(crate) ops: Vec<&'h Op>,
    /// When the first began: what was acknowledged before must be here.
    pub(crate) invoked: Nanos,
    /// When the last was answered: what is here was there by then.
    pub(crate) completed: Nanos,
    /// The lowest offset asked for.
    pub(crate) start: Offset,
    /// The end, as told or as read.
    pub(crate) end: Offset,
    /// Offsets of `[start, end)` that did not come, as ascending ranges.
    pub(crate) holes: Vec<Range<Offset>>,
}

/// The final reads of a log, by view.
pub(super) fn gather<'h>(ops: &[&'h Op]) -> Vec<Remains<'h>> {
    let mut views: BTreeMap<&View, Vec<&'h Op>> = BTreeMap::new();
    for op in ops {
        if let (Call::Read(read), Outcome::Ok(_)) = (&op.call, &op.outcome)
            && read.mode == Mode::Final
        {
            views.entry(&read.view).or_default().push(op);
        }
    }
    let views = views.into_iter();
    views
        .filter_map(|(view, ops)| assemble(view, ops))
        .collect()
}

fn assemble<'h>(view: &'h View, ops: Vec<&'h Op>) -> Option<Remains<'h>> {
    let mut start = None;
    let mut end = Offset::ZERO;
    let mut present = Vec::new();
    for op in &ops {
        if let (Call::Read(read), Outcome::Ok(Reply::Read { records, tail })) =
            (&op.call, &op.outcome)
        {
            start = Some(start.map_or(read.from, |start: Offset| start.min(read.from)));
            end = end.max(tail.unwrap_or_default());
            present.extend(records.iter().map(|(offset, _)| *offset));
        }
    }
    let start = start?;
    present.sort_unstable();
    present.dedup();
    end = end.max(present.last().map_or(start, |last| last.plus(1)));
    let mut holes = Vec::new();
    let mut next = start;
    for offset in present.iter().copied().chain([end]) {
        if offset > next {
            holes.push(next..offset);
        }
        next = offset.plus(1);
    }
    Some(Remains {
        view,
        invoked: ops.iter().map(|op| op.invoked).min()?,
        completed: ops.iter().map(|op| op.completed).max()?,
        ops,
        start,
        end,
        holes,
    })
}
