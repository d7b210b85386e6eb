//! Why a node did not start, or had to stop: one line each that says what to do.

use std::fmt;
use std::io;

use net::ring::RingRefused;

use super::data::DataError;
use super::host;
use super::listeners::ListenError;
use crate::exit::Exit;

/// Why a node did not start or had to stop.
#[derive(Debug)]
pub(crate) enum NodeError {
    /// The limit of open files is this low.
    Descriptors(host::TooFew),
    /// No io_uring.
    Ring(RingRefused),
    /// A directory cannot be used.
    Data(DataError),
    /// The file that says who may do what cannot be used.
    AuthFile(String),
    /// A port cannot be listened on.
    Listen(ListenError),
    /// The kernel refused a thread or a descriptor.
    Resources(&'static str, io::Error),
    /// A shard's ring failed while running.
    Shard(usize, io::Error),
    /// It was stopped, and so many records that were taken are not on disk.
    NotOnDisk(u64),
    /// It was stopped, and so many records are not in the directories that were taken away.
    TakenAway(u64),
    /// It was stopped, and nobody knows whether all that was taken is there.
    NotLookedUp,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Data(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::AuthFile(words) => f.write_str(words),
            Self::Resources(what, error) => write!(f, "the system refused {what}: {error}"),
            Self::Descriptors(host::TooFew { have, needed }) => write!(
                f,
                "the limit of open files is {have}, a node needs {needed}: raise it (ulimit -n, or \
                 LimitNOFILE=)"
            ),
            Self::TakenAway(records) => write!(
                f,
                "{records} records cannot be found at the next start: their files, or the \
                 directory that they were in, were taken away while the node ran"
            ),
            Self::NotLookedUp => f.write_str(
                "whether all records that were taken are where the next start looks for them is \
                 not known: the disk did not answer in time",
            ),
            Self::NotOnDisk(records) => write!(
                f,
                "{records} records could not be brought to disk before the end; none of them was \
                 acknowledged as durable"
            ),
            Self::Shard(shard, error) => write!(
                f,
                "shard {shard} cannot go on: {error}; the node stops, and a restart takes up \
                 everything that was written"
            ),
        }
    }
}

impl std::error::Error for NodeError {}

impl NodeError {
    /// The exit code for it: what a file of settings says wrong is the user's.
    pub(crate) const fn exit(&self) -> Exit {
        if matches!(self, Self::AuthFile(_)) { Exit::Usage } else { Exit::Error }
    }
}

impl From<DataError> for NodeError {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl From<ListenError> for NodeError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}
