//! Random regular expressions that know what they match, for tests: a pattern is made from a tree,
//! and so are records that it should match, with letters in other cases, among noise, or with a
//! byte changed. Whether a record does match is for the caller's model to say.

use std::fmt::Write;

use proptest::prelude::*;

use crate::random::Random;

/// A pattern's tree.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// These characters.
    Literal(String),
    /// One of these; or another, if the flag says so.
    Class(Vec<char>, bool),
    /// As it stands; a record has these bytes at its place.
    Verbatim(&'static str, &'static [u8]),
    Concat(Vec<Node>),
    Alternation(Vec<Node>),
    /// So many, or any number from the first on.
    Repetition(Box<Node>, u32, Option<u32>),
    /// With case ignored or, if the flag says so, with case counting again.
    Flagged(Box<Node>, bool),
    Capture(Box<Node>),
}

/// Letters with and without relatives beyond ASCII, in both cases, and others.
const CHARACTERS: [char; 20] = [
    'a', 'b', 'e', 'r', 'A', 'B', 'k', 'K', 's', 'S', '\u{212A}', '\u{17F}', 'é', 'É', 'ß', 'ẞ',
    '7', ' ', '.', '☃',
];

const VERBATIM: [(&str, &[u8]); 24] = [
    ("", b""),
    (r"\b", b""),
    (r"\B", b""),
    ("^", b""),
    ("$", b""),
    (r"\A", b""),
    (r"\z", b""),
    ("(?m)^", b""),
    ("(?m:$)", b""),
    (r"(?-u:\b)", b""),
    ("[a&&b]", b"a"),
    (".", b"b"),
    (".*", b"b7"),
    (".+", "é".as_bytes()),
    (r"\w", b"k"),
    (r"\d+", b"77"),
    (r"\s", b" "),
    (r"\pL", "ß".as_bytes()),
    (r"(?-u:\xFF)", b"\xFF"),
    (r"(?s-u:.)", b"\x80"),
    ("(?i-u:k)", b"K"),
    ("(?i-u:s)", b"S"),
    (r"(?i:\x{212A})", b"k"),
    (r"[0-9a-f]", b"c"),
];

pub(crate) fn nodes() -> impl Strategy<Value = Node> {
    let character = || prop::sample::select(&CHARACTERS[..]);
    let literal = |len| {
        prop::collection::vec(character(), len)
            .prop_map(|chars| Node::Literal(chars.into_iter().collect()))
    };
    let leaf = prop_oneof![
        6 => literal(1..9),
        2 => literal(4..7),
        1 => prop::sample::select(vec!["error", "bakes", "7a b7", "k", "S"])
            .prop_map(|word| Node::Literal(word.to_owned())),
        3 => (prop::collection::vec(character(), 1..4), prop::bool::weighted(0.1))
            .prop_map(|(members, negated)| Node::Class(members, negated)),
        4 => prop::sample::select(&VERBATIM[..]).prop_map(|(text, bytes)| Node::Verbatim(text, bytes)),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let many = |len| prop::collection::vec(inner.clone(), len);
        let times = prop::sample::select(vec![
            (0, None),
            (1, None),
            (0, Some(1)),
            (0, Some(0)),
            (2, Some(2)),
            (3, Some(3)),
            (1, Some(3)),
            (0, Some(2)),
            (2, None),
            (3, None),
            (14, Some(15)),
        ]);
        prop_oneof![
            6 => many(2..6).prop_map(Node::Concat),
            3 => many(2..5).prop_map(Node::Alternation),
            2 => (boxed(), times).prop_map(|(node, (min, max))| Node::Repetition(node, min, max)),
            2 => (boxed(), any::<bool>()).prop_map(|(node, counts)| Node::Flagged(node, counts)),
            1 => boxed().prop_map(Node::Capture),
        ]
    })
}

impl Node {
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = String::new();
        self.write_to(&mut pattern);
        pattern
    }

    fn write_to(&self, to: &mut String) {
        let bracketed = |node: &Node, start: &str, to: &mut String| {
            to.push_str(start);
            node.write_to(to);
            to.push(')');
        };
        match self {
            Self::Literal(text) => to.push_str(&regex_syntax::escape(text)),
            Self::Class(members, negated) => {
                to.push_str(if *negated { "[^" } else { "[" });
                to.extend(members);
                to.push(']');
            }
            Self::Verbatim(text, _) => to.push_str(text),
            Self::Concat(parts) => parts.iter().for_each(|part| part.write_to(to)),
            Self::Alternation(arms) => {
                to.push_str("(?:");
                for (i, arm) in arms.iter().enumerate() {
                    to.push_str(if i > 0 { "|" } else { "" });
                    arm.write_to(to);
                }
                to.push(')');
            }
            Self::Repetition(node, min, max) => {
                bracketed(node, "(?:", to);
                let max = max.map_or(String::new(), |max| max.to_string());
                write!(to, "{{{min},{max}}}").expect("a string takes everything");
            }
            Self::Flagged(node, counts) => {
                bracketed(node, if *counts { "(?-i:" } else { "(?i:" }, to);
            }
            Self::Capture(node) => bracketed(node, "(", to),
        }
    }

    /// A record that most likely matches; without LF.
    pub(crate) fn record(&self, case_insensitive: bool, dice: &mut Dice) -> Vec<u8> {
        let mut record = Vec::new();
        if dice.one_in(3) {
            dice.noise(&mut record);
        }
        self.sample(case_insensitive, dice, &mut record);
        if dice.one_in(3) {
            dice.noise(&mut record);
        }
        if dice.one_in(5) && !record.is_empty() {
            let at = dice.below(record.len());
            match dice.below(3) {
                0 => drop(record.remove(at)),
                1 => record[at] ^= 0x20,
                _ => record.insert(at, b'a'),
            }
        }
        record.retain(|&byte| byte != b'\n');
        record
    }

    fn sample(&self, folds: bool, dice: &mut Dice, to: &mut Vec<u8>) {
        match self {
            Self::Literal(text) => text.chars().for_each(|c| dice.character(c, folds, to)),
            Self::Class(members, negated) => {
                let from = if *negated { &CHARACTERS[..] } else { members };
                let member = from[dice.below(from.len())];
                dice.character(member, folds, to);
            }
            Self::Verbatim(_, bytes) => to.extend_from_slice(bytes),
            Self::Concat(parts) => parts.iter().for_each(|part| part.sample(folds, dice, to)),
            Self::Alternation(arms) => arms[dice.below(arms.len())].sample(folds, dice, to),
            Self::Repetition(node, min, max) => {
                let more = max.map_or(3, |max| max - min + 1);
                let count = *min as usize + dice.below(more as usize);
                for _ in 0..count {
                    node.sample(folds, dice, to);
                    // Nested repetitions multiply; such a record need not match.
                    if to.len() > 2048 {
                        break;
                    }
                }
            }
            Self::Flagged(node, counts) => node.sample(!counts, dice, to),
            Self::Capture(node) => node.sample(folds, dice, to),
        }
    }
}

/// Chances from a seed.
pub(crate) struct Dice(Random);

impl Dice {
    pub(crate) const fn of(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0.below(count as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn noise(&mut self, to: &mut Vec<u8>) {
        for _ in 0..self.below(8) {
            let c = CHARACTERS[self.below(CHARACTERS.len())];
            self.character(c, false, to);
        }
    }

    /// The character or, where case is ignored, any of its forms.
    fn character(&mut self, c: char, folds: bool, to: &mut Vec<u8>) {
        let forms: &[char] = match c {
            _ if !folds => &[],
            'k' | 'K' | '\u{212A}' => &['k', 'K', '\u{212A}'],
            's' | 'S' | '\u{17F}' => &['s', 'S', '\u{17F}'],
            'é' | 'É' => &['é', 'É'],
            'ß' | 'ẞ' => &['ß', 'ẞ'],
            _ => &[],
        };
        let c = match forms {
            [] if folds && self.one_in(2) => c.to_ascii_uppercase(),
            [] if folds => c.to_ascii_lowercase(),
            [] => c,
            forms => forms[self.below(forms.len())],
        };
        to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
