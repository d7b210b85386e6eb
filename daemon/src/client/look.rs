//! How records look: what stands before them, what of them is shown, and colours.
//!
//! Invariants: what a command line asks for is checked before anything is asked of a node; control
//! characters are escaped on a terminal only, and not where they are wanted (`--raw`); colours are where
//! they are asked for, else where a person sees them.

use crate::client::expressions::Expressions;
use crate::client::printer::Style;
use crate::settings::{Settings, SettingsError};
use crate::times::{TimeForm, Zone};

/// When matches are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    /// On a terminal that shows them.
    Auto,
    Always,
    Never,
}

/// What is known of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    /// A person looks at it.
    pub(crate) is_terminal: bool,
    /// It shows colours, and they are wanted.
    pub(crate) shows_colours: bool,
}

impl Output {
    /// Standard output as it is.
    pub(crate) fn of_this_process() -> Self {
        let stdout = std::io::stdout();
        Self {
            is_terminal: std::io::IsTerminal::is_terminal(&stdout),
            shows_colours: crate::terminal::shows_colours(&stdout),
        }
    }
}

/// What a command line says of how records look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) ulid: bool,
    /// Their times are shown.
    pub(crate) time: bool,
    /// As strftime(3) has it.
    time_format: Option<String>,
    pub(crate) zone: Option<Zone>,
    /// Their topics are shown.
    pub(crate) topic: bool,
    /// Of a record only what matched is shown.
    pub(crate) only_matches: bool,
    colours: Colours,
    raw: bool,
    /// Objects, as nodes answer them.
    pub(crate) json: bool,
}

/// What objects say anyway, or cannot show.
const NOT_IN_JSON: [(&str, &str); 7] = [
    ("ulid", "--ulid"),
    ("time", "--time"),
    ("time-format", "--time-format"),
    ("show-topic", "--show-topic"),
    ("only-matching", "-o"),
    ("count", "-c"),
    ("raw", "--raw"),
];

impl Look {
    /// Of settings of a command that prints records.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let json = settings.bool("json");
        let is_given = |name: &str| settings.bool(name) || settings.optional_text(name).is_some();
        if let Some((_, flag)) = NOT_IN_JSON.iter().find(|(name, _)| json && is_given(name)) {
            return Err(SettingsError::Conflict(format!(
                "--json prints whole objects, with ULID, time and topic: it goes without {flag}"
            )));
        }
        let time_format = settings.optional_text("time-format");
        let colours = match settings.text("color").as_str() {
            "always" => Colours::Always,
            "never" => Colours::Never,
            _ => Colours::Auto,
        };
        let only_matches = settings.bool("only-matching");
        if only_matches && settings.texts("q").iter().all(String::is_empty) {
            return Err(SettingsError::Conflict(
                "-o prints what matched: it needs an expression, as in `-o -q 'id=[0-9]+' --regex`"
                    .to_owned(),
            ));
        }
        Ok(Self {
            ulid: settings.bool("ulid"),
            time: settings.bool("time") || time_format.is_some(),
            time_format,
            zone: settings.zone("tz")?,
            topic: settings.bool("show-topic"),
            only_matches,
            colours,
            raw: settings.bool("raw"),
            json,
        })
    }

    /// Whether the answer has to be asked for as objects: text has no topics.
    pub(crate) const fn needs_objects(&self) -> bool {
        self.json || self.topic
    }

    /// How a printer shows it on this output. The error is one of usage.
    pub(crate) fn style(&self, expressions: &Expressions, output: Output) -> Result<Style, String> {
        let has_colours = match self.colours {
            Colours::Always => true,
            Colours::Never => false,
            // Those of a record would be mixed with ours.
            Colours::Auto => output.shows_colours && !self.raw,
        };
        let only = if self.only_matches {
            expressions
                .any()
                .map_err(|error| format!("-o: what matched cannot be found: {error}"))?
        } else {
            None
        };
        let time = if self.time { Some(self.time_form()?) } else { None };
        Ok(Style {
            ulid: self.ulid,
            time,
            topic: self.topic,
            only,
            escapes: output.is_terminal && !self.raw,
            highlights: if has_colours { expressions.each() } else { Vec::new() },
        })
    }

    /// A zone that was named is that of all times; without one, what people format is in their own.
    fn time_form(&self) -> Result<TimeForm, String> {
        Ok(match (&self.time_format, &self.zone) {
            (None, None) => TimeForm::Utc,
            (None, Some(zone)) => TimeForm::In(zone.find()?),
            (Some(format), zone) => {
                let zone = zone.as_ref().unwrap_or(&Zone::Local).find()?;
                TimeForm::As(format.clone(), zone)
            }
        })
    }
}
