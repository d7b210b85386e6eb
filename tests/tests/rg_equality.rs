//! The answer equals what `rg --text --encoding none --no-crlf` prints over the same lines.

use std::io::Write;
use std::process::{Command, Stdio};

use tests::http::encode;
use tests::lines::{self, Random, split};
use tests::node::Node;
use tests::{sender, skipped, tools};

/// Expression, whether it is a regex, whether case counts.
const EXPRESSIONS: &[(&str, bool, bool)] = &[
    ("error", false, true),
    ("error", false, false),
    ("ERROR|WARN", true, true),
    ("a.b", false, true),
    ("a.b", true, true),
    ("^$", true, true),
    ("^\\s", true, true),
    ("\\s$", true, true),
    ("\\r$", true, true),
    ("[^a-z]$", true, true),
    ("\\bfail(ed|ure)?\\b", true, false),
    ("(?i)straße|k", true, true),
    ("\\d{1,3}(\\.\\d{1,3}){3}", true, true),
    ("\\w+@\\w+", true, true),
    ("x*", true, true),
    ("\\Apart", true, true),
    ("e\\z", true, true),
    ("\\x00", true, true),
    ("(?s)a.*z", true, true),
    ("[[:upper:]]{5,}", true, true),
    ("\\PL{20}", true, true),
    ("(?R)ERROR$", true, true),
    ("(?R)^$", true, true),
    ("(?R)^[a-z ]+$", true, true),
    ("(?R)\\r$", true, true),
    ("(?R)\\A.*$", true, true),
    ("(?R).z$", true, true),
    ("no such needle anywhere", false, true),
    ("", false, true),
];

/// Expressions that have to match, those that may not, whether they are regexes, whether case counts.
type Chain = (&'static [&'static str], &'static [&'static str], bool, bool);

const CHAINS: &[Chain] = &[
    (&["error", "fail"], &[], false, false),
    (&["a", "error", "z"], &["failed", "x@y"], false, true),
    (&["\\bfail", "[[:upper:]]{5,}|z$"], &["\\d{1,3}(\\.\\d{1,3}){3}"], true, true),
    (&["k", "straße"], &["^a", "\\r$"], true, false),
    (&[], &["error", "1.2.3.4"], false, false),
    (&[], &["(?R)[a-z]$", "^$"], true, true),
];

/// What `rg` prints of these lines, or of the others.
fn rg_prints(
    rg: &std::path::Path,
    corpus: &[u8],
    (expression, is_inverted): (&str, bool),
    (regex, case): (bool, bool),
) -> Vec<u8> {
    let mut command = Command::new(rg);
    command.args(["--text", "--encoding", "none", "--no-crlf", "--no-config"]);
    command.args(["--no-filename", "--no-line-number", "--color", "never"]);
    let flags =
        [("--fixed-strings", !regex), ("--ignore-case", !case), ("--invert-match", is_inverted)];
    command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    command.args(["-e", expression, "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("rg starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = corpus.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let printed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap().expect("rg reads everything");
    printed
}

/// A chain finds what is left of a pipe with one `rg` for each of its expressions.
fn compare_chains(node: &Node, rg: &std::path::Path, corpus: &[u8]) {
    for (all, none, regex, case) in CHAINS {
        let all = all.iter().map(|&q| ("q", q, false));
        let (mut left, mut query) = (corpus.to_vec(), Vec::new());
        for (name, expression, is_inverted) in all.chain(none.iter().map(|&x| ("x", x, true))) {
            left = rg_prints(rg, &left, (expression, is_inverted), (*regex, *case));
            query.push(format!("{name}={}", encode(expression)));
        }
        query.extend(regex.then(|| "regex".to_owned()));
        query.extend((!case).then(|| "i".to_owned()));
        let query = query.join("&");
        let found: Vec<Vec<u8>> = node.query(&query).into_iter().map(|(_, r)| r).collect();
        let expected = split(&left);
        assert_eq!(found.len(), expected.len(), "{query}");
        assert!(found == expected, "{query}: other lines");
    }
}

fn compare(node: &Node, rg: &std::path::Path, corpus: &[u8]) {
    compare_chains(node, rg, corpus);
    for &(expression, regex, case) in EXPRESSIONS {
        let expected = split(&rg_prints(rg, corpus, (expression, false), (regex, case)));
        let mut query = format!("q={}", encode(expression));
        if regex {
            query.push_str("&regex");
        }
        if !case {
            query.push_str("&i");
        }
        let found: Vec<Vec<u8>> = node.query(&query).into_iter().map(|(_, r)| r).collect();
        assert_eq!(found.len(), expected.len(), "{expression:?} regex={regex} case={case}");
        assert!(found == expected, "{expression:?} regex={regex} case={case}: other lines");
    }
}

#[test]
fn real_logs_are_found_as_rg_finds_them() {
    let test = "real_logs_are_found_as_rg_finds_them";
    let Some(rg) = tools::ripgrep() else { return skipped(test, tools::NO_RIPGREP) };
    let Some(files) = lines::loghub() else { return skipped(test, "no ../shared") };
    let mut corpus = Vec::new();
    for file in files {
        corpus.extend(std::fs::read(file).unwrap());
        if corpus.last() != Some(&b'\n') {
            corpus.push(b'\n');
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    // One connection, so that the order of lines is that of the file.
    sender::send(node.durable, &corpus);
    compare(&node, &rg, &corpus);
    node.settle();
    compare(&node, &rg, &corpus);
}

#[test]
fn odd_bytes_are_found_as_rg_finds_them() {
    let Some(rg) = tools::ripgrep() else {
        return skipped("odd_bytes_are_found_as_rg_finds_them", tools::NO_RIPGREP);
    };
    let pieces: &[&[u8]] = &[
        b"a",
        b"b",
        b"z",
        b" ",
        b"\r",
        b"\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b"\xc3\x9f",
        b"stra\xc3\x9fe",
        b"\xe2\x84\xaa",
        b"error",
        b"ERROR",
        b"part",
        b"1.2.3.4",
        b"x@y",
        b"fail",
        b"failed",
        b"\t",
        b"\xc5\xbf",
        b"WARNING",
        b"\xf0\x9f\x98\x80",
    ];
    let mut random = Random::new(15);
    let mut corpus = Vec::new();
    for _ in 0..40_000 {
        corpus.extend_from_slice(pieces[random.below(pieces.len() as u64) as usize]);
    }
    corpus.push(b'\n');
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, &corpus);
    compare(&node, &rg, &corpus);
}
