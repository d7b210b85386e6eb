//! What a record must match, compiled: `rg --text --encoding none --no-crlf` on one record a line.
//!
//! A record is its own haystack, but whole blocks are searched at once. For that the parsed
//! expression is rewritten so that no match can contain LF (it leaves every class; a literal LF is
//! refused) and the edges of the haystack become the edges of a line: on a block it then matches
//! where it would match in some record. Where looking at neighbouring bytes would tell a record
//! in a block from a record alone (`\B` beside invalid UTF-8), records are matched one by one.
//!
//! `^` and `$` are line anchors, as in ripgrep, which matters under `(?R)` alone: there they match
//! beside CR, too, and not between CR and LF. Like ripgrep, this shows the LF of a record to
//! them, unless the expression has anchors of the text (`\A`, `\z`, `(?-m)^`): then not.
//!
//! Invariants: length, nesting, compiled size and the automaton's memory are bounded; the
//! expression is shared by all scan threads, each of which takes a cache of its own.
//!
//! Not here: finding the record around a match (the `matcher` module). Compiling can take tens of
//! milliseconds, so callers keep it off threads that serve sockets.

use std::fmt;
use std::sync::Arc;

use memchr::memmem;
use regex_automata::meta;
use regex_automata::util::syntax as automata_syntax;
use regex_syntax::ast::{self, Ast, ClassSetItem};
use regex_syntax::hir::{self, Hir, HirKind, Look};

use super::automata::{AutomatonMemory, CachePool};
use super::folded::FoldedFinder;
use super::required::{Analysis, Required};
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_CACHE_BYTES_MAX, EXPRESSION_CLASSES_MAX,
    EXPRESSION_COMPILED_BYTES_MAX, EXPRESSION_COMPILED_FACTOR, EXPRESSION_PARSED_BYTES,
};

/// Fewest bytes of a required literal that make searching for it first worth while.
const REQUIRED_BYTES_MIN: usize = 3;

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
    caches: Arc<CachePool>,
}

struct Inner {
    text: String,
    compiled: Compiled,
    required: Required,
}

/// How records are matched.
pub(super) enum Compiled {
    /// Every record matches.
    All,
    /// Records that contain these bytes.
    Literal(Box<memmem::Finder<'static>>),
    /// Safe to be run over many records at once.
    Block(meta::Regex),
    /// To be run where these bytes are, which every match contains. The regex engine picks such
    /// a literal too, but the first in the pattern rather than the longest, be it a lone dot.
    Required(meta::Regex, Box<memmem::Finder<'static>>),
    /// To be run where one of some strings is, in whatever case.
    Folded(Box<Folded>),
    /// To be run on each record by itself, its LF shown behind it or not.
    Record {
        /// What is run.
        regex: meta::Regex,
        /// Whether look-around sees the LF.
        shows_lf: bool,
    },
}

/// An expression, and strings in folded text one of which every match contains.
pub(super) struct Folded {
    pub(super) regex: meta::Regex,
    pub(super) finder: FoldedFinder,
    /// Whether a string suffices for a match.
    pub(super) suffices: bool,
}

/// What an expression may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Its compiled form, bytes, in each of two directions.
    pub(super) compiled_bytes_max: usize,
    /// The automaton of each scan thread, bytes, per direction.
    pub(super) automaton_bytes_max: usize,
}

impl Default for Room {
    /// All that there is.
    fn default() -> Self {
        Self {
            compiled_bytes_max: EXPRESSION_COMPILED_BYTES_MAX,
            automaton_bytes_max: EXPRESSION_CACHE_BYTES_MAX,
        }
    }
}

/// Why an expression cannot be used; its text says what would be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpressionError {
    /// Too many bytes.
    TooLong {
        /// How many.
        len_bytes: usize,
    },
    /// It contains a newline, and no record does.
    Newline,
    /// The regex parser's own words.
    Syntax(String),
    /// Its compiled form is too large.
    TooLarge,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len_bytes } => {
                write!(
                    f,
                    "expression of {len_bytes} bytes; at most {EXPRESSION_BYTES_MAX} are valid"
                )
            }
            Self::Newline => f.write_str(
                "expression contains a newline; records are single lines, so only expressions \
                 without one are valid",
            ),
            Self::Syntax(message) => write!(
                f,
                "{message}; valid is a regular expression as in \
                 https://docs.rs/regex/latest/regex/#syntax, or a literal without the regex option"
            ),
            Self::TooLarge => write!(
                f,
                "expression compiles to more than {EXPRESSION_COMPILED_BYTES_MAX} bytes; use \
                 smaller repetitions or fewer classes"
            ),
        }
    }
}

impl std::error::Error for ExpressionError {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.inner.text)
    }
}

impl Expression {
    /// Compiles a literal, or a regular expression if `regex`. The empty one matches every record.
    pub fn new(text: &str, regex: bool, case_insensitive: bool) -> Result<Self, ExpressionError> {
        Self::within(text, regex, case_insensitive, Room::default())
    }

    /// The same as [`Expression::new`] with so much room; what compiles to more is
    /// [`ExpressionError::TooLarge`].
    pub(super) fn within(
        text: &str,
        regex: bool,
        case_insensitive: bool,
        room: Room,
    ) -> Result<Self, ExpressionError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError::TooLong { len_bytes: text.len() });
        }
        if text.contains('\n') {
            return Err(ExpressionError::Newline);
        }
        let (compiled, required) = match (text, regex, case_insensitive) {
            ("", _, _) => (Compiled::All, Required::Anything),
            (_, false, false) => {
                let finder = Box::new(memmem::Finder::new(text).into_owned());
                (Compiled::Literal(finder), Required::of_literal(text.as_bytes()))
            }
            (_, false, true) => compile(&regex_syntax::escape(text), true, room)?,
            (_, true, _) => compile(text, case_insensitive, room)?,
        };
        let text = text.to_owned();
        let inner = Arc::new(Inner { text, compiled, required });
        Ok(Self { inner, caches: Arc::default() })
    }

    /// The same, with what its automata learn kept among that of others.
    #[must_use]
    pub fn kept_within(mut self, memory: &AutomatonMemory) -> Self {
        if !self.caches.is_within(memory) {
            self.caches = Arc::new(CachePool::within(memory));
        }
        self
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// Whether it is known to match every record, so that no record needs to be looked at.
    pub fn matches_all(&self) -> bool {
        matches!(self.inner.compiled, Compiled::All)
    }

    /// The bytes that a record must contain and that suffice, if that is how it is matched.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match &self.inner.compiled {
            Compiled::Literal(finder) => Some(finder.needle()),
            _ => None,
        }
    }

    /// How well it finds its records among others: by the longest bytes that lead to them, and of equal
    /// ones by the faster way.
    pub(super) fn lead(&self) -> (usize, u8) {
        match &self.inner.compiled {
            Compiled::Literal(finder) => (finder.needle().len(), 3),
            Compiled::Required(_, finder) => (finder.needle().len(), 2),
            Compiled::Folded(folded) => (folded.finder.shortest(), 1),
            Compiled::Block(_) => (0, 1),
            Compiled::Record { .. } | Compiled::All => (0, 0),
        }
    }

    /// What of the size to which it might compile it has taken, bytes: the rest of what it holds is its
    /// text's.
    pub(super) fn compiled_bytes(&self) -> usize {
        let of_text = self.inner.text.len() * EXPRESSION_PARSED_BYTES;
        self.memory_bytes().saturating_sub(of_text).div_ceil(EXPRESSION_COMPILED_FACTOR)
    }

    /// What every record that matches contains, for filters.
    pub fn required(&self) -> &Required {
        &self.inner.required
    }

    /// What its compiled form holds on the heap, bytes; the automaton's memory is bounded apart.
    pub fn memory_bytes(&self) -> usize {
        let compiled = match &self.inner.compiled {
            Compiled::All => 0,
            Compiled::Literal(finder) => finder.needle().len(),
            Compiled::Block(regex) | Compiled::Record { regex, .. } => regex.memory_usage(),
            Compiled::Required(regex, finder) => regex.memory_usage() + finder.needle().len(),
            Compiled::Folded(folded) => folded.regex.memory_usage() + folded.finder.memory_bytes(),
        };
        self.inner.text.len() + compiled
    }

    pub(super) fn compiled(&self) -> &Compiled {
        &self.inner.compiled
    }

    pub(super) fn caches(&self) -> &CachePool {
        &self.caches
    }
}

fn compile(
    pattern: &str,
    case_insensitive: bool,
    room: Room,
) -> Result<(Compiled, Required), ExpressionError> {
    let syntax = automata_syntax::Config::new();
    let ast = ast::parse::ParserBuilder::new()
        .nest_limit(syntax.get_nest_limit())
        .build()
        .parse(pattern)
        .map_err(|e| ExpressionError::Syntax(regex_syntax::Error::from(e).to_string()))?;
    ast::visit(&ast, Check::default())?;
    let hir = hir::translate::TranslatorBuilder::new()
        .utf8(false)
        .case_insensitive(case_insensitive)
        .multi_line(true)
        .build()
        .translate(pattern, &ast)
        .map_err(|e| ExpressionError::Syntax(regex_syntax::Error::from(e).to_string()))?;
    if matches!(hir.kind(), HirKind::Empty) {
        return Ok((Compiled::All, Required::Anything));
    }
    let by_record = needs_record_alone(&hir);
    let shows_lf = !hir.properties().look_set().contains_anchor_haystack();
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(room.compiled_bytes_max))
        .hybrid_cache_capacity(room.automaton_bytes_max);
    let hir = within_a_record(hir, by_record)?;
    let lead = required_literal(&hir).filter(|bytes| bytes.len() >= REQUIRED_BYTES_MIN);
    let regex =
        meta::Builder::new().configure(config).build_from_hir(&hir).map_err(|error| match error
            .size_limit()
        {
            Some(_) => ExpressionError::TooLarge,
            None => ExpressionError::Syntax(error.to_string()),
        })?;
    let Analysis { required, is_all } = Analysis::of_hir(&hir);
    let compiled = match (lead, FoldedFinder::of(&required)) {
        _ if by_record => Compiled::Record { regex, shows_lf },
        (Some(bytes), _) => {
            Compiled::Required(regex, Box::new(memmem::Finder::new(bytes).into_owned()))
        }
        // An automaton that is led by the few first bytes of several strings is as fast as this.
        (None, Some(finder))
            if !regex.is_accelerated() || finder.is_single() && ignores_case(&hir) =>
        {
            let suffices = is_all && ignores_case(&hir);
            Compiled::Folded(Box::new(Folded { regex, finder, suffices }))
        }
        (None, _) => Compiled::Block(regex),
    };
    Ok((compiled, required))
}

/// The longest run of bytes that every match must contain.
fn required_literal(hir: &Hir) -> Option<&[u8]> {
    match hir.kind() {
        HirKind::Literal(hir::Literal(bytes)) => Some(bytes),
        HirKind::Repetition(repetition) if repetition.min > 0 => required_literal(&repetition.sub),
        HirKind::Capture(capture) => required_literal(&capture.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(required_literal).max_by_key(|b| b.len()),
        _ => None,
    }
}

/// Whether text matches as it does with its ASCII letters in the other case.
fn ignores_case(hir: &Hir) -> bool {
    let both = |has: &dyn Fn(u8) -> bool| {
        (b'a'..=b'z').all(|letter| has(letter) == has(letter.to_ascii_uppercase()))
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(hir::Literal(bytes)) => !bytes.iter().any(u8::is_ascii_alphabetic),
        HirKind::Class(hir::Class::Unicode(class)) => both(&|letter| {
            class.iter().any(|r| (r.start()..=r.end()).contains(&char::from(letter)))
        }),
        HirKind::Class(hir::Class::Bytes(class)) => {
            both(&|letter| class.iter().any(|r| (r.start()..=r.end()).contains(&letter)))
        }
        HirKind::Repetition(repetition) => ignores_case(&repetition.sub),
        HirKind::Capture(capture) => ignores_case(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(ignores_case),
    }
}

/// Whether a look-around could see the difference between a record alone and one in a block:
/// CRLF anchors treat CR LF as one end, which shows where the end of the text is asked for as well,
/// and the two Unicode look-arounds that insist on valid UTF-8 before them take a neighbouring LF
/// for such.
fn needs_record_alone(hir: &Hir) -> bool {
    let looks = hir.properties().look_set();
    (looks.contains_anchor_crlf() && looks.contains_anchor_haystack())
        || looks.contains(Look::WordUnicodeNegate)
        || looks.contains(Look::WordStartHalfUnicode)
}

/// The same expression on lines: LF taken out of all classes, text anchors made line anchors
/// (unless each record will be a haystack of its own). A literal LF is an error.
fn within_a_record(hir: Hir, by_record: bool) -> Result<Hir, ExpressionError> {
    let each = |parts: Vec<Hir>| -> Result<Vec<Hir>, ExpressionError> {
        parts.into_iter().map(|part| within_a_record(part, by_record)).collect()
    };
    Ok(match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(hir::Literal(bytes)) => {
            if bytes.contains(&b'\n') {
                return Err(ExpressionError::Newline);
            }
            Hir::literal(bytes)
        }
        HirKind::Class(hir::Class::Unicode(mut class)) => {
            class.difference(&hir::ClassUnicode::new([hir::ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(hir::Class::Unicode(class))
        }
        HirKind::Class(hir::Class::Bytes(mut class)) => {
            class.difference(&hir::ClassBytes::new([hir::ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(hir::Class::Bytes(class))
        }
        HirKind::Look(look) if by_record => Hir::look(look),
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(mut repetition) => {
            *repetition.sub = within_a_record(*repetition.sub, by_record)?;
            Hir::repetition(repetition)
        }
        HirKind::Capture(capture) => within_a_record(*capture.sub, by_record)?,
        HirKind::Concat(parts) => Hir::concat(each(parts)?),
        HirKind::Alternation(parts) => Hir::alternation(each(parts)?),
    })
}

/// Refuses a literal newline, also where the translation would fold it into a class (`x|\n`), and
/// so many Unicode classes that the translation alone (some kilobytes a class, before any size
/// limit applies) would take too much memory.
#[derive(Default)]
struct Check {
    classes: usize,
}

impl Check {
    fn count(&mut self) -> Result<(), ExpressionError> {
        self.classes += 1;
        if self.classes > EXPRESSION_CLASSES_MAX { Err(ExpressionError::TooLarge) } else { Ok(()) }
    }
}

impl ast::Visitor for Check {
    type Output = ();
    type Err = ExpressionError;

    fn finish(self) -> Result<(), ExpressionError> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ExpressionError> {
        match ast {
            Ast::Literal(literal) if literal.c == '\n' => Err(ExpressionError::Newline),
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) => self.count(),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ExpressionError> {
        match item {
            ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => self.count(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_is_refused_wherever_it_stands_as_itself() {
        for (text, regex) in
            [("a\nb", false), ("\n", true), (r"a\nb", true), (r"[\n]", true), (r"(x|\x0A)?", true)]
        {
            assert_eq!(Expression::new(text, regex, false).unwrap_err(), ExpressionError::Newline);
        }
        // A literal backslash and letter, and classes that only include LF among others, are not
        // newlines.
        for (text, regex) in
            [(r"a\nb", false), (r"[^\n]", true), (r"\s", true), (r"(?s).", true), (r"[^a]", true)]
        {
            assert!(Expression::new(text, regex, false).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_memory_of_an_expression_is_known() {
        let memory =
            |text: &str, regex| Expression::new(text, regex, false).unwrap().memory_bytes();
        assert_eq!(memory("", false), 0);
        assert!((6..100).contains(&memory("abc", false)));
        assert!(memory(r"\pL{100}", true) > 500_000, "{}", memory(r"\pL{100}", true));
        assert!(memory(r"\pL{100}", true) < 4 * EXPRESSION_COMPILED_BYTES_MAX);
    }

    #[test]
    fn bad_expressions_are_refused_with_words() {
        let error = |text: &str| Expression::new(text, true, false).unwrap_err();
        assert!(error("(").to_string().contains("unclosed group"));
        assert!(error("(?=a)").to_string().contains("look-around"));
        assert_eq!(error(r"\pL{1000}{1000}"), ExpressionError::TooLarge);
        assert_eq!(error(&r"\w".repeat(16_000)), ExpressionError::TooLarge);
        assert!(matches!(error(&"(".repeat(5_000)), ExpressionError::Syntax(_)));
        let long = "x".repeat(EXPRESSION_BYTES_MAX + 1);
        let long = Expression::new(&long, false, false).unwrap_err();
        assert_eq!(long, ExpressionError::TooLong { len_bytes: EXPRESSION_BYTES_MAX + 1 });
    }

    #[test]
    fn the_empty_expression_needs_no_matching() {
        for regex in [false, true] {
            assert!(Expression::new("", regex, true).unwrap().matches_all());
        }
        assert!(!Expression::new("^$", true, false).unwrap().matches_all());
    }
}
