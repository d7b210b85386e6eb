//! Finds matching records in a buffer of many: searches the buffer as one haystack and looks for
//! the record's edges only around a match.
//!
//! Invariants: `text` is whole records, each with its LF; no match begins behind the last LF, so
//! that an empty one cannot count a record that is not there; what is
//! found equals what matching each record by itself would find (a property test below).

use std::ops::Range;

use memchr::{memchr, memrchr};
use regex_automata::Input;
use regex_automata::meta;

use super::expression::{Compiled, Expression};
use super::folded::Fold;

/// One thread's use of an expression.
pub(crate) struct Matcher<'e> {
    expression: &'e Expression,
    cache: Option<meta::Cache>,
    fold: Fold,
}

impl<'e> Matcher<'e> {
    pub(crate) fn new(expression: &'e Expression) -> Self {
        let cache = match expression.compiled() {
            Compiled::All | Compiled::Literal(_) => None,
            Compiled::Block(regex)
            | Compiled::Required(regex, _)
            | Compiled::Record { regex, .. } => Some(expression.caches().take(regex)),
            Compiled::Folded(folded) => Some(expression.caches().take(&folded.regex)),
        };
        Self { expression, cache, fold: Fold::default() }
    }

    /// Whether this record, its LF included, matches.
    pub(super) fn matches(&mut self, record: &[u8]) -> bool {
        self.next(record, 0).is_some()
    }

    /// The first matching record that starts at or behind `from`, LF included; `from` is the start
    /// of a record or the end of the text.
    pub(crate) fn next(&mut self, text: &[u8], from: usize) -> Option<Range<usize>> {
        if from >= text.len() {
            return None;
        }
        match (self.expression.compiled(), &mut self.cache) {
            (Compiled::All, _) => Some(record_around(text, from, from)),
            (Compiled::Literal(finder), _) => {
                let at = from + finder.find(&text[from..])?;
                Some(record_around(text, from, at))
            }
            (Compiled::Block(regex), Some(cache)) => {
                let input = Input::new(text).range(from..text.len() - 1).earliest(true);
                let end = regex.search_half_with(cache, &input)?.offset();
                Some(record_around(text, from, end))
            }
            (Compiled::Required(regex, finder), Some(cache)) => {
                let mut start = from;
                while let Some(at) = finder.find(&text[start..]) {
                    let record = record_around(text, start, start + at);
                    let inside = Input::new(text).range(record.start..record.end - 1);
                    if regex.search_half_with(cache, &inside.earliest(true)).is_some() {
                        return Some(record);
                    }
                    start = record.end;
                }
                None
            }
            (Compiled::Folded(folded), Some(cache)) => {
                let mut start = from;
                while let Some(found) = folded.finder.find(text, start, &mut self.fold) {
                    let record = record_around(text, start, found.at);
                    let inside = Input::new(text).range(record.start..record.end - 1);
                    if folded.suffices && found.is_literal
                        || folded.regex.search_half_with(cache, &inside.earliest(true)).is_some()
                    {
                        return Some(record);
                    }
                    start = record.end;
                }
                None
            }
            (Compiled::Record { regex, shows_lf }, Some(cache)) => {
                let mut start = from;
                while start < text.len() {
                    let record = record_around(text, start, start);
                    let line = &text[record.clone()];
                    let end = line.len() - 1;
                    let shown = if *shows_lf { line } else { &line[..end] };
                    let alone = Input::new(shown).range(..end).earliest(true);
                    if regex.search_half_with(cache, &alone).is_some() {
                        return Some(record);
                    }
                    start = record.end;
                }
                None
            }
            (_, None) => None,
        }
    }
}

impl Drop for Matcher<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.take() {
            self.expression.caches().give(cache);
        }
    }
}

/// The record around `at`, which starts no earlier than `from`.
pub(super) fn record_around(text: &[u8], from: usize, at: usize) -> Range<usize> {
    let start = memrchr(b'\n', &text[from..at]).map_or(from, |lf| from + lf + 1);
    let end = memchr(b'\n', &text[at..]).map_or(text.len(), |lf| at + lf + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::random_expressions::{Dice, nodes};
    use proptest::prelude::*;

    fn found(expression: &Expression, text: &[u8]) -> Vec<Range<usize>> {
        let mut matcher = Matcher::new(expression);
        let (mut from, mut all) = (0, Vec::new());
        while let Some(record) = matcher.next(text, from) {
            from = record.end;
            all.push(record);
        }
        all
    }

    /// Each record by itself, with the `regex` crate's engine, its LF shown where there is no
    /// anchor of the text.
    fn model(pattern: &str, case_insensitive: bool, text: &[u8]) -> Option<Vec<Range<usize>>> {
        use regex_automata::util::syntax;
        let syntax =
            syntax::Config::new().utf8(false).multi_line(true).case_insensitive(case_insensitive);
        let hir = syntax::parse_with(pattern, &syntax).ok()?;
        let shows_lf = !hir.properties().look_set().contains_anchor_haystack();
        let config = meta::Config::new().utf8_empty(false);
        let regex = meta::Builder::new().configure(config).build_from_hir(&hir).ok()?;
        let mut start = 0;
        let mut all = Vec::new();
        for record in text.split_inclusive(|&b| b == b'\n') {
            let end = record.len() - 1;
            let shown = if shows_lf { record } else { &record[..end] };
            if regex.is_match(Input::new(shown).range(..end)) {
                all.push(start..start + record.len());
            }
            start += record.len();
        }
        Some(all)
    }

    fn patterns() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            4 => "[abkAB ]{1,3}",
            2 => Just("ab k".to_owned()),
            1 => Just("é".to_owned()),
            1 => Just("s".to_owned()),
            6 => prop::sample::select(vec![
                ".", "(?s).", "(?s-u:.)", r"\s", r"\S", r"\w", r"\W", r"\d", r"\D", "[^a]",
                "[^\\n]", "[a-c]", r"\pL", r"\PL", "[\\x00-\\x20]", r"(?-u:\xFF)", r"\r", r"\x00",
                "[[:^alpha:]]", "(?-u:[^a])", "[\\n\\ra]",
            ]).prop_map(str::to_owned),
            6 => prop::sample::select(vec![
                "^", "$", r"\A", r"\z", "(?m)^", "(?m)$", "(?m:$)", r"\b", r"\B", r"(?-u:\b)",
                r"(?-u:\B)", "(?mR)^", "(?mR)$", "(?R).", "(?i)", r"\b{start}", r"\b{end}",
                r"\b{start-half}", r"\b{end-half}", "(?-m)^", "(?-m)$", "", "(?i:K)",
            ]).prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                4 => prop::collection::vec(inner.clone(), 1..4).prop_map(|v| v.concat()),
                2 => prop::collection::vec(inner.clone(), 2..4)
                    .prop_map(|v| format!("(?:{})", v.join("|"))),
                2 => (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "{0,2}", "*?", "+?"]))
                    .prop_map(|(sub, op)| format!("(?:{sub}){op}")),
            ]
        })
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            b"a".to_vec(),
            b"b".to_vec(),
            b"K".to_vec(),
            b"ab k".to_vec(),
            b" ".to_vec(),
            b"\r".to_vec(),
            b"\0".to_vec(),
            b"\xFF".to_vec(),
            b"\xE2\x98".to_vec(),
            b"\x80".to_vec(),
            "é".as_bytes().to_vec(),
            "☃".as_bytes().to_vec(),
            "\u{212A}".as_bytes().to_vec(),
            "ſ".as_bytes().to_vec(),
            b"\n".to_vec(),
            b"\n".to_vec(),
            b"\r\n".to_vec(),
            b"7".to_vec(),
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| {
            let mut text = pieces.concat();
            text.push(b'\n');
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn searching_a_block_finds_what_searching_each_record_finds(
            pattern in patterns(),
            case_insensitive: bool,
            texts in prop::collection::vec(texts(), 4),
        ) {
            let compiled = Expression::new(&pattern, true, case_insensitive);
            for text in texts {
                let expected = model(&pattern, case_insensitive, &text);
                match (&compiled, expected) {
                    (Ok(expression), Some(expected)) => {
                        prop_assert_eq!(found(expression, &text), expected);
                    }
                    (Err(_), None) => {}
                    (got, expected) => prop_assert!(false, "{got:?} but {expected:?}"),
                }
            }
        }

        #[test]
        fn searching_a_block_finds_words_however_they_are_looked_for(
            node in nodes(), case_insensitive: bool, seed: u64,
        ) {
            let mut dice = Dice::of(seed);
            let mut text = Vec::new();
            for _ in 0..30 {
                text.extend(node.record(case_insensitive, &mut dice));
                text.push(b'\n');
            }
            let pattern = node.pattern();
            if let Ok(expression) = Expression::new(&pattern, true, case_insensitive) {
                let expected = model(&pattern, case_insensitive, &text);
                prop_assert_eq!(Some(found(&expression, &text)), expected, "{}", pattern);
            }
        }

        #[test]
        fn a_literal_is_found_as_its_escaped_regex_is(
            needle in "[ab.é$\\[ ]{1,3}", case_insensitive: bool, text in texts(),
        ) {
            let expression = Expression::new(&needle, false, case_insensitive).unwrap();
            let expected = model(&regex::escape(&needle), case_insensitive, &text);
            prop_assert_eq!(Some(found(&expression, &text)), expected);
        }
    }

    #[test]
    fn a_regex_is_led_by_the_longest_literal_it_requires() {
        let expression = Expression::new(r"\d+ (ab k)+$", true, false).unwrap();
        assert!(matches!(expression.compiled(), Compiled::Required(..)));
        assert_eq!(found(&expression, b"ab k\n7 ab k\n7 ab k7\n\n77 ab kab k\n"), [5..12, 21..33]);
    }

    /// Which way, what it is shown by, and in how many of the records.
    #[test]
    fn the_matcher_suits_the_pattern() {
        let text =
            "Tasks failed\ntas\u{212A}s failed\nTASK FAILED\ntimeout, error\nerror, TimeOut\n";
        let ten_words = "tasks|error|refused|denied|aborted|unreachable|overflow|corrupt|exhausted|\
                         panicked";
        let (mut ways, mut expected) = (Vec::new(), Vec::new());
        for (pattern, case_insensitive, way, hits) in [
            ("tasks", true, "folded and done", 2),
            ("failed", true, "folded and done", 3),
            ("(tasks|error)", true, "automaton", 4),
            (ten_words, true, "folded and done", 4),
            (r"\bfailed\b", true, "folded", 3),
            ("task", true, "automaton", 3),
            ("error.*timeout", true, "folded", 1),
            (r"[a-z]+ (failed|broken|missing)$", false, "folded", 2),
            ("failed|error|tim", false, "automaton", 4),
            ("error.*timeout|timeout.*error", false, "automaton", 1),
            ("failed$", false, "literal first", 2),
        ] {
            let expression = Expression::new(pattern, true, case_insensitive).unwrap();
            let taken = match expression.compiled() {
                Compiled::All => "all",
                Compiled::Literal(_) => "literal",
                Compiled::Block(_) => "automaton",
                Compiled::Required(..) => "literal first",
                Compiled::Folded(folded) if folded.suffices => "folded and done",
                Compiled::Folded(_) => "folded",
                Compiled::Record { .. } => "record by record",
            };
            ways.push((pattern, taken, found(&expression, text.as_bytes()).len()));
            expected.push((pattern, way, hits));
        }
        assert_eq!(ways, expected);
    }

    /// The numbers are ripgrep 15's, with `--text --encoding none --no-crlf`.
    #[test]
    fn anchors_of_crlf_lines_match_where_ripgrep_has_them() {
        let text = b"ERROR\nERROR\r\nxERROR\r\r\nERROR\rx\na\n\r\n\n";
        let starts: Vec<usize> = text
            .split_inclusive(|&b| b == b'\n')
            .scan(0, |at, line| {
                let start = *at;
                *at += line.len();
                Some(start)
            })
            .collect();
        for (pattern, expected) in [
            ("ERROR$", &[1][..]),
            ("(?R)ERROR$", &[1, 2, 3, 4]),
            ("(?mR)ERROR$", &[1, 2, 3, 4]),
            ("(?R:^)x?ERROR", &[1, 2, 3, 4]),
            ("^(?R)ERROR$", &[1, 2, 4]),
            ("(?R)^x", &[3, 4]),
            ("(?R)^$", &[3, 6, 7]),
            (r"(?R)\r$", &[3]),
            ("(?R)R.$", &[]),
            ("(?R)(?s)R.$", &[3]),
            ("(?R)[^R]$", &[3, 4, 5]),
            (r"(?R)\B^x|\B$", &[3, 6, 7]),
            (r"(?R)R.?$\r", &[2, 3, 4]),
            ("(?R-m)ERROR$", &[1]),
            (r"(?R)\AERROR$", &[1, 2, 4]),
            (r"(?R)\A.*\r$", &[2, 3, 6]),
            (r"(?R)^\z", &[2, 3, 6, 7]),
            (r"(?R)$\z", &[1, 2, 3, 4, 5, 6, 7]),
        ] {
            let found = found(&Expression::new(pattern, true, false).unwrap(), text);
            let lines: Vec<_> =
                found.iter().map(|r| starts.binary_search(&r.start).unwrap() + 1).collect();
            assert_eq!(lines, expected, "{pattern}");
        }
    }

    #[test]
    fn edges_of_records_are_edges_of_the_haystack() {
        let hits = |pattern: &str, text: &[u8]| {
            found(&Expression::new(pattern, true, false).unwrap(), text).len()
        };
        assert_eq!(hits("^$", b"\n\na\n\n"), 3, "no phantom record behind the last LF");
        assert_eq!(hits("", b"\n\na\n\n"), 4);
        assert_eq!(hits("a$", b"a\r\na\nba\n"), 2, "CR is an ordinary byte");
        assert_eq!(hits(r"\Aa\z", b"b\na\nab\n"), 1);
        assert_eq!(hits(r"a\s+b", b"a\nb\na b\n"), 1);
        assert_eq!(hits(r"(?s)a.b", b"a\nb\na\0b\n"), 1);
        assert_eq!(hits(r"[^x]{3}", b"ab\nc\n"), 0);
        assert_eq!(hits(r"\bfoo\b", b"foo\nxfoo\nfoo bar\n"), 2);
        assert_eq!(hits(r"x*", b""), 0);
    }
}
