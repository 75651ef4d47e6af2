//! Every bound of the checker.

/// Calls in one history: what 24 hours of a busy driver write, and what fits in memory.
pub const OPS_MAX: usize = 50_000_000;

/// Records of one append.
pub const BATCH_VALUES_MAX: usize = 1_000_000;

/// Bytes of one line of a history. An append or a read of [`BATCH_VALUES_MAX`] records fits.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Violations of one invariant that are spelt out; the rest are counted. A broken log breaks often,
/// and the first hundred say why.
pub const VIOLATIONS_MAX: usize = 100;

// A record of a read is at most `[20 digits,"16 digits"],`.
const _: () = assert!(BATCH_VALUES_MAX * 42 + 4096 <= LINE_BYTES_MAX);
