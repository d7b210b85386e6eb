//! What every matching record must contain, so that blocks without it need not be read.
//!
//! An expression is reduced to a formula of AND and OR over byte strings, in which ASCII letters
//! are folded to lower case. A filter over the folded text of a block answers the formula with "may
//! contain" or "cannot contain".
//!
//! Invariants: a record that matches satisfies the formula (a property test); where a bound is met
//! the formula becomes weaker, never wrong; its size is bounded whatever the expression; no literal
//! in it contains LF or is shorter than [`SIGNATURE_GRAM_BYTES`].
//!
//! Not here: grams, hashes and blocks (the signature's affair), matching itself.

mod analysis;
mod strings;
#[cfg(test)]
mod tests;

use memchr::memmem;
use regex_syntax::hir::Hir;

use crate::limits::{REQUIRED_LITERALS_MAX, SIGNATURE_GRAM_BYTES};

/// What every record that matches must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required {
    /// Nothing that a filter could know.
    Anything,
    /// Nothing matches at all (an empty class, for example).
    Nothing,
    /// These bytes, contiguous within one record.
    Literal(FoldedLiteral),
    /// All of these.
    All(Vec<Required>),
    /// At least one of these.
    Any(Vec<Required>),
}

/// Bytes to be looked for in folded text: ASCII letters are in lower case, others as they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoldedLiteral {
    /// At least [`SIGNATURE_GRAM_BYTES`], no LF.
    pub bytes: Vec<u8>,
    /// A `k` or `s` in it also stands for U+212A KELVIN SIGN or U+017F LONG S, as it does where
    /// case is ignored: text that contains either must be taken to contain the literal.
    pub folds_k_or_s: bool,
}

/// What is known of an expression's matches.
pub(super) struct Analysis {
    pub(super) required: Required,
    /// Whether what is required is all there is to a match, case and U+212A and U+017F aside:
    /// false where in doubt.
    pub(super) is_all: bool,
}

impl Analysis {
    pub(super) fn of_hir(hir: &Hir) -> Self {
        analysis::of_hir(hir)
    }
}

/// A byte as filters see it.
pub fn fold(byte: u8) -> u8 {
    byte.to_ascii_lowercase()
}

impl Required {
    /// Of records that contain `bytes` as they are.
    pub fn of_literal(bytes: &[u8]) -> Self {
        analysis::of_literal(bytes)
    }

    /// Of records that match `hir`. Recursion is as deep as the expression nests, which its parser
    /// bounds.
    pub fn of_hir(hir: &Hir) -> Self {
        Analysis::of_hir(hir).required
    }

    /// All of these, in their order; where that would be too large those are left out that are large
    /// themselves.
    pub(super) fn all_of(parts: &[&Self]) -> Self {
        let mut by_size: Vec<usize> = (0..parts.len()).collect();
        by_size.sort_by_key(|&at| parts[at].literals());
        let mut literals = 0;
        by_size.retain(|&at| {
            literals += parts[at].literals();
            literals <= REQUIRED_LITERALS_MAX
        });
        by_size.sort_unstable();
        by_size.into_iter().fold(Self::Anything, |all, at| all.and(parts[at].clone()))
    }

    /// Both; the second is left out when the two together would be too large.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => Self::Nothing,
            (Self::Anything, it) | (it, Self::Anything) => it,
            (a, b) if a.literals() + b.literals() > REQUIRED_LITERALS_MAX => a,
            (a, b) => {
                let mut parts = match a {
                    Self::All(parts) => parts,
                    it => vec![it],
                };
                let more = match b {
                    Self::All(parts) => parts,
                    it => vec![it],
                };
                for part in more {
                    part.conjoin_to(&mut parts);
                }
                if parts.len() == 1 { parts.remove(0) } else { Self::All(parts) }
            }
        }
    }

    /// Adds itself to a conjunction unless it says nothing new, and removes what it makes needless.
    fn conjoin_to(self, parts: &mut Vec<Self>) {
        if parts.iter().any(|part| part.implies(&self)) {
            return;
        }
        parts.retain(|part| !self.implies(part));
        parts.push(self);
    }

    /// Either; anything when the two together would be too large.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Anything, _) | (_, Self::Anything) => Self::Anything,
            (Self::Nothing, it) | (it, Self::Nothing) => it,
            (a, b) if a.literals() + b.literals() > REQUIRED_LITERALS_MAX => Self::Anything,
            (a, b) => {
                let mut parts = match a {
                    Self::Any(parts) => parts,
                    it => vec![it],
                };
                let more = match b {
                    Self::Any(parts) => parts,
                    it => vec![it],
                };
                for part in more {
                    if !parts.iter().any(|known| part.implies(known)) {
                        parts.retain(|known| !known.implies(&part));
                        parts.push(part);
                    }
                }
                if parts.len() == 1 { parts.remove(0) } else { Self::Any(parts) }
            }
        }
    }

    /// Whether text that satisfies this satisfies `other`, as far as a cheap look can tell.
    fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(long), Self::Literal(part)) => {
                (part.folds_k_or_s || !long.folds_k_or_s)
                    && memmem::find(&long.bytes, &part.bytes).is_some()
            }
            (literal @ Self::Literal(_), Self::Any(parts)) => {
                parts.iter().any(|part| literal.implies(part))
            }
            (Self::Any(parts), literal @ Self::Literal(_)) => {
                parts.iter().all(|part| part.implies(literal))
            }
            (a, b) => a == b,
        }
    }

    /// How many literals it has: its size, as each is of bounded length.
    fn literals(&self) -> usize {
        match self {
            Self::Anything | Self::Nothing => 0,
            Self::Literal(_) => 1,
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::literals).sum(),
        }
    }
}

impl From<FoldedLiteral> for Required {
    /// Too few bytes say nothing.
    fn from(literal: FoldedLiteral) -> Self {
        if literal.bytes.len() < SIGNATURE_GRAM_BYTES {
            Self::Anything
        } else {
            Self::Literal(literal)
        }
    }
}
