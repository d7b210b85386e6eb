//! Against models of few lines.

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::search::matcher::Matcher;
use crate::search::random_expressions::{Dice, Node, nodes};

fn found(chain: &Chain, text: &[u8]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    ChainMatcher::new(chain).each(text, |record| {
        all.push(record);
        true
    });
    all
}

/// Each record by itself.
fn model(text: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> Vec<Range<usize>> {
    let mut start = 0;
    let records = text.split_inclusive(|&b| b == b'\n').map(|line| {
        start += line.len();
        (start - line.len()..start, line)
    });
    records.filter(|(_, line)| matches(line)).map(|(record, _)| record).collect()
}

fn text(all: &[&str], none: &[&str], regex: bool, ignore_case: bool) -> ChainText {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    ChainText::new((owned(all), owned(none)), regex, ignore_case).unwrap()
}

fn chain(all: &[&str], none: &[&str], regex: bool, ignore_case: bool) -> Chain {
    text(all, none, regex, ignore_case).compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn records_contain_every_literal_of_one_kind_and_none_of_the_other(
        all in prop::collection::vec("[aAb ]{0,3}", 0..4),
        none in prop::collection::vec("[aAb ]{1,3}", 0..4),
        ignore_case: bool,
        records in prop::collection::vec("[aAb ]{0,6}", 0..20),
    ) {
        let text = records.join("\n") + "\n";
        let folded = |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
        let expected = model(text.as_bytes(), |line| {
            let line = folded(std::str::from_utf8(line).unwrap());
            all.iter().all(|q| line.contains(&folded(q)))
                && !none.iter().any(|x| line.contains(&folded(x)))
        });
        let chain = ChainText::new((all, none), false, ignore_case).unwrap();
        let chain = chain.compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap();
        prop_assert_eq!(found(&chain, text.as_bytes()), expected);
    }

    #[test]
    fn a_chain_of_any_expressions_finds_what_each_of_them_says_of_each_record(
        all in prop::collection::vec(nodes(), 0..3),
        none in prop::collection::vec(nodes(), 0..3),
        ignore_case: bool,
        seed: u64,
    ) {
        let mut dice = Dice::of(seed);
        let mut text = Vec::new();
        for _ in 0..30 {
            // Where they have most of what they have to, some have what they may not.
            for node in &all {
                text.extend(node.record(ignore_case, &mut dice));
            }
            if let Some(node) = none.first().filter(|_| dice.one_in(3)) {
                text.extend(node.record(ignore_case, &mut dice));
            }
            text.push(b'\n');
        }
        let compiled = |node: &Node| {
            Expression::new(&node.pattern(), true, ignore_case).ok()
        };
        let all: Option<Vec<_>> = all.iter().map(compiled).collect();
        let none: Option<Vec<_>> = none.iter().map(compiled).collect();
        if let (Some(all), Some(none)) = (all, none) {
            let expected = model(&text, |line| {
                all.iter().all(|e| Matcher::new(e).matches(line))
                    && !none.iter().any(|e| Matcher::new(e).matches(line))
            });
            prop_assert_eq!(found(&Chain::new(all, none), &text), expected);
        }
    }
}

#[test]
fn the_expression_leads_that_has_most_to_look_for() {
    for (all, regex, lead) in [
        (&["a", "needle", "b"][..], false, "needle"),
        (&[".*", r"\d+ timeout$", "(error|refused)"], true, r"\d+ timeout$"),
        (&[r"^\w+$", "abc"], true, "abc"),
        (&["", "x"], false, "x"),
    ] {
        let chain = chain(all, &[], regex, false);
        assert_eq!(chain.all[0].text(), lead);
    }
}

#[test]
fn what_all_of_a_chain_requires_is_asked_of_signatures() {
    let both = chain(&["needle", "haystack"], &["straw"], false, false);
    let of = |text: &str| Required::of_literal(text.as_bytes());
    assert_eq!(*both.required(), Required::All(vec![of("haystack"), of("needle")]));
    assert_eq!(*chain(&["needle"], &[], false, false).required(), of("needle"));
    assert_eq!(*chain(&["a.c", "needle"], &[], true, false).required(), of("needle"));
    assert_eq!(*chain(&[], &["needle"], false, false).required(), Required::Anything);
    // One that is too large is left out, and the others are not.
    let words: Vec<String> = (0..250).map(|n| format!("word{n}")).collect();
    let large = words.join("|");
    let (twice, more) = (format!("({large})"), format!("({large}) "));
    let chain = chain(&[&twice, "needle", &more], &[], true, false);
    let Required::All(parts) = chain.required() else { panic!("{:?}", chain.required()) };
    assert!(parts.contains(&of("needle")) && parts.len() == 2, "{parts:?}");
}

#[test]
fn empty_expressions_match_every_record() {
    let text = b"a\n\nb\n";
    assert!(chain(&["", ""], &[], false, false).matches_all());
    assert!(chain(&[], &[], true, true).matches_all());
    let nothing = chain(&["a"], &[""], false, false);
    assert!(found(&nothing, text).is_empty() && !nothing.matches_all());
    assert_eq!(*nothing.required(), Required::Nothing);
    assert!(found(&chain(&[], &[""], true, false), text).is_empty());
    assert_eq!(found(&chain(&[], &["^$"], true, false), text), [0..2, 3..5]);
}

#[test]
fn a_search_ends_when_its_taker_has_enough() {
    for (all, none) in [(&["a"][..], &[][..]), (&[][..], &["b"][..])] {
        let mut taken = 0;
        ChainMatcher::new(&chain(all, none, false, false)).each(b"a\na\na\n", |_| {
            taken += 1;
            taken < 2
        });
        assert_eq!(taken, 2);
    }
}

#[test]
fn the_bounds_hold_for_all_together_and_name_the_side() {
    let many = |text: &str, count: usize| vec![text.to_owned(); count];
    let new = |all, none| ChainText::new((all, none), true, false);
    let too_many = CHAIN_EXPRESSIONS_MAX + 1;
    assert!(new(many("a", CHAIN_EXPRESSIONS_MAX), many("b", CHAIN_EXPRESSIONS_MAX)).is_ok());
    let error = new(Vec::new(), many("a", too_many)).unwrap_err();
    assert_eq!(error, ChainError::TooMany { side: Side::None, given: too_many });

    let half = "x".repeat(EXPRESSION_BYTES_MAX / 2);
    assert!(new(many(&half, 2), Vec::new()).is_ok());
    let error = new(many(&half, 2), many("y", 1)).unwrap_err();
    let len_bytes = EXPRESSION_BYTES_MAX + 1;
    assert_eq!(error, ChainError::TooLong { side: Side::None, len_bytes });
    let error = new(many(&"x".repeat(len_bytes), 1), Vec::new()).unwrap_err();
    let alone = ExpressionError::TooLong { len_bytes };
    assert_eq!(error, ChainError::Expression { side: Side::All, error: alone });

    let size = |all: &[&str], none: &[&str]| {
        text(all, none, true, false).compile(256 << 10).map(|chain| chain.memory_bytes())
    };
    let large = r"\pL{2}x";
    let alone = size(&[large], &[]).unwrap();
    assert!(alone > 10_000, "{alone}");
    assert_eq!(size(&[large; 30], &["a"]), Err(ChainError::TooLarge { side: Side::All }));
    assert_eq!(size(&["a"], &[large; 30]), Err(ChainError::TooLarge { side: Side::None }));
    let error = ChainError::Expression { side: Side::All, error: ExpressionError::TooLarge };
    assert_eq!(size(&[r"\pL{200}"], &[]), Err(error), "alone it is as large as it is");
    let error = text(&["a"], &["("], true, false).compile(1 << 20).unwrap_err();
    assert_eq!(error.side(), Side::None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn a_chain_holds_no_more_than_it_was_given_room_for(
        patterns in prop::collection::vec(
            prop::sample::select(vec!["abc", r"\w+@\w+", r"\pL{3}", "(?i)error|refused", r"\d{9}x"]),
            1..20,
        ),
        size in prop::sample::select(vec![64 << 10, 256 << 10, 1 << 20]),
        at in 0..20usize,
    ) {
        let (all, none) = patterns.split_at(at.min(patterns.len()));
        let text = text(all, none, true, false);
        if let Ok(chain) = text.compile(size) {
            let (held, most) = (chain.memory_bytes(), text.cost_bytes_max(size));
            prop_assert!(held <= most, "{held} of {most}");
        }
    }
}
