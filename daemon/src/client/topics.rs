//! `oklogd topics`: what a node holds of each topic.

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::object::{ask, tell_missing};
use super::store::Store;
use super::table::{Side, lines, size};
use crate::client::http::block_on;
use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};
use crate::times::{TimeForm, Zone};

/// Longest answer that is read, bytes: one of the most topics that a node may have is a third of it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What `topics` is told.
#[derive(Debug)]
pub(crate) struct TopicsConfig {
    store: Store,
    zone: Option<Zone>,
    json: bool,
}

impl TopicsConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::TOPICS`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            zone: settings.zone("tz")?,
            json: settings.bool("json"),
        })
    }
}

/// Asks and prints.
pub(crate) fn run(config: &TopicsConfig) -> Exit {
    let form = match config.zone.as_ref().map(Zone::find).transpose() {
        Ok(zone) => zone.map_or(TimeForm::Utc, TimeForm::In),
        Err(words) => return output::fail(Exit::Usage, words),
    };
    let request = (Method::GET, "/topics");
    let asked = block_on(ask(&config.store, request, &[StatusCode::OK], ANSWER_BYTES_MAX));
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => return failed.tell(),
        Err(error) => return output::fail(Exit::Error, format_args!("cannot start: {error}")),
    };
    let printed = if config.json {
        output::print(&answer.text, Exit::Done)
    } else {
        output::print(table(&answer.object, &form).as_bytes(), Exit::Done)
    };
    if printed == Exit::Done { tell_missing(&answer.object) } else { printed }
}

fn table(answer: &Value, form: &TimeForm) -> String {
    let head = ["TOPIC", "RECORDS", "SIZE", "OLDEST", "NEWEST"].map(str::to_owned);
    let topics = answer["topics"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |topic: &Value| {
        let number = |name: &str| topic[name].as_u64().unwrap_or(0);
        let time = |name: &str| form.again(topic[name].as_str().unwrap_or("?"));
        [
            topic["topic"].as_str().unwrap_or("?").to_owned(),
            number("records").to_string(),
            size(number("bytes")),
            time("from"),
            time("to"),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(topics.iter().map(row)).collect();
    lines([Side::Left, Side::Right, Side::Right, Side::Left, Side::Left], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_a_table() {
        let answer = serde_json::json!({"complete": true, "topics": [
            {"topic": "a", "records": 5, "bytes": 2048,
             "from": "2026-11-21T03:58:05.154Z", "to": "2026-11-21T03:58:06.154Z"},
            {"topic": "longer", "records": 12_345, "bytes": 1,
             "from": "2026-11-21T03:58:05.154Z", "to": "2026-11-21T03:58:05.154Z"},
        ]});
        let zone = Zone::read("+01:00").unwrap().find().unwrap();
        assert_eq!(
            table(&answer, &TimeForm::In(zone)),
            "TOPIC   RECORDS     SIZE  OLDEST                         NEWEST\n\
             a             5  2.0 KiB  2026-11-21T04:58:05.154+01:00  2026-11-21T04:58:06.154+01:00\n\
             longer    12345      1 B  2026-11-21T04:58:05.154+01:00  2026-11-21T04:58:05.154+01:00\n"
        );
    }
}
