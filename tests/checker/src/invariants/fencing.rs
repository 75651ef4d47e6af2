//! I11: no append with an older token after a newer one.
//!
//! Rule: in log order tokens never fall, appends without one left aside; nothing is refused for a
//! token that is not higher than its own, or that nobody could have used by then; and once a
//! refusal named a token, no append that began later with an older one is in the log.
//!
//! Reason: a token is how a new owner knows that the old one writes no more.
//!
//! Cannot see: writers without a token, and a refusal that named a token too early, while its
//! append was still under way: its exact moment would need a search.

use std::collections::BTreeMap;

use crate::check::Options;
use crate::event::{Call, Refusal};
use crate::evidence::Evidence;
use crate::history::{Op, Outcome};
use crate::name::{Nanos, Token};
use crate::report::{Invariant, Report};

use super::highest::{Fact, Highest};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    judge_log_order(evidence, report);
    let mut used: BTreeMap<Token, Nanos> = BTreeMap::new();
    for batch in &evidence.batches {
        if let (Some(token), Some(invoked)) = (batch.append.token, batch.invoked) {
            let first = used.entry(token).or_insert(invoked);
            *first = invoked.min(*first);
        }
    }
    for (op, token, current) in refused(evidence) {
        if token.is_some_and(|token| token >= current) {
            let text = format!("fenced by token {current}, which is not higher than its own");
            report.add(Invariant::I11, [op], text);
        } else if used.get(&current).is_none_or(|first| *first > op.completed) {
            let text = format!("fenced by token {current}, which nobody had used");
            report.add(Invariant::I11, [op], text);
        }
    }
    judge_after_refusal(evidence, report);
}

fn judge_log_order(evidence: &Evidence<'_>, report: &mut Report) {
    let mut highest = None;
    for (base, batch) in evidence.placed() {
        let Some(token) = batch.append.token else {
            continue;
        };
        match highest {
            Some((above, by)) if token < above => {
                let text = format!("token {token} at {base} lies behind token {above}");
                report.add(Invariant::I11, [by, batch.first()], text);
            }
            _ => highest = Some((token, batch.first())),
        }
    }
}

fn judge_after_refusal(evidence: &Evidence<'_>, report: &mut Report) {
    let named = Highest::new(refused(evidence).map(|(op, _, current)| Fact {
        at: op.completed,
        value: current,
        op,
    }));
    for (base, batch) in evidence.placed() {
        let (Some(token), Some(invoked)) = (batch.append.token, batch.invoked) else {
            continue;
        };
        if let Some(known) = named.before(invoked).filter(|known| known.value > token) {
            let current = known.value;
            let text = format!("token {token} got in at {base} after {current} was in force");
            report.add(Invariant::I11, [known.op, batch.first()], text);
        }
    }
}

/// Appends refused for their token, with it and the one that was in force.
fn refused<'e, 'h>(
    evidence: &'e Evidence<'h>,
) -> impl Iterator<Item = (&'h Op, Option<Token>, Token)> + use<'e, 'h> {
    let ops = evidence.ops.iter();
    ops.filter_map(|op| match (&op.call, &op.outcome) {
        (Call::Append(append), Outcome::Fail(Refusal::Fenced { current })) => {
            Some((*op, append.token, *current))
        }
        _ => None,
    })
}
