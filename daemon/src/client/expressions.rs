//! What records have to match and what they may not: as a node is asked for it, and as it is found again
//! in the records that come.
//!
//! Invariants: a node judges; what is found again only shows where. Whole words (`-w`) are asked for as
//! ripgrep has them: a regular expression that is neither preceded nor followed by a word character.

use regex::bytes::{Regex, RegexBuilder};

use super::http::Target;
use crate::settings::Settings;

/// Longest compiled expression, bytes: what nodes take.
const COMPILED_BYTES_MAX: usize = 10 << 20;

/// What records have to match, all of it, and what they may not, none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expressions {
    pub(crate) q: Vec<String>,
    pub(crate) x: Vec<String>,
    pub(crate) regex: bool,
    pub(crate) ignore_case: bool,
}

impl Expressions {
    /// Of settings of a command that has `-q`, `-x`, `--regex`, `-i` and `-w`.
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let (words, regex) = (settings.bool("word-regexp"), settings.bool("regex"));
        let texts = |name| {
            let texts = settings.texts(name);
            if !words {
                return texts;
            }
            texts.iter().map(|text| as_words(text, regex)).collect()
        };
        Self {
            q: texts("q"),
            x: texts("x"),
            regex: regex || words,
            ignore_case: settings.bool("ignore-case"),
        }
    }

    /// Asks for it.
    pub(crate) fn add_to(&self, target: &mut Target) {
        // An empty one matches every record.
        self.q.iter().filter(|q| !q.is_empty()).for_each(|q| target.add("q", q));
        self.x.iter().for_each(|x| target.add("x", x));
        target.add_switch("regex", self.regex);
        target.add_switch("i", self.ignore_case);
    }

    /// Each that has to match, to be found again wherever it is; one that does not compile here is not.
    pub(crate) fn each(&self) -> Vec<Regex> {
        let wanted = self.q.iter().filter(|q| !q.is_empty());
        wanted.filter_map(|q| self.compile(&self.pattern(q)).ok()).collect()
    }

    /// Any of them, the one that comes first. `None`: there is none. The error is that of the parser.
    pub(crate) fn any(&self) -> Result<Option<Regex>, String> {
        let wanted = self.q.iter().filter(|q| !q.is_empty());
        let patterns: Vec<_> = wanted.map(|q| format!("(?:{})", self.pattern(q))).collect();
        if patterns.is_empty() {
            return Ok(None);
        }
        self.compile(&patterns.join("|")).map(Some).map_err(|error| error.to_string())
    }

    fn pattern(&self, q: &str) -> String {
        if self.regex { q.to_owned() } else { regex::escape(q) }
    }

    fn compile(&self, pattern: &str) -> Result<Regex, regex::Error> {
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(self.ignore_case).size_limit(COMPILED_BYTES_MAX).build()
    }
}

/// The same where it is a word, or several.
fn as_words(text: &str, is_regex: bool) -> String {
    let is_empty = text.is_empty();
    // What is none by itself is refused by the node in its own words, not as part of something else.
    if is_empty || (is_regex && Regex::new(text).is_err()) {
        return text.to_owned();
    }
    let pattern = if is_regex { text.to_owned() } else { regex::escape(text) };
    format!(r"\b{{start-half}}(?:{pattern})\b{{end-half}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expressions(q: &[&str], regex: bool) -> Expressions {
        let q = q.iter().map(|&q| q.to_owned()).collect();
        Expressions { q, regex, ..Expressions::default() }
    }

    #[test]
    fn whole_words_are_those_of_ripgrep() {
        for (text, is_regex, line, found) in [
            ("err", false, "an err, indeed", Some("err")),
            ("err", false, "error or terr", None),
            ("a.b", false, "xa.b a.b", Some("a.b")),
            ("a.b", false, "acb", None),
            ("-x", false, "a -x", Some("-x")),
            ("er+|b", true, "bb err", Some("err")),
            ("foo bar", false, "a foo bar", Some("foo bar")),
        ] {
            let pattern = as_words(text, is_regex);
            let regex = Regex::new(&pattern).unwrap();
            let got = regex.find(line.as_bytes()).map(|found| found.as_bytes());
            assert_eq!(got, found.map(str::as_bytes), "{pattern} in {line}");
        }
        for kept in ["", "(", "a)|(b"] {
            assert_eq!(as_words(kept, true), kept);
        }
    }

    #[test]
    fn any_of_several_is_found_and_of_none_nothing() {
        assert!(expressions(&[""], false).any().unwrap().is_none());
        let any = expressions(&["b+", "", "a|x"], true).any().unwrap().unwrap();
        let found: Vec<_> = any.find_iter(b"abbx").map(|found| found.range()).collect();
        assert_eq!(found, [0..1, 1..3, 3..4]);
        assert!(expressions(&["("], true).any().is_err());
        assert_eq!(expressions(&["(", "a"], true).each().len(), 1);
    }
}
