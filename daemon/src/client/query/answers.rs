//! Answers that are printed otherwise than record by record: statistics, headers.

use engine::ulid::Ulid;
use hyper::HeaderMap;
use serde_json::Value;

/// The object of `/query?stats` as a table.
pub(super) fn table(stats: &Value) -> String {
    let Some(object) = stats.as_object() else { return String::new() };
    let figures = object
        .iter()
        .filter(|(_, value)| !value.is_array())
        .map(|(name, value)| format!("{name:<26}{value}\n"));
    let spans = object.get("missing").and_then(Value::as_array).into_iter().flatten().map(|span| {
        let text = |name: &str| span[name].as_str().unwrap_or("?").to_owned();
        let (from, to, node, reason) = (text("from"), text("to"), text("node"), text("reason"));
        format!("missing                   from {from} to {to} on {node}: {reason}\n")
    });
    figures.chain(spans).collect()
}

/// What the headers of an answer say, one line each, as the predecessor told it.
pub(super) fn verbose(headers: &HeaderMap) -> String {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
    // The newest ULID that there can be.
    let to = Some(header("x-oklog-to")).filter(|to| *to != Ulid::MAX.to_string());
    let kind =
        if header("x-oklog-regex") == "true" { "regular expression" } else { "normal string" };
    let all = |name: &str| {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.map(|text| format!("{kind} {text:?}")).collect::<Vec<_>>()
    };
    let without = all("x-oklog-x").into_iter().map(|text| format!(" without {text}"));
    let expressions = all("x-oklog-q").join(" and ") + &without.collect::<String>();
    format!(
        "Queried from {}\nQueried to {}\nQueried {expressions}\n{} node(s) queried\n\
         {} segment(s) queried\n{} B maximum data set size\n{} error(s)\n\
         {} server-reported duration\n",
        header("x-oklog-from"),
        to.unwrap_or("no bound"),
        header("x-oklog-nodes-queried"),
        header("x-oklog-segments-queried"),
        header("x-oklog-max-data-set-size"),
        header("x-oklog-error-count"),
        header("x-oklog-duration"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert("x-oklog-q", "a".parse().unwrap());
        assert!(verbose(&headers).contains("Queried normal string \"a\"\n"));
        headers.append("x-oklog-q", "b".parse().unwrap());
        headers.append("x-oklog-x", "c".parse().unwrap());
        let words =
            "Queried normal string \"a\" and normal string \"b\" without normal string \"c\"\n";
        assert!(verbose(&headers).contains(words), "{}", verbose(&headers));
    }

    #[test]
    fn what_has_no_bound_is_said_in_words() {
        let mut headers = HeaderMap::new();
        for (to, words) in [
            ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "Queried to no bound\n"),
            ("2026-05-01T12:00:00.000Z", "Queried to 2026-05-01T12:00:00.000Z\n"),
        ] {
            headers.insert("x-oklog-to", to.parse().unwrap());
            assert!(verbose(&headers).contains(words), "{}", verbose(&headers));
        }
    }
}
