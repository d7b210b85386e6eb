//! Merges parts into one store segment: sorted by ULID, each record once. It moves runs, not
//! lines: a run's text is copied as it lies, cut only where copies of the same records overlap.
//!
//! Invariants: at most one chunk per input is open; a record is skipped only if it was written
//! already (its ULID is not above the last one written, which is exact because a run's ULIDs are
//! consecutive); what is written was read and verified before, never through a map; what cannot be
//! read is told per input and costs the chunk it is in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::path::PathBuf;

use crate::chunk::{Chunk, OpenPart, Text};
use crate::damage::{Damage, DamageKind};
use crate::run_table::{Run, offset_after};
use crate::ulid::Ulid;

use super::coverage::{Coverage, CoverageBuilder, Interval};
use super::writer::{Piece, SegmentWriter, TopicCache, WriteError};

/// An open part and the file it lies in (for damages; empty for one in memory).
pub struct MergeInput {
    /// Its chunks.
    pub part: Box<dyn OpenPart>,
    /// Its file.
    pub path: PathBuf,
}

/// What a merge did.
#[derive(Debug, Default)]
pub struct MergeReport {
    /// Records written.
    pub record_count: u64,
    /// Records that were there more than once.
    pub duplicate_count: u64,
    /// What could not be read, by the input's place in the list.
    pub damage: Vec<(usize, Damage)>,
    /// Which of its records are in the output, for each input.
    pub covered: Vec<Coverage>,
}

/// Why a merge ended early. The writer is to be dropped; the inputs are untouched.
#[derive(Debug)]
pub enum MergeError {
    /// It was cancelled.
    Cancelled,
    /// The output could not be written.
    Write(WriteError),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MergeError {}

impl From<WriteError> for MergeError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// A merge under way, done chunk by chunk.
pub struct Merge {
    cursors: Vec<Cursor>,
    /// The next record of each input that has one.
    heads: BinaryHeap<Reverse<(Ulid, usize)>>,
    report: MergeReport,
}

impl Merge {
    /// Nothing is read yet.
    pub fn new(inputs: Vec<MergeInput>) -> Self {
        let cursors: Vec<Cursor> = inputs.into_iter().map(Cursor::new).collect();
        let mut report = MergeReport::default();
        let mut heads = BinaryHeap::with_capacity(cursors.len());
        for (number, cursor) in cursors.iter().enumerate() {
            report.damage.extend(cursor.input.part.damage().iter().map(|d| (number, d.clone())));
            heads.extend(cursor.head().map(|head| Reverse((head, number))));
        }
        Self { cursors, heads, report }
    }

    /// Reads a chunk and writes what can be written before the next one is read; says whether there is
    /// more to do. After an error the writer is to be dropped; the inputs are untouched.
    pub fn step(&mut self, writer: &mut SegmentWriter) -> Result<bool, WriteError> {
        let mut has_read = false;
        while let Some(Reverse((head, number))) = self.heads.pop() {
            let cursor = &mut self.cursors[number];
            if cursor.open.is_none() {
                if std::mem::replace(&mut has_read, true) {
                    self.heads.push(Reverse((head, number)));
                    return Ok(true);
                }
                cursor.load();
            }
            let limit = self.heads.peek().map_or(Ulid::MAX, |Reverse((head, _))| *head);
            cursor.write_up_to(limit, writer, &mut self.report)?;
            self.report.damage.extend(cursor.damage.drain(..).map(|d| (number, d)));
            self.heads.extend(cursor.head().map(|head| Reverse((head, number))));
        }
        Ok(false)
    }

    /// What it did so far.
    pub fn into_report(self) -> MergeReport {
        let covered = self.cursors.into_iter().map(|cursor| cursor.covered.finish()).collect();
        MergeReport { covered, ..self.report }
    }
}

/// Merges all inputs into the writer. `goes_on` is asked before each chunk is read; where it says no
/// the merge is cancelled.
pub fn merge(
    inputs: Vec<MergeInput>,
    writer: &mut SegmentWriter,
    goes_on: &dyn Fn() -> bool,
) -> Result<MergeReport, MergeError> {
    let mut merge = Merge::new(inputs);
    loop {
        if !goes_on() {
            return Err(MergeError::Cancelled);
        }
        if !merge.step(writer)? {
            return Ok(merge.into_report());
        }
    }
}

struct OpenChunk {
    chunk: Chunk,
    topics: TopicCache,
    run: usize,
    /// Where the run's text starts.
    offset: usize,
}

/// One input: what of it comes next.
struct Cursor {
    input: MergeInput,
    next_chunk: usize,
    open: Option<OpenChunk>,
    /// Last record of the chunk before: the next one has to come after it.
    previous: Option<Ulid>,
    damage: Vec<Damage>,
    /// What of it is in the output.
    covered: CoverageBuilder,
}

impl Cursor {
    fn new(input: MergeInput) -> Self {
        let (damage, covered) = (Vec::new(), CoverageBuilder::default());
        Self { input, next_chunk: 0, open: None, previous: None, damage, covered }
    }

    /// The next record, as far as is known without reading; `None` at the end.
    fn head(&self) -> Option<Ulid> {
        match &self.open {
            Some(open) => open.chunk.table.runs.get(open.run).map(|run| run.first),
            None => self.input.part.chunks().get(self.next_chunk).map(|meta| meta.first),
        }
    }

    /// Reads the next chunk; damaged, it is told and passed over.
    fn load(&mut self) {
        let number = self.next_chunk;
        let Some(meta) = self.input.part.chunks().get(number) else { return };
        match self.input.part.read(number) {
            // The heap relied on the range that the part claimed, and skipping copies relies on
            // the order of its chunks.
            Ok(chunk)
                if chunk.table.range().is_some_and(|(first, _)| {
                    first >= meta.first && self.previous.is_none_or(|last| last < first)
                }) =>
            {
                let is_mapped = matches!(chunk.text, Text::Mapped(..));
                assert!(!is_mapped, "who writes records anew reads through no map");
                let topics = TopicCache::default();
                self.open = Some(OpenChunk { chunk, topics, run: 0, offset: 0 });
            }
            Ok(_) => self.pass_over(DamageKind::Malformed("order of chunks")),
            Err(damage) => {
                self.damage.push(damage);
                self.next();
            }
        }
    }

    fn next(&mut self) {
        self.next_chunk += 1;
        if let Some((_, last)) = self.open.take().and_then(|open| open.chunk.table.range()) {
            self.previous = Some(last);
        }
    }

    /// Gives up what is left of the chunk.
    fn pass_over(&mut self, kind: DamageKind) {
        if let Some(meta) = self.input.part.chunks().get(self.next_chunk) {
            let left = self.open.as_ref().map_or(u64::from(meta.record_count), |open| {
                open.chunk.table.runs[open.run..].iter().map(|r| u64::from(r.count)).sum()
            });
            self.damage.push(Damage {
                path: self.input.path.clone(),
                offset: 0,
                len_bytes: 0,
                range: Some((self.head().unwrap_or(meta.first), meta.last)),
                records: Some(left),
                kind,
            });
        }
        self.next();
    }

    /// Writes the open chunk's runs that start at or before `limit`, the next record of any
    /// other input. A run that reaches beyond it is still written whole: whatever else lies
    /// between its ULIDs is a copy of it.
    fn write_up_to(
        &mut self,
        limit: Ulid,
        writer: &mut SegmentWriter,
        report: &mut MergeReport,
    ) -> Result<(), WriteError> {
        loop {
            let Some(open) = &mut self.open else { return Ok(()) };
            let Some(run) = open.chunk.table.runs.get(open.run).copied() else {
                self.next();
                return Ok(());
            };
            if run.first > limit {
                return Ok(());
            }
            match open.write_run(&run, writer, report) {
                Ok(()) => self.covered.add(Interval::of_run(&run)),
                Err(WriteError::NotLines) => self.pass_over(DamageKind::Malformed("text")),
                Err(error) => return Err(error),
            }
        }
    }
}

impl OpenChunk {
    fn write_run(
        &mut self,
        run: &Run,
        writer: &mut SegmentWriter,
        report: &mut MergeReport,
    ) -> Result<(), WriteError> {
        let end = self.offset + run.text_len as usize;
        let text = self.chunk.text.get(self.offset..end).ok_or(WriteError::NotLines)?;
        let skip = match writer.last() {
            Some(last) if last >= run.first => last.0 - run.first.0 + 1,
            _ => 0,
        };
        if skip < u128::from(run.count) {
            let skip = skip as u32;
            let cut_at = offset_after(text, u64::from(skip)).ok_or(WriteError::NotLines)?;
            let rest =
                Run { first: run.first.plus(u64::from(skip)), count: run.count - skip, ..*run };
            let topics = &self.chunk.table.topics;
            let piece = Piece { run: rest, text: &text[cut_at..], topics };
            writer.append(&piece, &mut self.topics)?;
            report.record_count += u64::from(rest.count);
            report.duplicate_count += u64::from(skip);
        } else {
            report.duplicate_count += u64::from(run.count);
        }
        self.run += 1;
        self.offset = end;
        Ok(())
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
