//! The kernel's entropy.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam the ban points to"
)]

use crate::Entropy;

/// The kernel's entropy.
#[derive(Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel gives entropy once it has booted");
    }
}
