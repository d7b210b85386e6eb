//! Formulas of known expressions, and the property that matches satisfy them.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::fuzz::cases;
use crate::search::Expression;
use crate::search::random_expressions::{Dice, nodes};

fn required(pattern: &str) -> Required {
    Expression::new(pattern, true, false).unwrap().required().clone()
}

/// `a & (b | c)`; `~` behind a literal that also stands for U+212A or U+017F.
fn shown(required: &Required) -> String {
    let join = |parts: &[Required], by: &str| {
        let parts: Vec<String> = parts.iter().map(shown).collect();
        format!("({})", parts.join(by))
    };
    match required {
        Required::Anything => "anything".to_owned(),
        Required::Nothing => "nothing".to_owned(),
        Required::Literal(literal) => {
            let mark = if literal.folds_k_or_s { "~" } else { "" };
            format!("{}{mark}", literal.bytes.escape_ascii())
        }
        Required::All(parts) => join(parts, " & "),
        Required::Any(parts) => join(parts, " | "),
    }
}

#[test]
fn formulas_are_as_strong_as_the_expression_allows() {
    for (pattern, formula) in [
        ("timeout", "timeout"),
        ("TimeOut", "timeout"),
        ("time", "anything"),
        ("error.*timeout", "(error & timeout)"),
        ("err(or|no)x", "(errnox | errorx)"),
        ("[Ee]rror", "error"),
        ("colou?r.*x", "(color | colour)"),
        ("(hello|hi)world", "(helloworld | hiworld)"),
        (".*foo(bar|baz).*", "(foobar | foobaz)"),
        ("abcde|xyz", "anything"),
        ("(a|)", "anything"),
        ("(?:)", "anything"),
        ("x{0}", "anything"),
        ("(ab{2}){3}", "abbabbabb"),
        ("abcd[^a]efgh", "anything"),
        ("abcde[^a]fghij", "(abcde & fghij)"),
        (r"^abc\b\bdef$", "abcdef"),
        ("(?i)word", "anything"),
        ("(?i)words", "words~"),
        ("(?i-u)words", "words"),
        ("words?", "anything"),
        ("[ab]cdef", "(acdef | bcdef)"),
        (r"[a&&b]", "nothing"),
        (r"(?:[a&&b]|abcdef)x", "abcdefx"),
    ] {
        assert_eq!(shown(&required(pattern)), formula, "{pattern}");
    }
}

#[test]
fn analysis_takes_no_time_for_what_no_automaton_could_be_compiled_of() {
    for (pattern, formula) in [
        (r"\b{1000000000}abcde", "abcde"),
        (r"[a&&b]{1000000000}", "nothing"),
        ("((((a{900}){900}){900}){900}){900}", &"a".repeat(64)),
        ("(((a?){900}){900}){900}vwxyz", "vwxyz"),
    ] {
        let hir = regex_syntax::parse(pattern).unwrap();
        assert_eq!(shown(&Required::of_hir(&hir)), formula, "{pattern}");
    }
}

/// The model of a filter: the folded record itself.
fn holds(required: &Required, record: &[u8]) -> bool {
    match required {
        Required::Anything => true,
        Required::Nothing => false,
        Required::Literal(literal) => {
            let has = |bytes: &[u8]| memmem::find(record, bytes).is_some();
            let relatives = ["\u{212A}", "\u{17F}"].iter().any(|c| has(c.as_bytes()));
            relatives && literal.folds_k_or_s
                || memmem::find(&record.to_ascii_lowercase(), &literal.bytes).is_some()
        }
        Required::All(parts) => parts.iter().all(|part| holds(part, record)),
        Required::Any(parts) => parts.iter().any(|part| holds(part, record)),
    }
}

/// Bounds that every formula keeps, and what no literal may be.
fn check_shape(required: &Required) {
    assert!(required.literals() <= REQUIRED_LITERALS_MAX);
    match required {
        Required::Anything | Required::Nothing => {}
        Required::Literal(literal) => {
            assert!((SIGNATURE_GRAM_BYTES..=64).contains(&literal.bytes.len()));
            assert!(!literal.bytes.iter().any(|b| *b == b'\n' || b.is_ascii_uppercase()));
        }
        Required::All(parts) | Required::Any(parts) => {
            assert!(parts.len() > 1);
            parts.iter().for_each(check_shape);
        }
    }
}

/// Records that were tried, that matched, and that matched where the formula said something.
static TRIED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

const RECORDS_EACH: u64 = 40;

fn check(pattern: &str, case_insensitive: bool, records: impl Iterator<Item = Vec<u8>>) {
    let Ok(expression) = Expression::new(pattern, true, case_insensitive) else { return };
    let regex = regex::bytes::RegexBuilder::new(pattern)
        .case_insensitive(case_insensitive)
        .build()
        .expect("an expression is a regex");
    let required = expression.required();
    check_shape(required);
    for record in records {
        let matches = regex.is_match(&record);
        assert!(
            !matches || holds(required, &record),
            "{:?} matches but {} does not hold",
            record.escape_ascii().to_string(),
            shown(required)
        );
        let says = matches && *required != Required::Anything;
        for (count, yes) in TRIED.iter().zip([true, matches, says]) {
            count.fetch_add(u64::from(yes), Ordering::Relaxed);
        }
    }
}

proptest! {
    #![proptest_config(cases(2_500))]

    fn matching_records_contain_what_is_required(
        node in nodes(), case_insensitive: bool, seed: u64,
    ) {
        let mut dice = Dice::of(seed);
        let records = (0..RECORDS_EACH).map(|_| node.record(case_insensitive, &mut dice));
        check(&node.pattern(), case_insensitive, records);
    }
}

/// Of 100,000 pairs of an expression and a record, or 40 of each of `PROPTEST_CASES` expressions,
/// no record that matches lacks what is required.
#[test]
fn fuzz_planning() {
    matching_records_contain_what_is_required();
    let [tried, matched, said] = [0, 1, 2].map(|i| TRIED[i].load(Ordering::Relaxed));
    println!("{tried} records, {matched} matched, {said} where something is required");
    assert!(matched > tried / 3 && said > tried / 8, "{tried} {matched} {said}");
}
