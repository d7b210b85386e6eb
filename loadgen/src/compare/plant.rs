//! Needles whose number is known: lines put into a copy of the corpus, evenly spread.
//!
//! A function of the corpus and the seed: ten lines with one UUID, a thousand with one rare word, 137
//! that hold `timeout` behind `error`, words of the same kinds that are nowhere; and errors as `errors`
//! says. A planted line follows the line that holds its place; every line of the corpus stays as it
//! is but for levels that are turned into `ERROR`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use super::absent::{random_letters, uuid};
use super::errors::{Errors, Survey, Words, with_both};
use crate::failure::{Context, Result};
use crate::rng::{Rng, derive};

const UUID_COPIES: u64 = 10;
const RARE_COPIES: u64 = 1000;
const BOTH_COPIES: u64 = 137;
const READ_BYTES: usize = 1 << 20;

/// Needles by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needles {
    /// In ten lines.
    pub(super) uuid: String,
    /// In a thousand lines.
    pub(super) rare_word: String,
    pub(super) absent_uuid: String,
    /// 13 letters.
    pub(super) absent_long_word: String,
    /// 7 letters.
    pub(super) absent_short_word: String,
}

impl Needles {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(derive(seed, 0x6e65_6564_6c65));
        Self {
            uuid: uuid(&mut rng),
            rare_word: random_letters(&mut rng, 10),
            absent_uuid: uuid(&mut rng),
            absent_long_word: random_letters(&mut rng, 13),
            absent_short_word: random_letters(&mut rng, 7),
        }
    }
}

/// What is put into the copy; ordered only so that the order is a fixed one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Plant {
    Line(String),
    /// `error` and then `timeout`, behind the text of the line before.
    Both(u64),
}

/// Places in a text of so many bytes, in order, each with what is planted there.
fn places(needles: &Needles, text_bytes: u64) -> Vec<(u64, Plant)> {
    let at = |index: u64, count: u64| {
        (u128::from(text_bytes) * u128::from(2 * index + 1) / u128::from(2 * count)) as u64
    };
    let uuids = (0..UUID_COPIES).map(|index| {
        let line = format!("planted request {} took {index} us\n", needles.uuid);
        (at(index, UUID_COPIES), Plant::Line(line))
    });
    let words = (0..RARE_COPIES).map(|index| {
        let line = format!("planted worker {} number {index} started\n", needles.rare_word);
        (at(index, RARE_COPIES), Plant::Line(line))
    });
    let both = (0..BOTH_COPIES).map(|index| (at(index, BOTH_COPIES), Plant::Both(index)));
    let mut all: Vec<_> = uuids.chain(words).chain(both).collect();
    all.sort();
    all
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Planted {
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// Writes the corpus with its needles.
pub(super) fn plant(corpus: &Path, out: &Path, needles: &Needles) -> Result<Planted> {
    let writing = || format!("writing {} from {}", out.display(), corpus.display());
    let opening = || format!("opening {}", corpus.display());
    let text_bytes = std::fs::metadata(corpus).context(opening)?.len();
    let open = || File::open(corpus).map(|file| BufReader::with_capacity(READ_BYTES, file));
    let words = Words::new();
    let mut survey = Survey::default();
    each_line(open().context(opening)?, &mut |line| {
        survey.add(&words, line);
        Ok(())
    })
    .context(writing)?;
    let output = File::create(out).context(writing)?;
    let mut copy = Copy {
        output: BufWriter::with_capacity(READ_BYTES, output),
        errors: Errors::new(&words, survey),
        planted: Planted::default(),
    };
    copy.all(open().context(opening)?, &places(needles, text_bytes)).context(writing)?;
    let file = copy.output.into_inner().context(writing)?;
    file.sync_all().context(writing)?;
    Ok(copy.planted)
}

/// Hands out lines with their newlines, which the last one may lack.
fn each_line(
    mut input: impl BufRead,
    each: &mut dyn FnMut(&mut Vec<u8>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        each(&mut line)?;
        line.clear();
    }
    Ok(())
}

/// A copy that is being written.
struct Copy<'a, W> {
    output: W,
    errors: Errors<'a>,
    planted: Planted,
}

impl<W: Write> Copy<'_, W> {
    fn all(&mut self, input: impl BufRead, places: &[(u64, Plant)]) -> std::io::Result<()> {
        let mut due = places.iter().peekable();
        let mut offset = 0;
        each_line(input, &mut |line| {
            offset += line.len() as u64;
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            self.errors.turn(line);
            self.write(line)?;
            if let Some(added) = self.errors.due(line) {
                self.write(&added)?;
            }
            while let Some((_, plant)) = due.next_if(|(place, _)| *place < offset) {
                self.plant(plant, line)?;
            }
            Ok(())
        })
    }

    fn plant(&mut self, plant: &Plant, before: &[u8]) -> std::io::Result<()> {
        match plant {
            Plant::Line(line) => self.write(line.as_bytes()),
            Plant::Both(number) => self.write(&with_both(before, *number)),
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.planted.bytes += line.len() as u64;
        self.planted.lines += 1;
        self.output.write_all(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(corpus: &str, needles: &Needles) -> String {
        let words = Words::new();
        let mut survey = Survey::default();
        for line in corpus.lines() {
            survey.add(&words, line.as_bytes());
        }
        let errors = Errors::new(&words, survey);
        let mut copy = Copy { output: Vec::new(), errors, planted: Planted::default() };
        copy.all(corpus.as_bytes(), &places(needles, corpus.len() as u64)).unwrap();
        let out = String::from_utf8(copy.output).unwrap();
        assert_eq!(copy.planted.bytes, out.len() as u64);
        assert_eq!(copy.planted.lines, out.lines().count() as u64);
        out
    }

    #[test]
    fn every_needle_is_there_and_every_line_stays() {
        let needles = Needles::new(7);
        assert_eq!(needles, Needles::new(7));
        assert_eq!(needles.absent_uuid.len(), 36);
        let lines: Vec<_> = (0..50_000).map(|n| format!("{n} of many lines\n")).collect();
        let corpus = lines.concat();
        let out = planted(&corpus, &needles);
        let count = |needle: &str| out.lines().filter(|line| line.contains(needle)).count();
        assert_eq!((count(&needles.uuid), count(&needles.rare_word)), (10, 1000));
        assert_eq!((count(&needles.absent_uuid), count(&needles.absent_long_word)), (0, 0));
        let words = Words::new();
        let both = out.lines().filter(|line| words.has_both(line.as_bytes()));
        assert_eq!(both.collect::<std::collections::BTreeSet<_>>().len(), 137);
        let is_added =
            |line: &str| ["planted", "error", "timeout"].iter().any(|word| line.contains(word));
        let kept: String = out.split_inclusive('\n').filter(|line| !is_added(line)).collect();
        assert_eq!(kept, corpus);
    }

    #[test]
    fn a_short_corpus_without_a_last_newline_holds_them_too() {
        let out = planted("only line", &Needles::new(1));
        assert!(out.starts_with("only line\nplanted"), "{out}");
        assert_eq!(out.lines().count(), 1148);
        assert!(out.ends_with('\n'));
        assert_eq!(planted("", &Needles::new(1)), "");
    }
}
