//! One sending, watched: what the client saw and what it cost the process that received it.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::corpus::{Budget, Origin, Plan};
use crate::failure::{Failure, Result};
use crate::procfs::{Used, Watch};
use crate::send::{self, Outcome, Sending};
use crate::units::{GB, MB, Window};

use super::series::Series;

const STALL: Duration = Duration::from_secs(60);
const RECORD_BYTES_MAX: usize = 1 << 20;
const WINDOW_BYTES: u64 = 1 << 20;

/// As fast as it is taken, without acknowledgements; callers change what differs.
pub(super) fn sending_to(address: &str) -> Sending {
    Sending {
        address: address.to_string(),
        acks: false,
        topic: None,
        rate: None,
        chunk_bytes: None,
        whole_lines: false,
        window: Window::Bytes(WINDOW_BYTES),
        seconds: None,
        stall: STALL,
        threads: None,
        record_bytes_max: RECORD_BYTES_MAX,
    }
}

/// How much of the corpus is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// Every line once.
    Once,
    Bytes(u64),
    Records(u64),
    Endless,
}

/// Lines of a file for so many connections.
pub(super) fn plan_of(corpus: &Path, amount: Amount, connections: u64) -> Result<Plan> {
    let budget = match amount {
        Amount::Once | Amount::Endless => Budget::default(),
        Amount::Bytes(bytes) => Budget { bytes: Some(bytes), records: None },
        Amount::Records(records) => Budget { bytes: None, records: Some(records) },
    };
    let repeat = matches!(amount, Amount::Endless);
    Plan::new(&Origin::File(corpus.to_path_buf()), budget, 0, connections, repeat)
}

/// Sends; a connection that fails, fails the comparison.
pub(super) fn send_all(plan: &Plan, sending: &Sending) -> Result<Outcome> {
    let outcome = send::run(plan, sending, &AtomicU64::new(0))?;
    if let Some((index, error)) = outcome.errors().next() {
        let address = &sending.address;
        return Err(Failure::run(format!("connection {index} to {address}: {error}")));
    }
    Ok(outcome)
}

/// Rounds of one shape.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) mb_per_s: Series,
    pub(super) records_per_s: Series,
    pub(super) cpu_s_per_gb: Series,
    pub(super) written_per_byte: Series,
    pub(super) p10_ms: Series,
    pub(super) p50_ms: Series,
    pub(super) p99_ms: Series,
}

impl Rounds {
    /// Sends once and adds what was seen.
    pub(super) fn round(&mut self, plan: &Plan, sending: &Sending, pid: u32) -> Result<()> {
        let watch = Watch::start(pid)?;
        let outcome = send_all(plan, sending)?;
        self.add(&outcome, &watch.stop()?);
        Ok(())
    }

    fn add(&mut self, outcome: &Outcome, used: &Used) {
        let (bytes, seconds) = (outcome.bytes().max(1) as f64, outcome.elapsed.as_secs_f64());
        self.mb_per_s.push(bytes / MB / seconds);
        self.records_per_s.push(outcome.records() as f64 / seconds);
        self.cpu_s_per_gb.push(used.cpu_seconds / (bytes / GB));
        if let Some(written) = used.write_bytes {
            self.written_per_byte.push(written as f64 / bytes);
        }
        if let Some(latency) = &outcome.latency_us {
            self.p10_ms.push(latency.value_at_quantile(0.1) as f64 / 1e3);
            self.p50_ms.push(latency.value_at_quantile(0.5) as f64 / 1e3);
            self.p99_ms.push(latency.value_at_quantile(0.99) as f64 / 1e3);
        }
    }
}
