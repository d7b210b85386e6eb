//! What a record must match, as a whole: every expression of some, and none of others.
//!
//! Invariants: what a chain matches does not depend on the order in which its expressions were given; one
//! that has a single expression costs what that costs; texts and compiled forms together take the room of
//! those of one expression, however many there are, and the automata of a scan thread
//! [`CHAIN_AUTOMATA_BYTES_MAX`].
//!
//! Not here: how a single record is matched (`search::matcher`).

mod matcher;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

pub(crate) use self::matcher::ChainMatcher;
use super::automata::AutomatonMemory;
use super::expression::{Expression, ExpressionError, Room};
use super::required::Required;
use crate::limits::{
    CHAIN_AUTOMATA_BYTES_MAX, CHAIN_EXPRESSION_BYTES, CHAIN_EXPRESSIONS_MAX, EXPRESSION_BYTES_MAX,
    EXPRESSION_CACHE_BYTES_MAX, EXPRESSION_COMPILED_BYTES_MAX, EXPRESSION_COMPILED_FACTOR,
    EXPRESSION_PARSED_BYTES,
};

/// What an expression of a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Records have to match it.
    All,
    /// Records may not match it.
    None,
}

/// What a chain is made of: within the bounds of their numbers and lengths, and not compiled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainText {
    all: Vec<String>,
    none: Vec<String>,
    regex: bool,
    ignore_case: bool,
}

/// See the page of the module. The default one matches every record.
#[derive(Clone)]
pub struct Chain {
    /// Those that every record has to match, but for those that do anyway; the first one leads.
    all: Vec<Expression>,
    none: Vec<Expression>,
    required: Arc<Required>,
}

/// Why a chain cannot be had; its text says what would be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// There are too many expressions of one kind.
    TooMany {
        /// Which kind.
        side: Side,
        /// How many.
        given: usize,
    },
    /// They are too long together.
    TooLong {
        /// The one with which they are.
        side: Side,
        /// How long they are up to there, bytes.
        len_bytes: usize,
    },
    /// They compile to too much together.
    TooLarge {
        /// The one with which they do.
        side: Side,
    },
    /// One of them cannot be used.
    Expression {
        /// Which kind it is.
        side: Side,
        /// Why.
        error: ExpressionError,
    },
}

impl ChainError {
    /// Where the fault lies.
    pub const fn side(&self) -> Side {
        match self {
            Self::TooMany { side, .. }
            | Self::TooLong { side, .. }
            | Self::TooLarge { side }
            | Self::Expression { side, .. } => *side,
        }
    }

    /// Whether more room for what is compiled may help.
    pub const fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::Expression { error: ExpressionError::TooLarge, .. }
        )
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { given, .. } => {
                write!(f, "given {given} times; valid is at most {CHAIN_EXPRESSIONS_MAX} times")
            }
            Self::TooLong { len_bytes, .. } => write!(
                f,
                "expressions of {len_bytes} bytes together; at most {EXPRESSION_BYTES_MAX} are valid"
            ),
            Self::TooLarge { .. } => write!(
                f,
                "expressions compile to more than {EXPRESSION_COMPILED_BYTES_MAX} bytes together; \
                 valid are fewer ones, smaller repetitions or fewer classes"
            ),
            Self::Expression { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for ChainError {}

impl ChainText {
    /// Records match each of `all` and none of `none`; both are regular expressions if `regex`, and
    /// take letters of either case if `ignore_case`.
    pub fn new(
        (all, none): (Vec<String>, Vec<String>),
        regex: bool,
        ignore_case: bool,
    ) -> Result<Self, ChainError> {
        for (side, texts) in [(Side::All, &all), (Side::None, &none)] {
            if texts.len() > CHAIN_EXPRESSIONS_MAX {
                return Err(ChainError::TooMany { side, given: texts.len() });
            }
        }
        let this = Self { all, none, regex, ignore_case };
        let mut len_bytes = 0;
        for (side, text) in this.texts() {
            len_bytes += text.len();
            if len_bytes > EXPRESSION_BYTES_MAX {
                return Err(match text.len() {
                    len_bytes if len_bytes > EXPRESSION_BYTES_MAX => ChainError::Expression {
                        side,
                        error: ExpressionError::TooLong { len_bytes },
                    },
                    _ => ChainError::TooLong { side, len_bytes },
                });
            }
        }
        Ok(this)
    }

    /// Those that have to match, as they were given.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// Those that may not match, as they were given.
    pub fn none(&self) -> &[String] {
        &self.none
    }

    /// Whether they are regular expressions.
    pub const fn is_regex(&self) -> bool {
        self.regex
    }

    fn texts(&self) -> impl Iterator<Item = (Side, &str)> {
        let all = self.all.iter().map(|text| (Side::All, text.as_str()));
        all.chain(self.none.iter().map(|text| (Side::None, text.as_str())))
    }

    /// How long they are together, bytes.
    pub fn len_bytes(&self) -> usize {
        self.texts().map(|(_, text)| text.len()).sum()
    }

    /// How many of them become automata.
    fn automata(&self) -> usize {
        let are_costly = self.regex || self.ignore_case;
        self.texts().filter(|(_, text)| are_costly && !text.is_empty()).count()
    }

    /// Whether compiling them can take longer than a socket should wait.
    pub fn is_costly(&self) -> bool {
        self.automata() > 0
    }

    /// The most that is held of them once they are compiled to so many bytes, bytes.
    pub fn cost_bytes_max(&self, compiled_bytes_max: usize) -> usize {
        let own = (self.all.len() + self.none.len()) * CHAIN_EXPRESSION_BYTES;
        if self.is_costly() {
            let parsed = self.len_bytes() * EXPRESSION_PARSED_BYTES;
            own + parsed + compiled_bytes_max * EXPRESSION_COMPILED_FACTOR
        } else {
            // Of a literal there are two copies.
            own + 2 * self.len_bytes()
        }
    }

    /// Compiles them, if they become no larger than that together (bytes).
    pub fn compile(&self, compiled_bytes_max: usize) -> Result<Chain, ChainError> {
        let share = CHAIN_AUTOMATA_BYTES_MAX / self.automata().max(1);
        let automaton_bytes_max = share.min(EXPRESSION_CACHE_BYTES_MAX);
        let is_alone = self.all.len() + self.none.len() == 1;
        let mut room = Room { compiled_bytes_max, automaton_bytes_max };
        let (mut all, mut none) = (Vec::new(), Vec::new());
        for (side, text) in self.texts() {
            let expression = Expression::within(text, self.regex, self.ignore_case, room);
            let expression = expression.map_err(|error| match error {
                ExpressionError::TooLarge if !is_alone => ChainError::TooLarge { side },
                error => ChainError::Expression { side, error },
            })?;
            room.compiled_bytes_max =
                room.compiled_bytes_max.saturating_sub(expression.compiled_bytes());
            match side {
                Side::All => all.push(expression),
                Side::None => none.push(expression),
            }
        }
        Ok(Chain::new(all, none))
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self { all: Vec::new(), none: Vec::new(), required: Arc::new(Required::Anything) }
    }
}

impl From<Expression> for Chain {
    fn from(expression: Expression) -> Self {
        Self::new(vec![expression], Vec::new())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain(all {:?}, none {:?})", self.all, self.none)
    }
}

impl Chain {
    /// Of records that match each of `all` and none of `none`.
    pub fn new(mut all: Vec<Expression>, none: Vec<Expression>) -> Self {
        all.retain(|expression| !expression.matches_all());
        // Whole blocks are searched for the first one, the others are looked at where that is.
        all.sort_by_key(|expression| Reverse(expression.lead()));
        let required = if none.iter().any(Expression::matches_all) {
            Required::Nothing
        } else {
            Required::all_of(&all.iter().map(Expression::required).collect::<Vec<_>>())
        };
        Self { all, none, required: Arc::new(required) }
    }

    /// The same, with what its automata learn kept among that of others.
    #[must_use]
    pub fn kept_within(self, memory: &AutomatonMemory) -> Self {
        let kept = |expressions: Vec<Expression>| {
            expressions.into_iter().map(|expression| expression.kept_within(memory)).collect()
        };
        Self { all: kept(self.all), none: kept(self.none), required: self.required }
    }

    /// Whether it is known to match every record, so that no record needs to be looked at.
    pub const fn matches_all(&self) -> bool {
        self.all.is_empty() && self.none.is_empty()
    }

    /// The bytes that a record must contain, if that is what leads to it; and whether there is more to
    /// be looked at where they are.
    pub(crate) fn literal(&self) -> Option<(&[u8], bool)> {
        let literal = self.all.first()?.literal()?;
        Some((literal, self.all.len() > 1 || !self.none.is_empty()))
    }

    /// What every record that matches contains, for filters.
    pub fn required(&self) -> &Required {
        &self.required
    }

    /// Those that have to match, and those that may not.
    #[cfg(test)]
    pub(super) fn expressions(&self) -> (&[Expression], &[Expression]) {
        (&self.all, &self.none)
    }

    /// What its compiled forms hold on the heap, bytes; the memory of automata is bounded apart.
    pub fn memory_bytes(&self) -> usize {
        let expressions = self.all.iter().chain(&self.none);
        expressions.map(|expression| CHAIN_EXPRESSION_BYTES + expression.memory_bytes()).sum()
    }
}
