//! Which blocks of a slab may hold what an expression requires.
//!
//! Invariants: a block that holds a match is never ruled out; what a signature cannot tell (a literal
//! without a gram, rows that are damaged) rules nothing out.

use crate::search::required::{FoldedLiteral, Required};

use super::grams::rows_of_literal;
use super::matrix::Matrix;

/// A set of blocks, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// All of `len` blocks.
    pub fn all(len: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        if let (Some(last), used @ 1..) = (bits.words.last_mut(), len % 64) {
            *last = (1 << used) - 1;
        }
        bits
    }

    /// None of `len` blocks.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// How many blocks are counted, in the set or not.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Whether a block is in the set.
    pub fn contains(&self, block: usize) -> bool {
        self.words.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// Adds a block.
    pub fn insert(&mut self, block: usize) {
        if block < self.len {
            self.words[block / 64] |= 1 << (block % 64);
        }
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: usize) {
        if block < self.len {
            self.words[block / 64] &= !(1 << (block % 64));
        }
    }

    /// Those in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.len).filter(|&block| self.contains(block))
    }

    /// Keeps those whose bit is set in what `word_at` gives for each 64 blocks from some block on.
    pub(super) fn retain(&mut self, word_at: impl Fn(usize) -> u64) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= word_at(64 * at);
        }
    }

    fn add(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }
}

/// Asks a matrix.
pub struct Filter<'a> {
    matrix: Matrix<'a>,
    /// Blocks with characters that without regard to case are `k` or `s` but are other bytes.
    fold_extras: Bits,
    is_damaged: bool,
}

impl<'a> Filter<'a> {
    /// Asks `matrix`; `fold_extras` are those of its blocks that are flagged so.
    pub const fn new(matrix: Matrix<'a>, fold_extras: Bits) -> Self {
        Self { matrix, fold_extras, is_damaged: false }
    }

    /// The blocks that may hold what is required.
    pub fn candidates(&mut self, required: &Required) -> Bits {
        let mut bits = Bits::all(self.matrix.blocks());
        self.narrow(required, &mut bits);
        bits
    }

    /// Whether rows were met that are damaged.
    pub const fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn narrow(&mut self, required: &Required, bits: &mut Bits) {
        match required {
            Required::Anything => {}
            Required::Nothing => *bits = Bits::none(bits.len()),
            Required::Literal(literal) => self.narrow_to_literal(literal, bits),
            Required::All(parts) => {
                for part in parts {
                    if bits.is_empty() {
                        break;
                    }
                    self.narrow(part, bits);
                }
            }
            Required::Any(parts) => {
                let mut any = Bits::none(bits.len());
                for part in parts {
                    let mut some = bits.clone();
                    self.narrow(part, &mut some);
                    any.add(&some);
                }
                *bits = any;
            }
        }
    }

    fn narrow_to_literal(&mut self, literal: &FoldedLiteral, bits: &mut Bits) {
        let mut kept = bits.clone();
        for row in rows_of_literal(&literal.bytes) {
            if kept.is_empty() {
                break;
            }
            self.is_damaged |= self.matrix.retain(row, &mut kept).is_err();
        }
        if literal.folds_k_or_s {
            let mut flagged = bits.clone();
            flagged.retain(|from| self.fold_extras.words[from / 64]);
            kept.add(&flagged);
        }
        *bits = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::matrix::{MatrixBuilder, StoredMatrix};
    use proptest::prelude::*;

    fn stored(texts: &[&str]) -> StoredMatrix {
        let mut builder = MatrixBuilder::default();
        for text in texts {
            builder.push(text.as_bytes());
        }
        builder.finish(1 << 40, 10).unwrap()
    }

    fn literal(text: &str) -> Required {
        let bytes = text.to_ascii_lowercase().into_bytes();
        Required::Literal(FoldedLiteral { bytes, folds_k_or_s: false })
    }

    fn candidates(texts: &[&str], flagged: &[usize], required: &Required) -> Vec<usize> {
        let stored = stored(texts);
        let matrix =
            Matrix::new(&stored.bytes, stored.crc, stored.rows, texts.len() as u32).unwrap();
        let mut extras = Bits::none(texts.len());
        for &block in flagged {
            extras.insert(block);
        }
        Filter::new(matrix, extras).candidates(required).iter().collect()
    }

    const TEXTS: [&str; 3] =
        ["Connection refused\n", "connection accepted\nsession opened\n", "nothing at all\n"];

    #[test]
    fn formulas_are_answered_by_their_parts() {
        let of = |required: &Required| candidates(&TEXTS, &[], required);
        assert_eq!(of(&Required::Anything), [0, 1, 2]);
        assert!(of(&Required::Nothing).is_empty());
        assert_eq!(of(&literal("CONNECTION")), [0, 1]);
        assert_eq!(of(&literal("abc")), [0, 1, 2], "no gram, no knowledge");
        let all = |parts: &[&str]| Required::All(parts.iter().map(|p| literal(p)).collect());
        let any = |parts: &[&str]| Required::Any(parts.iter().map(|p| literal(p)).collect());
        assert_eq!(of(&all(&["connection", "session"])), [1]);
        assert_eq!(of(&any(&["refused", "nothing"])), [0, 2]);
        assert!(of(&any(&["absent", "missing"])).is_empty());
        let both = Required::All(vec![literal("connection"), any(&["opened", "closed"])]);
        assert_eq!(of(&both), [1]);
    }

    #[test]
    fn blocks_with_letters_that_fold_are_kept_where_case_does_not_matter() {
        let bytes = b"session".to_vec();
        let folding = Required::Literal(FoldedLiteral { bytes, folds_k_or_s: true });
        assert_eq!(candidates(&TEXTS, &[2], &folding), [1, 2]);
        assert_eq!(candidates(&TEXTS, &[2], &literal("session")), [1]);
    }

    #[test]
    fn damaged_rows_rule_nothing_out() {
        let mut stored = stored(&TEXTS);
        stored.bytes[0] ^= 1;
        let matrix = Matrix::new(&stored.bytes, stored.crc, stored.rows, 3).unwrap();
        let mut filter = Filter::new(matrix, Bits::none(3));
        assert_eq!(filter.candidates(&literal("absent")).iter().count(), 3);
        assert!(filter.is_damaged());
    }

    proptest! {
        #[test]
        fn a_block_with_the_literal_is_never_ruled_out(
            texts in proptest::collection::vec("[a-e .=]{0,60}", 1..80), at: usize, len in 1..20usize,
        ) {
            let texts: Vec<String> = texts.into_iter().map(|text| text + "\n").collect();
            let of = &texts[at % texts.len()];
            let needle = &of[at % of.len()..][..len.min(of.len() - at % of.len())];
            prop_assume!(!needle.contains('\n'));
            let views: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found = candidates(&views, &[], &literal(needle));
            for (block, text) in texts.iter().enumerate() {
                prop_assert!(!text.contains(needle) || found.contains(&block));
            }
        }
    }
}
