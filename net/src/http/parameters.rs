//! The query string of a request as named, decoded, checked values.
//!
//! Invariants: a name that the route does not know, a name given twice where it counts once, a
//! broken percent-escape and text that is not UTF-8 are refused with words that name the
//! parameter and what would be valid; nothing is ignored in silence. `+` is a space.

use std::fmt;
use std::ops::RangeInclusive;

/// Which parameters a route takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Those that may be given once.
    pub(super) single: &'static [&'static str],
    /// Those that may be given several times.
    pub(super) repeated: &'static [&'static str],
}

/// Decoded parameters, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
}

/// Why a request cannot be read; its text names the parameter and what is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadParameter(pub(super) String);

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BadParameter {
    /// `name: "value" is not valid; valid is …`, with an overlong value cut.
    pub(super) fn value(name: &str, value: &str, valid: impl fmt::Display) -> Self {
        let shown: String = value.chars().take(80).collect();
        Self(format!("{name}: {shown:?} is not valid; valid is {valid}"))
    }
}

impl Parameters {
    /// Reads a query string (what stands behind `?`).
    pub(super) fn parse(query: Option<&str>, known: Known) -> Result<Self, BadParameter> {
        let mut parameters = Self::default();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name).map_err(|why| {
                BadParameter::value("name of a parameter", name, format_args!("text {why}"))
            })?;
            if !known.single.contains(&name.as_str()) && !known.repeated.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            let value = decode(value)
                .map_err(|why| BadParameter::value(&name, value, format_args!("text {why}")))?;
            if known.single.contains(&name.as_str()) && parameters.get(&name).is_some() {
                return Err(BadParameter(format!("{name}: given twice; valid is once")));
            }
            parameters.pairs.push((name, value));
        }
        Ok(parameters)
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A switch: on when empty, `true` or `1`; off when absent, `false` or `0`.
    pub(super) fn switch(&self, name: &str) -> Result<bool, BadParameter> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(BadParameter::value(name, other, "true, 1, false, 0 or no value")),
        }
    }

    /// A whole number.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, BadParameter> {
        let read = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.filter(|number| range.contains(number)).ok_or_else(|| {
                let valid = format!("a whole number from {} to {}", range.start(), range.end());
                BadParameter::value(name, text, valid)
            })
        };
        self.get(name).map(read).transpose()
    }

    /// One of a few words; the first is the default.
    pub(super) fn word(
        &self,
        name: &str,
        words: &[&'static str],
    ) -> Result<&'static str, BadParameter> {
        let Some(given) = self.get(name) else { return Ok(words[0]) };
        let found = words.iter().find(|word| **word == given).copied();
        found.ok_or_else(|| BadParameter::value(name, given, words.join(" or ")))
    }
}

fn unknown(name: &str, known: Known) -> BadParameter {
    let names: Vec<_> = known.single.iter().chain(known.repeated).copied().collect();
    let shown: String = name.chars().take(80).collect();
    BadParameter(if names.is_empty() {
        format!("{shown:?} is no parameter of this path; it takes none")
    } else {
        format!("{shown:?} is no parameter of this path; valid are {}", names.join(", "))
    })
}

/// `application/x-www-form-urlencoded` text, <https://url.spec.whatwg.org/#urlencoded-parsing>,
/// but strict: a broken escape is refused. The error completes "valid is text …".
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.get(..2).ok_or(BROKEN_ESCAPE)?;
                let (Some(high), Some(low)) = (hex(digits[0]), hex(digits[1])) else {
                    return Err(BROKEN_ESCAPE);
                };
                bytes.push(high << 4 | low);
                rest = &rest[2..];
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "that is UTF-8 once percent-decoded")
}

const BROKEN_ESCAPE: &str = "with two hexadecimal digits behind each %, itself written %25";

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: Known = Known { single: &["q", "i", "limit", "order"], repeated: &["topic"] };

    fn parse(query: &str) -> Result<Parameters, String> {
        Parameters::parse(Some(query), KNOWN).map_err(|error| error.0)
    }

    #[test]
    fn values_are_decoded() {
        let parameters = parse("q=a%20b+c%3D%26%C3%BC=d&&topic=x&topic=y&i").unwrap();
        assert_eq!(parameters.get("q"), Some("a b c=&ü=d"));
        assert_eq!(parameters.all("topic").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(parameters.get("i"), Some(""));
        assert_eq!(parameters.get("limit"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_valid() {
        for (query, parts) in [
            ("nonsense=1", &["nonsense", "q, i, limit, order, topic"][..]),
            ("q=1&q=2", &["q: given twice"]),
            ("q=%", &["q: ", "hexadecimal"]),
            ("q=%4", &["q: ", "hexadecimal"]),
            ("q=%zz", &["q: ", "hexadecimal"]),
            ("q=%+1", &["q: ", "hexadecimal"]),
            ("q=%FF", &["q: ", "UTF-8"]),
            ("%FF=1", &["name", "UTF-8"]),
        ] {
            let error = parse(query).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{query}: {error}");
            }
        }
    }

    #[test]
    fn switches_numbers_and_words_are_checked() {
        for (query, expected) in [
            ("", Ok(false)),
            ("i", Ok(true)),
            ("i=", Ok(true)),
            ("i=true", Ok(true)),
            ("i=1", Ok(true)),
            ("i=false", Ok(false)),
            ("i=0", Ok(false)),
            ("i=yes", Err(())),
            ("i=TRUE", Err(())),
        ] {
            assert_eq!(parse(query).unwrap().switch("i").map_err(drop), expected, "{query}");
        }
        for (query, expected) in [
            ("", Ok(None)),
            ("limit=0", Ok(Some(0))),
            ("limit=18446744073709551615", Ok(Some(u64::MAX))),
            ("limit=18446744073709551616", Err(())),
            ("limit=-1", Err(())),
            ("limit=%2B1", Err(())),
            ("limit=", Err(())),
            ("limit=1e3", Err(())),
        ] {
            assert_eq!(
                parse(query).unwrap().number("limit", 0..=u64::MAX).map_err(drop),
                expected,
                "{query}"
            );
        }
        let word = |query| parse(query).unwrap().word("order", &["asc", "desc"]);
        assert_eq!(word(""), Ok("asc"));
        assert_eq!(word("order=desc"), Ok("desc"));
        assert!(word("order=up").unwrap_err().0.contains("asc or desc"));
    }

    proptest! {
        #[test]
        fn any_value_survives_encoding(value: String) {
            let encoded: Vec<_> = value.bytes().map(|b| format!("%{b:02x}")).collect();
            let encoded = encoded.concat();
            let parameters = parse(&format!("q={encoded}")).unwrap();
            prop_assert_eq!(parameters.get("q"), Some(value.as_str()));
        }

        #[test]
        fn no_query_string_makes_parsing_panic(query: String) {
            let _ = parse(&query);
        }
    }
}
