//! One record at a time beside whatever else goes on: how long until it is accepted, and until a
//! query finds it.
//!
//! Over a connection with acknowledgements, or as `POST /records`. Each record is unlike any other,
//! so a query that finds exactly one found this one. Memory is two histograms; an honest failure
//! (refused, not found) is counted and the next record is tried.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use crate::failure::{Context, Failure, Result};
use crate::http;
use crate::query::Query;
use crate::send::{self, hello, new_histogram};

/// How a record is handed over.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// A TCP port; the node acknowledges.
    Port(String),
    /// `POST /records` with this mode.
    Post(&'static str),
}

/// What to do.
#[derive(Debug)]
pub(crate) struct Probing {
    pub(crate) way: Way,
    pub(crate) api: String,
    pub(crate) topic: Option<String>,
    /// Records in all, unless the time is over before.
    pub(crate) records: u64,
    pub(crate) seconds: Option<Duration>,
    /// Between the beginning of one record and of the next.
    pub(crate) interval: Duration,
    /// A record that is not accepted, or not found, within this time has failed.
    pub(crate) patience: Duration,
    /// Records are also looked for.
    pub(crate) find: bool,
}

/// What became of the records.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) found: u64,
    /// From before a record was handed over to its acceptance, microseconds.
    pub(crate) acceptance: Histogram<u64>,
    /// The same until a query answered with it.
    pub(crate) finding: Histogram<u64>,
    /// Looks that refused or that failed, and were repeated.
    pub(crate) queries_repeated: u64,
    /// Why the first record that failed did.
    pub(crate) error: Option<String>,
}

impl Probed {
    pub(crate) const fn holds(&self) -> bool {
        self.sent > 0 && self.accepted == self.sent && self.error.is_none()
    }
}

/// Sends record after record.
pub(crate) fn run(probing: &Probing) -> Probed {
    let mut probed = Probed {
        sent: 0,
        accepted: 0,
        found: 0,
        acceptance: new_histogram(),
        finding: new_histogram(),
        queries_repeated: 0,
        error: None,
    };
    // Unlike those of an earlier run, and of one that runs at the same time.
    let run = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
        ^ u64::from(std::process::id()).rotate_left(48);
    let mut port = None;
    let start = Instant::now();
    for number in 0..probing.records {
        let due = start + probing.interval * u32::try_from(number).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if probing.seconds.is_some_and(|seconds| start.elapsed() >= seconds) {
            break;
        }
        let record = format!("probe <{run:016x}-{number}>");
        let begun = Instant::now();
        probed.sent += 1;
        if let Err(failure) = hand_over(probing, &mut port, &record) {
            port = None;
            probed.error.get_or_insert(format!("record {number}: {failure}"));
            continue;
        }
        probed.accepted += 1;
        probed.acceptance.saturating_record(micros(begun));
        if probing.find {
            match find(probing, &record, &mut probed.queries_repeated) {
                Ok(()) => {
                    probed.found += 1;
                    probed.finding.saturating_record(micros(begun));
                }
                Err(words) => drop(probed.error.get_or_insert(format!("record {number}: {words}"))),
            }
        }
    }
    probed
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

/// A connection with acknowledgements.
struct Port {
    stream: TcpStream,
    sent: u64,
}

fn hand_over(probing: &Probing, port: &mut Option<Port>, record: &str) -> Result<()> {
    let line = format!("{record}\n");
    match &probing.way {
        Way::Post(mode) => {
            let mut path = format!("/records?mode={mode}");
            if let Some(topic) = &probing.topic {
                path.extend(["&topic=", &http::escape(topic)]);
            }
            http::post(&probing.api, &path, line.as_bytes(), probing.patience).map(drop)
        }
        Way::Port(address) => {
            let port = match port {
                Some(port) => port,
                None => port.insert(Port::open(address, probing)?),
            };
            let sending = || format!("sending to {address}");
            port.stream.write_all(line.as_bytes()).context(sending)?;
            port.sent += 1;
            let mut reply = [0; 8];
            // One record is on its way at a time, so a reply is about this one or an earlier one.
            loop {
                port.stream.read_exact(&mut reply).context(|| "acknowledgement".to_owned())?;
                match u64::from_le_bytes(reply) {
                    count if count == port.sent => return Ok(()),
                    count if count < port.sent => {}
                    count => {
                        let sent = port.sent;
                        return Err(Failure::run(format!(
                            "{count} records acknowledged, but only {sent} were sent"
                        )));
                    }
                }
            }
        }
    }
}

impl Port {
    fn open(address: &str, probing: &Probing) -> Result<Self> {
        let mut stream = send::open(address)?;
        let connecting = || format!("connecting to {address}");
        stream.set_nonblocking(false).context(connecting)?;
        stream.set_read_timeout(Some(probing.patience)).context(connecting)?;
        stream.set_write_timeout(Some(probing.patience)).context(connecting)?;
        stream.write_all(&hello(probing.topic.as_deref())).context(connecting)?;
        Ok(Self { stream, sent: 0 })
    }
}

/// Asks until the record is there. Newest first: what was just accepted is found at once, however
/// much lies before.
fn find(probing: &Probing, record: &str, repeated: &mut u64) -> std::result::Result<(), String> {
    let start = Instant::now();
    let query = Query {
        api: probing.api.clone(),
        from: Some("10m".to_owned()),
        topic: probing.topic.clone(),
        expression: Some(record.to_owned()),
        ..Query::default()
    };
    let path = format!("{}&order=desc&limit=1", query.path());
    loop {
        let why = match look(&probing.api, &path, record, probing.patience) {
            Ok(true) => return Ok(()),
            Ok(false) => "a query does not find it".to_owned(),
            Err(failure) => failure.to_string(),
        };
        if start.elapsed() >= probing.patience {
            return Err(format!("accepted, but after {:?}: {why}", start.elapsed()));
        }
        *repeated += 1;
    }
}

fn look(api: &str, path: &str, record: &str, patience: Duration) -> Result<bool> {
    let answer = http::get_within(api, path, patience)?;
    let mut body = Vec::new();
    answer.read_body(&mut |part| body.extend_from_slice(part)).context(|| path.to_owned())?;
    let line = body.strip_suffix(b"\n").unwrap_or(&body);
    // A ULID and a space stand before the record.
    Ok(line.get(27..).is_some_and(|found| found == record.as_bytes()))
}
