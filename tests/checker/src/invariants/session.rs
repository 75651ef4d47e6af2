//! I8: a session does not unsee.
//!
//! Rule: a stale answer that tells an end tells none below what the same session was acknowledged,
//! read or told before it asked.
//!
//! Reason: stale means late, not backwards; a client that follows a log through several agents must
//! not fall behind itself.
//!
//! Cannot see: linearizable answers, which I7 judges between all sessions; stale reads that tell no
//! end, since a short answer promises nothing; steps back in the start of the log.

use std::collections::BTreeMap;

use crate::check::Options;
use crate::evidence::{Evidence, Kind};
use crate::name::{Offset, Session};
use crate::report::{Invariant, Report};

use super::highest::{Fact, Highest};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    let mut sessions: BTreeMap<Session, Vec<Fact<'_, Offset>>> = BTreeMap::new();
    for seen in &evidence.observations {
        let fact = Fact {
            at: seen.op.completed,
            value: seen.slot,
            op: seen.op,
        };
        sessions.entry(seen.op.session).or_default().push(fact);
    }
    for batch in &evidence.batches {
        for ack in batch.acks() {
            let fact = Fact {
                at: ack.op.completed,
                value: ack.base.plus(batch.len()),
                op: ack.op,
            };
            sessions.entry(ack.op.session).or_default().push(fact);
        }
    }
    let sessions = sessions.into_iter();
    let sessions: BTreeMap<_, _> = sessions
        .map(|(session, facts)| (session, Highest::new(facts.into_iter())))
        .collect();
    let stale = evidence.observations.iter();
    for stale in stale.filter(|seen| seen.kind == Kind::Stale) {
        let known = sessions.get(&stale.op.session);
        let known = known.and_then(|known| known.before(stale.op.invoked));
        if let Some(known) = known.filter(|known| known.value > stale.seen) {
            let (seen, reached) = (stale.seen, known.value);
            let text = format!("a session that knew of {reached} was told an end of {seen}");
            report.add(Invariant::I8, [known.op, stale.op], text);
        }
    }
}
