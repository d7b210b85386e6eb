//! Which entries are asked for: a level, a service, a text in the message.
//!
//! They become one regular expression over the whole record, which is an entry only in the form that
//! `POST /log` gives it. So a level is the text `","level":"error","message":"`, which leads to its entries, and
//! no other one's. Store segments tell of each block which levels of which services it holds (`EntriesWanted`), so
//! that those without one that is asked for are passed over; signatures pass over blocks without the words of a
//! message. What neither knows of is found by looking at entries, the newest first, until there are enough.
//!
//! Invariants: it matches exactly those records of which [`Kept::of`] makes an entry
//! of that level, whose service contains the text asked for, in either case, and whose message contains the
//! other one (a property test); what stands in a field is never taken for the field's edge.

use std::fmt::Write as _;

use engine::entries::{EntriesWanted, Kept, LEVELS, folded};
use engine::limits::TIME_TEXT_BYTES_MAX;
use engine::search::{ChainText, Order, Window};
use engine::topic::Topic;

use super::entry::checked_level;
use crate::http::parameters::{BadParameter, Parameters};
use crate::http::query_request::{By, Download, QueryRequest, refused};
use crate::limits::{ENTRY_MESSAGE_BYTES_MAX, ENTRY_SERVICE_CHARS_MAX};

/// One character of a text, as it is kept.
const CHARACTER: &str = r#"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])"#;

/// See the module page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct WantedEntries {
    level: Option<&'static str>,
    /// Not empty.
    service: Option<String>,
    /// Not empty.
    message: Option<String>,
}

impl WantedEntries {
    /// Of `level`, `service` and `q`; an empty one asks for nothing.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, BadParameter> {
        let given = |name| parameters.get(name).filter(|text| !text.is_empty());
        let level = given("level").map(checked_level).transpose().map_err(BadParameter)?;
        let service = given("service");
        if service.is_some_and(|text| text.chars().count() > ENTRY_SERVICE_CHARS_MAX) {
            let valid =
                format!("a part of a service: at most {ENTRY_SERVICE_CHARS_MAX} characters");
            return Err(BadParameter::value("service", service.unwrap_or_default(), valid));
        }
        let message = given("q");
        if message.is_some_and(|text| text.len() > ENTRY_MESSAGE_BYTES_MAX) {
            let valid = format!("a part of a message: at most {ENTRY_MESSAGE_BYTES_MAX} bytes");
            return Err(BadParameter::value("q", message.unwrap_or_default(), valid));
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self { level, service: owned(service), message: owned(message) })
    }

    /// Whether every entry is asked for.
    pub(super) const fn is_all(&self) -> bool {
        self.level.is_none() && self.service.is_none() && self.message.is_none()
    }

    /// The expression.
    fn regex(&self) -> String {
        let level = self.level.map_or_else(|| format!("(?:{})", LEVELS.join("|")), str::to_owned);
        let mut regex = format!(
            r#"^\{{"timestamp":"[0-9TtZz:.+-]{{1,{TIME_TEXT_BYTES_MAX}}}","level":"{level}","message":""#
        );
        with_text(&mut regex, self.message.as_deref(), "");
        regex.push_str(r#"","service":""#);
        with_text(&mut regex, self.service.as_deref(), "i");
        regex.push_str(r#""\}$"#);
        regex
    }

    /// The same, as it is searched for.
    pub(super) fn source(&self) -> Result<ChainText, BadParameter> {
        ChainText::new((vec![self.regex()], Vec::new()), true, false)
            .map_err(|error| refused(&error, true))
    }

    /// What leads to them among what is taken, for those who follow: texts that each of them has. Followers
    /// share one search for all of these; [`WantedEntries::admit`] sees to the rest.
    pub(super) fn leading(&self) -> Result<ChainText, BadParameter> {
        let level = self.level.map(|level| format!("\",\"level\":\"{level}\",\"message\":\""));
        let parts = [&self.service, &self.message].into_iter().flatten();
        let texts = level.into_iter().chain(parts.map(|part| in_json(part))).collect();
        ChainText::new((texts, Vec::new()), false, self.service.is_some())
            .map_err(|error| refused(&error, false))
    }

    /// Whether a record is one of them.
    pub(super) fn admit(&self, record: &[u8]) -> bool {
        let Some(kept) = Kept::of(record) else { return false };
        let is_level = self.level.is_none_or(|level| level == LEVELS[kept.level]);
        let is_message =
            || self.message.as_ref().is_none_or(|part| Kept::plain(kept.message).contains(&**part));
        let is_service = || {
            let has = |part: &String| folded(&Kept::plain(kept.service)).contains(&folded(part));
            self.service.as_ref().is_none_or(has)
        };
        is_level && is_message() && is_service()
    }

    /// A query for them under `topic`, the newest first.
    pub(super) fn request(
        &self,
        window: Window,
        topic: &Topic,
    ) -> Result<QueryRequest, BadParameter> {
        Ok(QueryRequest {
            window,
            source: self.source()?,
            topics: vec![topic.clone()],
            order: Order::Desc,
            limit: None,
            context: 0,
            after: None,
            deny_partial: false,
            stats: false,
            download: Download::No,
            buckets: 1,
            by: By::Nothing,
            beside_bytes: 0,
            entries: Some(self.of_services()),
        })
    }

    /// What of it level and service tell.
    fn of_services(&self) -> EntriesWanted {
        let level = self.level.and_then(|level| LEVELS.iter().position(|known| *known == level));
        let service = self.service.as_deref().unwrap_or_default();
        EntriesWanted::new(level, service, self.message.is_none())
    }
}

/// Appends an expression for a text that is not empty and contains `part`.
fn with_text(regex: &mut String, part: Option<&str>, flags: &str) {
    // Writing to a String cannot fail.
    let _ = match part {
        None => write!(regex, "{CHARACTER}+"),
        Some(part) => {
            let part = escaped(part);
            let group = if flags.is_empty() { "(?:".to_owned() } else { format!("(?{flags}:") };
            write!(regex, "{CHARACTER}*{group}{part}){CHARACTER}*")
        }
    };
}

/// A text as it stands in JSON, without its quotes.
fn in_json(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

/// An expression for exactly this text, as it stands in JSON.
fn escaped(text: &str) -> String {
    let inner = in_json(text);
    let mut out = String::with_capacity(2 * inner.len());
    for character in inner.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parameters::Known;
    use engine::limits::EXPRESSION_COMPILED_BYTES_MAX;
    use engine::search::testing::matches;
    use proptest::prelude::*;

    fn wanted(level: Option<&str>, service: &str, message: &str) -> WantedEntries {
        let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let level = level.map(|level| checked_level(level).unwrap());
        WantedEntries { level, service: part(service), message: part(message) }
    }

    fn finds(wanted: &WantedEntries, record: &[u8]) -> bool {
        matches(&wanted.source().unwrap().compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap(), record)
    }

    /// What is kept of an entry.
    fn kept(level: &str, message: &str, service: &str) -> String {
        let [message, service] = [message, service].map(|text| serde_json::json!(text).to_string());
        format!(
            "{{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"{level}\",\"message\":{message},\
             \"service\":{service}}}"
        )
    }

    #[test]
    fn each_field_is_asked_for_by_itself() {
        let record = kept("error", "paid \"17\" (of 20)\n<b>", "Shop.Zürich");
        for (level, service, message, expected) in [
            (None, "", "", true),
            (Some("error"), "", "", true),
            (Some("ERROR"), "", "", true),
            (Some("info"), "", "", false),
            (None, "shop", "", true),
            (None, "ZÜRICH", "", true),
            (None, "p.z", "", true),
            (None, "p-z", "", false),
            (None, "paid", "", false),
            (None, "", "\"17\" (of", true),
            (None, "", "Paid", false),
            (None, "", ")\n<b>", true),
            (None, "", "n<b>", false),
            (None, "", "Shop", false),
            (Some("error"), "shop.", "paid", true),
            (Some("warn"), "shop.", "paid", false),
        ] {
            let wanted = wanted(level, service, message);
            assert_eq!(finds(&wanted, record.as_bytes()), expected, "{wanted:?}");
            assert_eq!(wanted.admit(record.as_bytes()), expected, "{wanted:?}");
        }
        // A message that looks like another field is none.
        let record = kept("info", "x\",\"level\":\"error\",\"message\":\"y", "s");
        assert!(!finds(&wanted(Some("error"), "", ""), record.as_bytes()));
        let record = kept("info", "m\",\"service\":\"web\"}", "s");
        assert!(!finds(&wanted(None, "web", ""), record.as_bytes()));
    }

    #[test]
    fn what_a_level_requires_is_known_to_signatures() {
        let chain = |wanted: &WantedEntries| {
            wanted.source().unwrap().compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap()
        };
        for (wanted, literal) in [
            (wanted(Some("fatal"), "", ""), "\",\"level\":\"fatal\",\"message\":\""),
            (wanted(None, "payments", ""), "payments"),
            (wanted(None, "", "needle 17"), "needle 17"),
        ] {
            let required = format!("{:?}", chain(&wanted).required());
            let bytes = format!("{:?}", literal.as_bytes());
            let bytes = bytes.trim_matches(['[', ']']);
            assert!(required.contains(bytes), "{required}");
        }
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let known = Known { single: &["level", "service", "q"], repeated: &[] };
        let read =
            |query: &str| WantedEntries::read(&Parameters::parse(Some(query), known).unwrap());
        assert!(read("level=&service=&q=").unwrap().is_all());
        assert!(read("level=loud").unwrap_err().0.starts_with("level: \"loud\""));
        let long = format!("service={}", "x".repeat(101));
        assert!(read(&long).unwrap_err().0.starts_with("service: "));
    }

    #[test]
    fn a_time_may_be_as_long_as_one_that_is_read_and_no_longer() {
        for len in
            [1, 35, TIME_TEXT_BYTES_MAX - 1, TIME_TEXT_BYTES_MAX, TIME_TEXT_BYTES_MAX + 1, 3_000]
        {
            let record =
                kept("error", "m", "web").replace("2024-05-01T12:00:00Z", &"7".repeat(len));
            let is_entry = len <= TIME_TEXT_BYTES_MAX;
            assert_eq!(Kept::of(record.as_bytes()).is_some(), is_entry, "{len}");
            for asked in [WantedEntries::default(), wanted(Some("error"), "we", "m")] {
                assert_eq!(finds(&asked, record.as_bytes()), is_entry, "{asked:?} {len}");
                assert_eq!(asked.admit(record.as_bytes()), is_entry, "{asked:?} {len}");
            }
        }
    }

    fn part() -> impl Strategy<Value = String> {
        "[aA\"\\\\\n\u{1f}uné<.*]{0,4}"
    }

    proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_wanted_entries_are_those_whose_fields_contain_what_was_asked_for(
            message in "[aA\"\\\\\n\u{1f}uné<.*]{1,12}",
            service in "[aA\"\\\\\n\u{1f}uné<.*]{1,12}",
            (in_message, in_service) in (part(), part()),
            level in 0..LEVELS.len(),
            broken in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            let record = kept(LEVELS[level], &message, &service);
            let lower = |text: &str| text.to_lowercase();
            let expected = message.contains(&in_message)
                && lower(&service).contains(&lower(&in_service));
            let asked = wanted(Some(LEVELS[level]), &in_service, &in_message);
            prop_assert_eq!(finds(&asked, record.as_bytes()), expected, "{:?} {}", asked, record);
            prop_assert_eq!(asked.admit(record.as_bytes()), expected, "{:?} {}", asked, record);
            let leading = asked.leading().unwrap().compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap();
            prop_assert!(!expected || matches(&leading, record.as_bytes()), "{:?}", leading);
            // Whatever a record is, both ways agree on whether it is an entry.
            let mut bytes = record.into_bytes();
            let at = broken.index(bytes.len());
            bytes[at] = if byte == b'\n' { b'"' } else { byte };
            let all = WantedEntries::default();
            prop_assert_eq!(
                finds(&all, &bytes), Kept::of(&bytes).is_some(), "{}", String::from_utf8_lossy(&bytes)
            );
        }

        #[test]
        fn whoever_looks_for_a_service_takes_the_same_letters_for_the_same(
            in_service in "[kK\u{212A}sſßẞµμΜβϐθϑϴςσΣвВ\u{1C80}ꙋ\u{1C88}iIıİ]{1,2}",
            service in "[kK\u{212A}sſßẞµμΜβϐθϑϴςσΣвВ\u{1C80}ꙋ\u{1C88}iIıİ]{1,20}",
        ) {
            let record = kept("info", "m", &service);
            let asked = wanted(None, &in_service, "");
            let found = finds(&asked, record.as_bytes());
            prop_assert_eq!(asked.admit(record.as_bytes()), found, "followed: {:?} {}", asked, record);
            let told = Kept::of(record.as_bytes()).unwrap().service;
            prop_assert_eq!(asked.of_services().admits(1, told), found, "stored: {:?} {}", asked, record);
            let leading = asked.leading().unwrap().compile(EXPRESSION_COMPILED_BYTES_MAX).unwrap();
            prop_assert!(!found || matches(&leading, record.as_bytes()), "{:?}", leading);
        }
    }
}
