//! From the log to its files and back: carries the log's effects to the ring and the keeper, and tells
//! the log what has become of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use engine::disk_health::{CallId, DiskCall};
use engine::ingest::log::{Effect, Now};
use engine::ingest::tail;

use super::super::fetch::Span;
use super::Shard;
use crate::driver::Descriptor;

/// What is under way on a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Frame(Span),
    Tail,
    Sync,
}

/// One operation that is under way.
pub(super) struct UnderWay {
    token: u64,
    started_us: u64,
    operation: Operation,
    call: CallId,
}

impl Shard {
    pub(super) fn carry_effects(&mut self, now: Now) {
        while let Some(effect) = self.parts.log.next_effect(now) {
            match effect {
                Effect::WantSegment => self.parts.keeper.want_segment(self.parts.index),
                Effect::Write { token, segment, offset_bytes, frame } => {
                    let span = Span { segment: segment.id(), offset_bytes };
                    self.begin(token, now, Operation::Frame(span), &segment.path());
                    if let Some(file) = file_of(&self.segments, &segment) {
                        self.driver.write(file, offset_bytes, frame, token);
                    }
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    self.begin(
                        token,
                        now,
                        Operation::Tail,
                        Path::new(&tail::file_name(self.parts.index)),
                    );
                    if let Some(tail) = &self.parts.tail {
                        self.driver.write(tail, offset_bytes, bytes, token);
                    } else {
                        let missing = Err(io::ErrorKind::NotFound.into());
                        self.on_written(token, missing, now);
                    }
                }
                Effect::Sync { token, segment } => {
                    self.begin(token, now, Operation::Sync, &segment.path());
                    if let Some(file) = file_of(&self.segments, &segment) {
                        self.driver.sync(file, token);
                    }
                }
                Effect::Seal { segment, len_bytes } => {
                    self.segments.retain(|(s, _)| !Arc::ptr_eq(s, &segment));
                    self.parts.keeper.seal(segment, len_bytes);
                }
                Effect::Abandon { segment, len_bytes, error } => {
                    self.segments.retain(|(s, _)| !Arc::ptr_eq(s, &segment));
                    self.parts.keeper.abandon(segment, len_bytes, error);
                }
            }
        }
    }

    pub(super) fn on_written(&mut self, token: u64, result: io::Result<usize>, now: Now) {
        let operation = self.finish(token, now, &result);
        let bytes = *result.as_ref().unwrap_or(&0) as u64;
        if operation == Some(Operation::Tail) {
            self.tally.tail_bytes += bytes;
            self.parts.log.on_tail_written(token, result);
        } else {
            self.tally.frame_bytes += bytes;
            self.parts.log.on_written(token, result);
        }
        if let Some(Operation::Frame(span)) = operation {
            self.fetch(span, bytes, now);
        }
    }

    fn begin(&mut self, token: u64, now: Now, operation: Operation, path: &Path) {
        let kind = match operation {
            Operation::Frame(_) | Operation::Tail => DiskCall::Write,
            Operation::Sync => DiskCall::Sync,
        };
        let call = self.parts.disk.begin(kind, path);
        let started_us = now.monotonic_us;
        self.under_way.push(UnderWay { token, started_us, operation, call });
    }

    fn fetch(&mut self, span: Span, bytes: u64, now: Now) {
        let is_wanted = bytes > 0 && self.fetching.is_wanted(now.monotonic_us);
        let file = self.segments.iter().find(|(segment, _)| segment.id() == span.segment);
        if let Some((_, file)) = file.filter(|_| is_wanted) {
            let len_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.driver.fetch(file, span.offset_bytes, len_bytes);
        }
    }

    /// Notes how long an operation took, and says which it was.
    pub(super) fn finish<T>(
        &mut self,
        token: u64,
        now: Now,
        result: &io::Result<T>,
    ) -> Option<Operation> {
        let at = self.under_way.iter().position(|under_way| under_way.token == token)?;
        let UnderWay { started_us, operation, call, .. } = self.under_way.swap_remove(at);
        self.parts.disk.end(call, result);
        let ingest = &self.parts.metrics.ingest;
        let spent = match operation {
            Operation::Frame(_) => &ingest.flush_seconds,
            Operation::Sync => &ingest.sync_seconds,
            Operation::Tail => return Some(operation),
        };
        spent.observe(now.monotonic_us.saturating_sub(started_us) as f64 / 1e6);
        Some(operation)
    }
}

fn file_of<'a>(
    files: &'a [(Arc<engine::ingest::segment::Segment>, Descriptor)],
    segment: &Arc<engine::ingest::segment::Segment>,
) -> Option<&'a Descriptor> {
    files.iter().find(|(s, _)| Arc::ptr_eq(s, segment)).map(|(_, file)| file)
}
