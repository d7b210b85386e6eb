//! What `oklogd query` is told: the question, and how its answer is printed.
//!
//! Invariants: what contradicts itself is refused before anything is asked, with what would be valid.
//! Pure: times and zones are looked up when the query runs.

use std::time::Duration;

use crate::client::expressions::Expressions;
use crate::client::look::Look;
use crate::client::store::Store;
use crate::settings::{Settings, SettingsError};
use crate::times::Time;

/// What to ask and how to print it.
#[derive(Debug, Clone)]
pub(crate) struct QueryConfig {
    pub(crate) store: Store,
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
    pub(crate) expressions: Expressions,
    pub(crate) topics: Vec<String>,
    pub(crate) limit: Option<u64>,
    /// Records are asked for newest first.
    pub(crate) is_descending: bool,
    /// And printed oldest first.
    pub(crate) is_turned: bool,
    pub(crate) after: Option<String>,
    /// An answer that is known to be incomplete is none.
    pub(crate) denies_partial: bool,
    /// Time for all of it.
    pub(crate) timeout: Option<Duration>,
    pub(crate) print: Print,
    pub(crate) look: Look,
    pub(crate) fail_empty: bool,
    pub(crate) verbose: bool,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// Records.
    Records,
    /// How many there are.
    Count,
    /// A table of what the query costs and finds.
    Stats,
    /// The same as the object that the node answers.
    StatsJson,
    /// Nothing.
    Nothing,
}

impl QueryConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::QUERY`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        check_fit(settings)?;
        let look = Look::from_settings(settings)?;
        let print = match (settings.bool("nocopy"), settings.bool("count"), settings.bool("stats"))
        {
            (true, ..) => Print::Nothing,
            (_, true, _) => Print::Count,
            (.., true) if look.json => Print::StatsJson,
            (.., true) => Print::Stats,
            _ => Print::Records,
        };
        let newest = settings.optional_number("lines");
        let is_descending = settings.text("order") == "desc";
        let timeout = settings.duration("timeout");
        Ok(Self {
            store: Store::from_settings(settings)?,
            from: settings.time("from")?,
            to: settings.time("to")?,
            expressions: Expressions::from_settings(settings),
            topics: settings.texts("topic"),
            limit: newest.or_else(|| settings.optional_number("limit")),
            is_descending: is_descending || newest.is_some(),
            is_turned: newest.is_some() && !is_descending,
            after: settings.optional_text("after"),
            denies_partial: settings.text("partial") == "deny",
            timeout: (!timeout.is_zero()).then_some(timeout),
            print,
            look,
            fail_empty: settings.bool("fail-empty"),
            verbose: settings.bool("verbose"),
        })
    }
}

/// Refuses what would not do what it says.
fn check_fit(settings: &Settings) -> Result<(), SettingsError> {
    let refused = |words: &str| Err(SettingsError::Conflict(words.to_owned()));
    let is_given = |name: &str| settings.bool(name) || settings.optional_number(name).is_some();
    if ["context", "after-context", "before-context"].into_iter().any(is_given) {
        return refused(
            "-A, -B and -C are not available in this version: a node shows what is around a hit with \
             /query?context=N; here --ulid tells where it is, and --from and --to show the rest",
        );
    }
    if is_given("lines") && is_given("limit") {
        return refused(
            "-n is how many of the newest records, --limit how many of the first: give one of them",
        );
    }
    if is_given("lines") && settings.optional_text("after").is_some() {
        return refused(
            "-n counts from the newest record, --after goes on behind one: give one of them",
        );
    }
    for other in ["only-matching", "stats", "nocopy"] {
        if is_given("count") && is_given(other) {
            return refused(&format!(
                "-c prints how many records match, and nothing else: it goes without --{other}"
            ));
        }
    }
    Ok(())
}
