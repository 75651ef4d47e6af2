//! I12: every tier serves the same records.
//!
//! Rule: an offset that was read under two tier labels holds the same value in both. A driver
//! labels reads by what they are meant to compare: head, bucket, cold cache, after restart.
//!
//! Reason: a flush, a merge or a lost cache must not be visible. A fault here points at the move
//! between tiers; the same fault within one label points at the log itself (I3).
//!
//! Cannot see: bytes outside what the driver hashes; a tier that was not read; values that nobody
//! appended, which are I2's. Records that a tier leaves out are I9's, I1's and I4's.

use crate::check::Options;
use crate::evidence::Evidence;
use crate::report::{Invariant, Report};

use super::one_value;

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    for group in one_value::appended_by_offset(evidence) {
        // Two values within a tier are a fork, which is I3's; comparing tiers then says nothing.
        if group.windows(2).any(|pair| pair[0].tier == pair[1].tier) {
            continue;
        }
        let mut pairs = group.windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0].value != pair[1].value) {
            let [one, other] = [pair[0], pair[1]];
            let tiers = [evidence.tiers[one.tier], evidence.tiers[other.tier]];
            let text = format!(
                "at {} {} has {}, {} has {}",
                one.offset, tiers[0], one.value, tiers[1], other.value
            );
            report.add(Invariant::I12, [one.op, other.op], text);
        }
    }
}
