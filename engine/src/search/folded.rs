//! Looks for strings without regard to the case of ASCII letters: the text is folded piece by piece
//! into a small buffer, which is searched as any text. With a piece that stays in the processor's
//! first cache this is faster than automata that know both cases of each letter.
//!
//! Invariants: no record that has a string is passed over; where a string's `k` or `s` also
//! stands for U+212A or U+017F, the places of these are candidates too.
//!
//! Not here: matching. A candidate is certain only as far as [`Candidate::is_literal`] tells.

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memmem;

use super::required::{FoldedLiteral, Required, fold};

/// Text that is folded at a time, bytes: with its copy it fits the first cache.
const PIECE_BYTES_MAX: usize = 8 << 10;

/// The first piece: where hits are dense little more is folded than lies between them.
const PIECE_BYTES_MIN: usize = 256;

/// Most strings that are looked for at once: more than the vectorised search takes.
const STRINGS_MAX: usize = 64;

/// The letters beyond ASCII that are `k` and `s` where case is ignored.
const RELATIVES: [&str; 2] = ["\u{212A}", "\u{17F}"];

/// Longest piece that must not be cut, if no string is longer.
const RELATIVE_BYTES_MAX: usize = 3;

/// Strings to look for, one of which every match contains.
pub(super) struct FoldedFinder {
    strings: Strings,
    longest: usize,
    /// If relatives are candidates: how they are found.
    relatives: Option<[memmem::Finder<'static>; 2]>,
}

enum Strings {
    One(memmem::Finder<'static>),
    Vectorised(packed::Searcher),
    Automaton(AhoCorasick),
}

/// Room for a folded piece; each scan thread has its own.
#[derive(Default)]
pub(super) struct Fold(Vec<u8>);

/// A place where a match could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) at: usize,
    /// Whether one of the strings begins there, rather than a letter that could stand for one.
    pub(super) is_literal: bool,
}

impl FoldedFinder {
    /// What it holds on the heap, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.strings {
            Strings::One(finder) => finder.needle().len(),
            Strings::Vectorised(searcher) => searcher.memory_usage(),
            Strings::Automaton(automaton) => automaton.memory_usage(),
        }
    }

    /// Of the strings that narrow a search best; `None` where there are none, or too many.
    pub(super) fn of(required: &Required) -> Option<Self> {
        let leads = leads(required)?;
        let longest = leads.iter().map(|lead| lead.bytes.len()).max()?;
        let relatives = leads
            .iter()
            .any(|lead| lead.folds_k_or_s)
            .then(|| RELATIVES.map(|relative| memmem::Finder::new(relative).into_owned()));
        let bytes = leads.iter().map(|lead| lead.bytes.as_slice());
        let vectorised = || {
            let mut config = packed::Config::new();
            config
                .match_kind(packed::MatchKind::LeftmostFirst)
                .builder()
                .extend(bytes.clone())
                .build()
        };
        let strings = if let [lead] = leads[..] {
            Strings::One(memmem::Finder::new(&lead.bytes).into_owned())
        } else if let Some(searcher) = vectorised() {
            Strings::Vectorised(searcher)
        } else {
            let mut builder = AhoCorasick::builder();
            Strings::Automaton(builder.match_kind(MatchKind::LeftmostFirst).build(bytes).ok()?)
        };
        Some(Self { strings, longest: longest.max(RELATIVE_BYTES_MAX), relatives })
    }

    /// How long the shortest string is, bytes.
    pub(super) fn shortest(&self) -> usize {
        match &self.strings {
            Strings::One(finder) => finder.needle().len(),
            Strings::Vectorised(searcher) => searcher.minimum_len(),
            Strings::Automaton(automaton) => automaton.min_pattern_len(),
        }
    }

    /// Whether there is but one string.
    pub(super) fn is_single(&self) -> bool {
        matches!(self.strings, Strings::One(_))
    }

    /// The first candidate at or behind `from`.
    pub(super) fn find(&self, text: &[u8], from: usize, room: &mut Fold) -> Option<Candidate> {
        let (mut start, mut piece_bytes) = (from, PIECE_BYTES_MIN);
        loop {
            let end = (start + piece_bytes + self.longest).min(text.len());
            if let Some(found) = self.find_in(&text[start..end], &mut room.0) {
                return Some(Candidate { at: start + found.at, ..found });
            }
            if end == text.len() {
                return None;
            }
            // What begins in the piece and does not end there is in the next one.
            start = end + 1 - self.longest;
            piece_bytes = (2 * piece_bytes).min(PIECE_BYTES_MAX);
        }
    }

    fn find_in(&self, piece: &[u8], folded: &mut Vec<u8>) -> Option<Candidate> {
        folded.clear();
        folded.extend(piece.iter().copied().map(fold));
        let literal = match &self.strings {
            Strings::One(finder) => finder.find(folded),
            Strings::Vectorised(searcher) => searcher.find(&*folded).map(|found| found.start()),
            Strings::Automaton(automaton) => automaton.find(&*folded).map(|found| found.start()),
        };
        let relative = match &self.relatives {
            Some(finders) if !piece.is_ascii() => {
                finders.iter().filter_map(|finder| finder.find(piece)).min()
            }
            _ => None,
        };
        match (literal, relative) {
            (Some(at), relative) if relative.is_none_or(|relative| at < relative) => {
                Some(Candidate { at, is_literal: true })
            }
            (_, relative) => relative.map(|at| Candidate { at, is_literal: false }),
        }
    }
}

/// The strings of the most telling part: as few as can be, and then as long.
fn leads(required: &Required) -> Option<Vec<&FoldedLiteral>> {
    let leads = match required {
        Required::Anything | Required::Nothing => return None,
        Required::Literal(literal) => vec![literal],
        Required::All(parts) => parts.iter().filter_map(leads).min_by_key(|strings| {
            let shortest = strings.iter().map(|string| string.bytes.len()).min();
            (strings.len(), std::cmp::Reverse(shortest))
        })?,
        Required::Any(parts) => {
            let parts: Option<Vec<_>> = parts.iter().map(leads).collect();
            parts?.concat()
        }
    };
    (leads.len() <= STRINGS_MAX).then_some(leads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finder(strings: &[&str], folds_k_or_s: bool) -> FoldedFinder {
        let literal =
            |s: &&str| Required::from(FoldedLiteral { bytes: s.as_bytes().to_vec(), folds_k_or_s });
        FoldedFinder::of(&Required::Any(strings.iter().map(literal).collect())).unwrap()
    }

    proptest! {
        #[test]
        fn every_candidate_is_found_wherever_pieces_are_cut(
            several: bool,
            relatives: bool,
            filler in "[aé☃ \n]{0,9}",
            gaps in prop::collection::vec(
                (0usize..9000, prop::sample::select(vec!["TaskSet", "tasKseT", "worker", "\u{212A}", "ſ"])),
                0..6,
            ),
        ) {
            let strings = if several { &["taskset", "worker"][..] } else { &["taskset"] };
            let mut text = String::new();
            for (gap, word) in &gaps {
                let some = if filler.is_empty() { "x" } else { &filler };
                text.extend(some.chars().cycle().take(*gap));
                text.push_str(word);
            }
            let low = text.to_ascii_lowercase();
            let expected = |from: usize| {
                let literal = strings.iter().filter_map(|s| low[from..].find(s)).min();
                let relative = RELATIVES.iter().filter_map(|s| text[from..].find(s)).min();
                let relative = relative.filter(|_| relatives);
                let at = [literal, relative].into_iter().flatten().min()?;
                Some(Candidate { at: from + at, is_literal: literal == Some(at) })
            };
            let (finder, mut room, mut from) = (finder(strings, relatives), Fold::default(), 0);
            loop {
                let found = finder.find(text.as_bytes(), from, &mut room);
                prop_assert_eq!(found, expected(from));
                let Some(found) = found else { break };
                from = found.at + text[found.at..].chars().next().unwrap().len_utf8();
            }
        }
    }

    #[test]
    fn the_most_telling_strings_are_looked_for() {
        let leads_of = |pattern: &str| {
            let required = Required::of_hir(&regex_syntax::parse(pattern).unwrap());
            let leads = leads(&required)?;
            let text = |lead: &&FoldedLiteral| String::from_utf8(lead.bytes.clone()).unwrap();
            Some(leads.iter().map(text).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(leads_of("(?i)error.*timeout").unwrap(), "timeout");
        assert_eq!(leads_of("(?i)(apple|banana)[^x].*cherry").unwrap(), "cherry");
        assert_eq!(leads_of("(?i)(apple.*tomato|banana)").unwrap(), "tomato banana");
        assert_eq!(leads_of("(?i)(apple|pie)"), None);
    }
}
