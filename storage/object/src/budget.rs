//! Attempts, times and permits: what an operator may set.

use std::time::Duration;

/// What one store may spend.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Attempts of one call. Default: 6. At least 1.
    pub attempts: u32,
    /// Time after which a call starts no further attempt; the last one may take its own deadline
    /// on top. Default: 60 s.
    pub total: Duration,
    /// Upper end of the first pause between attempts; doubles with each. Default: 100 ms.
    pub pause_first: Duration,
    /// Upper end of any pause. Default: 5 s.
    pub pause_max: Duration,
    /// Time one attempt may take, its payload aside. Default: 15 s.
    pub request_timeout: Duration,
    /// Payload bytes per second below which an attempt is given up. Default: 512 KiB/s. At least 1.
    pub bytes_per_second_min: u64,
    /// Failed attempts in a row that open the circuit. Default: 16.
    pub breaker_failures: u32,
    /// How long the circuit stays open before one request may try. Default: 1 s.
    pub breaker_pause: Duration,
    /// Foreground requests at once. Default: 64.
    pub foreground: usize,
    /// Background requests at once. Default: 32.
    pub background: usize,
    /// Writes at once. Default: 16.
    pub writes: usize,
    /// Requests of upkeep at once: heads, listings, deletes, and what was written read back.
    /// Default: 32, so that a whole run of deletes leaves room.
    pub upkeep: usize,
    /// Requests of each class that may wait for a permit; one more is refused. Default: 4096.
    pub waiting: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            attempts: 6,
            total: Duration::from_secs(60),
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            request_timeout: Duration::from_secs(15),
            bytes_per_second_min: 512 * 1024,
            breaker_failures: 16,
            breaker_pause: Duration::from_secs(1),
            foreground: 64,
            background: 32,
            writes: 16,
            upkeep: 32,
            waiting: 4096,
        }
    }
}
