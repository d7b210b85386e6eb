//! `oklogd histogram`: how many records match over time, as bars.

use std::fmt::Write;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::object::{ask, tell_missing};
use super::store::Store;
use super::table::{Side, lines};
use crate::client::expressions::Expressions;
use crate::client::http::{Target, block_on};
use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};
use crate::terminal;
use crate::times::{Edge, Time, TimeForm, Zone};
use crate::units::format_duration;

/// Longest answer that is read, bytes: 10,000 counts of 21 rows with 20 digits each are 5 MB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Columns of an output that has none.
const COLUMNS: usize = 80;
/// Narrowest bar, columns.
const BAR_COLUMNS_MIN: usize = 10;
/// Longest row of a topic or level, columns: one for each count, where there are no more.
const ROW_COLUMNS_MAX: usize = 120;

/// What `histogram` is told.
#[derive(Debug)]
pub(crate) struct HistogramConfig {
    store: Store,
    from: Option<Time>,
    to: Option<Time>,
    expressions: Expressions,
    topics: Vec<String>,
    buckets: u64,
    by: Option<String>,
    denies_partial: bool,
    zone: Option<Zone>,
    json: bool,
    fail_empty: bool,
}

impl HistogramConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::HISTOGRAM`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            from: settings.time("from")?,
            to: settings.time("to")?,
            expressions: Expressions::from_settings(settings),
            topics: settings.texts("topic"),
            buckets: settings.number("buckets"),
            by: settings.optional_text("by"),
            denies_partial: settings.text("partial") == "deny",
            zone: settings.zone("tz")?,
            json: settings.bool("json"),
            fail_empty: settings.bool("fail-empty"),
        })
    }

    /// Path and query string; the error is one of usage.
    fn target(&self, now: Timestamp) -> Result<String, String> {
        let zone = || self.zone.as_ref().unwrap_or(&Zone::Local).find();
        let mut target = Target::new("/query/histogram");
        if let Some(from) = &self.from {
            target.add("from", &from.for_node(Edge::From, zone, now)?);
        }
        if let Some(to) = &self.to {
            target.add("to", &to.for_node(Edge::To, zone, now)?);
        }
        self.expressions.add_to(&mut target);
        self.topics.iter().for_each(|topic| target.add("topic", topic));
        target.add("buckets", &self.buckets.to_string());
        if let Some(by) = &self.by {
            target.add("by", by);
        }
        if self.denies_partial {
            target.add("partial", "deny");
        }
        Ok(target.into_string())
    }
}

/// Asks and prints.
pub(crate) fn run(config: &HistogramConfig) -> Exit {
    let zone = config.zone.as_ref().unwrap_or(&Zone::Local).find();
    let prepared = zone.and_then(|zone| Ok((zone, config.target(Timestamp::now())?)));
    let (zone, target) = match prepared {
        Ok(prepared) => prepared,
        Err(words) => return output::fail(Exit::Usage, words),
    };
    let request = (Method::GET, target.as_str());
    let asked = block_on(ask(&config.store, request, &[StatusCode::OK], ANSWER_BYTES_MAX));
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => return failed.tell(),
        Err(error) => return output::fail(Exit::Error, format_args!("cannot start: {error}")),
    };
    let counts = numbers(&answer.object["counts"]);
    let paper =
        Paper { columns: terminal::columns().unwrap_or(COLUMNS), ink: Ink::of_this_locale() };
    let printed = if config.json {
        output::print(&answer.text, Exit::Done)
    } else {
        output::print(drawn(&answer.object, &counts, &zone, paper).as_bytes(), Exit::Done)
    };
    match (printed, tell_missing(&answer.object)) {
        (Exit::Done, Exit::Done) if config.fail_empty && counts.iter().all(|n| *n == 0) => {
            Exit::Empty
        }
        (Exit::Done, missing) => missing,
        (failed, _) => failed,
    }
}

fn numbers(list: &Value) -> Vec<u64> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|number| number.as_u64().unwrap_or(0)).collect()
}

/// What is drawn on, and with.
#[derive(Debug, Clone, Copy)]
struct Paper {
    columns: usize,
    ink: Ink,
}

/// What bars are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    /// Blocks of eighths.
    Blocks,
    /// Letters that every terminal has.
    Ascii,
}

impl Ink {
    /// What the locale of this process can show (locale(7)): the first variable that is set says it.
    fn of_this_locale() -> Self {
        let variables = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
        let set =
            variables.filter_map(|name| std::env::var(name).ok()).find(|text| !text.is_empty());
        let text = set.unwrap_or_default().to_ascii_lowercase();
        if text.contains("utf-8") || text.contains("utf8") { Self::Blocks } else { Self::Ascii }
    }

    /// A bar for `count` of `most`, in at most so many columns; what is there is seen.
    fn bar(self, count: u64, most: u64, columns: usize) -> String {
        let parts = if self == Self::Blocks { 8 } else { 1 };
        let all = (columns * parts) as u128;
        let len = (u128::from(count) * all).div_ceil(u128::from(most.max(1))) as usize;
        match self {
            Self::Ascii => "#".repeat(len),
            Self::Blocks => {
                let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][len % 8];
                "█".repeat(len / 8) + rest
            }
        }
    }

    /// One column of a row, by how high it is.
    fn height(self, count: u64, most: u64) -> char {
        let levels = if self == Self::Blocks {
            [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            [' ', '.', '.', ':', ':', '|', '|', '#', '#']
        };
        levels[(u128::from(count) * 8).div_ceil(u128::from(most.max(1))) as usize]
    }
}

/// Bars, one for each bucket, and rows of topics or levels where there are some.
fn drawn(answer: &Value, counts: &[u64], zone: &jiff::tz::TimeZone, paper: Paper) -> String {
    let interval_ms = answer["interval_ms"].as_u64().unwrap_or(0);
    let seconds = if interval_ms.is_multiple_of(1_000) { "" } else { "%.3f" };
    let format = format!("%Y-%m-%dT%H:%M:%S{seconds}%:z");
    let form = TimeForm::As(format, zone.clone());
    let from: Option<Timestamp> = answer["from"].as_str().and_then(|text| text.parse().ok());
    let from_ms = from.map_or(0, |from| u64::try_from(from.as_millisecond()).unwrap_or(0));
    let most = counts.iter().copied().max().unwrap_or(0);
    let times =
        (0..counts.len() as u64).map(|n| form.text(from_ms.saturating_add(n * interval_ms)));
    let times: Vec<String> = times.collect();
    let used = times.first().map_or(0, String::len) + most.to_string().len() + "    ".len();
    let columns = paper.columns.saturating_sub(used).max(BAR_COLUMNS_MIN);
    let rows: Vec<_> = times
        .into_iter()
        .zip(counts)
        .map(|(time, count)| [time, count.to_string(), paper.ink.bar(*count, most, columns)])
        .collect();
    let mut out = lines([Side::Left, Side::Right, Side::Left], &rows);
    let total: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let span = format_duration(std::time::Duration::from_millis(interval_ms));
    let buckets = counts.len();
    // Writing to memory cannot fail.
    let _ = writeln!(out, "{total} record(s), {buckets} bucket(s) of {span}");
    out + &series(answer, paper)
}

/// A row for each topic or level: how many, and when.
fn series(answer: &Value, paper: Paper) -> String {
    let series = answer["series"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |one: &Value| {
        let counts = numbers(&one["counts"]);
        let total: u128 = counts.iter().map(|count| u128::from(*count)).sum();
        let most = counts.iter().copied().max().unwrap_or(0);
        let heights: String = if counts.len() <= ROW_COLUMNS_MAX {
            counts.iter().map(|count| paper.ink.height(*count, most)).collect()
        } else {
            String::new()
        };
        let (name, rest) = match one.get("level") {
            Some(level) => (level, "(none)"),
            None => (&one["topic"], "(all others)"),
        };
        [name.as_str().unwrap_or(rest).to_owned(), total.to_string(), format!("|{heights}|")]
    };
    let rows: Vec<_> = series.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", lines([Side::Left, Side::Right, Side::Left], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_there_is_room_and_what_is_there_is_seen() {
        for (ink, count, bar) in [
            (Ink::Blocks, 0, ""),
            (Ink::Blocks, 1, "▏"),
            (Ink::Blocks, 500, "█████"),
            (Ink::Blocks, 550, "█████▌"),
            (Ink::Blocks, 1000, "██████████"),
            (Ink::Ascii, 0, ""),
            (Ink::Ascii, 1, "#"),
            (Ink::Ascii, 1000, "##########"),
        ] {
            assert_eq!(ink.bar(count, 1000, 10), bar, "{count}");
        }
        assert_eq!(Ink::Ascii.bar(0, 0, 10), "");
        assert_eq!(Ink::Blocks.bar(u64::MAX, u64::MAX, 3), "███");
        let heights = [0, 1, 125, 126, 1000].map(|count| Ink::Blocks.height(count, 1000));
        assert_eq!(heights, [' ', '▁', '▁', '▂', '█']);
    }

    #[test]
    fn a_histogram_is_drawn_in_the_zone_that_is_asked_for() {
        let answer = serde_json::json!({
            "from": "2026-11-21T04:05:43.358Z", "interval_ms": 10_001, "counts": [0, 5, 10],
            "series": [
                {"topic": "web", "counts": [0, 5, 9]},
                {"topic": null, "counts": [0, 0, 1]},
            ],
        });
        let zone = Zone::read("+01:00").unwrap().find().unwrap();
        let paper = Paper { columns: 45, ink: Ink::Ascii };
        let counts = numbers(&answer["counts"]);
        assert_eq!(
            drawn(&answer, &counts, &zone, paper),
            "2026-11-21T05:05:43.358+01:00   0\n\
             2026-11-21T05:05:53.359+01:00   5  #####\n\
             2026-11-21T05:06:03.360+01:00  10  ##########\n\
             15 record(s), 3 bucket(s) of 10s1ms\n\
             \n\
             web           14  | |#|\n\
             (all others)   1  |  #|\n"
        );
        let levels = serde_json::json!({ "series": [
            {"level": "error", "counts": [1, 0]}, {"level": null, "counts": [0, 1]},
        ] });
        assert_eq!(series(&levels, paper), "\nerror   1  |# |\n(none)  1  | #|\n");
    }
}
