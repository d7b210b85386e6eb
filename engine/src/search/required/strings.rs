//! Small sets of folded strings, of which a match contains one: they are multiplied where parts of
//! an expression stand side by side.
//!
//! Invariants: at most [`REQUIRED_STRINGS_MAX`] strings of at most [`REQUIRED_STRING_BYTES_MAX`]
//! bytes, sorted, none twice. The empty set matches nothing; a set with the empty string says
//! nothing.

use super::{FoldedLiteral, Required};
use crate::limits::{REQUIRED_STRING_BYTES_MAX, REQUIRED_STRINGS_MAX, SIGNATURE_GRAM_BYTES};

/// Bytes beside a cut that a gram across it can contain.
const ACROSS_BYTES: usize = SIGNATURE_GRAM_BYTES - 1;

/// One of these strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strings(Vec<FoldedLiteral>);

impl Strings {
    /// The one string that is found everywhere.
    pub(super) fn empty_string() -> Self {
        Self(vec![FoldedLiteral { bytes: Vec::new(), folds_k_or_s: false }])
    }

    /// `None` if they are too many or too long.
    pub(super) fn new(mut strings: Vec<FoldedLiteral>) -> Option<Self> {
        // Of equal bytes the one that stands for more comes first and is kept.
        strings.sort_unstable_by(|a, b| {
            a.bytes.cmp(&b.bytes).then(b.folds_k_or_s.cmp(&a.folds_k_or_s))
        });
        strings.dedup_by(|next, kept| next.bytes == kept.bytes);
        let fits = strings.len() <= REQUIRED_STRINGS_MAX
            && strings.iter().all(|s| s.bytes.len() <= REQUIRED_STRING_BYTES_MAX);
        fits.then_some(Self(strings))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn longest(&self) -> usize {
        self.0.iter().map(|s| s.bytes.len()).max().unwrap_or(0)
    }

    /// Every string of this before every one of `other`.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        if self.len() * other.len() > REQUIRED_STRINGS_MAX
            || self.longest() + other.longest() > REQUIRED_STRING_BYTES_MAX
        {
            return None;
        }
        let joined = |a: &FoldedLiteral, b: &FoldedLiteral| FoldedLiteral {
            bytes: [&a.bytes[..], &b.bytes].concat(),
            folds_k_or_s: a.folds_k_or_s || b.folds_k_or_s,
        };
        Self::new(self.0.iter().flat_map(|a| other.0.iter().map(move |b| joined(a, b))).collect())
    }

    /// The strings of both.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        Self::new(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Their last `len_bytes` bytes, and fewer where strings are shorter.
    fn tails(&self, len_bytes: usize) -> Self {
        self.cut(|bytes| &bytes[bytes.len().saturating_sub(len_bytes)..])
    }

    fn heads(&self, len_bytes: usize) -> Self {
        self.cut(|bytes| &bytes[..bytes.len().min(len_bytes)])
    }

    fn cut(&self, part: impl Fn(&[u8]) -> &[u8]) -> Self {
        let piece = |whole: &FoldedLiteral| {
            let bytes = part(&whole.bytes).to_vec();
            let folds_k_or_s = whole.folds_k_or_s && bytes.iter().any(|b| matches!(b, b'k' | b's'));
            FoldedLiteral { bytes, folds_k_or_s }
        };
        Self::new(self.0.iter().map(piece).collect()).expect("no more and no longer than before")
    }

    /// As much of the ends of these as can be put before `other`.
    pub(super) fn tails_times(&self, other: &Self) -> Self {
        let mut lens = (0..=ACROSS_BYTES).rev();
        lens.find_map(|len| self.tails(len).times(other)).unwrap_or_else(|| other.clone())
    }

    /// As much of the beginnings of `other` as can be put behind these.
    pub(super) fn times_heads(&self, other: &Self) -> Self {
        let mut lens = (0..=ACROSS_BYTES).rev();
        lens.find_map(|len| self.times(&other.heads(len))).unwrap_or_else(|| self.clone())
    }

    /// As much of both sides of a joint as there may be.
    pub(super) fn across(&self, other: &Self) -> Option<Self> {
        let mut lens = (0..=ACROSS_BYTES).rev();
        lens.find_map(|len| self.tails(len).times(&other.heads(len)))
    }

    /// The strings of both, of which as much is kept as may be: from their ends if `at_end`, else
    /// from their beginnings.
    pub(super) fn plus_cut(&self, other: &Self, at_end: bool) -> Self {
        let cut = |set: &Self, len| if at_end { set.tails(len) } else { set.heads(len) };
        let lens = [16, 8, 4, 3, 2, 1];
        self.plus(other)
            .or_else(|| lens.into_iter().find_map(|len| cut(self, len).plus(&cut(other, len))))
            .unwrap_or_else(Self::empty_string)
    }

    /// What a match requires that contains one of these.
    pub(super) fn required(&self) -> Required {
        if self.0.iter().any(|s| s.bytes.len() < SIGNATURE_GRAM_BYTES) {
            return Required::Anything;
        }
        self.0.iter().fold(Required::Nothing, |sum, s| sum.or(Required::from(s.clone())))
    }
}
