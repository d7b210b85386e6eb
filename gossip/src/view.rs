//! The members, for those who ask.

use engine::identity::Identity;
use engine::ulid::Ulid;

use crate::facts::Facts;
use crate::member::Member;

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Up,
    /// It did not answer, and has a moment left to.
    Suspect,
    /// It does not answer, or was not heard of since this node started.
    Down,
    /// It is up, and being emptied.
    Draining,
}

impl State {
    /// As interfaces show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Draining => "draining",
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who it is.
    pub member: Member,
    /// How it is.
    pub state: State,
    /// For how long it has been up or down as this node saw it, milliseconds.
    pub for_ms: u64,
    /// What it said of itself, and how long ago, milliseconds.
    pub facts: Option<(Facts, u64)>,
    /// The highest watermark that was ever heard of it; the smallest ULID: none.
    pub watermark: Ulid,
}

/// Somebody who was forgotten, with all boots up to this one.
pub type Forgotten = (engine::identity::NodeId, u64);

/// Why nobody is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgetError {
    /// No member has this id.
    Unknown,
    /// It is this node.
    Own(Identity),
    /// It is up.
    Up(Member),
    /// No more can be forgotten.
    Full,
}

impl std::fmt::Display for ForgetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no member has this id"),
            Self::Own(identity) => {
                write!(f, "{} {} is this node: ask another one", identity.side, identity.id)
            }
            Self::Up(member) => {
                write!(f, "{} ({}) is up: stop it first", member.id(), member.address)
            }
            Self::Full => f.write_str("as many were forgotten as can be remembered"),
        }
    }
}

impl std::error::Error for ForgetError {}
