//! What `consume` and `replay` share: stretches of partitions, and records as they are printed.

mod printer; // records as text
mod source; // an agent, or a bucket
mod stretch; // from a place to another, to the record

pub(crate) use printer::{Form, Printer};
pub(crate) use source::Source;
pub(crate) use stretch::{Bounds, Piece, Reading, Stretch, plan};
