//! Carries out what a shard's log asks for, as `net::shard` does with a ring: an effect is begun, is under
//! way, and its completion comes later, whenever the seed has it come.
//!
//! Decides nothing: which effect is next, and what a completion means, is the log's, and what senders
//! may be told is `ingest::promises`'.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use engine::ingest::frame::FrameBuffer;
use engine::ingest::log::{Effect, Now, ShardLog, Stamped, Token};
use engine::ingest::promises::Promises;
use engine::ingest::segment::Segment;
use engine::node::keeper::Event;
use engine::storage::File;
use engine::ulid::Ulid;

use crate::model::{Model, note_written};

/// What is under way.
pub(crate) enum Job {
    /// A shard asks the keeper.
    Ask(Event),
    /// The keeper lends a segment.
    Lend { shard: usize, segment: Arc<Segment> },
    /// A shard's file is to be written or synced.
    Do { shard: usize, token: Token, what: Operation },
    /// That was done.
    Complete { shard: usize, token: Token, what: Completion },
}

/// What is to be done to a file.
pub(crate) enum Operation {
    Write(Arc<Segment>, u64, Arc<FrameBuffer>),
    Tail(u64, Arc<Vec<u8>>),
    Sync(Arc<Segment>),
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Completion {
    Written(io::Result<usize>),
    TailWritten(io::Result<usize>),
    Synced(io::Result<()>),
}

/// A shard with its files.
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) log: ShardLog,
    pub(crate) promises: Promises,
    pub(crate) tail: Option<Arc<dyn File>>,
    files: BTreeMap<Ulid, Arc<dyn File>>,
    /// Durable appends that are not acknowledged: end and records.
    unacknowledged: Vec<(u64, Vec<Ulid>)>,
}

impl Shard {
    pub(crate) fn new(number: usize, log: ShardLog, tail: Option<Arc<dyn File>>) -> Self {
        let (files, unacknowledged) = (BTreeMap::new(), Vec::new());
        Self { number, log, promises: Promises::default(), tail, files, unacknowledged }
    }

    /// The sender of these waits until they are durable.
    pub(crate) fn want_durable(&mut self, stamped: &Stamped, ulids: Vec<Ulid>) {
        self.log.want_durable();
        self.promises.note_awaited(stamped);
        self.unacknowledged.push((stamped.end, ulids));
    }

    /// Takes nothing more, and writes out what it holds.
    pub(crate) fn shut_down(&mut self) {
        self.log.want_durable();
        self.log.shut_down();
    }

    /// Begins whatever the log asks for now.
    pub(crate) fn begin(&mut self, now: Now, jobs: &mut Vec<Job>) {
        let shard = self.number;
        while let Some(effect) = self.log.next_effect(now) {
            jobs.push(match effect {
                Effect::WantSegment => Job::Ask(Event::WantSegment(shard)),
                Effect::Write { token, segment, offset_bytes, frame } => {
                    Job::Do { shard, token, what: Operation::Write(segment, offset_bytes, frame) }
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    Job::Do { shard, token, what: Operation::Tail(offset_bytes, bytes) }
                }
                Effect::Sync { token, segment } => {
                    Job::Do { shard, token, what: Operation::Sync(segment) }
                }
                Effect::Seal { segment, len_bytes } => {
                    self.files.remove(&segment.id());
                    Job::Ask(Event::Seal(segment, len_bytes))
                }
                Effect::Abandon { segment, len_bytes, error } => {
                    self.files.remove(&segment.id());
                    Job::Ask(Event::Abandon(segment, len_bytes, error))
                }
            });
        }
    }

    /// Does it to the disk; the model is told what survives a kill from then on.
    pub(crate) fn carry_out(
        &self,
        what: &Operation,
        may_be_cut: bool,
        model: &mut Model,
    ) -> Completion {
        match what {
            Operation::Write(segment, offset, frame) => {
                let bytes = frame.as_bytes();
                let result = self.files[&segment.id()].write_at(bytes, *offset);
                // Behind a failed frame of its segment it is cut off again, and waits in memory.
                let is_whole = matches!(result, Ok(count) if count == bytes.len());
                if is_whole && !may_be_cut {
                    note_written(model, bytes);
                }
                Completion::Written(result)
            }
            Operation::Tail(offset, bytes) => {
                let result = match &self.tail {
                    Some(file) => file.write_at(bytes, *offset),
                    None => Err(io::ErrorKind::NotFound.into()),
                };
                if matches!(result, Ok(count) if count == bytes.len()) {
                    note_written(model, bytes);
                }
                Completion::TailWritten(result)
            }
            Operation::Sync(segment) => Completion::Synced(self.files[&segment.id()].sync()),
        }
    }

    /// Tells the log what was done.
    pub(crate) fn complete(&mut self, token: Token, what: Completion) {
        match what {
            Completion::Written(result) => self.log.on_written(token, result),
            Completion::TailWritten(result) => self.log.on_tail_written(token, result),
            Completion::Synced(result) => self.log.on_synced(token, result),
        }
    }

    /// A segment that the log has asked for.
    pub(crate) fn on_segment(&mut self, segment: Arc<Segment>, file: Arc<dyn File>) {
        self.files.insert(segment.id(), file);
        self.log.on_segment(segment);
    }

    /// Tells senders what is durable, unless that is withheld.
    pub(crate) fn acknowledge(&mut self, is_withheld: bool, model: &mut Model) {
        let end = self.promises.make(self.log.durable_end(), is_withheld);
        self.unacknowledged.retain(|(wanted, ulids)| {
            if *wanted <= end {
                model.durable.extend(ulids);
                model.written.extend(ulids);
            }
            *wanted > end
        });
    }
}
