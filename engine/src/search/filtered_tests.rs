//! A signature, asked for what an expression requires, never rules a block out that the expression
//! matches in: whole searches over random texts and expressions against filtered ones.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::chain::ChainMatcher;
use super::matcher::Matcher;
use super::required::Required;
use super::{Chain, Expression};
use crate::signature::grams::has_fold_extras;
use crate::signature::{Bits, Filter, Matrix, MatrixBuilder, Rows};

/// A record that matches has what is required.
fn holds(required: &Required, folded: &[u8]) -> bool {
    match required {
        Required::Anything => true,
        Required::Nothing => false,
        Required::Literal(literal) => {
            memchr::memmem::find(folded, &literal.bytes).is_some()
                || literal.folds_k_or_s && has_fold_extras(folded)
        }
        Required::All(parts) => parts.iter().all(|part| holds(part, folded)),
        Required::Any(parts) => parts.iter().any(|part| holds(part, folded)),
    }
}

const WORDS: [&str; 14] = [
    "kelvin",
    "session",
    "Error",
    "a b",
    "x",
    "=10.0.0.7",
    "é",
    "ÉTÉ",
    "\u{212A}",
    "\u{17F}",
    "ß",
    "timeout",
    "7f3a",
    "-",
];

fn word() -> impl Strategy<Value = String> {
    proptest::sample::select(&WORDS[..]).prop_map(str::to_owned)
}

/// Expressions that match often: made of the words that texts are made of.
fn expressions() -> impl Strategy<Value = String> {
    let class = proptest::sample::select(
        &["[a-z]", "[ks]", "[^x]", r"\d", ".", "[é\u{212A}]", r"\w", "[0-3]", r"\s", "[E-e]"][..],
    );
    let look = proptest::sample::select(&["^", "$", r"\b", r"\A", "(?:)"][..]);
    let leaf = prop_oneof![
        8 => word().prop_map(|word| regex_syntax::escape(&word)),
        2 => class.prop_map(str::to_owned),
        1 => look.prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let repeat = proptest::sample::select(&["?", "*", "+", "{2}", "{0,2}", "{1,}", "{0}"][..]);
        let flag = proptest::sample::select(&["(?i:", "(?-i:", "(?s:", "("][..]);
        prop_oneof![
            5 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => proptest::collection::vec(inner.clone(), 1..4)
                .prop_map(|arms| format!("({})", arms.join("|"))),
            2 => (inner.clone(), repeat).prop_map(|(inner, repeat)| format!("(?:{inner}){repeat}")),
            1 => (inner, flag).prop_map(|(inner, flag)| format!("{flag}{inner})")),
        ]
    })
}

/// Blocks of a few records each.
fn blocks() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![6 => word(), 1 => word().prop_map(|w| w.to_uppercase())];
    let record = proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat() + "\n");
    let block = proptest::collection::vec(record, 1..4).prop_map(|records| records.concat());
    proptest::collection::vec(block, 5)
}

/// Expressions that have to match, those that may not, and whether case counts.
fn chains() -> impl Strategy<Value = (Vec<String>, Vec<String>, bool)> {
    let some = |len| proptest::collection::vec(expressions(), len);
    let chain = prop_oneof![
        3 => (some(1..2), some(0..1)),
        1 => (some(1..4), some(0..3)),
    ];
    (chain, any::<bool>()).prop_map(|((all, none), folds)| (all, none, folds))
}

/// Chains that each set of blocks is searched with: 20 make five blocks 100 cases.
const CHAINS_PER_CASE: usize = 20;

/// Runs as many cases as asked for, of 100 pairs of a chain and a block each: 1,000, or
/// what `PROPTEST_CASES` says.
fn cases() -> Config {
    let config = Config::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    Config { cases: if asked { config.cases } else { 1_000 }, ..config }
}

proptest! {
    #![proptest_config(cases())]

    /// 100,000 pairs: what the filter rules out, the whole search does not find; what the formula
    /// requires, each match has.
    #[test]
    fn filtered_answers_equal_unfiltered_ones(
        texts in blocks(),
        chains in proptest::collection::vec(chains(), CHAINS_PER_CASE),
    ) {
        let mut builder = MatrixBuilder::default();
        for text in &texts {
            builder.push(text.as_bytes());
        }
        let stored = builder.finish(1 << 30, 10).unwrap();
        for (all, none, case_insensitive) in chains {
            let compiled = |texts: &[String]| -> Result<Vec<_>, _> {
                texts.iter().map(|text| Expression::new(text, true, case_insensitive)).collect()
            };
            let (Ok(all), Ok(none)) = (compiled(&all), compiled(&none)) else { continue };
            let chain = Chain::new(all, none);
            let mut extras = Bits::none(texts.len());
            for (number, text) in texts.iter().enumerate() {
                if has_fold_extras(text.as_bytes()) {
                    extras.insert(number);
                }
            }
            let matrix = Matrix::new(&stored.bytes, stored.crc, stored.rows, texts.len() as u32);
            let (mut filter, rows) = (Filter::new(matrix.unwrap()), Rows::of(chain.required()));
            let mut found = Bits::all(texts.len());
            for from in (0..texts.len()).step_by(64) {
                found.remove_word(from, !filter.candidates(&rows, from, extras.word_at(from)));
            }
            for (number, block) in texts.iter().enumerate() {
                let mut matched = Vec::new();
                ChainMatcher::new(&chain).each(block.as_bytes(), |record| {
                    matched.push(record);
                    true
                });
                for record in matched {
                    let folded = block.as_bytes()[record].to_ascii_lowercase();
                    prop_assert!(holds(chain.required(), &folded), "{chain:?} in {block:?}");
                    prop_assert!(found.contains(number), "{chain:?} in {block:?}");
                }
            }
        }
    }
}

/// The expressions above would prove little if they hardly ever matched, or never ruled out.
#[test]
fn the_generated_expressions_match_and_rule_out_often() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut matches, mut known, mut all) = (0, 0, 0);
    for _ in 0..200 {
        let texts = blocks().new_tree(&mut runner).unwrap().current();
        let text = expressions().new_tree(&mut runner).unwrap().current();
        let Ok(expression) = Expression::new(&text, true, false) else { continue };
        all += 1;
        known += usize::from(*expression.required() != Required::Anything);
        let mut matcher = Matcher::new(&expression);
        matches += usize::from(matcher.next(texts.concat().as_bytes(), 0).is_some());
    }
    assert!(matches * 3 > all && known * 5 > all, "{matches} match, {known} known of {all}");
}
