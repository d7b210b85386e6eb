//! Programs that work on the files of a node that is stopped, or on copies of them.
//!
//! [`fsck`] reads and tells; [`restore`] adopts copied segments. What they do is the engine's; flags,
//! words and exit codes are here. Invariants: a directory that a process holds is told, and never written.

pub(crate) mod fsck;
pub(crate) mod restore;
