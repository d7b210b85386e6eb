//! Formulas of known expressions, and the property that matches satisfy them.

use super::*;
use crate::search::Expression;

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
