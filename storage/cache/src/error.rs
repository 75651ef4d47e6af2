//! What a configuration may get wrong. Running, the cache has no errors.

/// An error of this crate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A budget is too small to be of use.
    #[error("cache setting `{name}` is {bytes} bytes, at least {min} are needed")]
    TooSmall {
        /// Which budget.
        name: &'static str,
        /// What it is.
        bytes: u64,
        /// What it must be at least.
        min: u64,
    },
}
