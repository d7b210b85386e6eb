//! Words that look like those of a corpus and, mostly, are not in it.
//!
//! Letters at random are easy to pass over: hardly any of their grams occurs anywhere. Here each
//! letter follows the three before it as in a word of the corpus, so that any four in a row occur.
//! They are harder than real words (docs/decisions/0006-signatures.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::failure::{Context, Result};
use crate::rng::Rng;

/// Letters that decide which one follows.
const ORDER: usize = 3;
/// Where a word has none yet.
const BEFORE: u8 = b'^';
const WORD_LETTERS_MIN: usize = 4;
/// Longer runs of letters are encoded bytes rather than words.
const WORD_LETTERS_MAX: usize = 20;
/// Places of the corpus that are read, evenly spread, and the bytes of each.
const SAMPLES: u64 = 256;
const SAMPLE_BYTES: usize = 64 << 10;
/// Walks that may end early before a word of the wanted length is given up.
const WALKS_MAX: usize = 10_000;

/// Which letters follow which, over distinct words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    followers: BTreeMap<[u8; ORDER], Vec<u8>>,
}

impl Words {
    /// Reads samples of a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).context(reading)?;
        let bytes = file.metadata().context(reading)?.len();
        let mut words = BTreeSet::new();
        let mut buffer = vec![0; SAMPLE_BYTES];
        for index in 0..SAMPLES {
            let offset = u128::from(bytes) * u128::from(index) / u128::from(SAMPLES);
            let read = file.read_at(&mut buffer, offset as u64).context(reading)?;
            collect(&buffer[..read], &mut words);
        }
        Ok(Self::of(&words))
    }

    fn of(words: &BTreeSet<Vec<u8>>) -> Self {
        let mut followers = BTreeMap::<_, Vec<u8>>::new();
        for word in words {
            let mut before = [BEFORE; ORDER];
            for &letter in word {
                followers.entry(before).or_default().push(letter);
                before = shifted(before, letter);
            }
        }
        Self { followers }
    }

    /// A word of so many lower-case letters; `None` if the corpus' words lead to none so long.
    pub(super) fn draw(&self, rng: &mut Rng, letters: usize) -> Option<String> {
        (0..WALKS_MAX).find_map(|_| {
            let (mut word, mut before) = (String::new(), [BEFORE; ORDER]);
            while word.len() < letters {
                let next = self.followers.get(&before)?;
                let letter = next[rng.below(next.len() as u64) as usize];
                word.push(char::from(letter));
                before = shifted(before, letter);
            }
            Some(word)
        })
    }
}

fn shifted(before: [u8; ORDER], letter: u8) -> [u8; ORDER] {
    [before[1], before[2], letter]
}

/// Adds runs of letters that stand alone, without regard to case: what touches a digit is an id.
/// The first and the last may be cut, and are left out.
fn collect(text: &[u8], words: &mut BTreeSet<Vec<u8>>) {
    let mut all = text.split(|byte| !byte.is_ascii_alphanumeric());
    all.next();
    all.next_back();
    for word in all {
        let is_word = (WORD_LETTERS_MIN..=WORD_LETTERS_MAX).contains(&word.len())
            && word.iter().all(u8::is_ascii_alphabetic);
        if is_word {
            words.insert(word.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        let mut words = BTreeSet::new();
        collect(text.as_bytes(), &mut words);
        Words::of(&words)
    }

    #[test]
    fn any_four_letters_in_a_row_are_the_corpus_own() {
        let text = "cut restart standing [daemon_state] Connection 12ab34 started outstanding cut";
        let words = words(text);
        let mut rng = Rng::new(1);
        let lower = text.to_ascii_lowercase();
        let mut drawn = BTreeSet::new();
        for letters in [7, 8, 9, 10] {
            for _ in 0..50 {
                let word = words.draw(&mut rng, letters).unwrap();
                assert_eq!(word.len(), letters);
                for four in word.as_bytes().windows(4) {
                    let four = std::str::from_utf8(four).unwrap();
                    assert!(lower.contains(four), "{four} of {word}");
                }
                drawn.insert(word);
            }
        }
        assert!(drawn.iter().any(|word| !lower.contains(word)), "{drawn:?}");
    }

    #[test]
    fn a_corpus_without_words_leads_to_none() {
        assert_eq!(words("1 22 333 a b").draw(&mut Rng::new(1), 7), None);
        assert_eq!(words("x short ones only x").draw(&mut Rng::new(1), 13), None);
    }
}
