//! The request line of a query.

use super::course::Range;
use super::{Print, QueryConfig};
use crate::client::http::encode;

/// Path and query string, percent-encoded.
pub(super) fn target(config: &QueryConfig, range: &Range) -> String {
    let mut target = String::from("/query?from=");
    encode(&mut target, &range.from);
    let mut parameter = |name: &str, value: &str| {
        target.push('&');
        target.push_str(name);
        target.push('=');
        encode(&mut target, value);
    };
    if let Some(to) = &range.to {
        parameter("to", to);
    }
    // An empty one matches every record.
    config.q.iter().filter(|q| !q.is_empty()).for_each(|q| parameter("q", q));
    config.x.iter().for_each(|x| parameter("x", x));
    for (name, on) in [
        ("regex", config.regex),
        ("i", config.ignore_case),
        ("stats", matches!(config.print, Print::Stats | Print::StatsJson)),
    ] {
        if on {
            parameter(name, "true");
        }
    }
    for topic in &config.topics {
        parameter("topic", topic);
    }
    if let Some(limit) = range.limit {
        parameter("limit", &limit.to_string());
    }
    if let Some(after) = &range.after {
        parameter("after", after);
    }
    if config.order == "desc" {
        parameter("order", "desc");
    }
    target
}

#[cfg(test)]
mod tests {
    use super::Range;
    use crate::cli::{Command, parse};

    fn target(line: &[&str]) -> String {
        let arguments: Vec<_> = ["query"].iter().chain(line).map(|&s| s.to_owned()).collect();
        match parse(&arguments, &[]) {
            Ok((Command::Query(config), _)) => super::target(&config, &Range::of(&config)),
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
