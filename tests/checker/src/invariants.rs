//! One file for each promise: the rule, why it is one, and what it cannot see.

mod lost_ack; // I1
mod phantom; // I2
mod one_value; // I3
mod dense; // I4
mod producer_order; // I5
mod append_order; // I6
mod linear; // I7
mod session; // I8
mod slice; // I9
mod conditional; // I10
mod fencing; // I11
mod tier; // I12
mod idempotence; // I13
mod trim; // I14

mod earliest; // the earliest answer at or above a position
mod highest; // the highest position before a time

use crate::check::Options;
use crate::evidence::Evidence;
use crate::report::Report;

type Judge = fn(&Evidence<'_>, &Options, &mut Report);

/// Every invariant, in order.
pub(crate) const ALL: [Judge; 14] = [
    lost_ack::judge,
    phantom::judge,
    one_value::judge,
    dense::judge,
    producer_order::judge,
    append_order::judge,
    linear::judge,
    session::judge,
    slice::judge,
    conditional::judge,
    fencing::judge,
    tier::judge,
    idempotence::judge,
    trim::judge,
];
