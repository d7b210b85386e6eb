//! What a gram is, where its bit lies, and the set of grams of a block.
//!
//! Five bytes of a line are a gram if the first and the last belong to a token and at most one of
//! the three between does not. A token byte is an ASCII letter or digit, a full stop, or any byte
//! beyond ASCII. What begins or ends with a space, a bracket or another mark says little about a
//! line, but makes half of all that are distinct: without it a matrix of the same size passes over
//! more blocks for every kind of needle that was measured.

use memchr::memmem;

use crate::limits::{SIGNATURE_GRAM_BYTES, SIGNATURE_ROWS_MAX};

/// Bytes that are looked at together.
const LANES: usize = 64;
/// So many times are folded before their grams are taken: bytes that were just stored cannot be
/// loaded from between two stores before both are out of the processor's store buffer.
const SPAN: usize = 32;
const WORDS: usize = SIGNATURE_ROWS_MAX / u64::BITS as usize;
/// The bytes of a word that are a gram.
const GRAM_MASK: u64 = (1 << (8 * SIGNATURE_GRAM_BYTES)) - 1;
/// 2⁶⁴ over the golden ratio, odd (Knuth, The Art of Computer Programming 3, §6.4).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// KELVIN SIGN and LATIN SMALL LETTER LONG S: without regard to case they are `k` and `s`.
const FOLD_EXTRAS: [&str; 2] = ["\u{212A}", "\u{17F}"];

/// The row of a gram among [`SIGNATURE_ROWS_MAX`]; among half as many it is half of that.
const fn row_of(gram: u64) -> usize {
    let hash = gram.wrapping_mul(MULTIPLIER) >> 32;
    ((hash * SIGNATURE_ROWS_MAX as u64) >> 32) as usize
}

const fn fold(byte: u8) -> u8 {
    byte | ((byte.wrapping_sub(b'A') < 26) as u8) << 5
}

const fn is_token(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26
        || byte.wrapping_sub(b'0') < 10
        || byte >= 0x80
        || byte == b'.'
}

fn is_gram(window: &[u8]) -> bool {
    let marks = window.iter().filter(|&&byte| !is_token(byte)).count();
    let edges = [window[0], window[window.len() - 1]];
    marks <= 1 && edges.into_iter().all(is_token) && !window.contains(&b'\n')
}

/// The rows, among [`SIGNATURE_ROWS_MAX`], of the grams of a piece of a line, whatever its case.
pub fn rows_of_literal(literal: &[u8]) -> impl Iterator<Item = usize> {
    literal.windows(SIGNATURE_GRAM_BYTES).filter(|window| is_gram(window)).map(|window| {
        let mut bytes = [0; size_of::<u64>()];
        for (to, &from) in bytes.iter_mut().zip(window) {
            *to = fold(from);
        }
        row_of(u64::from_le_bytes(bytes))
    })
}

/// Sixty-four bytes, folded, and which of them are what.
struct Lanes {
    folded: [u8; LANES],
    /// Bit `n` is byte `n`, here and below.
    tokens: u64,
    line_ends: u64,
}

impl Lanes {
    fn of(bytes: &[u8; LANES]) -> Self {
        let (mut folded, mut tokens, mut line_ends) = ([0; LANES], [0; LANES], [0; LANES]);
        for at in 0..LANES {
            folded[at] = fold(bytes[at]);
            tokens[at] = u8::from(is_token(bytes[at]));
            line_ends[at] = u8::from(bytes[at] == b'\n');
        }
        Self { folded, tokens: bits_of(&tokens), line_ends: bits_of(&line_ends) }
    }

    /// The lanes of the front of `text`; nothing follows the end of it.
    fn of_front(text: &[u8]) -> Self {
        if let Some(bytes) = text.first_chunk() {
            return Self::of(bytes);
        }
        let mut bytes = [b'\n'; LANES];
        bytes[..text.len()].copy_from_slice(text);
        Self::of(&bytes)
    }

    /// Which of the bytes begin a gram.
    const fn grams(&self, next: &Self) -> u64 {
        let (t1, t2) = (ahead(self.tokens, next.tokens, 1), ahead(self.tokens, next.tokens, 2));
        let (t3, t4) = (ahead(self.tokens, next.tokens, 3), ahead(self.tokens, next.tokens, 4));
        let (l, n) = (self.line_ends, next.line_ends);
        let line_ends = ahead(l, n, 1) | ahead(l, n, 2) | ahead(l, n, 3);
        let two_of_three = (t1 & t2) | (t1 & t3) | (t2 & t3);
        self.tokens & t4 & two_of_three & !line_ends
    }
}

/// Eight bytes of 0 or 1 become eight bits, eight times.
fn bits_of(flags: &[u8; LANES]) -> u64 {
    let mut bits = 0;
    for (at, eight) in flags.chunks_exact(8).enumerate() {
        let eight = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        bits |= (eight.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at);
    }
    bits
}

/// The bits of this word and the next, from bit `by` (1 to 63) on.
const fn ahead(this: u64, next: u64, by: u32) -> u64 {
    this >> by | next << (u64::BITS - by)
}

/// The grams of a block, as rows.
#[derive(Clone)]
pub struct BlockSignature {
    /// Bit `n` of word `w` is row `64 w + n`.
    words: Vec<u64>,
}

impl BlockSignature {
    /// The grams of whole lines.
    pub fn of_text(text: &[u8]) -> Self {
        let mut words = vec![0; WORDS];
        let (mut folded, mut grams) = ([0; (SPAN + 1) * LANES], [0; SPAN]);
        let mut rest = text;
        let mut this = Lanes::of_front(rest);
        while !rest.is_empty() {
            let mut count = 0;
            while count < SPAN && !rest.is_empty() {
                rest = rest.get(LANES..).unwrap_or_default();
                let next = Lanes::of_front(rest);
                folded[count * LANES..][..LANES].copy_from_slice(&this.folded);
                grams[count] = this.grams(&next);
                this = next;
                count += 1;
            }
            folded[count * LANES..][..LANES].copy_from_slice(&this.folded);
            for (index, &grams) in grams[..count].iter().enumerate() {
                add_grams(&mut words, &folded[index * LANES..], grams);
            }
        }
        Self { words }
    }

    /// Rows as words; how many rows they are depends on how often it was folded.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Halves the rows: each two neighbours become one.
    pub fn fold(&mut self) {
        let half = self.words.len() / 2;
        for at in 0..half {
            let (low, high) = (self.words[2 * at], self.words[2 * at + 1]);
            self.words[at] = pairs(low) | pairs(high) << 32;
        }
        self.words.truncate(half);
    }

    /// How many rows are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Adds the grams that begin at the bytes of the first lanes of `folded`, each a bit of `grams`.
fn add_grams(words: &mut [u64], folded: &[u8], mut grams: u64) {
    let Some(folded) = folded.first_chunk::<{ LANES + 8 }>() else { return };
    while grams != 0 {
        let at = grams.trailing_zeros() as usize;
        grams &= grams - 1;
        let eight = folded[at..at + 8].try_into().unwrap_or_default();
        let row = row_of(u64::from_le_bytes(eight) & GRAM_MASK);
        words[row / 64] |= 1 << (row % 64);
    }
}

/// Bit `n` of the result is whether bit `2 n` or `2 n + 1` is set.
const fn pairs(word: u64) -> u64 {
    let mut bits = (word | word >> 1) & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0F0F_0F0F_0F0F_0F0F;
    bits = (bits | bits >> 4) & 0x00FF_00FF_00FF_00FF;
    bits = (bits | bits >> 8) & 0x0000_FFFF_0000_FFFF;
    (bits | bits >> 16) & 0xFFFF_FFFF
}

/// Whether a text holds a character beyond ASCII that without regard to case is an ASCII letter.
pub fn has_fold_extras(text: &[u8]) -> bool {
    !text.is_ascii() && FOLD_EXTRAS.iter().any(|c| memmem::find(text, c.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`BlockSignature::of_text`] should be, one window at a time.
    fn model(text: &[u8]) -> Vec<u64> {
        let mut words = vec![0; WORDS];
        for line in text.split(|&byte| byte == b'\n') {
            for row in rows_of_literal(line) {
                words[row / 64] |= 1u64 << (row % 64);
            }
        }
        words
    }

    #[test]
    fn grams_begin_and_end_in_a_token_and_hold_one_mark_at_most() {
        let is = |text: &[u8]| is_gram(text);
        assert!(is(b"ab cd") && is(b"abcde") && is(b"a=bcd") && is(b"10.0.") && is(b"\xff12.x"));
        assert!(!is(b" abcd") && !is(b"abcd ") && !is(b"a, bc") && !is(b"ab\ncd"));
        let rows: Vec<usize> = rows_of_literal(b"user=alice").collect();
        assert_eq!(rows.len(), 4, "ser=a er=al r=ali and alice; user= ends in a mark");
    }

    #[test]
    fn case_does_not_matter_and_every_row_is_within_bounds() {
        let rows = |text: &[u8]| rows_of_literal(text).collect::<Vec<_>>();
        assert_eq!(rows(b"Connection"), rows(b"cONNECTION"));
        assert_ne!(rows(b"abcde"), rows(b"abcdf"));
        assert!(row_of(GRAM_MASK) < SIGNATURE_ROWS_MAX && row_of(0) == 0);
        assert!((0..100_000).all(|gram| row_of(gram * 7_919) < SIGNATURE_ROWS_MAX));
    }

    proptest! {
        #[test]
        fn a_block_has_the_grams_of_its_lines(
            text in proptest::collection::vec(
                prop_oneof![4 => b'a'..b'f', 1 => Just(b'\n'), 1 => Just(b' '), 1 => any::<u8>()],
                0..2 * SPAN * LANES,
            ),
        ) {
            let signature = BlockSignature::of_text(&text);
            prop_assert_eq!(signature.words(), model(&text));
        }

        #[test]
        fn a_folded_signature_has_the_rows_of_half_as_many(text in "[a-z .]{0,200}") {
            let mut folded = BlockSignature::of_text(text.as_bytes());
            folded.fold();
            let mut expected = vec![0u64; WORDS / 2];
            for row in rows_of_literal(text.as_bytes()) {
                expected[row / 2 / 64] |= 1 << (row / 2 % 64);
            }
            prop_assert_eq!(folded.words(), expected);
        }
    }

    #[test]
    fn letters_that_fold_into_ascii_are_noticed() {
        assert!(has_fold_extras("20 \u{212A}\n".as_bytes()) && has_fold_extras("ſ\n".as_bytes()));
        assert!(!has_fold_extras("straße kelvin\n".as_bytes()) && !has_fold_extras(b"ks\n"));
    }
}
