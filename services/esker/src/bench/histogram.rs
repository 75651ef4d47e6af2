//! Latencies, counted in buckets that are each less than one part in 64 wide.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets of one power of two.
const PER_OCTAVE: usize = 64;
/// Powers of two above the linear part: up to 2^42 ns, more than an hour.
const OCTAVES: usize = 36;

/// Latencies, counted. Takes the same memory however many there are.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    most: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; PER_OCTAVE * (OCTAVES + 1)],
            count: 0,
            most: 0,
        }
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.count += 1;
        self.most = self.most.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.most = self.most.max(other.most);
    }

    /// The latency, in milliseconds, that `of_million` millionths of all do not exceed; zero if
    /// there are none.
    pub(crate) fn quantile_ms(&self, of_million: u64) -> f64 {
        let wanted = u128::from(self.count) * u128::from(of_million);
        let wanted = u64::try_from(wanted.div_ceil(1_000_000)).unwrap_or(self.count);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return milliseconds(highest(at).min(self.most));
            }
        }
        milliseconds(self.most)
    }

    /// For a program; null where there is nothing to tell.
    pub(crate) fn object(&self) -> Value {
        let told = |milliseconds: f64| (self.count > 0).then_some(milliseconds);
        json!({
            "count": self.count,
            "p50_ms": told(self.quantile_ms(500_000)),
            "p90_ms": told(self.quantile_ms(900_000)),
            "p99_ms": told(self.quantile_ms(990_000)),
            "p999_ms": told(self.quantile_ms(999_000)),
            "max_ms": told(milliseconds(self.most)),
        })
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        if self.count == 0 {
            return "no latency: nothing that was due while it was measured came through"
                .to_owned();
        }
        let [p50, p99, p999] = [500_000, 990_000, 999_000].map(|q| self.quantile_ms(q));
        let most = milliseconds(self.most);
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, at most {most:.2} ms")
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn milliseconds(nanos: u64) -> f64 {
    // Microseconds are as fine as any of this is.
    (nanos / 1000) as f64 / 1000.0
}

fn bucket(nanos: u64) -> usize {
    let octave = (nanos / PER_OCTAVE as u64)
        .checked_ilog2()
        .map_or(0, |log| log as usize + 1);
    if octave == 0 {
        return usize::try_from(nanos).unwrap_or(0);
    }
    // The leading bit is always set: the next six tell the bucket.
    let within = usize::try_from(nanos >> (octave - 1)).unwrap_or(usize::MAX) - PER_OCTAVE;
    match octave <= OCTAVES {
        true => PER_OCTAVE * octave + within,
        false => PER_OCTAVE * (OCTAVES + 1) - 1,
    }
}

/// The highest value that falls into a bucket.
const fn highest(bucket: usize) -> u64 {
    let (octave, within) = (bucket / PER_OCTAVE, (bucket % PER_OCTAVE) as u64);
    if octave == 0 {
        return within;
    }
    ((within + PER_OCTAVE as u64 + 1) << (octave - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_whose_bounds_are_near() {
        let values = (0..1000).chain((6..41).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power + power / 3]
        }));
        for value in values {
            let at = bucket(value);
            assert!(highest(at) >= value, "{value} in {at}");
            assert!(at == 0 || highest(at - 1) < value, "{value} in {at}");
            assert!(highest(at) - value <= value / 64, "{value} in {at}");
        }
        assert_eq!(bucket(u64::MAX), PER_OCTAVE * (OCTAVES + 1) - 1);
    }

    #[test]
    fn quantiles_are_of_what_was_added_and_two_may_be_merged() {
        let mut low = Histogram::new();
        let mut high = Histogram::new();
        assert!(low.quantile_ms(500_000) < f64::EPSILON);
        // None is not the best there is.
        assert!(low.object()["p50_ms"].is_null());
        assert!(low.text().starts_with("no latency"), "{}", low.text());
        for at in 1..=990 {
            low.add(Duration::from_micros(at));
        }
        for _ in 0..10 {
            high.add(Duration::from_millis(500));
        }
        low.merge(&high);
        assert_eq!(low.count, 1000);
        let near = |found: f64, wanted: f64| (found - wanted).abs() <= wanted / 60.0;
        assert!(near(low.quantile_ms(500_000), 0.5));
        assert!(near(low.quantile_ms(990_000), 0.99));
        assert!(near(low.quantile_ms(991_000), 500.0));
        assert!(near(low.quantile_ms(1_000_000), 500.0));
    }
}
