//! The classes of text that is searched for and is nowhere, and needles of each; pure.

use super::words::Words;
use crate::rng::{Rng, derive};

/// Words of English technical prose, one a line, that logs rarely hold: README files of programming
/// libraries have them, the samples of real logs that corpora are varied from do not.
const ENGLISH: &str = include_str!("english.txt");

/// What a needle looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Uuid,
    Hex(usize),
    Digits(usize),
    Address,
    /// An English word of so many letters.
    English(usize),
    /// So many letters that follow one another as in the corpus' own words.
    Alike(usize),
}

/// All that are measured.
pub(super) const CLASSES: [Class; 15] = [
    Class::Uuid,
    Class::Hex(12),
    Class::Hex(16),
    Class::Digits(10),
    Class::Address,
    Class::English(7),
    Class::English(8),
    Class::English(9),
    Class::English(10),
    Class::English(13),
    Class::Alike(7),
    Class::Alike(8),
    Class::Alike(9),
    Class::Alike(10),
    Class::Alike(13),
];

impl Class {
    pub(super) fn name(self) -> String {
        match self {
            Self::Uuid => "UUID".into(),
            Self::Hex(digits) => format!("{digits} hex digits"),
            Self::Digits(digits) => format!("{digits} digits"),
            Self::Address => "IPv4 address".into(),
            Self::English(letters) => format!("English word of {letters} letters"),
            Self::Alike(letters) => format!("{letters} letters in the manner of the corpus"),
        }
    }

    /// The share of blocks that is to be skipped for the middle one of many needles, in percent.
    pub(super) const fn bar_percent(self) -> f64 {
        match self {
            Self::Uuid | Self::Hex(_) => 99.0,
            Self::Digits(_) => 94.0,
            Self::Address | Self::English(..=9) | Self::Alike(..=9) => 75.0,
            Self::English(_) | Self::Alike(_) => 90.0,
        }
    }

    /// Needles of this class, which do not depend on those of others; they end where there are no
    /// more words.
    pub(super) fn needles(self, seed: u64, words: &Words) -> Box<dyn Iterator<Item = String> + '_> {
        let (kind, len) = match self {
            Self::Uuid => (0, 0),
            Self::Hex(len) => (1, len),
            Self::Digits(len) => (2, len),
            Self::Address => (3, 0),
            Self::English(len) => (4, len),
            Self::Alike(len) => (5, len),
        };
        let mut rng = Rng::new(derive(seed, 0x6162_7365_6e74 + (kind << 8) + len as u64));
        match self {
            Self::English(letters) => Box::new(english(&mut rng, letters).into_iter()),
            _ => Box::new(std::iter::from_fn(move || self.draw(&mut rng, words))),
        }
    }

    fn draw(self, rng: &mut Rng, words: &Words) -> Option<String> {
        match self {
            Self::Uuid => Some(uuid(rng)),
            Self::Hex(digits) => Some(hex(rng, digits)),
            Self::Digits(digits) => Some(decimal(rng, digits)),
            Self::Address => Some(address(rng)),
            Self::English(_) => None,
            Self::Alike(letters) => words.draw(rng, letters),
        }
    }
}

/// All of one length, in an order of the seed's: a shuffle of Fisher and Yates.
fn english(rng: &mut Rng, letters: usize) -> Vec<String> {
    let mut all: Vec<_> =
        ENGLISH.lines().filter(|word| word.len() == letters).map(String::from).collect();
    for end in (1..all.len()).rev() {
        all.swap(end, rng.below(end as u64 + 1) as usize);
    }
    all
}

/// A random one, of version 4.
pub(super) fn uuid(rng: &mut Rng) -> String {
    let (high, low) = (rng.next(), rng.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

pub(super) fn random_letters(rng: &mut Rng, letters: usize) -> String {
    (0..letters).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

fn hex(rng: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| char::from(b"0123456789abcdef"[rng.below(16) as usize])).collect()
}

/// Does not begin with a zero, as numbers in logs do not.
fn decimal(rng: &mut Rng, digits: usize) -> String {
    let mut digit = |least: u64| char::from(b'0' + (least + rng.below(10 - least)) as u8);
    (0..digits).map(|index| digit(u64::from(index == 0))).collect()
}

fn address(rng: &mut Rng) -> String {
    let mut octet = |least: u64| least + rng.below(256 - least);
    format!("{}.{}.{}.{}", octet(1), octet(0), octet(0), octet(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SOME: usize = 100;

    fn some(class: Class, seed: u64) -> Vec<String> {
        class.needles(seed, &Words::default()).take(SOME).collect()
    }

    #[test]
    fn needles_have_the_shape_of_their_class() {
        for class in CLASSES {
            for needle in some(class, 3) {
                let all = |len: usize, is: fn(&u8) -> bool| {
                    needle.len() == len && needle.as_bytes().iter().all(is)
                };
                let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                let holds = match class {
                    Class::Uuid => {
                        let parts: Vec<_> = needle.split('-').map(str::len).collect();
                        parts == [8, 4, 4, 4, 12] && needle.as_bytes()[14] == b'4'
                    }
                    Class::Hex(len) => all(len, is_lower_hex),
                    Class::Digits(len) => all(len, u8::is_ascii_digit) && !needle.starts_with('0'),
                    Class::Address => needle.parse::<std::net::Ipv4Addr>().is_ok(),
                    Class::English(len) | Class::Alike(len) => all(len, u8::is_ascii_lowercase),
                };
                assert!(holds, "{needle} as {}", class.name());
            }
        }
    }

    #[test]
    fn a_seed_names_the_needles_of_each_class_and_none_is_there_twice() {
        for class in CLASSES {
            let needles = some(class, 1);
            assert_eq!(needles, some(class, 1));
            let distinct: BTreeSet<_> = needles.iter().collect();
            // There is no corpus here whose manner could be followed.
            let wanted = if matches!(class, Class::Alike(_)) { 0 } else { SOME };
            assert_eq!(distinct.len(), wanted, "{}", class.name());
            assert!(wanted == 0 || needles != some(class, 2));
        }
        let long = &some(Class::Hex(16), 1)[0];
        assert!(!long.starts_with(&some(Class::Hex(12), 1)[0]), "one is part of the other");
    }

    #[test]
    fn every_class_has_its_bar() {
        let bars = CLASSES.map(Class::bar_percent).map(|bar| bar as u64);
        assert_eq!(bars, [99, 99, 99, 94, 75, 75, 75, 75, 90, 90, 75, 75, 75, 90, 90]);
    }
}
