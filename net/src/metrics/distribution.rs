//! A histogram of fixed bounds without a lock.
//!
//! Invariants: observing is three relaxed atomic additions; a scrape that runs meanwhile may see
//! them half done, by one observation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds of times, seconds: from a cached write to a request that hangs.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 60.0,
];
/// Upper bounds of segment sizes, bytes: the predecessor's, and its quadruple steps beyond.
const BYTES: &[f64] = &[
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];
/// Sums are kept in millionths.
const SUM_SCALE: f64 = 1e6;

/// How values are distributed. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Distribution {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: &'static [f64],
    /// One per bound and one for what is beyond the last.
    counts: Vec<AtomicU64>,
    sum_millionths: AtomicU64,
}

impl Default for Distribution {
    /// Of times in seconds.
    fn default() -> Self {
        Self::new(SECONDS)
    }
}

impl Distribution {
    /// Of sizes in bytes.
    pub fn of_bytes() -> Self {
        Self::new(BYTES)
    }

    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { inner: Arc::new(Inner { bounds, counts, sum_millionths: AtomicU64::new(0) }) }
    }

    /// Counts one value; negative ones count as 0.
    pub fn observe(&self, value: f64) {
        let at = self.inner.bounds.partition_point(|bound| *bound < value);
        self.inner.counts[at].fetch_add(1, Relaxed);
        self.inner.sum_millionths.fetch_add((value.max(0.0) * SUM_SCALE) as u64, Relaxed);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.inner.counts.iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.inner.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.inner.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.inner.sum_millionths.load(Relaxed) as f64 / SUM_SCALE;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let distribution = Distribution::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 3.0, -1.0] {
            distribution.observe(value);
        }
        let counts: Vec<_> = distribution.inner.counts.iter().map(|c| c.load(Relaxed)).collect();
        assert_eq!(counts, [3, 1, 1]);
        assert_eq!(distribution.count(), 5);
        assert_eq!(distribution.inner.sum_millionths.load(Relaxed), 6_000_000);
    }
}
