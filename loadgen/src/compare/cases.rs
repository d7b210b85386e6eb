//! The query set: what is asked of the node and of ripgrep; pure.

use super::plant::Needles;
use crate::query::Query;

const NEWEST: &str = "100";

/// What is wanted of the matching lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Lines,
    Count,
    /// The newest hundred; ripgrep has nothing like it.
    Newest,
}

/// One query.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) what: String,
    /// `None`: every line.
    pub(super) expression: Option<String>,
    pub(super) regex: bool,
    pub(super) wanted: Wanted,
}

/// All queries, cheap ones first.
pub(super) fn cases(needles: &Needles, common_word: &str) -> Vec<Case> {
    let literal = |what: &str, needle: &str| Case {
        what: what.into(),
        expression: Some(needle.into()),
        regex: false,
        wanted: Wanted::Lines,
    };
    let long = &needles.absent_long_word;
    let regex = |what: &str, expression: String| Case { regex: true, ..literal(what, &expression) };
    vec![
        literal("UUID in 10 lines", &needles.uuid),
        literal("absent UUID", &needles.absent_uuid),
        literal("absent 13-letter word", long),
        regex("the same word as `(?i)` regex", format!("(?i){long}")),
        literal("absent 7-letter word", &needles.absent_short_word),
        literal("rare word, 1,000 hits", &needles.rare_word),
        regex("`error.*timeout`", "error.*timeout".into()),
        literal("all lines with ERROR", "ERROR"),
        Case { expression: None, ..literal("every line", "") },
        Case {
            wanted: Wanted::Newest,
            ..literal(&format!("newest {NEWEST} lines with {common_word}"), common_word)
        },
        Case {
            wanted: Wanted::Count,
            ..literal(&format!("count of lines with {common_word}"), common_word)
        },
    ]
}

impl Case {
    pub(super) fn query(&self, api: &str) -> Query {
        Query {
            api: api.into(),
            expression: self.expression.clone(),
            regex: self.regex,
            ..Query::default()
        }
    }

    /// Path of the request whose answer is timed.
    pub(super) fn path(&self) -> String {
        let mut path = self.query("").path();
        match self.wanted {
            Wanted::Lines => {}
            Wanted::Count => path.push_str("&stats"),
            Wanted::Newest => path.extend(["&order=desc&limit=", NEWEST]),
        }
        path
    }

    /// Path of the request that says what the same query costs.
    pub(super) fn stats_path(&self) -> String {
        self.query("").path() + "&stats"
    }

    /// Arguments of ripgrep with the semantics of the query; the file to search is appended.
    pub(super) fn rg_arguments(&self) -> Option<Vec<String>> {
        let plain = ["--no-config", "--text", "--encoding", "none", "--no-crlf", "--no-filename"];
        let mut all: Vec<String> = plain.map(String::from).into();
        all.extend(["--no-line-number", "--color", "never"].map(String::from));
        match self.wanted {
            Wanted::Lines => {}
            Wanted::Count => all.push("--count".into()),
            Wanted::Newest => return None,
        }
        if !self.regex {
            all.push("--fixed-strings".into());
        }
        all.push("-e".into());
        all.push(self.expression.clone().unwrap_or_default());
        all.push("--".into());
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_asks_both_for_the_same() {
        let all = cases(&Needles::new(1), "INFO");
        let by = |what: &str| all.iter().find(|case| case.what.contains(what)).unwrap();
        let timeout = by("timeout");
        assert!(timeout.path().ends_with("&q=error.%2Atimeout&regex=true"), "{}", timeout.path());
        let arguments = timeout.rg_arguments().unwrap();
        assert!(!arguments.contains(&"--fixed-strings".to_string()));
        assert_eq!(arguments[arguments.len() - 3..], ["-e", "error.*timeout", "--"]);
        assert!(by("count").path().ends_with("&q=INFO&stats"));
        assert!(by("newest").path().ends_with("&q=INFO&order=desc&limit=100"));
        assert!(by("newest").rg_arguments().is_none());
        assert!(!by("every line").path().contains("&q="));
    }
}
