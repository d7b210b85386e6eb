//! Topic names: `[A-Za-z0-9][A-Za-z0-9_-]*`, at most 64 bytes. A validated name is cheap to clone.

use std::fmt;
use std::sync::Arc;

use crate::limits::TOPIC_LEN_MAX;

/// The topic of static mode when none is configured.
pub const DEFAULT_TOPIC: &str = "default";
/// Where lines go whose topic is missing, malformed or one too many.
pub const INVALID_TOPIC: &str = "invalid";

/// A validated topic name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// Why a name is not a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATopic;

impl fmt::Display for NotATopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a topic: 1 to {TOPIC_LEN_MAX} letters, digits, '_' or '-' are expected, \
             the first one a letter or digit"
        )
    }
}

impl std::error::Error for NotATopic {}

/// Whether these bytes are a valid topic name.
pub fn is_topic(name: &[u8]) -> bool {
    name.len() <= TOPIC_LEN_MAX
        && name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Topic {
    /// Validates and copies a name.
    pub fn new(name: &[u8]) -> Result<Self, NotATopic> {
        match std::str::from_utf8(name) {
            Ok(text) if is_topic(name) => Ok(Self(Arc::from(text))),
            _ => Err(NotATopic),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_edges() {
        for good in ["a", "9", "Web-1_x", &"a".repeat(64)] {
            assert!(Topic::new(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "a b", "a.b", "ü", &"a".repeat(65), "a\n"] {
            assert_eq!(Topic::new(bad.as_bytes()), Err(NotATopic), "{bad}");
        }
    }
}
