//! What a node says happened: every value of every worker is heard, what went wrong in the words that an
//! operator reads, and all of it is part of the trace.
//!
//! Here it is said, too, what never happens in a simulation: nobody takes files away.

use std::cell::Cell;
use std::fmt::{Debug, Display};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use engine::damage::{Damage, DamageKind};
use engine::ingest::recover::Note as IngestNote;
use engine::node::compacting::Happened as Compacted;
use engine::node::expiring::Expired;
use engine::node::gathering::Happened as Gathered;
use engine::node::keeper::Happened as Kept;
use engine::node::opening::Finding;
use engine::node::reading_again::Happened as Read;
use engine::store::compaction_run::CompactionError;
use engine::store::recover::NoteKind;

use crate::node::Node;

/// What recovery told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) damage: Vec<Damage>,
    pub(crate) failed: Vec<String>,
    /// Files that stay as they are: damaged, or without any content of ours.
    pub(crate) left_alone: Vec<PathBuf>,
    /// Records of segments that somebody took away.
    pub(crate) holes: Vec<Damage>,
}

impl Told {
    pub(crate) fn hear(&mut self, found: Finding) {
        match found {
            Finding::Damage(damage) => {
                if matches!(damage.kind, DamageKind::Missing(..)) {
                    self.holes.push(damage);
                    return;
                }
                self.left_alone.push(damage.path.clone());
                self.damage.push(damage);
            }
            Finding::OfIngest(IngestNote::Failed(error)) => self.failed.push(error.to_string()),
            Finding::OfIngest(IngestNote::Unknown(path)) => self.left_alone.push(path),
            Finding::OfStore(note) => match note.kind {
                NoteKind::NotRemoved(_) => self.failed.push(note.to_string()),
                NoteKind::NotOurs => self.left_alone.push(note.path),
                _ => {}
            },
            Finding::MarkNotWritten(..)
            | Finding::TopicsNotWritten(..)
            | Finding::TopicsLeftOut(..)
            | Finding::StoreNotNamed(..) => {
                self.failed.push(found.to_string());
            }
            _ => {}
        }
    }
}

/// Everything that happened to a node, in order, as a number.
#[derive(Debug, Default)]
pub(crate) struct Trace(Cell<u64>);

impl Trace {
    pub(crate) fn note(&self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.0.get(), what).hash(&mut hasher);
        self.0.set(hasher.finish());
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.get()
    }
}

impl Node {
    pub(crate) fn tell(&self, words: impl Display) {
        self.errors.borrow_mut().push(words.to_string());
    }

    fn note(&self, happened: &impl Debug) {
        self.trace.note(format!("{happened:?}"));
    }

    pub(crate) fn hear_keeper(&self, happened: Kept) {
        self.note(&happened);
        match &happened {
            // A disk that has stopped takes nothing else either.
            Kept::TopicsNotWritten(..) => self.has_unkept_topics.set(!self.sim.has_stopped()),
            Kept::TopicsWritten => self.has_unkept_topics.set(false),
            _ => {}
        }
        match happened {
            Kept::WriteFailed { path, error, .. }
            | Kept::NotOpened(path, error)
            | Kept::TopicsNotWritten(path, error)
            | Kept::MarkNotWritten(path, error) => {
                self.tell(format!("{}: {error}", path.display()));
            }
            Kept::NotFlushed(error) | Kept::NoSegments(error) | Kept::FileFailed(error) => {
                self.tell(error);
            }
            Kept::DiskFull { error, .. } => self.tell(error),
            Kept::NameLost(path) | Kept::SegmentDeleted(path) | Kept::TailDeleted(path) => {
                panic!("nobody has taken {} away", path.display());
            }
            Kept::Ground(ground) => panic!("{ground:?}"),
            Kept::ClaimLapsed(_) => self.lapses.set(self.lapses.get() + 1),
            Kept::Sealed { .. }
            | Kept::HasSegments
            | Kept::MarkWritten
            | Kept::TopicsWritten
            | Kept::BacklogFull { .. }
            | Kept::BacklogHasRoom { .. }
            | Kept::SpaceMeasured { .. }
            | Kept::LacksSpace { .. }
            | Kept::HasSpace { .. } => {}
        }
    }

    pub(crate) fn hear_gathering(&self, happened: &Gathered) {
        self.note(happened);
        match happened {
            Gathered::Damaged(damage) => damage.iter().for_each(|damage| self.tell(damage)),
            Gathered::Unread(damage) => self.tell(damage),
            Gathered::SetAside { spans, .. } => assert!(*spans > 0),
            Gathered::FileFailed(error) => self.tell(error),
            Gathered::Failed { error, .. } => self.tell(error),
            Gathered::Published { .. }
            | Gathered::Committed { .. }
            | Gathered::Returned { .. }
            | Gathered::WorksAgain => {}
        }
    }

    pub(crate) fn hear_reading(&self, happened: Read) {
        self.note(&happened);
        match happened {
            Read::NamesLost(lost) => panic!("nobody has taken {lost:?} away"),
            Read::NamesBack(path, _) | Read::Forgotten(path) => {
                panic!("nobody had taken {} away", path.display());
            }
            Read::GivenUp(path) => panic!("{} is one of too many", path.display()),
            Read::Damaged(damage) => damage.iter().for_each(|damage| self.tell(damage)),
            Read::FileFailed(error) => self.tell(error),
            Read::SegmentBack(_) | Read::TailBack(_) | Read::StoreSegmentBack(_) => {}
        }
    }

    /// Says whether something was compacted.
    pub(crate) fn hear_compacting(&self, happened: Compacted) -> bool {
        self.note(&happened);
        match happened {
            Compacted::NotRemoved(path, error) => {
                self.tell(format!("{}: {error}", path.display()));
            }
            Compacted::Failed { error, .. } => {
                assert!(!matches!(
                    error,
                    CompactionError::CountsDiffer | CompactionError::RecordsDiffer
                ));
                self.tell(error);
            }
            Compacted::Compacted { .. } => return true,
            Compacted::WorksAgain | Compacted::HasRoom => {}
            Compacted::LacksRoom { .. } => panic!("there is room for everything"),
        }
        false
    }

    pub(crate) fn hear_expiring(&self, turn: &Expired) {
        self.note(turn);
        for (operation, path, error) in &turn.done.failed {
            self.tell(format!("{operation} {}: {error}", path.display()));
        }
    }
}
