//! Needles whose number is known: lines put into a copy of the corpus, evenly spread.
//!
//! A function of the seed alone: ten lines with one UUID, a thousand with one rare word, and words
//! of the same kinds that are nowhere. A planted line follows the first line end at or behind its
//! place, so every line of the corpus stays as it is.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use memchr::memchr;

use super::absent::{random_letters, uuid};
use crate::failure::{Context, Result};
use crate::rng::{Rng, derive};

const UUID_COPIES: u64 = 10;
const RARE_COPIES: u64 = 1000;
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

/// Places in a text of so many bytes, in order, each with its line.
fn places(needles: &Needles, text_bytes: u64) -> Vec<(u64, String)> {
    let at = |index: u64, count: u64| text_bytes * (2 * index + 1) / (2 * count);
    let uuids = (0..UUID_COPIES).map(|index| {
        let line = format!("planted request {} took {index} us\n", needles.uuid);
        (at(index, UUID_COPIES), line)
    });
    let words = (0..RARE_COPIES).map(|index| {
        let line = format!("planted worker {} number {index} started\n", needles.rare_word);
        (at(index, RARE_COPIES), line)
    });
    let mut all: Vec<_> = uuids.chain(words).collect();
    all.sort();
    all
}

/// Writes the corpus with its needles; returns its bytes.
pub(super) fn plant(corpus: &Path, out: &Path, needles: &Needles) -> Result<u64> {
    let writing = || format!("writing {} from {}", out.display(), corpus.display());
    let input = File::open(corpus).context(|| format!("opening {}", corpus.display()))?;
    let text_bytes = input.metadata().context(writing)?.len();
    let output = File::create(out).context(writing)?;
    let mut writer = BufWriter::with_capacity(READ_BYTES, output);
    copy(BufReader::new(input), &mut writer, &places(needles, text_bytes)).context(writing)?;
    let file = writer.into_inner().context(writing)?;
    file.sync_all().context(writing)?;
    Ok(file.metadata().context(writing)?.len())
}

fn copy(
    mut input: impl Read,
    output: &mut impl Write,
    places: &[(u64, String)],
) -> std::io::Result<()> {
    let mut due = places.iter().peekable();
    let mut buffer = vec![0; READ_BYTES];
    let (mut offset, mut at_line_start) = (0, true);
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let mut rest = &buffer[..count];
        while let Some((place, line)) = due.peek() {
            let skip = usize::try_from(place.saturating_sub(offset)).unwrap_or(usize::MAX);
            let Some(newline) = rest.get(skip..).and_then(|behind| memchr(b'\n', behind)) else {
                break;
            };
            let (before, behind) = rest.split_at(skip + newline + 1);
            output.write_all(before)?;
            output.write_all(line.as_bytes())?;
            offset += before.len() as u64;
            rest = behind;
            at_line_start = true;
            due.next();
        }
        output.write_all(rest)?;
        offset += rest.len() as u64;
        at_line_start = rest.last().map_or(at_line_start, |byte| *byte == b'\n');
    }
    if !at_line_start {
        output.write_all(b"\n")?;
    }
    due.try_for_each(|(_, line)| output.write_all(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_needle_is_there_and_every_line_stays() {
        let needles = Needles::new(7);
        assert_eq!(needles, Needles::new(7));
        assert_eq!(needles.absent_uuid.len(), 36);
        let corpus: String =
            (0..50_000).flat_map(|n| [n.to_string(), " of many lines\n".into()]).collect();
        let mut out = Vec::new();
        copy(corpus.as_bytes(), &mut out, &places(&needles, corpus.len() as u64)).unwrap();
        let out = String::from_utf8(out).unwrap();
        let count = |needle: &str| out.lines().filter(|line| line.contains(needle)).count();
        assert_eq!((count(&needles.uuid), count(&needles.rare_word)), (10, 1000));
        assert_eq!((count(&needles.absent_uuid), count(&needles.absent_long_word)), (0, 0));
        let kept: String =
            out.split_inclusive('\n').filter(|line| !line.starts_with("planted")).collect();
        assert_eq!(kept, corpus);
    }

    #[test]
    fn a_short_corpus_without_a_last_newline_holds_them_too() {
        let needles = Needles::new(1);
        let mut out = Vec::new();
        copy(&b"only line"[..], &mut out, &places(&needles, 9)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("only line\nplanted"), "{out}");
        assert_eq!(out.lines().count(), 1011);
    }
}
