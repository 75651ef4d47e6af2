//! What is asked of a head and what it answers: as it travels, and as the head means it.
//!
//! ```text
//!   Question ◄─► wire::Question          Reply, HeadError ◄─► wire::Answer
//!   Append   ◄─► wire::AppendCall        AppendOutcome    ◄─► wire::AppendAnswer
//! ```
//! What is missing or not known is a [`Fault`], never a guess.

mod atoms; // ids, offsets, ranges, hashes
mod errors; // why a head did not answer
mod listings; // topics, segments, tombstones
mod outcomes; // what apply answers
mod questions; // what is asked
mod refusals; // why apply refuses
mod replies; // what is answered
mod appends; // appends and their answers
mod jobs; // what is to be flushed

#[cfg(test)]
mod tests;

pub use appends::{
    Append, Beginning, Call, append_answer, append_call, beginning, read_append_answer, read_call,
};
pub use atoms::{mark, read_mark};
pub use errors::{head_error, read_head_error};
pub use jobs::{flush_job, read_flush_job};
pub use questions::{Question, question, read_question};
pub use replies::{Reply, answer, read_answer};

/// What is missing in a message, or is none.
pub type Fault = &'static str;
