//! What was set, and where: flag, else environment, else configuration file, else default.
//!
//! Invariants: every value was checked by its flag's kind, and a refusal names where the value
//! stood; an unknown key of the file is an error, unknown `OKLOGD_*` variables are one warning.
//! Does not read the process's environment or arguments itself: they are passed in.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::flag_table;
use crate::flags::{Flag, Several, VARIABLE_PREFIX, Value};
use crate::times::{Time, Zone};
use crate::units::Address;

/// Why settings were refused. Each is a usage error.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// A value is not valid for its flag.
    Value { origin: Origin, text: String, reason: String },
    /// The configuration file cannot be read.
    File { path: PathBuf, error: io::Error },
    /// The configuration file is not TOML.
    Syntax { path: PathBuf, error: String },
    /// The configuration file holds a key that is no flag.
    Key { path: PathBuf, key: String, hint: String },
    /// A flag that takes one value was given others, too.
    Several { name: &'static str, texts: Vec<String> },
    /// Values do not fit each other.
    Conflict(String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { origin, text, reason } => {
                write!(f, "{origin}: {text:?} is not valid: {reason}")
            }
            Self::File { path, error } => {
                write!(f, "--config {}: cannot be read: {error}", path.display())
            }
            Self::Syntax { path, error } => {
                write!(f, "--config {}: not valid TOML: {error}", path.display())
            }
            Self::Key { path, key, hint } => {
                write!(f, "--config {}: unknown key {key:?}{hint}", path.display())
            }
            Self::Several { name, texts } => {
                let given: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
                write!(
                    f,
                    "--{name} takes one value in this version, and is given {} times: {}",
                    texts.len(),
                    given.join(", ")
                )
            }
            Self::Conflict(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for SettingsError {}

/// Where a value stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the command line; names the flag.
    Flag(&'static str),
    /// In this variable.
    Variable(String),
    /// In this file under this key.
    File(PathBuf, &'static str),
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, key) => write!(f, "--config {}: key {key:?}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Checked values by flag name.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    values: HashMap<&'static str, Vec<Value>>,
    /// What the operator should know; one line each.
    pub(crate) warnings: Vec<String>,
}

/// The three places outside the table from which values come.
pub(crate) struct Sources<'a> {
    /// The command whose flags are set.
    pub(crate) command: &'static str,
    /// Texts given on the command line, by flag name.
    pub(crate) given: HashMap<&'static str, Vec<String>>,
    /// The environment.
    pub(crate) environment: &'a [(String, String)],
}

impl Settings {
    /// Resolves every flag of one command.
    pub(crate) fn resolve(flags: &[Flag], sources: &Sources<'_>) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        settings.warn_of_unknown_variables(sources.environment);
        for flag in flags {
            check_several(flag, sources.given.get(flag.name).map_or(&[], Vec::as_slice))?;
        }
        let variable = |flag: &Flag| {
            let name = flag.variable();
            let found = sources.environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (name, text.clone()))
        };
        let config = &flag_table::CONFIG;
        let given = sources.given.get(config.name).and_then(|texts| texts.last().cloned());
        let given = given.map(|text| (Origin::Flag(config.name), text));
        let named = || variable(config).map(|(name, text)| (Origin::Variable(name), text));
        let file = match given.or_else(named) {
            Some((origin, path)) => {
                read_value(config, &origin, &path)?;
                read_file(Path::new(&path), flags, sources.command)?
            }
            None => HashMap::new(),
        };
        for flag in flags {
            let (origin, texts) = if let Some(texts) = sources.given.get(flag.name) {
                (Origin::Flag(flag.name), texts.clone())
            } else if let Some((name, text)) = variable(flag) {
                (Origin::Variable(name), split_list(flag, &text))
            } else if let Some((path, texts)) = file.get(flag.name) {
                (Origin::File(path.clone(), flag.name), texts.clone())
            } else if let Some(text) = flag.default {
                (Origin::Default, vec![text.to_owned()])
            } else {
                continue;
            };
            settings.set(flag, &origin, &texts)?;
        }
        Ok(settings)
    }

    fn set(&mut self, flag: &Flag, origin: &Origin, texts: &[String]) -> Result<(), SettingsError> {
        let values = texts.iter().map(|text| read_value(flag, origin, text));
        let values = values.collect::<Result<_, _>>()?;
        self.values.insert(flag.name, values);
        Ok(())
    }

    fn warn_of_unknown_variables(&mut self, environment: &[(String, String)]) {
        let unknown: Vec<_> = environment
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
            .filter(|name| !known_flags().any(|flag| flag.variable() == *name))
            .collect();
        if !unknown.is_empty() {
            self.warnings
                .push(format!("unknown environment variables are ignored: {}", unknown.join(", ")));
        }
    }

    /// The last value of a flag, if it has one.
    fn last(&self, name: &str) -> Option<&Value> {
        self.values.get(name).and_then(|values| values.last())
    }

    /// Whether a switch is on.
    pub(crate) fn bool(&self, name: &str) -> bool {
        matches!(self.last(name), Some(Value::Bool(true)))
    }

    /// A size in bytes or a count; 0 without a value.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.optional_number(name).unwrap_or(0)
    }

    /// A size in bytes or a count.
    pub(crate) fn optional_number(&self, name: &str) -> Option<u64> {
        match self.last(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A time span; none without a value.
    pub(crate) fn duration(&self, name: &str) -> Duration {
        match self.last(name) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }

    /// A text; empty without a value.
    pub(crate) fn text(&self, name: &str) -> String {
        self.optional_text(name).unwrap_or_default()
    }

    /// A text.
    pub(crate) fn optional_text(&self, name: &str) -> Option<String> {
        match self.last(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Every text of a repeatable flag.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let values = self.values.get(name).map_or(&[][..], Vec::as_slice);
        values
            .iter()
            .filter_map(|value| match value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect()
    }

    /// A point in time.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Time>, SettingsError> {
        self.read_text(name, Time::read)
    }

    /// A time zone.
    pub(crate) fn zone(&self, name: &str) -> Result<Option<Zone>, SettingsError> {
        self.read_text(name, Zone::read)
    }

    /// What a text stands for that its kind has found to be valid.
    fn read_text<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, SettingsError> {
        let read = self.optional_text(name).map(|text| read(&text)).transpose();
        read.map_err(|words| SettingsError::Conflict(format!("--{name}: {words}")))
    }

    /// An address with both halves open.
    pub(crate) fn address(&self, name: &str) -> Address {
        match self.last(name) {
            Some(Value::Address(address)) => address.clone(),
            _ => Address { host: None, port: None },
        }
    }
}

/// How alike a key and a name have to be for the one to be meant for the other, from 0 to 1.
const LIKENESS_MIN: f64 = 0.8;

/// Every flag of every command.
fn known_flags() -> impl Iterator<Item = &'static Flag> {
    flag_table::ALL.iter().flat_map(|table| table.iter())
}

/// Refuses values of which all but the last would be ignored although they are meant.
fn check_several(flag: &Flag, texts: &[String]) -> Result<(), SettingsError> {
    let differ = texts.windows(2).any(|pair| pair[0] != pair[1]);
    if flag.several == Several::Refused && differ {
        return Err(SettingsError::Several { name: flag.name, texts: texts.to_vec() });
    }
    Ok(())
}

fn read_value(flag: &Flag, origin: &Origin, text: &str) -> Result<Value, SettingsError> {
    let refused =
        |reason| SettingsError::Value { origin: origin.clone(), text: text.to_owned(), reason };
    flag.kind.read(text).map_err(refused)
}

/// A variable that stands for a repeatable flag holds a list, unless its values may hold commas.
fn split_list(flag: &Flag, text: &str) -> Vec<String> {
    if flag.several == Several::AllCount {
        text.split(',').map(|part| part.trim().to_owned()).collect()
    } else {
        vec![text.to_owned()]
    }
}

type FileValues = HashMap<&'static str, (PathBuf, Vec<String>)>;

/// Reads a configuration file into texts by flag name, for a command with these flags.
fn read_file(path: &Path, flags: &[Flag], command: &str) -> Result<FileValues, SettingsError> {
    let text =
        read_text(path).map_err(|error| SettingsError::File { path: path.to_owned(), error })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        SettingsError::Syntax { path: path.to_owned(), error: error.to_string() }
    })?;
    let mut values = HashMap::new();
    for (key, value) in table {
        let unknown = |hint| SettingsError::Key { path: path.to_owned(), key: key.clone(), hint };
        // A name can be a list here and one value to another command.
        let flag = flags.iter().find(|flag| flag.name == key);
        let Some(flag) = flag.or_else(|| known_flags().find(|flag| flag.name == key)) else {
            let is_table = matches!(value, toml::Value::Table(_));
            return Err(unknown(nearest(&key, is_table, command)));
        };
        let texts = match value {
            toml::Value::Array(items)
                if matches!(flag.several, Several::AllCount | Several::EachCounts) =>
            {
                items.iter().map(as_text).collect()
            }
            // What this command takes no notice of is checked by the one that does.
            toml::Value::Array(_) if flags.iter().all(|own| own.name != key) => continue,
            toml::Value::Array(_) => {
                return Err(SettingsError::Value {
                    origin: Origin::File(path.to_owned(), flag.name),
                    text: value.to_string(),
                    reason: "one value is expected, not a list".to_owned(),
                });
            }
            value => vec![as_text(&value)],
        };
        values.insert(flag.name, (path.to_owned(), texts));
    }
    Ok(values)
}

/// Longest configuration file, bytes: hundreds of times what all flags need.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a regular file holds; others may have no end, or wait for somebody to write to them.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let refused = |words: &str| io::Error::new(io::ErrorKind::InvalidInput, words);
    // Before it is opened: opening a FIFO waits, and opening a device may do something.
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut bytes = Vec::new();
    // Whatever length it says: those of /proc say 0.
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused("it is longer than the 1 MiB that a configuration file may have"));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8"))
}

/// What an unknown key may have been meant to be.
fn nearest(key: &str, is_table: bool, command: &str) -> String {
    if is_table {
        return "; keys are whole flag names, quoted where they hold a dot".to_owned();
    }
    let likeness = |name: &str| likeness(name, key);
    let names = known_flags().map(|flag| flag.name);
    match names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(name) if likeness(name) >= LIKENESS_MIN => {
            format!("; the nearest known one is {name:?}")
        }
        _ => format!(
            "; keys are flag names without dashes: `oklogd {command} --help-all` shows them all"
        ),
    }
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(one.trim_start_matches('-'), other.trim_start_matches('-'))
}

/// Whether the one word may have been meant where the other one stands.
pub(crate) fn is_alike(one: &str, other: &str) -> bool {
    likeness(one, other) >= LIKENESS_MIN
}

/// The text that the flag's kind checks: what would stand on the command line.
fn as_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag_table::{NODE, QUERY};

    /// Flags on the command line.
    type Given<'a> = &'a [(&'static str, &'a str)];
    /// The environment.
    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn resolve(
        flags: &'static [Flag],
        given: &[(&'static str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let mut by_name: HashMap<&'static str, Vec<String>> = HashMap::new();
        for (name, text) in given {
            by_name.entry(*name).or_default().push((*text).to_owned());
        }
        let environment: Vec<_> =
            environment.iter().map(|&(n, t)| (n.to_owned(), t.to_owned())).collect();
        Settings::resolve(
            flags,
            &Sources { command: "ingeststore", given: by_name, environment: &environment },
        )
        .map_err(|error| error.to_string())
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oklogd.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path.display().to_string())
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let (_keep, path) = file("'ingest.flush-interval' = '4s'\ncores = 3\ndebug = true");
        let config = ("config", path.as_str());
        let variable = ("OKLOGD_INGEST_FLUSH_INTERVAL", "3s");
        let cases: &[(Variables<'_>, Variables<'_>, u64)] = &[
            (&[], &[], 20),
            (&[config], &[], 4_000),
            (&[config], &[variable], 3_000),
            (&[config, ("ingest.flush-interval", "2s")], &[variable], 2_000),
            (&[], &[("OKLOGD_CONFIG", &path)], 4_000),
        ];
        for (given, environment, expected_ms) in cases {
            let given: Vec<(&'static str, &str)> = given
                .iter()
                .map(|&(name, text)| (NODE.iter().find(|f| f.name == name).unwrap().name, text))
                .collect();
            let settings = resolve(NODE, &given, environment).unwrap();
            let got = settings.duration("ingest.flush-interval");
            assert_eq!(got, Duration::from_millis(*expected_ms), "{given:?} {environment:?}");
        }
        let settings = resolve(NODE, &[config], &[]).unwrap();
        assert_eq!((settings.optional_number("cores"), settings.bool("debug")), (Some(3), true));
    }

    proptest::proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_configuration_files(
            text in "(('[a-z.-]{1,24}'|\"(api|cores|ingest.path|ingest.topic|query.memory-max)\"|cores|debug|api|[a-z.]{1,9}) ?= ?\
                     (true|-?[0-9]{1,22}|'(:[0-9]{0,6}|[0-9]{0,20}(ms|s|d|kB|MiB|TiB)|\\PC{0,8})'|\\[\\PC{0,8}\\]|1e999|\\PC{0,6})?\n?){0,6}",
        ) {
            let (_keep, path) = file(&text);
            match resolve(NODE, &[("config", &path)], &[]) {
                Ok(settings) => drop(crate::config::NodeConfig::from_settings(&settings)),
                Err(words) => proptest::prop_assert!(words.contains("--config"), "{}", words),
            }
        }

        #[test]
        fn fuzz_values(text in "\\PC{0,30}|[0-9]{0,30}[a-zA-Z]{0,4}|\\[?[0-9a-f:.]{0,20}\\]?:?[0-9]{0,7}") {
            for flag in known_flags() {
                if let Err(words) = flag.kind.read(&text) {
                    proptest::prop_assert!(!words.is_empty());
                }
            }
            let line: Vec<String> = text.split(' ').map(str::to_owned).collect();
            drop(crate::arguments::normalise(NODE, &line));
        }
    }

    #[test]
    fn a_configuration_is_a_regular_file_of_bounded_length() {
        let (_keep, long) = file(&" ".repeat(FILE_BYTES_MAX as usize + 1));
        let fifo = format!("{long}.fifo");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let cut = "é".repeat(FILE_BYTES_MAX as usize / 2 + 1);
        let (_keep2, cut) = file(&format!("#{cut}"));
        let latin = format!("{cut}.latin");
        std::fs::write(&latin, b"q = '\xE9'").unwrap();
        for (path, words) in [
            (long.as_str(), "1 MiB"),
            (&cut, "1 MiB"),
            (&latin, "not UTF-8"),
            (&fifo, "no regular file"),
            ("/dev/full", "no regular file"),
            ("/dev", "no regular file"),
            ("", "\"\" is not valid: a path is expected"),
        ] {
            let error = resolve(QUERY, &[("config", path)], &[]).err().unwrap_or_default();
            assert!(error.starts_with("--config") && error.contains(words), "{path}: {error}");
            let variable = [("OKLOGD_CONFIG", path)];
            let error = resolve(QUERY, &[], &variable).err().unwrap_or_default();
            assert!(error.contains(words), "{path}: {error}");
        }
        let (_keep, longest) = file(&" ".repeat(FILE_BYTES_MAX as usize));
        assert!(resolve(QUERY, &[("config", &longest)], &[]).is_ok());
        for (variable, parts) in [
            ("OKLOGD_CONFIG", "OKLOGD_CONFIG: \"\" is not valid"),
            ("OKLOGD_INGEST_PATH", "OKLOGD_INGEST_PATH: \"\" is not valid"),
        ] {
            let error = resolve(NODE, &[], &[(variable, "")]).err().unwrap_or_default();
            assert!(error.contains(parts), "{error}");
        }
    }

    #[test]
    fn the_last_of_several_wins_and_repeatable_ones_add_up() {
        let settings =
            resolve(QUERY, &[("from", "1h"), ("from", "2h"), ("topic", "x"), ("topic", "y")], &[])
                .unwrap();
        assert_eq!(settings.text("from"), "2h");
        assert_eq!(settings.texts("topic"), ["x", "y"]);
        let (_keep, list) = file("topic = ['x', 'y']");
        let settings = resolve(QUERY, &[("config", &list)], &[]).unwrap();
        assert_eq!(settings.texts("topic"), ["x", "y"]);
        assert!(resolve(NODE, &[("config", &list)], &[]).is_ok());
        let settings = resolve(QUERY, &[], &[("OKLOGD_TOPIC", "x, y")]).unwrap();
        assert_eq!(settings.texts("topic"), ["x", "y"]);
        let settings =
            resolve(QUERY, &[("q", "a"), ("q", "a,b")], &[("OKLOGD_X", "c, d")]).unwrap();
        assert_eq!(settings.texts("q"), ["a", "a,b"]);
        assert_eq!(settings.texts("x"), ["c, d"], "a comma may be looked for");
        let (_keep, list) = file("q = ['a,b', 'c']");
        assert_eq!(resolve(QUERY, &[("config", &list)], &[]).unwrap().texts("q"), ["a,b", "c"]);
    }

    #[test]
    fn values_that_would_be_ignored_are_refused_and_named() {
        let (_keep, list) = file("store = ['a', 'b']");
        let twice = [("store", "a"), ("store", "b")];
        for (given, parts) in [
            (&twice[..], &["--store", "\"a\", \"b\"", "one value"][..]),
            (&[("store", "a"), ("store", "b"), ("store", "a")], &["--store", "3 times"]),
            (&[("config", "x"), ("config", "y")], &["--config", "\"x\", \"y\""]),
            (&[("config", &list)], &["oklogd.toml", "\"store\"", "not a list"]),
        ] {
            let error = resolve(QUERY, given, &[]).err().unwrap_or_default();
            for part in parts {
                assert!(error.contains(part), "{given:?}: {error}");
            }
            assert!(error.lines().count() == 1, "{error}");
        }
        let same = resolve(QUERY, &[("store", "a"), ("store", "a")], &[("OKLOGD_STORE", "c")]);
        assert_eq!(
            same.unwrap().address("store").host.as_deref(),
            Some("a"),
            "said twice is said once"
        );
    }

    #[test]
    fn refusals_name_the_place_and_what_is_valid() {
        let (_keep, bad_value) = file("'store.segment-replication-factor' = 'x'");
        let (_keep2, bad_key) = file("nonsense = 1");
        let (_keep5, misspelt) = file("'ingest.pth' = 'x'");
        let (_keep6, dashes) = file("'--debug' = true");
        let (_keep3, nested) = file("ingest.path = 'x'");
        let (_keep4, broken) = file("x = = 1");
        let cases: &[(Given<'_>, Variables<'_>, &[&str])] = &[
            (&[("cores", "0")], &[], &["--cores", "\"0\"", "1 to 1024"]),
            (&[], &[("OKLOGD_API", "a b")], &["OKLOGD_API", "HOST:PORT"]),
            (&[("ingest.flush-interval", "20")], &[], &["--ingest.flush-interval", "100ms"]),
            (&[("config", &bad_value)], &[], &["oklogd.toml", "replication-factor", "1 to 16"]),
            (
                &[("config", &bad_key)],
                &[],
                &["oklogd.toml", "unknown key", "nonsense", "`oklogd ingeststore --help-all`"],
            ),
            (&[("config", &misspelt)], &[], &["ingest.pth", "nearest", "\"ingest.path\""]),
            (&[("config", &dashes)], &[], &["--debug", "nearest", "\"debug\""]),
            (&[("config", &nested)], &[], &["unknown key", "quoted"]),
            (&[("config", &broken)], &[], &["not valid TOML"]),
            (&[("config", "/does/not/exist")], &[], &["/does/not/exist", "cannot be read"]),
        ];
        for (given, environment, parts) in cases {
            let error = resolve(NODE, given, environment).unwrap_err();
            for part in *parts {
                assert!(error.contains(part), "{error}: no {part}");
            }
        }
    }

    #[test]
    fn switches_are_read_as_in_a_url() {
        let on = |text| resolve(QUERY, &[], &[("OKLOGD_REGEX", text)]).map(|s| s.bool("regex"));
        for (text, is_on) in
            [("1", true), ("true", true), ("", true), ("0", false), ("false", false)]
        {
            assert_eq!(on(text), Ok(is_on), "{text:?}");
        }
        let refused = on("yes").unwrap_err();
        assert!(refused.contains("OKLOGD_REGEX") && refused.contains("true, 1"), "{refused}");
    }

    #[test]
    fn unknown_variables_are_one_warning() {
        let environment = [("OKLOGD_Y", "1"), ("OKLOGD_Z", "2"), ("OKLOGD_Q", "z"), ("HOME", "/")];
        let settings = resolve(NODE, &[], &environment).unwrap();
        assert_eq!(settings.warnings.len(), 1);
        assert!(settings.warnings[0].contains("OKLOGD_Y, OKLOGD_Z"));
    }
}
