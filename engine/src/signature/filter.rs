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
    /// What they take in memory beside the value, bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

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

    /// The first of the set from `from` on.
    pub fn next_from(&self, from: usize) -> Option<usize> {
        let words = self.words.iter().enumerate().skip(from / 64);
        let mut mask = u64::MAX << (from % 64);
        for (at, word) in words {
            let word = word & std::mem::replace(&mut mask, u64::MAX);
            if word != 0 {
                return Some(64 * at + word.trailing_zeros() as usize);
            }
        }
        None
    }

    /// The last of the set before `end`.
    pub fn last_before(&self, end: usize) -> Option<usize> {
        let end = end.min(self.len);
        let words = self.words.iter().take(end.div_ceil(64)).enumerate().rev();
        let mut mask = u64::MAX >> ((64 - end % 64) % 64);
        for (at, word) in words {
            let word = word & std::mem::replace(&mut mask, u64::MAX);
            if word != 0 {
                return Some(64 * at + word.ilog2() as usize);
            }
        }
        None
    }

    /// Sixty-four of them from block `from` on; zeros behind the last.
    pub fn word_at(&self, from: usize) -> u64 {
        let word = |at: usize| self.words.get(at).copied().unwrap_or(0);
        let (at, shift) = (from / 64, from % 64);
        // Twice, for a shift by all 64 bits is none.
        word(at) >> shift | word(at + 1) << (63 - shift) << 1
    }

    /// Takes those out, of the 64 from block `from` on, whose bits are set.
    pub fn remove_word(&mut self, from: usize, bits: u64) {
        let (at, shift) = (from / 64, from % 64);
        if let Some(word) = self.words.get_mut(at) {
            *word &= !(bits << shift);
        }
        if let Some(word) = self.words.get_mut(at + 1) {
            *word &= !(bits >> (63 - shift) >> 1);
        }
    }
}

/// What is required, as the rows that are to be asked: made once, for many matrices.
#[derive(Debug)]
pub enum Rows {
    /// Nothing is known.
    Anything,
    /// No block can match.
    Nothing,
    /// All of these, among [`crate::limits::SIGNATURE_ROWS_MAX`]; the flag: or characters that are
    /// `k` or `s` without regard to case.
    Literal(Vec<usize>, bool),
    /// All of these.
    All(Vec<Rows>),
    /// Any of these.
    Any(Vec<Rows>),
}

impl Rows {
    /// The rows of a formula.
    pub fn of(required: &Required) -> Self {
        match required {
            Required::Anything => Self::Anything,
            Required::Nothing => Self::Nothing,
            Required::Literal(FoldedLiteral { bytes, folds_k_or_s }) => {
                Self::Literal(rows_of_literal(bytes).collect(), *folds_k_or_s)
            }
            Required::All(parts) => Self::All(parts.iter().map(Self::of).collect()),
            Required::Any(parts) => Self::Any(parts.iter().map(Self::of).collect()),
        }
    }

    /// Those that are asked first, so many of each part of a choice: the others are asked only where these
    /// rule nothing out.
    pub fn first(&self, count: usize) -> Vec<usize> {
        match self {
            Self::Anything | Self::Nothing => Vec::new(),
            Self::Literal(rows, _) => rows.iter().copied().take(count).collect(),
            Self::All(parts) => parts.first().map_or_else(Vec::new, |part| part.first(count)),
            Self::Any(parts) => parts.iter().flat_map(|part| part.first(count)).collect(),
        }
    }
}

/// Asks a matrix about 64 blocks at a time.
pub struct Filter<'a> {
    matrix: Matrix<'a>,
    is_damaged: bool,
}

impl<'a> Filter<'a> {
    /// Asks `matrix`.
    pub const fn new(matrix: Matrix<'a>) -> Self {
        Self { matrix, is_damaged: false }
    }

    /// Of the 64 blocks from block `from` on, those that may hold what is required; bits behind the
    /// last block are zero. `fold_extras` are those of them with characters that without regard to
    /// case are `k` or `s` but are other bytes.
    pub fn candidates(&mut self, rows: &Rows, from: usize, fold_extras: u64) -> u64 {
        let count = self.matrix.blocks().saturating_sub(from);
        let all = if count < 64 { (1 << count) - 1 } else { u64::MAX };
        self.narrow(rows, from, (all, fold_extras))
    }

    /// Whether rows were met that are damaged.
    pub const fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn narrow(&mut self, rows: &Rows, from: usize, (bits, extras): (u64, u64)) -> u64 {
        match rows {
            Rows::Anything => bits,
            _ if bits == 0 => 0,
            Rows::Nothing => 0,
            Rows::Literal(rows, folds) => {
                let mut kept = bits;
                for &row in rows {
                    match self.matrix.row(row, from) {
                        Ok(word) => kept &= word,
                        Err(_) => self.is_damaged = true,
                    }
                    if kept == 0 {
                        break;
                    }
                }
                if *folds { kept | bits & extras } else { kept }
            }
            Rows::All(parts) => {
                parts.iter().fold(bits, |bits, part| self.narrow(part, from, (bits, extras)))
            }
            Rows::Any(parts) => {
                let parts = parts.iter();
                parts.fold(0, |any, part| any | self.narrow(part, from, (bits & !any, extras)))
            }
        }
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
        let (mut filter, rows) = (Filter::new(matrix), Rows::of(required));
        let mut bits = Bits::all(texts.len());
        for from in (0..texts.len()).step_by(64) {
            bits.remove_word(from, !filter.candidates(&rows, from, extras.word_at(from)));
        }
        bits.iter().collect()
    }

    #[test]
    fn words_and_neighbours_of_a_set_are_those_of_its_members() {
        for len in [1, 63, 64, 65, 130] {
            let mut bits = Bits::all(len);
            (0..len).filter(|block| block * block % 7 == 2).for_each(|block| bits.remove(block));
            let members: Vec<usize> = bits.iter().collect();
            for at in 0..=len {
                assert_eq!(bits.next_from(at), members.iter().copied().find(|&b| b >= at));
                assert_eq!(bits.last_before(at), members.iter().copied().rfind(|&b| b < at));
                let word = members.iter().filter(|&&b| b >= at && b - at < 64);
                assert_eq!(bits.word_at(at), word.fold(0, |word, b| word | 1 << (b - at)));
                let mut rest = bits.clone();
                rest.remove_word(at, u64::MAX / 3);
                let kept = |b: &usize| *b < at || *b - at >= 64 || (*b - at) % 2 == 1;
                assert!(rest.iter().eq(members.iter().copied().filter(kept)));
            }
        }
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
        let mut filter = Filter::new(matrix);
        assert_eq!(filter.candidates(&Rows::of(&literal("absent")), 0, 0), 0b111);
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
