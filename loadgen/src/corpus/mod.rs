//! What is sent: a file, varied samples, or templates; the same bytes again for the same choice.
//!
//! A [`Plan`] is made once from the command line; each connection draws its own [`Source`] from
//! it. Sending and verifying draw from the same plan, so that nothing needs to be remembered.

mod clock;
mod digits;
mod replay;
mod shapes;
mod template_texts;
mod templates;
mod vary;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};

use crate::digest::RecordCutter;
use crate::failure::{Context, Failure, Result};
use crate::rng::derive;
use replay::{Amount, Replay};
use templates::{TemplateWriter, Templates};
use vary::{Samples, Varier};

/// Bytes that are drawn at a time where nothing else is said.
pub(crate) const FILL_BYTES: usize = 256 << 10;

/// Where lines come from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    File(PathBuf),
    Vary { paths: Vec<PathBuf>, keep_cr: bool },
    Templates(Vec<String>),
}

/// How much to send, over all connections together; `None`: the file once, lines without end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budget {
    pub(crate) bytes: Option<u64>,
    pub(crate) records: Option<u64>,
}

/// Everything that determines the bytes of every connection.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    material: Material,
    budget: Budget,
    seed: u64,
    connections: u64,
    repeat: bool,
}

#[derive(Debug, Clone)]
enum Material {
    File(Arc<File>),
    Samples(Arc<Samples>),
    Templates(Arc<Templates>),
}

impl Plan {
    /// Opens or parses the origin. `repeat`: a file without a budget is sent again and again.
    pub(crate) fn new(
        origin: &Origin,
        budget: Budget,
        seed: u64,
        connections: u64,
        repeat: bool,
    ) -> Result<Self> {
        if budget.bytes.is_some() && budget.records.is_some() {
            return Err(Failure::usage("give --bytes or --records, not both"));
        }
        let material = match origin {
            Origin::File(path) => Material::File(Arc::new(
                File::open(path).context(|| format!("opening {}", path.display()))?,
            )),
            Origin::Vary { paths, keep_cr } => {
                Material::Samples(Arc::new(Samples::read(paths, *keep_cr)?))
            }
            Origin::Templates(names) => Material::Templates(Arc::new(Templates::of(names)?)),
        };
        Ok(Self { material, budget, seed, connections: connections.max(1), repeat })
    }

    pub(crate) const fn connections(&self) -> u64 {
        self.connections
    }

    /// Whether the sources end by themselves.
    pub(crate) const fn is_bounded(&self) -> bool {
        let budget = self.budget.bytes.is_some() || self.budget.records.is_some();
        budget || (matches!(self.material, Material::File(_)) && !self.repeat)
    }

    /// The bytes of one connection.
    pub(crate) fn source(&self, connection: u64) -> Result<Source> {
        let share = |total: u64| {
            total / self.connections + u64::from(connection < total % self.connections)
        };
        let seed = derive(self.seed, connection);
        let lines = match &self.material {
            Material::File(file) => {
                let amount = match (self.budget.bytes, self.budget.records) {
                    (Some(bytes), _) => Amount::Bytes(share(bytes)),
                    (_, Some(records)) => Amount::Records(share(records)),
                    _ if self.repeat => Amount::Endless,
                    _ => Amount::Once,
                };
                let file = Arc::clone(file);
                let replay = Replay::share(file, connection, self.connections, amount)
                    .context(|| "reading the file to send".into())?;
                return Ok(Source::Replay(replay));
            }
            Material::Samples(samples) => Lines::Vary(Varier::new(Arc::clone(samples), seed)),
            Material::Templates(templates) => {
                Lines::Templates(TemplateWriter::new(Arc::clone(templates), seed))
            }
        };
        Ok(Source::Drawn(Drawn {
            lines,
            bytes_left: self.budget.bytes.map_or(u64::MAX, share),
            records_left: self.budget.records.map_or(u64::MAX, share),
        }))
    }

    /// Hands out every record of a connection's first `bytes_max` bytes, as a node cuts them.
    pub(crate) fn each_record(
        &self,
        connection: u64,
        bytes_max: u64,
        record_bytes_max: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let mut source = self.source(connection)?;
        let mut cutter = RecordCutter::new(record_bytes_max);
        let mut buffer = Vec::with_capacity(2 * FILL_BYTES);
        let mut left = bytes_max;
        let mut more = true;
        while more && left > 0 {
            buffer.clear();
            more = source.fill(&mut buffer, FILL_BYTES).context(|| "drawing lines".into())?;
            let take = left.min(buffer.len() as u64);
            cutter.push(&buffer[..take as usize], each);
            left -= take;
        }
        cutter.finish(each);
        Ok(())
    }
}

/// A stream of lines, with an end.
#[derive(Debug)]
pub(crate) enum Source {
    Replay(Replay),
    Drawn(Drawn),
}

/// Lines that are made up, up to a budget.
#[derive(Debug)]
pub(crate) struct Drawn {
    lines: Lines,
    bytes_left: u64,
    records_left: u64,
}

#[derive(Debug)]
enum Lines {
    Vary(Varier),
    Templates(TemplateWriter),
}

impl Source {
    /// Appends until `out` holds `limit` bytes or a little more; false when the stream has ended.
    /// The stream does not depend on how it is drawn.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
        match self {
            Self::Replay(replay) => replay.fill(out, limit),
            Self::Drawn(drawn) => Ok(drawn.fill(out, limit)),
        }
    }
}

impl Drawn {
    fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        while out.len() < limit && self.bytes_left > 0 && self.records_left > 0 {
            let start = out.len();
            let records = match &mut self.lines {
                Lines::Vary(varier) => {
                    varier.append(out);
                    1
                }
                Lines::Templates(writer) => {
                    writer.append(out);
                    self.cut_entry(out, start)
                }
            };
            self.records_left -= records;
            self.bytes_left = self.bytes_left.saturating_sub((out.len() - start) as u64);
        }
        self.bytes_left > 0 && self.records_left > 0
    }

    /// An entry may be several records; what exceeds the budget is dropped.
    fn cut_entry(&self, out: &mut Vec<u8>, start: usize) -> u64 {
        let mut records = 0;
        let mut end = start;
        for newline in memchr_iter(b'\n', &out[start..]) {
            if records == self.records_left {
                break;
            }
            records += 1;
            end = start + newline + 1;
        }
        out.truncate(end);
        records
    }
}

/// Writes the lines of a plan with one connection to a file; returns its bytes and lines.
pub(crate) fn write_file(plan: &Plan, path: &Path) -> Result<(u64, u64)> {
    let writing = || format!("writing {}", path.display());
    let mut file = File::create(path).context(writing)?;
    let mut source = plan.source(0)?;
    let mut buffer = Vec::with_capacity(2 * FILL_BYTES);
    let (mut bytes, mut lines, mut more) = (0, 0, true);
    while more {
        buffer.clear();
        more = source.fill(&mut buffer, FILL_BYTES).context(writing)?;
        file.write_all(&buffer).context(writing)?;
        bytes += buffer.len() as u64;
        lines += memchr_iter(b'\n', &buffer).count() as u64;
    }
    Ok((bytes, lines))
}

/// The end of the last whole line, or 0.
pub(crate) fn whole_lines_len(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(budget: Budget, connections: u64) -> Plan {
        Plan::new(&Origin::Templates(Vec::new()), budget, 11, connections, false).unwrap()
    }

    fn all(plan: &Plan, connection: u64, step: usize) -> Vec<u8> {
        let mut source = plan.source(connection).unwrap();
        let mut all = Vec::new();
        loop {
            let mut part = Vec::new();
            let more = source.fill(&mut part, step).unwrap();
            all.extend(part);
            if !more {
                return all;
            }
        }
    }

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_drawn() {
        let plan = plan(Budget { bytes: Some(100_000), records: None }, 2);
        for connection in 0..2 {
            let whole = all(&plan, connection, usize::MAX);
            assert_eq!(whole, all(&plan, connection, 1));
            assert_eq!(whole, all(&plan, connection, 4096));
            assert!((50_000..60_000).contains(&whole.len()));
        }
        assert_ne!(all(&plan, 0, 4096), all(&plan, 1, 4096));
    }

    #[test]
    fn records_are_counted_exactly() {
        let plan = plan(Budget { bytes: None, records: Some(1001) }, 3);
        let counts: Vec<usize> = (0..3)
            .map(|connection| memchr_iter(b'\n', &all(&plan, connection, 5000)).count())
            .collect();
        assert_eq!(counts, [334, 334, 333]);
    }

    #[test]
    fn a_written_corpus_replays_as_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.log");
        let drawn = plan(Budget { bytes: Some(300_000), records: None }, 1);
        let (bytes, lines) = write_file(&drawn, &path).unwrap();
        let replayed = Plan::new(&Origin::File(path), Budget::default(), 0, 4, false).unwrap();
        let (mut found_lines, mut found_bytes) = (0, 0);
        for connection in 0..4 {
            replayed
                .each_record(connection, u64::MAX, 1 << 20, &mut |record| {
                    found_lines += 1;
                    found_bytes += record.len() as u64 + 1;
                })
                .unwrap();
        }
        assert_eq!((found_bytes, found_lines), (bytes, lines));
    }

    #[test]
    fn two_budgets_are_refused() {
        let both = Budget { bytes: Some(1), records: Some(1) };
        assert!(Plan::new(&Origin::Templates(Vec::new()), both, 0, 1, false).is_err());
    }
}
