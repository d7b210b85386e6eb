//! From an expression's parts to the formula, bottom up, as in Russ Cox's "Regular Expression
//! Matching with a Trigram Index" (2012): of each part either all strings that it can match are
//! known, or those that matches begin and end with, and what else they must contain.
//!
//! Invariant: every set holds the folded form of whatever a match can have at that place; dropping
//! knowledge is allowed anywhere, adding any is not.

use regex_syntax::hir::{Class, Hir, HirKind, Literal, Repetition};

use super::strings::Strings;
use super::{Analysis, FoldedLiteral, Required, fold};
use crate::limits::{REQUIRED_CLASS_MEMBERS_MAX, REQUIRED_STRING_BYTES_MAX};

/// Bytes of a literal that are taken at once: with what a gram across a cut needs of its neighbour
/// they fit a string.
const PIECE_BYTES: usize = REQUIRED_STRING_BYTES_MAX - 8;

/// Most copies of an optional part that are written out.
const OPTIONAL_COPIES_MAX: u32 = 4;

/// What is known of the matches of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// They are these.
    Exact(Strings),
    /// They begin and end with these; beyond that comes the formula.
    Ends { prefix: Strings, suffix: Strings, inner: Required },
}

pub(super) fn of_literal(bytes: &[u8]) -> Required {
    Known::of_literal(bytes).required()
}

pub(super) fn of_hir(hir: &Hir) -> Analysis {
    let known = Known::of_hir(hir);
    let required = known.required();
    // Looking around is part of a match, and no string.
    let is_all = matches!(known, Known::Exact(_))
        && hir.properties().look_set().is_empty()
        && required != Required::Anything;
    Analysis { required, is_all }
}

impl Known {
    /// Matches that nothing is known of.
    fn gap() -> Self {
        let none = Strings::empty_string;
        Self::Ends { prefix: none(), suffix: none(), inner: Required::Anything }
    }

    fn empty_string() -> Self {
        Self::Exact(Strings::empty_string())
    }

    fn of_strings(strings: Vec<FoldedLiteral>) -> Self {
        Strings::new(strings).map_or_else(Self::gap, Self::Exact)
    }

    fn of_literal(bytes: &[u8]) -> Self {
        if bytes.contains(&b'\n') {
            return Self::of_strings(Vec::new());
        }
        let piece = |bytes: &[u8]| {
            let bytes = bytes.iter().copied().map(fold).collect();
            Self::of_strings(vec![FoldedLiteral { bytes, folds_k_or_s: false }])
        };
        bytes.chunks(PIECE_BYTES).map(piece).fold(Self::empty_string(), Self::then)
    }

    fn of_hir(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::empty_string(),
            HirKind::Literal(Literal(bytes)) => Self::of_literal(bytes),
            HirKind::Class(class) => Self::of_class(class),
            HirKind::Capture(capture) => Self::of_hir(&capture.sub),
            HirKind::Repetition(repetition) => Self::of_repetition(repetition),
            HirKind::Concat(parts) => {
                parts.iter().map(Self::of_hir).fold(Self::empty_string(), Self::then)
            }
            HirKind::Alternation(arms) => {
                let arms = arms.iter().map(Self::of_hir);
                arms.reduce(Self::or).unwrap_or_else(|| Self::of_strings(Vec::new()))
            }
        }
    }

    /// A few characters are alternatives, many a gap.
    fn of_class(class: &Class) -> Self {
        // Each letter and its two or three forms.
        let members_max = 3 * REQUIRED_CLASS_MEMBERS_MAX;
        let mut members = Vec::new();
        match class {
            Class::Unicode(class) => {
                for c in class.iter().flat_map(|range| range.start()..=range.end()) {
                    if members.len() > members_max {
                        return Self::gap();
                    }
                    members.push(c.to_string().into_bytes());
                }
            }
            Class::Bytes(class) => {
                for byte in class.iter().flat_map(|range| range.start()..=range.end()) {
                    if members.len() > members_max {
                        return Self::gap();
                    }
                    members.push(vec![byte]);
                }
            }
        }
        members.iter_mut().flatten().for_each(|byte| *byte = fold(*byte));
        members.retain(|member| member != b"\n");
        members.sort_unstable();
        members.dedup();
        // A letter that comes with its relative beyond ASCII stands for both.
        let has = |member: &str| members.iter().any(|m| m == member.as_bytes());
        let folds = |ascii: &str, relative: &str| has(ascii) && has(relative);
        let (folds_k, folds_s) = (folds("k", "\u{212A}"), folds("s", "\u{17F}"));
        members.retain(|member| {
            !(folds_k && member == "\u{212A}".as_bytes()
                || folds_s && member == "\u{17F}".as_bytes())
        });
        if members.len() > REQUIRED_CLASS_MEMBERS_MAX {
            return Self::gap();
        }
        let string = |bytes: Vec<u8>| {
            let folds_k_or_s = folds_k && bytes == b"k" || folds_s && bytes == b"s";
            FoldedLiteral { bytes, folds_k_or_s }
        };
        Self::of_strings(members.into_iter().map(string).collect())
    }

    /// `x{2,3}` is `xxx?`, as long as all strings are known.
    fn of_repetition(repetition: &Repetition) -> Self {
        if repetition.max == Some(0) {
            return Self::empty_string();
        }
        let once = Self::of_hir(&repetition.sub);
        let mut all = Self::empty_string();
        for copy in 0..repetition.min {
            // Behind two of unknown inside a third is the same again.
            if copy >= 2 && matches!(all, Self::Ends { .. }) {
                return all.then(Self::gap()).then(once);
            }
            let more = all.clone().then(once.clone());
            // So it stays, however often: an empty string, or nothing that matches.
            if copy > 0 && more == all {
                break;
            }
            all = more;
        }
        let optional = repetition.max.map(|max| max - repetition.min);
        match (&all, &once, optional) {
            (_, _, Some(0)) => all,
            (Self::Exact(_), Self::Exact(_), Some(copies @ 1..=OPTIONAL_COPIES_MAX)) => {
                let maybe = once.clone().or(Self::empty_string());
                let known = (0..copies).fold(all.clone(), |sum, _| sum.then(maybe.clone()));
                if matches!(known, Self::Exact(_)) { known } else { all.then_more(once) }
            }
            _ => all.then_more(once),
        }
    }

    /// And perhaps more of the same: what this ends with, `again` ends with too.
    fn then_more(self, again: Self) -> Self {
        let end = if let Self::Exact(only) = &self
            && *only == Strings::empty_string()
        {
            Self::gap()
        } else {
            Self::gap().then(again)
        };
        self.then(end)
    }

    /// Side by side.
    fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Exact(a), Self::Exact(b)) => match a.times(&b) {
                Some(all) => Self::Exact(all),
                None => Self::Ends {
                    prefix: a.times_heads(&b),
                    suffix: a.tails_times(&b),
                    inner: Required::Anything,
                },
            },
            (Self::Exact(a), Self::Ends { prefix, suffix, inner }) => match a.times(&prefix) {
                Some(prefix) => Self::Ends { prefix, suffix, inner },
                None => Self::Ends {
                    inner: inner.and(prefix.required()),
                    prefix: a.times_heads(&prefix),
                    suffix,
                },
            },
            (Self::Ends { prefix, suffix, inner }, Self::Exact(b)) => match suffix.times(&b) {
                Some(suffix) => Self::Ends { prefix, suffix, inner },
                None => Self::Ends {
                    prefix,
                    inner: inner.and(suffix.required()),
                    suffix: suffix.tails_times(&b),
                },
            },
            (
                Self::Ends { prefix, suffix: end, inner },
                Self::Ends { prefix: start, suffix, inner: more },
            ) => {
                let joint = match end.times(&start) {
                    Some(joint) => joint.required(),
                    None => (end.required().and(start.required()))
                        .and(end.across(&start).map_or(Required::Anything, |s| s.required())),
                };
                Self::Ends { prefix, suffix, inner: inner.and(joint).and(more) }
            }
        }
    }

    /// One or the other.
    fn or(self, other: Self) -> Self {
        if let (Self::Exact(a), Self::Exact(b)) = (&self, &other)
            && let Some(both) = a.plus(b)
        {
            return Self::Exact(both);
        }
        let inner = self.required().or(other.required());
        let ((prefix_a, suffix_a), (prefix_b, suffix_b)) = (self.ends(), other.ends());
        Self::Ends {
            prefix: prefix_a.plus_cut(prefix_b, false),
            suffix: suffix_a.plus_cut(suffix_b, true),
            inner,
        }
    }

    fn ends(&self) -> (&Strings, &Strings) {
        match self {
            Self::Exact(all) => (all, all),
            Self::Ends { prefix, suffix, .. } => (prefix, suffix),
        }
    }

    fn required(&self) -> Required {
        match self {
            Self::Exact(all) => all.required(),
            Self::Ends { prefix, suffix, inner } => {
                prefix.required().and(inner.clone()).and(suffix.required())
            }
        }
    }
}
