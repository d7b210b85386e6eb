//! What level a record has, whatever wrote it: a field that says so, or a word near its beginning.
//!
//! Invariants: decided by the bytes of the record alone, of which a bounded number is looked at; of an entry
//! ([`crate::entries`]) it is the entry's own; the page has the same rule (`net/ui/text.js`), by the same
//! units, so that its rows and its histogram agree (`tests/tests/page_levels.rs`). A record that says
//! nothing of the kind has none.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};

/// So far fields are looked for, units of UTF-16, as which the page has text.
const FIELD_UNITS: usize = 2000;
/// So far words are.
const WORD_UNITS: usize = 160;
/// What a unit takes at most, bytes.
const UNIT_BYTES_MAX: usize = 3;

/// Which of [`crate::entries::LEVELS`] a word is.
const WORDS: [(&[u8], usize); 16] = [
    (b"debug", 0),
    (b"trace", 0),
    (b"info", 1),
    (b"notice", 1),
    (b"warn", 2),
    (b"warning", 2),
    (b"error", 3),
    (b"err", 3),
    (b"fail", 3),
    (b"failed", 3),
    (b"failure", 3),
    (b"fatal", 4),
    (b"panic", 4),
    (b"crit", 4),
    (b"critical", 4),
    (b"emerg", 4),
];
/// What escape sequences begin with.
const ESCAPE: u8 = 0x1B;
/// Names that a field of JSON has.
const FIELDS: [&[u8]; 3] = [b"level", b"severity", b"lvl"];

/// Which of [`crate::entries::LEVELS`] a record has, given without its LF.
///
/// Of a field in JSON (`level`, `severity`, `lvl`) or logfmt (`level`) its value, if it is one of the words;
/// without such a field the first of the words. In either case, whole words, the first that there is.
pub fn level(record: &[u8]) -> Option<usize> {
    match field(&without_colours(head(record, FIELD_UNITS))) {
        Some(value) => named(value),
        None => first_word(&without_colours(head(record, WORD_UNITS))),
    }
}

/// With a space in place of each SGR sequence (ECMA-48, 8.3.117), by which terminals are told of colours.
fn without_colours(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut at) = memchr(ESCAPE, text) else { return Cow::Borrowed(text) };
    let mut plain = text[..at].to_vec();
    while at < text.len() {
        let len = sgr_len(&text[at..]);
        plain.push(if len > 0 { b' ' } else { text[at] });
        at += len.max(1);
    }
    Cow::Owned(plain)
}

/// Bytes of the sequence that a text begins with; 0: it begins with none.
fn sgr_len(text: &[u8]) -> usize {
    let Some(rest) = text.strip_prefix(&[ESCAPE, b'[']) else { return 0 };
    let is_parameter = |byte: &&u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let parameters = rest.iter().take_while(is_parameter).count();
    if rest.get(parameters) == Some(&b'm') { 2 + parameters + 1 } else { 0 }
}

/// Which bytes words are made of.
const WORD_BYTES: &[bool; 256] = &{
    let mut all = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    all
};

const fn is_word(byte: u8) -> bool {
    WORD_BYTES[byte as usize]
}

/// The level of the first word that is one. Runs over every record that is counted.
fn first_word(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let start = at;
        while at < text.len() && is_word(text[at]) {
            at += 1;
        }
        if let Some(level) = named(&text[start..at]) {
            return Some(level);
        }
        at += 1;
    }
    None
}

fn named(word: &[u8]) -> Option<usize> {
    // Most words are none of these, as their length or their first letter shows.
    if !(3..=8).contains(&word.len()) || !b"cdefinptw".contains(&(word[0] | 0x20)) {
        return None;
    }
    let is_same = |(name, _): &&(&[u8], usize)| name.eq_ignore_ascii_case(word);
    WORDS.iter().find(is_same).map(|(_, level)| *level)
}

/// So many units of a record: one for each character and each byte that is part of none, two for a
/// character beyond 16 bits.
fn head(record: &[u8], units: usize) -> &[u8] {
    if record.len() <= units || record[..units].is_ascii() {
        return &record[..units.min(record.len())];
    }
    let record = &record[..record.len().min(units * UNIT_BYTES_MAX)];
    let (mut left, mut end) = (units, 0);
    for chunk in record.utf8_chunks() {
        for character in chunk.valid().chars() {
            if left == 0 {
                return &record[..end];
            }
            left = left.saturating_sub(character.len_utf16());
            end += character.len_utf8();
        }
        let bytes = chunk.invalid().len().min(left);
        (left, end) = (left - bytes, end + bytes);
    }
    &record[..end]
}

/// The value of the first field that tells a level.
fn field(text: &[u8]) -> Option<&[u8]> {
    memchr2_iter(b'=', b':', text).find_map(|at| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let value = if text[at] == b'=' { logfmt(before, after) } else { json(before, after) };
        value.filter(|value| !value.is_empty())
    })
}

/// The characters of a word that a text begins with.
fn word(text: &[u8]) -> &[u8] {
    &text[..text.iter().take_while(|byte| is_word(**byte)).count()]
}

/// What stands before a name at the end of a text, in either case.
fn without_name<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (before, end) = text.split_at(text.len().checked_sub(name.len())?);
    end.eq_ignore_ascii_case(name).then_some(before)
}

fn logfmt<'a>(before: &[u8], after: &'a [u8]) -> Option<&'a [u8]> {
    let before = without_name(before, FIELDS[0])?;
    (!before.last().is_some_and(|byte| is_word(*byte))).then(|| word(after))
}

fn json<'a>(before: &[u8], after: &'a [u8]) -> Option<&'a [u8]> {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let blanks = before.iter().rev().take_while(is_blank).count();
    let before = before[..before.len() - blanks].strip_suffix(b"\"")?;
    let is_quoted =
        |name: &&[u8]| without_name(before, name).is_some_and(|text| text.ends_with(b"\""));
    FIELDS.iter().find(|name| is_quoted(name))?;
    let blanks = after.iter().take_while(is_blank).count();
    let value = after[blanks..].strip_prefix(b"\"")?;
    let found = word(value);
    (value.get(found.len()) == Some(&b'"')).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::{Kept, LEVELS};
    use crate::limits::TIME_TEXT_BYTES_MAX;
    use proptest::prelude::*;

    /// The rule as expressions, over characters: that of the page.
    fn model(text: &str) -> Option<usize> {
        let expression = |text: &str| regex::Regex::new(text).unwrap();
        let units = |most: usize| {
            let mut left = most;
            let fits = |c: &char| {
                let is_in = left > 0;
                left = left.saturating_sub(c.len_utf16());
                is_in
            };
            text.chars().take_while(fits).collect::<String>()
        };
        let own = expression(r#"(?i-u)"(?:level|severity|lvl)"[ \t]*:[ \t]*"(\w+)"|\blevel=(\w+)"#);
        let colours = expression("\x1b\\[[0-9;:]*m");
        let head = colours.replace_all(&units(FIELD_UNITS), " ").into_owned();
        let own =
            own.captures(&head).map(|own| own.get(1).or_else(|| own.get(2)).unwrap().as_str());
        let words = expression(
            r"(?i-u)\b(?:(debug|trace)|(info|notice)|(warn(?:ing)?)|(err(?:or)?|fail(?:ed|ure)?)|(fatal|panic|crit(?:ical)?|emerg))\b",
        );
        let words_in = || colours.replace_all(&units(WORD_UNITS), " ").into_owned();
        let head = own.map_or_else(words_in, str::to_owned);
        let found = words.captures(&head)?;
        (0..LEVELS.len()).find(|level| found.get(level + 1).is_some())
    }

    #[test]
    fn a_level_is_what_a_field_says_or_else_the_first_word_that_is_one() {
        for (record, expected) in [
            ("2024-05-01 12:00:00 ERROR it fails", Some("error")),
            ("it failed", Some("error")),
            ("informed of errors", None),
            ("a_error err_b", None),
            (r#"{"msg":"error","level":"info"}"#, Some("info")),
            (r#"{"msg":"error","Severity" : "WARNING"}"#, Some("warn")),
            (r#"{"level":30,"msg":"error"}"#, Some("error")),
            (r#"{"level":"verbose","msg":"error"}"#, None),
            (r#"{"mylevel":"warn"}"#, Some("warn")),
            ("ts=1 level=debug msg=panic", Some("debug")),
            ("ts=1 sublevel=debug msg=panic", Some("debug")),
            ("level= panic", Some("fatal")),
            ("\x1b[31mERROR\x1b[0m it is", Some("error")),
            ("\x1b[36mINFO\x1b[0m[0000] an error", Some("info")),
            ("\x1b[1;38:5:9mlevel\x1b[0m=verbose", None),
            ("\x1b[31ERROR", None),
            ("", None),
        ] {
            let found = level(record.as_bytes()).map(|level| LEVELS[level]);
            assert_eq!(found, expected, "{record}");
            assert_eq!(model(record).map(|level| LEVELS[level]), expected, "{record}");
        }
        let far = "x ".repeat(WORD_UNITS / 2) + "error";
        assert_eq!(level(far.as_bytes()), None);
        let far = "x ".repeat(FIELD_UNITS / 2) + "level=error";
        assert_eq!(level(far.as_bytes()), None);
        // Bytes that are no text count one each, characters beyond 16 bits two.
        let before =
            |n: usize| [&[0xE2, 0x82].repeat(n)[..], "\u{1F600}".repeat(60).as_bytes()].concat();
        assert_eq!(level(&[&before(17)[..], b" debug"].concat()), Some(0));
        assert_eq!(level(&[&before(18)[..], b" debug"].concat()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_level_is_the_one_that_expressions_find(
            parts in prop::collection::vec(prop_oneof![
                6 => prop::sample::select(vec![
                    "level", "\"level\"", "\"LVL\"", "severity\"", "\"", ":", "=", " ", "\t", "_", "error",
                    "Err", "fail", "failure", "failed", "warn", "warning", "INFO", "notice", "debug", "trace", "fatal",
                    "panic", "crit", "critical", "emerg", "ſ", "\u{212A}", "é", "\u{1F600}", ",", "{", "7",
                    "\x1b", "[", "m", "\x1b[31m", "\x1b[0;1m",
                ]).prop_map(str::to_owned),
                1 => prop::sample::select(vec!["x ", "é", "\u{1F600} "]).prop_flat_map(|text| (1..1_500usize).prop_map(move |n| text.repeat(n))),
            ], 0..14)
        ) {
            let text = parts.concat();
            prop_assert_eq!(level(text.as_bytes()), model(&text), "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic_and_an_entry_has_its_own(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            own in 0..LEVELS.len(),
            time in prop_oneof!["[0-9TtZz:.+-]{1,70}", "[0-9]{1900,2100}"],
            message in "[a-z =:,]{1,40}",
        ) {
            level(&bytes);
            let record = format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"{}\",\"message\":\"{message}\",\"service\":\"s\"}}",
                LEVELS[own]
            );
            let kept = Kept::of(record.as_bytes()).map(|kept| kept.level);
            prop_assert_eq!(kept, (time.len() <= TIME_TEXT_BYTES_MAX).then_some(own));
            prop_assert!(kept.is_none() || level(record.as_bytes()) == kept);
        }
    }
}
