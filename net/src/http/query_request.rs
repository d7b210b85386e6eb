//! From the parameters of `/query` and its relatives to a query.
//!
//! Invariants: everything that can be refused is refused here, with the parameter's name; `now`
//! is a value. Expressions are compiled by the caller, off this thread.

use engine::entries::EntriesWanted;
use engine::limits::{CONTEXT_MAX, HISTOGRAM_BUCKETS_MAX};
use engine::search::window::{Now, Window, parse_duration_ms};
use engine::search::{Chain, ChainError, ChainText, ExpressionError, Order, QuerySpec, Side};
use engine::topic::Topic;
use engine::ulid::Ulid;

use super::parameters::{BadParameter, Known, Parameters};
use crate::limits::{
    CONTEXT_BYTES_MAX, HISTOGRAM_BUCKETS_DEFAULT, QUERY_TOPICS_MAX, SERIES_BYTES_MAX,
};

/// Parameters of `/query`.
const QUERY: Known = Known {
    single: &[
        "from", "to", "regex", "i", "limit", "order", "after", "partial", "stats", "context",
        "download",
    ],
    repeated: &["q", "x", "topic"],
};
/// Parameters of `/query/histogram`.
const HISTOGRAM: Known = Known {
    single: &["from", "to", "regex", "i", "after", "partial", "buckets", "by"],
    repeated: &["q", "x", "topic"],
};

/// Parameters of `/stream`.
const STREAM: Known =
    Known { single: &["regex", "i", "window", "after"], repeated: &["q", "x", "topic"] };

/// The parameter that an expression was given with.
pub(super) const fn parameter(side: Side) -> &'static str {
    match side {
        Side::All => "q",
        Side::None => "x",
    }
}

/// The parameter of the first of these.
pub(super) fn leading_parameter(source: &ChainText) -> &'static str {
    parameter(if source.all().is_empty() { Side::None } else { Side::All })
}

/// What one is told whose expressions cannot be had.
pub(super) fn refused(error: &ChainError, are_regular: bool) -> BadParameter {
    let hint = match error {
        ChainError::Expression { error: ExpressionError::Syntax(_), .. } if !are_regular => {
            " (read literally)"
        }
        _ => "",
    };
    BadParameter(format!("{}: {error}{hint}", parameter(error.side())))
}

/// Whether an answer is to be kept as a file, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Download {
    No,
    /// In the form that the request accepts.
    Accepted,
    Text,
    Ndjson,
}

/// What a histogram is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Nothing,
    /// The largest topics each, too.
    Topic,
    /// Each level, too.
    Level,
}

/// A request that was read and whose expressions are not compiled yet.
#[derive(Debug, Clone)]
pub(super) struct QueryRequest {
    pub(super) window: Window,
    pub(super) source: ChainText,
    pub(super) topics: Vec<Topic>,
    pub(super) order: Order,
    pub(super) limit: Option<u64>,
    /// Records around each hit.
    pub(super) context: u32,
    pub(super) after: Option<Ulid>,
    /// Refuse an answer that is known to be incomplete.
    pub(super) deny_partial: bool,
    /// Count in place of showing.
    pub(super) stats: bool,
    pub(super) download: Download,
    /// Buckets of a histogram.
    pub(super) buckets: usize,
    /// A histogram of parts, too.
    pub(super) by: By,
    /// What it may hold beyond that of any query, bytes.
    pub(super) beside_bytes: usize,
    /// Every record that matches is an entry of these.
    pub(super) entries: Option<EntriesWanted>,
}

impl QueryRequest {
    /// Reads the parameters of `/query`.
    pub(super) fn parse(query: Option<&str>, now: Now) -> Result<Self, BadParameter> {
        Self::read(&Parameters::parse(query, QUERY)?, now)
    }

    /// Reads the parameters of a request that shows no record.
    pub(super) fn parse_head(query: Option<&str>, now: Now) -> Result<Self, BadParameter> {
        let request = Self::parse(query, now)?;
        if request.context > 0 {
            return Err(BadParameter(
                "context: valid where records are shown, not with HEAD".into(),
            ));
        }
        Ok(request)
    }

    /// Reads the parameters of `/query/histogram`.
    pub(super) fn parse_histogram(query: Option<&str>, now: Now) -> Result<Self, BadParameter> {
        Self::read(&Parameters::parse(query, HISTOGRAM)?, now)
    }

    /// Reads the parameters of `/stream`; an event that the client has seen stands for `after`.
    pub(super) fn parse_stream(
        query: Option<&str>,
        last_event: Option<&str>,
        now: Now,
    ) -> Result<Self, BadParameter> {
        let parameters = Parameters::parse(query, STREAM)?;
        if let Some(window) = parameters.get("window")
            && parse_duration_ms(window).is_none()
        {
            return Err(BadParameter::value("window", window, "a duration (100ms 3s 1m)"));
        }
        let mut request = Self::read(&parameters, now)?;
        if let Some(id) = last_event.filter(|id| !id.is_empty()) {
            request.after = Some(read_ulid("Last-Event-ID", id)?);
        }
        Ok(request)
    }

    fn read(parameters: &Parameters, now: Now) -> Result<Self, BadParameter> {
        let window = Window::parse(parameters.get("from"), parameters.get("to"), now)
            .map_err(|error| BadParameter(error.to_string()))?;
        let regex = parameters.switch("regex")?;
        let texts = |name| parameters.all(name).map(str::to_owned).collect();
        let source = ChainText::new((texts("q"), texts("x")), regex, parameters.switch("i")?)
            .map_err(|error| refused(&error, regex))?;
        let order = match parameters.word("order", &["asc", "desc"])? {
            "desc" => Order::Desc,
            _ => Order::Asc,
        };
        let by = by(parameters)?;
        let (context, stats) = (context(parameters)?, parameters.switch("stats")?);
        if context > 0 && stats {
            return Err(BadParameter(
                "context: valid where records are shown, not with stats".into(),
            ));
        }
        Ok(Self {
            window,
            source,
            topics: topics(parameters)?,
            order,
            limit: parameters.number("limit", 0..=u64::MAX)?,
            context,
            after: after(parameters)?,
            deny_partial: parameters.word("partial", &["allow", "deny"])? == "deny",
            stats,
            download: download(parameters)?,
            buckets: buckets(parameters)?,
            by,
            beside_bytes: match (by, context) {
                (By::Topic | By::Level, _) => SERIES_BYTES_MAX,
                (By::Nothing, 0) => 0,
                (By::Nothing, _) => CONTEXT_BYTES_MAX,
            },
            entries: None,
        })
    }

    /// The query, once its expressions are compiled.
    pub(super) fn spec(&self, chain: Chain) -> QuerySpec {
        QuerySpec {
            from: self.window.from,
            to: self.window.to,
            after: self.after,
            chain,
            topics: self.topics.clone(),
            order: self.order,
            limit: self.limit,
            context: self.context,
            entries: self.entries.clone(),
            is_discreet: false,
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
    parameters.get("after").map(|text| read_ulid("after", text)).transpose()
}

fn read_ulid(name: &str, text: &str) -> Result<Ulid, BadParameter> {
    // 130 bits fit 26 characters: a first one above 7 would overflow.
    let fits = matches!(text.as_bytes().first(), Some(b'0'..=b'7'));
    let id = text.parse().ok().filter(|_| fits);
    id.ok_or_else(|| BadParameter::value(name, text, "a ULID: 26 characters of Crockford base 32"))
}

fn context(parameters: &Parameters) -> Result<u32, BadParameter> {
    Ok(parameters.number("context", 0..=u64::from(CONTEXT_MAX))?.unwrap_or_default() as u32)
}

fn download(parameters: &Parameters) -> Result<Download, BadParameter> {
    match parameters.get("download") {
        None | Some("0" | "false") => Ok(Download::No),
        Some("" | "1" | "true") => Ok(Download::Accepted),
        Some("text") => Ok(Download::Text),
        Some("ndjson") => Ok(Download::Ndjson),
        Some(other) => Err(BadParameter::value("download", other, "text, ndjson or a switch")),
    }
}

fn buckets(parameters: &Parameters) -> Result<usize, BadParameter> {
    let buckets = parameters.number("buckets", 1..=HISTOGRAM_BUCKETS_MAX as u64)?;
    Ok(buckets.unwrap_or(HISTOGRAM_BUCKETS_DEFAULT) as usize)
}

fn by(parameters: &Parameters) -> Result<By, BadParameter> {
    match parameters.get("by") {
        None => Ok(By::Nothing),
        Some("topic") => Ok(By::Topic),
        Some("level") => Ok(By::Level),
        Some(other) => Err(BadParameter::value("by", other, "topic or level")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::limits::EXPRESSION_COMPILED_BYTES_MAX;

    const NOW_MS: u64 = 1_700_000_000_000;

    proptest::proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_stream_parameters(
            query in "((from|to|q|regex|i|topic|window|after|limit|x|%7[0-9a-f])?\
                      (=|==)?(now|1h|[0-9]{0,25}(ms|s)?|%[0-9a-fA-F]{0,2}|[0-9A-Z]{26}|\\PC{0,6})?&?){0,8}",
            last_event in proptest::option::of("[0-9A-Za-z]{26}|\\PC{0,30}"),
            now_ms: u64,
        ) {
            match QueryRequest::parse_stream(Some(&query), last_event.as_deref(), (now_ms >> 8).into()) {
                Ok(request) => {
                    proptest::prop_assert!(request.window.from <= request.window.to);
                    proptest::prop_assert!(request.topics.len() <= QUERY_TOPICS_MAX);
                    if let Some(id) = last_event.filter(|id| !id.is_empty()) {
                        proptest::prop_assert_eq!(request.after, id.parse().ok());
                    }
                }
                Err(bad) => proptest::prop_assert!(bad.0.contains("valid"), "{}", bad.0),
            }
        }

        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_query_parameters(
            query in "((from|to|q|regex|i|topic|limit|order|after|partial|stats|context|buckets|x|%7[0-9a-f])?\
                      (=|==)?(now|1h|desc|deny|[0-9]{0,25}|%[0-9a-fA-F]{0,2}|[0-9A-Z]{26}|\\PC{0,6})?&?){0,8}",
            now_ms: u64,
        ) {
            for read in [QueryRequest::parse, QueryRequest::parse_histogram] {
                match read(Some(&query), (now_ms >> 8).into()) {
                    Ok(request) => {
                        proptest::prop_assert!(request.window.from <= request.window.to);
                        proptest::prop_assert!(request.topics.len() <= QUERY_TOPICS_MAX);
                        proptest::prop_assert!((1..=HISTOGRAM_BUCKETS_MAX).contains(&request.buckets));
                        if let Ok(chain) = request.source.compile(EXPRESSION_COMPILED_BYTES_MAX) {
                            let spec = request.spec(chain);
                            proptest::prop_assert_eq!(spec.limit, request.limit);
                        }
                    }
                    Err(bad) => proptest::prop_assert!(bad.0.contains("valid"), "{}", bad.0),
                }
            }
        }
    }

    #[test]
    fn everything_of_a_query_is_read() {
        let after = Ulid::from_parts(NOW_MS, 1, 2);
        let query = format!(
            "from=2h&to=now&q=a%7Cb&x=d&q=c&regex&i=1&topic=x&topic=y&limit=7&order=desc\
             &after={after}&partial=deny&stats=0&context=3"
        );
        let request = QueryRequest::parse(Some(&query), NOW_MS.into()).unwrap();
        assert_eq!(request.window.from, Ulid::first_of_ms(NOW_MS - 7_200_000));
        assert_eq!(request.window.to, Ulid::last_of_ms(NOW_MS));
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let source = ChainText::new((texts(&["a|b", "c"]), texts(&["d"])), true, true);
        assert_eq!(request.source, source.unwrap());
        assert_eq!(request.topics.iter().map(Topic::as_str).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((request.limit, request.order), (Some(7), Order::Desc));
        assert_eq!(request.after, Some(after));
        assert!(request.deny_partial && !request.stats);
        assert_eq!(request.context, 3);
    }

    #[test]
    fn the_defaults_hold() {
        let request = QueryRequest::parse(None, NOW_MS.into()).unwrap();
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
            ("download=x", "download"),
            ("context=1001", "context"),
            ("context=-1", "context"),
            ("context=1&stats", "context"),
            ("after=8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "after"),
        ] {
            let error = QueryRequest::parse(Some(query), NOW_MS.into()).unwrap_err().0;
            assert!(
                error.starts_with(&format!("{name}: ")) && error.contains("valid"),
                "{query}: {error}"
            );
        }
        for query in ["buckets=0", "buckets=10001", "buckets=x", "by=host", "by="] {
            let error = QueryRequest::parse_histogram(Some(query), NOW_MS.into()).unwrap_err().0;
            let name = query.split('=').next().unwrap();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
        for query in ["buckets=1", "by=topic"] {
            assert!(QueryRequest::parse(Some(query), NOW_MS.into()).is_err());
        }
        assert!(QueryRequest::parse_histogram(Some("context=1"), NOW_MS.into()).is_err());
        assert!(QueryRequest::parse_stream(Some("context=1"), None, NOW_MS.into()).is_err());
        assert!(QueryRequest::parse_head(Some("context=1"), NOW_MS.into()).is_err());
        assert!(QueryRequest::parse_head(Some("context=0&stats"), NOW_MS.into()).is_ok());
        for (query, name) in [("q=(&regex", "q"), ("q=a&x=(&q=b&regex", "x"), ("x=%0A", "x")] {
            let request = QueryRequest::parse(Some(query), NOW_MS.into()).unwrap();
            let error = request.source.compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap_err();
            let words = refused(&error, true).0;
            assert!(words.starts_with(&format!("{name}: ")) && words.contains("valid"), "{words}");
        }
        for (name, times, len) in [("q", 33, 1), ("x", 33, 1), ("q", 1, 40_000), ("x", 3, 12_000)] {
            let query = vec![format!("{name}={}", "a".repeat(len)); times].join("&");
            let error = QueryRequest::parse(Some(&query), NOW_MS.into()).unwrap_err().0;
            assert!(error.starts_with(&format!("{name}: ")) && error.contains("valid"), "{error}");
        }
    }
}
