//! Every flag of every command as one table: the command line, the environment, the configuration
//! file, the help pages and the tuning page are all derived from it.
//!
//! Invariants: a name means one thing wherever it occurs; a default passes the check of its own
//! kind. What values mean together (which directory, which port) is decided in
//! [`crate::config`], not here.

use std::time::Duration;

use crate::times::{Time, TimeForm, Zone};
use crate::units::{Address, parse_duration, parse_size};

/// What a flag takes and how its text is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `1`, `false` or `0`; given without a value it is `true`, as in a URL.
    Bool,
    /// A host without a port; an IPv6 one with or without brackets.
    Host,
    /// `host`, `host:port` or `:port`.
    Address,
    /// Bytes within the bounds, inclusive.
    Size(u64, u64),
    /// A time span within the bounds, milliseconds, inclusive.
    Duration(u64, u64),
    /// A whole number within the bounds, inclusive.
    Count(u64, u64),
    /// `none`, which is 0, or a whole number within the bounds, inclusive.
    NoneOr(u64, u64),
    /// So many a second within the bounds, inclusive: `N/s`, or `N`.
    Rate(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A topic name.
    Topic,
    /// A point in time, as [`crate::times`] reads it.
    Time,
    /// A time zone.
    Zone,
    /// How times are written: strftime(3).
    TimeForm,
    /// A ULID.
    Ulid,
    /// The path of a file or directory; the word names it in help.
    Path(&'static str),
    /// What records are matched with: one line.
    Expression,
    /// Anything; the word names it in help.
    Text(&'static str),
}

/// What several values of one flag on a command line mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Several {
    /// The last one holds: a setting that a script gives can be replaced behind it.
    LastHolds,
    /// All of them count; a variable holds a list.
    AllCount,
    /// All of them count; a variable holds one, for a comma may be part of it.
    EachCounts,
    /// A usage error, unless they are equal: who gives two means both, and one would be ignored.
    Refused,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// The long name without dashes; also the key of the configuration file.
    pub(crate) name: &'static str,
    /// The one-letter form.
    pub(crate) short: Option<char>,
    /// Other long names on a command line, for those who know them from elsewhere.
    pub(crate) aliases: &'static [&'static str],
    /// What it takes.
    pub(crate) kind: Kind,
    /// What holds when nothing is given; `None`: decided at start, as the help says.
    pub(crate) default: Option<&'static str>,
    /// What it means to give it several times.
    pub(crate) several: Several,
    /// Whether `--help` shows it; `--help-all` shows every one.
    pub(crate) common: bool,
    /// One sentence for the operator.
    pub(crate) help: &'static str,
}

/// What the names of environment variables begin with.
pub(crate) const VARIABLE_PREFIX: &str = "OKLOGD_";

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Address(Address),
    /// Bytes or a count.
    Number(u64),
    Duration(Duration),
    Text(String),
}

impl Kind {
    /// Reads `text`; the error says what is valid.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Bool => match text {
                "true" | "1" | "" => Ok(Value::Bool(true)),
                "false" | "0" => Ok(Value::Bool(false)),
                _ => Err("true, 1 or nothing, or false or 0 is expected".to_owned()),
            },
            Self::Host => match Address::parse(text)? {
                Address { host: Some(host), port: None } => Ok(Value::Text(host)),
                _ => {
                    Err("a host without a port is expected, as in 0.0.0.0, :: or [::1]".to_owned())
                }
            },
            Self::Address => Ok(Value::Address(Address::parse(text)?)),
            Self::Size(min, max) => bounded(parse_size(text)?, min, max, crate::units::format_size),
            Self::Duration(min, max) => {
                let duration = parse_duration(text)?;
                let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                bounded(ms, min, max, |ms| {
                    crate::units::format_duration(Duration::from_millis(ms))
                })?;
                Ok(Value::Duration(duration))
            }
            Self::Count(min, max) => {
                let number = text
                    .parse()
                    .map_err(|_| format!("a whole number from {min} to {max} is expected"))?;
                bounded(number, min, max, |n| n.to_string())
            }
            Self::NoneOr(..) if text == "none" => Ok(Value::Number(0)),
            Self::NoneOr(min, max) => match text.parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                _ => Err(format!("none or a whole number from {min} to {max} is expected")),
            },
            Self::Rate(min, max) => match text.strip_suffix("/s").unwrap_or(text).parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                _ => Err(format!("a number a second from {min}/s to {max}/s is expected")),
            },
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => Err(format!("one of {} is expected", words.join(", "))),
            Self::Topic => match engine::topic::Topic::new(text.as_bytes()) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(why) => Err(why.to_string()),
            },
            Self::Expression if text.contains('\n') => {
                Err("an expression without a newline is expected: records are single lines"
                    .to_owned())
            }
            Self::Time => read_as_text(text, Time::read(text).map(drop)),
            Self::Zone => read_as_text(text, Zone::read(text).map(drop)),
            Self::TimeForm => read_as_text(text, TimeForm::check(text)),
            Self::Ulid => read_as_text(text, ulid(text)),
            Self::Path(_) if text.is_empty() => Err("a path is expected".to_owned()),
            Self::Expression | Self::Path(_) | Self::Text(_) => Ok(Value::Text(text.to_owned())),
        }
    }

    /// What is valid, in the words of a refusal.
    pub(crate) fn expected(self) -> String {
        self.read("").err().unwrap_or_else(|| format!("{} is expected", self.placeholder()))
    }

    /// The word that stands for the value in help.
    pub(crate) fn placeholder(self) -> String {
        match self {
            Self::Bool => "true|false".to_owned(),
            Self::Host => "HOST".to_owned(),
            Self::Address => "ADDRESS".to_owned(),
            Self::Size(..) => "SIZE".to_owned(),
            Self::Duration(..) => "DURATION".to_owned(),
            Self::Count(..) => "N".to_owned(),
            Self::NoneOr(..) => "none|N".to_owned(),
            Self::Rate(..) => "N/s".to_owned(),
            Self::Choice(words) => words.join("|"),
            Self::Topic => "TOPIC".to_owned(),
            Self::Expression => "EXPR".to_owned(),
            Self::Time => "TIME".to_owned(),
            Self::Zone => "ZONE".to_owned(),
            Self::TimeForm => "FORMAT".to_owned(),
            Self::Ulid => "ULID".to_owned(),
            Self::Path(word) | Self::Text(word) => word.to_owned(),
        }
    }
}

/// The text, if it was found to be valid.
fn read_as_text(text: &str, checked: Result<(), impl Into<String>>) -> Result<Value, String> {
    checked.map(|()| Value::Text(text.to_owned())).map_err(Into::into)
}

fn ulid(text: &str) -> Result<(), &'static str> {
    // 130 bits fit 26 characters: a first one above 7 would overflow.
    let fits = text.starts_with(|first| matches!(first, '0'..='7'));
    let is_one = fits && text.parse::<engine::ulid::Ulid>().is_ok();
    is_one
        .then_some(())
        .ok_or("a ULID is expected: 26 characters of Crockford base 32, as --ulid prints them")
}

/// `number` if it lies within the bounds; otherwise words that name them.
fn bounded(
    number: u64,
    min: u64,
    max: u64,
    words: impl Fn(u64) -> String,
) -> Result<Value, String> {
    if (min..=max).contains(&number) {
        Ok(Value::Number(number))
    } else {
        Err(format!("from {} to {} is expected", words(min), words(max)))
    }
}

impl Flag {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase().replace(['.', '-'], "_"))
    }

    /// Whether it is called so on a command line.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Whether its value stands in the next argument when there is no `=`.
    pub(crate) fn takes_value(&self) -> bool {
        self.kind != Kind::Bool
    }
}
