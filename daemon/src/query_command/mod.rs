//! `oklogd query`: asks a node and prints what it answers.

use crate::exit::Exit;
use crate::settings::{Settings, SettingsError};
use crate::units::Endpoint;

/// Port of a node that names none.
const API_PORT: u16 = 7650;

/// What to ask and how to print it.
#[derive(Debug, Clone)]
pub(crate) struct QueryConfig {
    pub(crate) store: Endpoint,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) q: String,
    pub(crate) regex: bool,
    pub(crate) ignore_case: bool,
    pub(crate) topics: Vec<String>,
    pub(crate) limit: Option<u64>,
    pub(crate) order: String,
    pub(crate) print: Print,
    pub(crate) fail_empty: bool,
    pub(crate) verbose: bool,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// Records, with these two in front of each.
    Records { ulid: bool, time: bool },
    /// The NDJSON objects of the answer.
    Json,
    /// A table of what the query costs and finds.
    Stats,
    /// Nothing.
    Nothing,
}

impl QueryConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::QUERY`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let (stats, json) = (settings.bool("stats"), settings.bool("json"));
        let (ulid, time) = (settings.bool("ulid"), settings.bool("time"));
        if json && (ulid || time) {
            return Err(SettingsError::Conflict(
                "--json prints ULID and time already: it goes without --ulid and --time".to_owned(),
            ));
        }
        let print = match (settings.bool("nocopy"), stats, json) {
            (true, ..) => Print::Nothing,
            (false, true, _) => Print::Stats,
            (false, false, true) => Print::Json,
            (false, false, false) => Print::Records { ulid, time },
        };
        Ok(Self {
            store: settings.address("store").or("localhost", API_PORT),
            from: settings.text("from"),
            to: settings.optional_text("to"),
            q: settings.text("q"),
            regex: settings.bool("regex"),
            ignore_case: settings.bool("ignore-case"),
            topics: settings.texts("topic"),
            limit: settings.optional_number("limit"),
            order: settings.text("order"),
            print,
            fail_empty: settings.bool("fail-empty"),
            verbose: settings.bool("verbose"),
        })
    }
}

/// Asks, prints, and says by its exit code how it went.
pub(crate) fn run(_config: &QueryConfig) -> Exit {
    Exit::Error
}
