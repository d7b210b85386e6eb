//! The request line of a query.

use super::course::Range;
use super::{Print, QueryConfig};
use crate::client::http::Target;

/// Path and query string, percent-encoded.
pub(super) fn target(config: &QueryConfig, range: &Range) -> String {
    let mut target = Target::new("/query");
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            target.add(name, value);
        }
    };
    add("from", range.from.as_deref());
    add("to", range.to.as_deref());
    config.expressions.add_to(&mut target);
    let is_counted = matches!(config.print, Print::Stats | Print::StatsJson | Print::Count);
    target.add_switch("stats", is_counted);
    config.topics.iter().for_each(|topic| target.add("topic", topic));
    if let Some(limit) = range.limit {
        target.add("limit", &limit.to_string());
    }
    if let Some(after) = &range.after {
        target.add("after", after);
    }
    if config.is_descending {
        target.add("order", "desc");
    }
    if config.denies_partial {
        target.add("partial", "deny");
    }
    target.into_string()
}

#[cfg(test)]
mod tests {
    use super::Range;
    use crate::cli::{Command, parse};

    fn target(line: &[&str]) -> String {
        let arguments: Vec<_> = ["query"].iter().chain(line).map(|&s| s.to_owned()).collect();
        match parse(&arguments, &[]) {
            Ok((Command::Query(config), _)) => {
                let now = "2026-11-30T14:30:00Z".parse().unwrap();
                super::target(&config, &Range::of(&config, now).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_was_asked_is_in_the_target() {
        for (line, expected) in [
            (&[][..], "/query?from=1h"),
            (
                &["-from", "2h", "-to", "1h", "-q", "my.*(A|B)", "-regex"],
                "/query?from=2h&to=1h&q=my.%2A%28A%7CB%29&regex=true",
            ),
            (&["-q", "100% a+b&c=ü"], "/query?from=1h&q=100%25%20a%2Bb%26c%3D%C3%BC"),
            (
                &["-q", "a,b", "-x", "c", "-q", "", "--q=d", "--x", "e", "f"],
                "/query?from=1h&q=a%2Cb&q=d&q=f&x=c&x=e",
            ),
            (&["-x="], "/query?from=1h&x="),
            (
                &["-since=-1.5h", "--until", "17:00", "--tz", "+02:00", "a"],
                "/query?from=1h30m&to=2026-11-30T15%3A00%3A00.000Z&q=a",
            ),
            (&["-n3", "-c"], "/query?from=1h&stats=true&limit=3&order=desc"),
            (
                &["-w", "a.b", "-x", "c", "--after", "01HF7YAT001AXWSQFE00000007", "-partial=deny"],
                "/query?from=1h&q=%5Cb%7Bstart-half%7D%28%3F%3Aa%5C.b%29%5Cb%7Bend-half%7D\
                 &x=%5Cb%7Bstart-half%7D%28%3F%3Ac%29%5Cb%7Bend-half%7D&regex=true\
                 &after=01HF7YAT001AXWSQFE00000007&partial=deny",
            ),
            (
                &["-i", "--topic", "x", "--topic", "y", "--limit", "3", "--order", "desc"],
                "/query?from=1h&i=true&topic=x&topic=y&limit=3&order=desc",
            ),
            (
                &["--stats", "--from", "2024-01-01T00:00:00+01:00"],
                "/query?from=2024-01-01T00%3A00%3A00%2B01%3A00&stats=true",
            ),
        ] {
            assert_eq!(target(line), expected);
        }
    }
}
