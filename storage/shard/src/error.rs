//! What is wrong with bytes handed in.

use esker_types::NameError;

use crate::config::ConfigError;
use crate::invariants::Violation;

/// Why bytes are no command or no checkpoint. A committed command or a current checkpoint that
/// fails so ends the process: nothing may be skipped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The bytes end too early.
    #[error("{what} ends early: {need} bytes were due, {have} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes due.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// Bytes are left where none were due.
    #[error("{what} goes on for {bytes} bytes after its end")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// Bytes left.
        bytes: usize,
    },
    /// A number that stands for nothing.
    #[error("{what} is {value}, which stands for nothing known")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A number above its limit.
    #[error("{what}: {value} is above the limit of {limit}")]
    TooMany {
        /// What was being read or written.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Written for a level that this build does not know.
    #[error("{what} needs level {found}, this build knows levels up to {newest}; run a newer one")]
    Level {
        /// What was being read.
        what: &'static str,
        /// The level it was written for.
        found: u16,
        /// The newest this build knows.
        newest: u16,
    },
    /// Not in the one order there is.
    #[error("{what} are not in ascending order, each once")]
    Order {
        /// What was being read.
        what: &'static str,
    },
    /// A checksum that does not match.
    #[error("section {section} of the checkpoint fails its checksum")]
    Checksum {
        /// Number of the section in the file, from 0.
        section: u32,
    },
    /// Sections of a checkpoint that do not make up a whole.
    #[error("the checkpoint's sections do not make up a whole: {what}")]
    Sections {
        /// What is missing or twice.
        what: &'static str,
    },
    /// A topic name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A setting that is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Bytes that describe a state which cannot be.
    #[error("the checkpoint describes a state that cannot be: {0}")]
    Broken(#[from] Violation),
}
