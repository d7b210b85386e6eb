//! One entry: from JSON to the line that is kept.
//!
//! Invariants: an entry has the four fields and no other, each once, each a text within its bounds; the
//! line has them in one order and without spaces, so that what a field must be is found by the bytes around
//! it. Who sends something else is told which field is wrong and what would be valid. What stands in a field
//! that is not known is not looked at, however deep it goes.

use std::borrow::Cow;
use std::fmt;

use engine::entries::LEVELS;
use engine::search::window::is_rfc3339;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::limits::{ENTRY_MESSAGE_BYTES_MAX, ENTRY_SERVICE_CHARS_MAX};

const NAMES: [&str; 4] = ["timestamp", "level", "message", "service"];

/// A valid entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// RFC 3339 as it was sent; `None`: that of its arrival.
    timestamp: Option<Cow<'a, str>>,
    level: &'static str,
    message: Cow<'a, str>,
    service: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// Reads a text of JSON that is one entry. An error begins with the name of the field that is wrong,
    /// where it is one.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, String> {
        let fields: Fields<'a> =
            serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        fields.check()
    }

    /// When it was, as far as that was sent.
    pub(super) fn timestamp(&self) -> Option<&str> {
        self.timestamp.as_deref()
    }

    /// Appends it as a line with its LF.
    pub(super) fn write(&self, arrival: &str, out: &mut Vec<u8>) {
        let timestamp = self.timestamp.as_deref().unwrap_or(arrival);
        let values = [timestamp, self.level, &self.message, &self.service];
        let mut before: &[u8] = b"{\"";
        for (name, value) in NAMES.into_iter().zip(values) {
            out.extend_from_slice(before);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            // Writing text into memory cannot fail.
            let _ = serde_json::to_writer(&mut *out, value);
            before = b",\"";
        }
        out.extend_from_slice(b"}\n");
    }
}

/// What one is told whose JSON cannot be read as entries.
pub(super) fn unreadable(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        _ => format!(
            "the body is no JSON that can be read: {error}; valid is \
             {{\"level\":\"info\",\"message\":\"…\",\"service\":\"…\"}}, with or without \"timestamp\""
        ),
    }
}

/// The fields of an entry as they were sent: each of them a text.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>([Option<Cow<'a, str>>; 4]);

impl<'a> Fields<'a> {
    /// The entry, if all its fields are valid.
    pub(super) fn check(self) -> Result<Entry<'a>, String> {
        let [timestamp, level, message, service] = self.0;
        let given = |value: Option<Cow<'a, str>>, name, valid: &str| {
            value.ok_or_else(|| format!("{name}: not given; valid is {valid}"))
        };
        let level = checked_level(&given(level, "level", &LEVELS.join(", "))?)?;
        let message = given(message, "message", &valid_message())?;
        if !(1..=ENTRY_MESSAGE_BYTES_MAX).contains(&message.len()) {
            return Err(format!(
                "message: has {} bytes; valid is {}",
                message.len(),
                valid_message()
            ));
        }
        let service = given(service, "service", &valid_service())?;
        let chars = service.chars().count();
        if !(1..=ENTRY_SERVICE_CHARS_MAX).contains(&chars) {
            return Err(format!("service: has {chars} characters; valid is {}", valid_service()));
        }
        if let Some(text) = timestamp.as_deref().filter(|text| !is_rfc3339(text)) {
            return Err(format!(
                "timestamp: {:?} is not valid; valid is RFC 3339 (2024-05-01T12:00:00.123Z), or none: \
                 then it is the time of arrival",
                shown(text)
            ));
        }
        Ok(Entry { timestamp, level, message, service })
    }
}

/// A level in the case in which it is kept.
pub(super) fn checked_level(text: &str) -> Result<&'static str, String> {
    let known = LEVELS.into_iter().find(|level| level.eq_ignore_ascii_case(text));
    known.ok_or_else(|| {
        format!("level: {:?} is not valid; valid is {}", shown(text), LEVELS.join(", "))
    })
}

fn valid_message() -> String {
    format!("a text of 1 to {ENTRY_MESSAGE_BYTES_MAX} bytes")
}

fn valid_service() -> String {
    format!("a text of 1 to {ENTRY_SERVICE_CHARS_MAX} characters")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with level, message and service")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key()? {
            let Some(at) = NAMES.iter().position(|known| *known == name) else {
                let name = shown(&name);
                let words =
                    format!("{name:?} is no field of an entry; valid are {}", NAMES.join(", "));
                return Err(Error::custom(words));
            };
            let name = NAMES[at];
            if fields.0[at].is_some() {
                return Err(Error::custom(format!("{name}: given twice; valid is once")));
            }
            let value = map.next_value();
            let Text(value) = value.map_err(|error| Error::custom(format!("{name}: {error}")))?;
            fields.0[at] = Some(value);
        }
        Ok(fields)
    }
}

/// A text, where it lies if it can be had there.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ARRIVAL: &str = "2026-11-30T12:00:00.123Z";

    fn line(json: &str) -> Result<String, String> {
        let mut out = Vec::new();
        Entry::parse(json.as_bytes())?.write(ARRIVAL, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_entry_is_one_line_with_its_fields_in_one_order() {
        let kept = r#"{"timestamp":"2026-11-30T12:00:00.123Z","level":"warn","message":"a \"b\"\nc/ü","service":"web"}"#;
        let sent =
            r#" { "service":"web", "message":"a \u0022b\"\nc\/\u00fc", "l\u0065vel":"WARN" } "#;
        assert_eq!(line(sent).unwrap(), format!("{kept}\n"));
        assert_eq!(line(kept).unwrap(), format!("{kept}\n"));
        let timed = r#"{"level":"Fatal","message":"m","service":"s","timestamp":"2024-05-01t12:00:00.5+02:00"}"#;
        let kept = "{\"timestamp\":\"2024-05-01t12:00:00.5+02:00\",\"level\":\"fatal\",\"message\":\"m\",\
                    \"service\":\"s\"}\n";
        assert_eq!(line(timed).unwrap(), kept);
        let entry = Entry::parse(timed.as_bytes()).unwrap();
        assert_eq!(entry.timestamp(), Some("2024-05-01t12:00:00.5+02:00"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let with = |field: &str, value: serde_json::Value| {
            let mut entry = json!({ "level": "info", "message": "m", "service": "s" });
            entry[field] = value;
            entry.to_string()
        };
        let without = |field: &str| {
            let mut entry = json!({ "level": "info", "message": "m", "service": "s" });
            entry.as_object_mut().unwrap().remove(field);
            entry.to_string()
        };
        let deep = format!("{{\"message\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let unknown = format!("{{\"more\":{}}}", "{\"a\":".repeat(10_000));
        for (sent, begin) in [
            (with("level", json!("trace")), "level: \"trace\" is not valid; valid is debug, info"),
            (with("level", json!("")), "level: \"\""),
            (with("level", json!(3)), "level: invalid type: integer `3`, expected a text"),
            (with("level", json!(null)), "level: invalid type: null, expected a text"),
            (without("level"), "level: not given"),
            (with("message", json!("")), "message: has 0 bytes; valid is a text of 1 to 10240"),
            (with("message", json!("x".repeat(10_241))), "message: has 10241 bytes"),
            (with("message", json!("é".repeat(5_121))), "message: has 10242 bytes"),
            (with("message", json!(["m"])), "message: invalid type: sequence, expected a text"),
            (with("message", json!({"m": 1})), "message: invalid type: map, expected a text"),
            (with("message", json!(true)), "message: invalid type: boolean"),
            (without("message"), "message: not given"),
            (with("service", json!("")), "service: has 0 characters; valid is a text of 1 to 100"),
            (with("service", json!("é".repeat(101))), "service: has 101 characters"),
            (with("service", json!(1e300)), "service: invalid type: floating point"),
            (without("service"), "service: not given"),
            (with("timestamp", json!("yesterday")), "timestamp: \"yesterday\" is not valid"),
            (with("timestamp", json!("2024-05-01 12:00:00Z")), "timestamp: "),
            (with("timestamp", json!("2024-05-01")), "timestamp: "),
            (with("timestamp", json!("2024-13-01T12:00:00Z")), "timestamp: "),
            (with("timestamp", json!("")), "timestamp: "),
            (with("timestamp", json!(1_700_000_000)), "timestamp: invalid type: integer"),
            (with("timestamp", json!(null)), "timestamp: invalid type: null"),
            (
                with("host", json!("x")),
                "\"host\" is no field of an entry; valid are timestamp, level",
            ),
            (with("Level", json!("info")), "\"Level\" is no field"),
            (r#"{"level":"info","level":"info"}"#.into(), "level: given twice"),
            (r#"{"message":"a","m\u0065ssage":"b"}"#.into(), "message: given twice"),
            (r#"{"message":"\ud800"}"#.into(), "message: "),
            (deep, "message: invalid type: sequence"),
            (unknown, "\"more\" is no field"),
            (r#"[{"level":"info"}]"#.into(), "invalid type: sequence, expected an object"),
            ("17".into(), "invalid type: integer `17`, expected an object"),
            (String::new(), "the body is no JSON that can be read: EOF"),
            ("{\"level\":".into(), "level: "),
            (with("level", json!("info")) + "x", "the body is no JSON that can be read: trailing"),
            (with("level", json!("info")) + &with("level", json!("info")), "the body is no JSON"),
        ] {
            let error = line(&sent).unwrap_err();
            assert!(error.starts_with(begin), "{sent:.80}: {error:.200}");
        }
        let bytes = b"{\"level\":\"info\",\"message\":\"a\xFF\",\"service\":\"s\"}";
        assert!(Entry::parse(bytes).unwrap_err().starts_with("message: "));
        let bytes = b"{\"le\xFFvel\":\"info\"}";
        assert!(Entry::parse(bytes).is_err());
    }

    #[test]
    fn the_longest_and_the_shortest_are_valid() {
        for (message, service) in [("m".into(), "s".into()), ("x".repeat(10_240), "é".repeat(100))]
        {
            let sent = json!({ "level": "info", "message": message, "service": service });
            let kept: serde_json::Value =
                serde_json::from_str(&line(&sent.to_string()).unwrap()).unwrap();
            assert_eq!((&kept["message"], &kept["service"]), (&sent["message"], &sent["service"]));
        }
    }

    proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_entries(bytes in prop::collection::vec(any::<u8>(), 0..60), message in "\\PC{1,20}|[\0-\x1f\"\\\\]{1,20}") {
            let _ = Entry::parse(&bytes);
            let sent = json!({ "level": "info", "message": message, "service": message });
            let kept = line(&sent.to_string()).unwrap();
            let is_a_line = kept.ends_with("}\n") && kept.matches('\n').count() == 1;
            prop_assert!(is_a_line, "{}", kept);
            let read: serde_json::Value = serde_json::from_str(&kept).unwrap();
            prop_assert_eq!((&read["message"], &read["service"]), (&sent["message"], &sent["service"]));
            // What is kept is what would be kept of it.
            prop_assert_eq!(line(&kept).unwrap(), kept);
        }
    }
}
