//! From the parameters of `/query` and its relatives to a query.
//!
//! Invariants: everything that can be refused is refused here, with the parameter's name; `now`
//! is a value. The expression is compiled by the caller, off this thread.

use engine::limits::HISTOGRAM_BUCKETS_MAX;
use engine::search::window::Window;
use engine::search::{Expression, ExpressionError, Order, QuerySpec};
use engine::topic::Topic;
use engine::ulid::Ulid;

use super::parameters::{BadParameter, Known, Parameters};
use crate::limits::{HISTOGRAM_BUCKETS_DEFAULT, QUERY_TOPICS_MAX};

/// Parameters of `/query`.
const QUERY: Known = Known {
    single: &["from", "to", "q", "regex", "i", "limit", "order", "after", "partial", "stats"],
    repeated: &["topic"],
};
/// Parameters of `/query/histogram`.
const HISTOGRAM: Known = Known {
    single: &["from", "to", "q", "regex", "i", "after", "partial", "buckets"],
    repeated: &["topic"],
};

/// What an expression is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpressionSource {
    pub(super) q: String,
    pub(super) regex: bool,
    pub(super) ignore_case: bool,
}

impl ExpressionSource {
    /// Whether compiling it can take longer than a socket should wait.
    pub(super) fn is_costly(&self) -> bool {
        !self.q.is_empty() && (self.regex || self.ignore_case)
    }

    /// Compiles it.
    pub(super) fn compile(&self) -> Result<Expression, BadParameter> {
        Expression::new(&self.q, self.regex, self.ignore_case).map_err(|error| {
            let hint = match error {
                ExpressionError::Syntax(_) if !self.regex => " (read literally)",
                _ => "",
            };
            BadParameter(format!("q: {error}{hint}"))
        })
    }
}

/// A request that was read and whose expression is not compiled yet.
#[derive(Debug, Clone)]
pub(super) struct QueryRequest {
    pub(super) window: Window,
    pub(super) source: ExpressionSource,
    pub(super) topics: Vec<Topic>,
    pub(super) order: Order,
    pub(super) limit: Option<u64>,
    pub(super) after: Option<Ulid>,
    /// Refuse an answer that is known to be incomplete.
    pub(super) deny_partial: bool,
    /// Count in place of showing.
    pub(super) stats: bool,
    /// Buckets of a histogram.
    pub(super) buckets: usize,
}

impl QueryRequest {
    /// Reads the parameters of `/query`.
    pub(super) fn parse(query: Option<&str>, now_ms: u64) -> Result<Self, BadParameter> {
        Self::read(&Parameters::parse(query, QUERY)?, now_ms)
    }

    /// Reads the parameters of `/query/histogram`.
    pub(super) fn parse_histogram(query: Option<&str>, now_ms: u64) -> Result<Self, BadParameter> {
        Self::read(&Parameters::parse(query, HISTOGRAM)?, now_ms)
    }

    fn read(parameters: &Parameters, now_ms: u64) -> Result<Self, BadParameter> {
        let window = Window::parse(parameters.get("from"), parameters.get("to"), now_ms)
            .map_err(|error| BadParameter(error.to_string()))?;
        let source = ExpressionSource {
            q: parameters.get("q").unwrap_or_default().to_owned(),
            regex: parameters.switch("regex")?,
            ignore_case: parameters.switch("i")?,
        };
        let order = match parameters.word("order", &["asc", "desc"])? {
            "desc" => Order::Desc,
            _ => Order::Asc,
        };
        Ok(Self {
            window,
            source,
            topics: topics(parameters)?,
            order,
            limit: parameters.number("limit", 0..=u64::MAX)?,
            after: after(parameters)?,
            deny_partial: parameters.word("partial", &["allow", "deny"])? == "deny",
            stats: parameters.switch("stats")?,
            buckets: buckets(parameters)?,
        })
    }

    /// The query, once its expression is compiled.
    pub(super) fn spec(&self, expression: Expression) -> QuerySpec {
        QuerySpec {
            from: self.window.from,
            to: self.window.to,
            after: self.after,
            expression,
            topics: self.topics.clone(),
            order: self.order,
            limit: self.limit,
        }
    }
}

fn topics(parameters: &Parameters) -> Result<Vec<Topic>, BadParameter> {
    let topics = parameters
        .all("topic")
        .map(|name| {
            Topic::new(name.as_bytes()).map_err(|_| {
                let valid = "1 to 64 letters, digits, '_' or '-', the first one a letter or digit";
                BadParameter::value("topic", name, valid)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if topics.len() > QUERY_TOPICS_MAX {
        let given = topics.len();
        return Err(BadParameter(format!(
            "topic: given {given} times; valid is at most {QUERY_TOPICS_MAX} times"
        )));
    }
    Ok(topics)
}

fn after(parameters: &Parameters) -> Result<Option<Ulid>, BadParameter> {
    let read = |text: &str| {
        // 130 bits fit 26 characters: a first one above 7 would overflow.
        let fits = matches!(text.as_bytes().first(), Some(b'0'..=b'7'));
        let id = text.parse().ok().filter(|_| fits);
        id.ok_or_else(|| {
            BadParameter::value("after", text, "a ULID: 26 characters of Crockford base 32")
        })
    };
    parameters.get("after").map(read).transpose()
}

fn buckets(parameters: &Parameters) -> Result<usize, BadParameter> {
    let buckets = parameters.number("buckets", 1..=HISTOGRAM_BUCKETS_MAX as u64)?;
    Ok(buckets.unwrap_or(HISTOGRAM_BUCKETS_DEFAULT) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    #[test]
    fn everything_of_a_query_is_read() {
        let after = Ulid::from_parts(NOW_MS, 1, 2);
        let query = format!(
            "from=2h&to=now&q=a%7Cb&regex&i=1&topic=x&topic=y&limit=7&order=desc&after={after}\
             &partial=deny&stats=0"
        );
        let request = QueryRequest::parse(Some(&query), NOW_MS).unwrap();
        assert_eq!(request.window.from, Ulid::first_of_ms(NOW_MS - 7_200_000));
        assert_eq!(request.window.to, Ulid::last_of_ms(NOW_MS));
        let source = ExpressionSource { q: "a|b".to_owned(), regex: true, ignore_case: true };
        assert_eq!(request.source, source);
        assert_eq!(request.topics.iter().map(Topic::as_str).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((request.limit, request.order), (Some(7), Order::Desc));
        assert_eq!(request.after, Some(after));
        assert!(request.deny_partial && !request.stats);
    }

    #[test]
    fn the_defaults_hold() {
        let request = QueryRequest::parse(None, NOW_MS).unwrap();
        assert_eq!(request.window.from, Ulid::first_of_ms(NOW_MS - 3_600_000));
        assert_eq!(request.window.to, Ulid::MAX);
        assert_eq!((request.limit, request.order, request.after), (None, Order::Asc, None));
        assert!(!request.deny_partial && request.topics.is_empty());
    }

    #[test]
    fn refusals_begin_with_the_name_of_the_parameter() {
        for (query, name) in [
            ("from=x", "from"),
            ("to=1", "to"),
            ("from=1h&to=2h", "from"),
            ("regex=2", "regex"),
            ("i=y", "i"),
            ("topic=", "topic"),
            ("topic=a.b", "topic"),
            ("limit=-1", "limit"),
            ("order=up", "order"),
            ("after=1", "after"),
            ("partial=no", "partial"),
            ("stats=x", "stats"),
            ("after=8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "after"),
        ] {
            let error = QueryRequest::parse(Some(query), NOW_MS).unwrap_err().0;
            assert!(
                error.starts_with(&format!("{name}: ")) && error.contains("valid"),
                "{query}: {error}"
            );
        }
        for query in ["buckets=0", "buckets=10001", "buckets=x"] {
            let error = QueryRequest::parse_histogram(Some(query), NOW_MS).unwrap_err().0;
            assert!(error.starts_with("buckets: "), "{error}");
        }
        assert!(QueryRequest::parse(Some("buckets=1"), NOW_MS).is_err());
        let request = QueryRequest::parse(Some("q=(&regex"), NOW_MS).unwrap();
        assert!(request.source.compile().unwrap_err().0.starts_with("q: "));
    }
}
