//! The pass over the arguments before the command line parser: both dash styles become
//! `--name=value`.
//!
//! An argument in flag position whose text up to `=` is `-` and a known long name of two letters
//! or more is that flag (`-store.path=x`, `-regex`); only then are short clusters considered
//! (`-iv`, `-qHello`). Invariants: values are never rewritten (`-q -regex` searches for
//! `-regex`); what is not recognised is passed on for the parser to refuse, with the dashes that
//! make its message name the whole word.

use crate::flags::Flag;

/// Rewrites the arguments behind the command word.
pub(crate) fn normalise(flags: &[Flag], arguments: &[String]) -> Vec<String> {
    let mut out = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            out.push(argument.clone());
            out.extend(rest.cloned());
            break;
        }
        let mut take_value = || rest.next().cloned();
        if let Some((flag, value)) = as_long(flags, argument) {
            push(&mut out, flag, value.map(str::to_owned), &mut take_value);
        } else if let Some(cluster) = as_cluster(flags, argument) {
            for (flag, value) in cluster {
                push(&mut out, flag, value, &mut take_value);
            }
        } else if looks_like_a_long_name(argument) {
            out.push(format!("-{argument}"));
        } else {
            out.push(argument.clone());
        }
    }
    out
}

/// Pushes `--name[=value]`; a value that has not come yet stands in the next argument, if any.
fn push(
    out: &mut Vec<String>,
    flag: &Flag,
    value: Option<String>,
    next: &mut dyn FnMut() -> Option<String>,
) {
    let value = match value {
        None if flag.takes_value() => next(),
        value => value,
    };
    out.push(match value {
        Some(value) => format!("--{}={value}", flag.name),
        None => format!("--{}", flag.name),
    });
}

/// `--name[=value]`, or `-name[=value]` where the name has two letters or more.
fn as_long<'a, 'b>(flags: &'a [Flag], argument: &'b str) -> Option<(&'a Flag, Option<&'b str>)> {
    let (head, value) = match argument.split_once('=') {
        Some((head, value)) => (head, Some(value)),
        None => (argument, None),
    };
    let name = match head.strip_prefix("--") {
        Some(name) => name,
        None => head.strip_prefix('-').filter(|name| name.len() >= 2)?,
    };
    flags.iter().find(|flag| flag.is_named(name)).map(|flag| (flag, value))
}

/// `-iv`, `-qVALUE`, `-q=VALUE`, `-i=false`: known letters up to the first that takes a value.
fn as_cluster<'a>(flags: &'a [Flag], argument: &str) -> Option<Vec<(&'a Flag, Option<String>)>> {
    let letters = argument.strip_prefix('-').filter(|rest| !rest.is_empty())?;
    let mut found = Vec::new();
    for (at, letter) in letters.char_indices() {
        let flag = flags.iter().find(|flag| flag.short == Some(letter))?;
        let behind = &letters[at + letter.len_utf8()..];
        if let Some(value) = behind.strip_prefix('=') {
            found.push((flag, Some(value.to_owned())));
            break;
        }
        if flag.takes_value() {
            found.push((flag, (!behind.is_empty()).then(|| behind.to_owned())));
            break;
        }
        found.push((flag, None));
    }
    Some(found)
}

/// `-word` that nobody knows: shown to the parser as `--word`, so that its message names the word
/// and not its first letter. `-h` and `-V` stay what they are.
fn looks_like_a_long_name(argument: &str) -> bool {
    argument.len() > 2 && argument.starts_with('-') && !argument.starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag_table::{NODE, QUERY};

    fn run(flags: &[Flag], line: &[&str]) -> Vec<String> {
        normalise(flags, &line.iter().map(|&s| s.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_dash_styles_become_one() {
        let cases: &[(&[Flag], &[&str], &[&str])] = &[
            // The command lines of the predecessor's README.
            (
                NODE,
                &["-store.segment-replication-factor", "1"],
                &["--store.segment-replication-factor=1"],
            ),
            (QUERY, &["-from", "5m", "-q", "Hello"], &["--from=5m", "--q=Hello"]),
            (
                QUERY,
                &["-from", "2h", "-to", "1h", "-q", "myservice.*(WARN|ERROR)", "-regex"],
                &["--from=2h", "--to=1h", "--q=myservice.*(WARN|ERROR)", "--regex"],
            ),
            (QUERY, &["-from", "1h", "-q", "/api/v1/login"], &["--from=1h", "--q=/api/v1/login"]),
            // Other names, and times that look like flags.
            (QUERY, &["-since", "-1h", "--until=now"], &["--from=-1h", "--to=now"]),
            // Values are never rewritten.
            (QUERY, &["-q", "-regex"], &["--q=-regex"]),
            (QUERY, &["-q", "--", "-regex"], &["--q=--", "--regex"]),
            (QUERY, &["--q", "--regex=false"], &["--q=--regex=false"]),
            (QUERY, &["-q=a=b"], &["--q=a=b"]),
            (QUERY, &["-q", ""], &["--q="]),
            (QUERY, &["-q="], &["--q="]),
            // Booleans do not eat the next argument.
            (QUERY, &["-regex", "-i", "x"], &["--regex", "--ignore-case", "x"]),
            (QUERY, &["-regex=false", "-v=false"], &["--regex=false", "--verbose=false"]),
            // Clusters, only where no long name fits.
            (QUERY, &["-iv"], &["--ignore-case", "--verbose"]),
            (QUERY, &["-ivqHello"], &["--ignore-case", "--verbose", "--q=Hello"]),
            (QUERY, &["-viq", "Hello"], &["--verbose", "--ignore-case", "--q=Hello"]),
            // Everything behind `--` is left alone, what is unknown is passed on.
            (QUERY, &["--", "-regex"], &["--", "-regex"]),
            (QUERY, &["-peer", "x"], &["--peer", "x"]),
            (QUERY, &["-h"], &["-h"]),
            (QUERY, &["-"], &["-"]),
            (QUERY, &["-q"], &["--q"]),
            (QUERY, &[], &[]),
        ];
        for (flags, line, expected) in cases {
            assert_eq!(run(flags, line), *expected, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_value_survives_whatever_it_looks_like(value: String) {
            proptest::prop_assert_eq!(run(QUERY, &["-q", &value]), vec![format!("--q={value}")]);
        }
    }
}
