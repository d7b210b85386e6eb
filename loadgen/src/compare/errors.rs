//! Errors as a busy system has them, so that a search for them has to read almost every block.
//!
//! Three things are made sure of while a corpus is copied: of all lines a fixed share holds `ERROR`,
//! evenly spread (other levels are turned into it); neither `error` nor `timeout` is missing from a
//! longer stretch of text (lines that hold it are added); a known number of lines holds one behind the
//! other. What is added is made of the line before it, so that no two are alike. Pure.

use memchr::memmem::Finder;

/// Of so many lines …
const LINES: u64 = 15_000_000;
/// … so many hold `ERROR`.
const ERROR_LINES: u64 = 440_161;
/// Levels that may be turned into `ERROR`.
const LEVELS: [&[u8]; 3] = [b"INFO", b"WARN", b"DEBUG"];
const ERROR: &[u8] = b"ERROR";
/// Text that may do without one of the words: an eighth of a block as the store has them, since
/// several connections share a block.
const STRETCH_BYTES: u64 = 64 << 10;
/// What is added takes over no more of the line before it.
const LINE_BYTES_MAX: usize = 512;
/// How an added line ends that holds both words; `#` is its number.
const BOTH: [&str; 5] = [
    "error #: timeout",
    "error: upstream # answered with timeout",
    "failed with error code #, reason timeout",
    "error in request #, retrying behind the timeout",
    "error (attempt #): connection timeout, giving up",
];

/// Looks for the words that matter here.
#[derive(Debug)]
pub(super) struct Words {
    upper_error: Finder<'static>,
    levels: [Finder<'static>; LEVELS.len()],
    error: Finder<'static>,
    timeout: Finder<'static>,
}

impl Words {
    pub(super) fn new() -> Self {
        Self {
            upper_error: Finder::new(ERROR),
            levels: LEVELS.map(Finder::new),
            error: Finder::new("error"),
            timeout: Finder::new("timeout"),
        }
    }

    /// Where a line has a level that may be turned: the first whole word of one.
    fn level(&self, line: &[u8]) -> Option<std::ops::Range<usize>> {
        if self.upper_error.find(line).is_some() {
            return None;
        }
        let is_edge = |at: Option<&u8>| at.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        self.levels.iter().zip(LEVELS).find_map(|(finder, level)| {
            let start = finder.find(line)?;
            let end = start + level.len();
            let before = start.checked_sub(1).and_then(|at| line.get(at));
            (is_edge(before) && is_edge(line.get(end))).then_some(start..end)
        })
    }

    /// Whether `timeout` stands behind `error`.
    pub(super) fn has_both(&self, line: &[u8]) -> bool {
        self.error.find(line).is_some_and(|at| self.timeout.find(&line[at..]).is_some())
    }
}

/// Lines of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) lines: u64,
    /// With `ERROR`.
    pub(super) errors: u64,
    /// With a level that may be turned into it.
    pub(super) turnable: u64,
}

impl Survey {
    pub(super) fn add(&mut self, words: &Words, line: &[u8]) {
        self.lines += 1;
        self.errors += u64::from(words.upper_error.find(line).is_some());
        self.turnable += u64::from(words.level(line).is_some());
    }

    /// Lines that are turned; all that can be where there are too few.
    fn turned(&self) -> u64 {
        let wanted = u128::from(self.lines) * u128::from(ERROR_LINES) / u128::from(LINES);
        (wanted as u64).saturating_sub(self.errors).min(self.turnable)
    }
}

/// What has been passed of a corpus that is copied.
#[derive(Debug)]
pub(super) struct Errors<'a> {
    words: &'a Words,
    survey: Survey,
    turnable_seen: u64,
    /// Bytes since a line with the word.
    since_error: u64,
    since_timeout: u64,
    added: u64,
}

impl<'a> Errors<'a> {
    pub(super) fn new(words: &'a Words, survey: Survey) -> Self {
        let turnable_seen = 0;
        Self { words, survey, turnable_seen, since_error: 0, since_timeout: 0, added: 0 }
    }

    /// Turns the level of every so manieth line that has one.
    pub(super) fn turn(&mut self, line: &mut Vec<u8>) {
        let Some(level) = self.words.level(line) else { return };
        let due = |seen: u64| {
            u128::from(seen) * u128::from(self.survey.turned())
                / u128::from(self.survey.turnable.max(1))
        };
        if due(self.turnable_seen + 1) > due(self.turnable_seen) {
            line.splice(level, ERROR.iter().copied());
        }
        self.turnable_seen += 1;
    }

    /// A line, with its newline, that is due behind this one because a word has not been there for
    /// long.
    pub(super) fn due(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let len = line.len() as u64;
        let since = |finder: &Finder, so_far: u64| {
            if finder.find(line).is_some() { 0 } else { so_far + len }
        };
        self.since_error = since(&self.words.error, self.since_error);
        self.since_timeout = since(&self.words.timeout, self.since_timeout);
        let is_timeout = self.since_timeout > STRETCH_BYTES;
        if !is_timeout && self.since_error <= STRETCH_BYTES || self.words.has_both(line) {
            return None;
        }
        self.added += 1;
        let (start, number) = (start_of(line), self.added);
        // `timeout` before and `error` behind what there is: never the other way round.
        Some(if is_timeout {
            self.since_timeout = 0;
            [format!("timeout {number} ms: ").as_bytes(), start, b"\n"].concat()
        } else {
            self.since_error = 0;
            [start, format!(" (error {number})\n").as_bytes()].concat()
        })
    }
}

/// A line, with its newline, that holds both words, `error` first.
pub(super) fn with_both(line: &[u8], number: u64) -> Vec<u8> {
    let end = BOTH[number as usize % BOTH.len()].replace('#', &number.to_string());
    [start_of(line), b" ", end.as_bytes(), b"\n"].concat()
}

/// A line without its newline; of a long one the start.
fn start_of(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    &line[..line.len().min(LINE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(words: &Words, lines: &[String]) -> Survey {
        let mut survey = Survey::default();
        for line in lines {
            survey.add(words, line.as_bytes());
        }
        survey
    }

    fn turn_all(words: &Words, lines: &[String]) -> Vec<String> {
        let mut errors = Errors::new(words, survey(words, lines));
        let turn = |line: &String| {
            let mut line = line.clone().into_bytes();
            errors.turn(&mut line);
            String::from_utf8(line).unwrap()
        };
        lines.iter().map(turn).collect()
    }

    #[test]
    fn the_share_of_lines_with_error_is_reached_evenly() {
        let words = Words::new();
        let lines: Vec<_> = (0..20_000).map(|n| format!("{n} INFO x INFORMATION\n")).collect();
        let turned = turn_all(&words, &lines);
        let wanted = 20_000 * ERROR_LINES as usize / LINES as usize;
        for part in [&turned[..], &turned[..10_000], &turned[10_000..]] {
            let count = part.iter().filter(|line| line.contains(" ERROR x INFORMATION")).count();
            let share = wanted * part.len() / turned.len();
            assert!(count.abs_diff(share) <= 1, "{count} of {}", part.len());
        }
    }

    #[test]
    fn lines_with_enough_errors_or_without_levels_stay() {
        let words = Words::new();
        let enough: Vec<_> =
            (0..100).map(|n| format!("{} {n}\n", ["INFO", "ERROR"][n % 2])).collect();
        assert_eq!(turn_all(&words, &enough), enough);
        let without: Vec<_> = (0..100).map(|n| format!("INFORMATION xWARN {n}\n")).collect();
        assert_eq!(survey(&words, &without).turnable, 0);
        assert_eq!(turn_all(&words, &without), without);
    }

    #[test]
    fn neither_word_is_missing_for_long_and_what_is_added_has_not_both() {
        let words = Words::new();
        let mut errors = Errors::new(&words, Survey::default());
        let mut since = [0; 2];
        for n in 0..20_000 {
            let line = ["an error and a line", "error before timeout", "x"][n % 7 % 3];
            let line = if n < 5000 { format!("{line} {n}\n") } else { format!("plain {n}\n") };
            let added = errors.due(line.as_bytes()).unwrap_or_default();
            assert!(!words.has_both(&added), "{}", String::from_utf8_lossy(&added));
            for (since, word) in since.iter_mut().zip(["error", "timeout"]) {
                let there = line.contains(word) || String::from_utf8_lossy(&added).contains(word);
                *since = if there { 0 } else { *since + line.len() as u64 };
                assert!(*since <= STRETCH_BYTES + 100, "{word} is missing for {since} bytes");
            }
        }
    }

    #[test]
    fn a_line_with_both_is_made_of_another_and_keeps_a_bound() {
        let words = Words::new();
        let lines: Vec<_> = (0..10).map(|n| with_both(b"worker 7 stopped\n", n)).collect();
        for line in &lines {
            assert!(line.starts_with(b"worker 7 stopped ") && words.has_both(line));
            assert_eq!(memchr::memchr_iter(b'\n', line).count(), 1);
        }
        assert_eq!(lines.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
        assert!(with_both(&vec![b'x'; 100_000], 1).len() < 2 * LINE_BYTES_MAX);
    }
}
