//! From arguments and environment to one checked command.
//!
//! Invariants: a pure function of what is passed in; it neither prints nor exits. Commands come from
//! [`crate::commands`], flags from [`crate::flag_table`] alone; the parser behind it only knows `--name[=value]`, because
//! [`crate::arguments`] has rewritten every other form.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::builder::styling::{AnsiColor, Effects, Styles};
use clap::{Arg, ArgAction, ArgMatches, ValueHint};

use crate::arguments::normalise;
use crate::client::drain::DrainConfig;
use crate::client::forward::command::ForwardConfig;
use crate::client::histogram::HistogramConfig;
use crate::client::query::QueryConfig;
use crate::client::status::StatusConfig;
use crate::client::stream::StreamConfig;
use crate::client::topics::TopicsConfig;
use crate::commands::{COMMANDS, CommandRow, Operand};
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::flags::{Flag, Kind, VARIABLE_PREFIX};
use crate::help;
use crate::offline::restore::RestoreConfig;
use crate::settings::{Settings, SettingsError, Sources};
use crate::shell::Shell;
use crate::testsvc::TestServiceConfig;

const ABOUT: &str = "A coordination-free log system: grep for a fleet.";
const HELP_ALL: &str = "help-all";
const ADDRESSES: &str = "ADDR";
const EXPRESSION: &str = "EXPR";
const SHELL: &str = "SHELL";
const COMMAND: &str = "COMMAND";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run a node in this role.
    Node { role: Role, config: Box<NodeConfig> },
    /// Send standard input to ingesters.
    Forward(Box<ForwardConfig>),
    /// Ask a node.
    Query(QueryConfig),
    /// Follow a node.
    Stream(StreamConfig),
    /// Count over time.
    Histogram(HistogramConfig),
    /// Tell what is held of each topic.
    Topics(TopicsConfig),
    /// Tell how a node is.
    Status(StatusConfig),
    /// Emit synthetic records.
    TestService(TestServiceConfig),
    /// Empty a node before it goes.
    Drain(DrainConfig),
    /// Adopt copied segments.
    Restore(RestoreConfig),
    /// Check a data directory.
    Fsck { path: PathBuf, json: bool },
    /// Print what completes command lines in this shell.
    Completions(Shell),
    /// Print the manual page of this command, or of all.
    Manual(Option<&'static str>),
    /// Print the version.
    Version,
}

/// Version, and the commit that this is made of where it was known (`build.rs`).
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("BUILT_FROM"));

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ingest,
    Store,
    IngestStore,
}

/// Nothing to do but to print this and exit.
#[derive(Debug)]
pub(crate) struct Stop {
    /// What to print.
    pub(crate) text: String,
    /// The same for a terminal that shows colours.
    pub(crate) coloured: String,
    /// Help that was asked for goes to standard output with `Done`, the rest to standard error.
    pub(crate) exit: Exit,
}

impl From<SettingsError> for Stop {
    fn from(error: SettingsError) -> Self {
        usage(&error.to_string())
    }
}

/// A line that says what is wrong with a command line.
pub(crate) fn usage(words: &str) -> Stop {
    let text = format!("error: {words}\n");
    Stop { coloured: text.clone(), text, exit: Exit::Usage }
}

/// The variables of the environment that concern us. An error: one of those that set flags of this
/// command is not UTF-8.
pub(crate) fn environment(
    arguments: &[String],
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Stop> {
    let row = arguments.first().and_then(|word| CommandRow::named(word));
    let flags = row.map_or(&[][..], |row| row.flags);
    let ours = variables
        .into_iter()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()));
    ours.map(|(name, text)| {
        let name = name.to_string_lossy().into_owned();
        match text.into_string() {
            Err(text) if flags.iter().any(|flag| flag.variable() == name) => Err(usage(&format!(
                "{name}: {:?} is not valid: it is not UTF-8; set it anew, or unset it",
                text.to_string_lossy()
            ))),
            Err(text) => Ok((name, text.to_string_lossy().into_owned())),
            Ok(text) => Ok((name, text)),
        }
    })
    .collect()
}

/// Reads the arguments behind the program's name: what to do, and what the operator should be
/// told about it, one line each.
pub(crate) fn parse(
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<(Command, Vec<String>), Stop> {
    let asked_for_help = help::of(arguments);
    let arguments = asked_for_help.as_deref().unwrap_or(arguments);
    let row = arguments.first().and_then(|word| CommandRow::named(word));
    let mut line = vec!["oklogd".to_owned()];
    match row {
        Some(row) => {
            line.push(row.name.to_owned());
            line.extend(normalise(row.flags, &arguments[1..]));
        }
        None => line.extend(normalise(&[], arguments)),
    }
    let show_all = line.iter().any(|argument| argument == "--help-all");
    if show_all && row.is_none() {
        return Err(help::of_all_commands(parser(Shows::All)));
    }
    if let Some(flag) = row.and_then(|row| without_value(row, &line)) {
        return Err(usage(&format!("--{} needs a value: {}", flag.name, flag.kind.expected())));
    }
    let shows = if show_all { Shows::All } else { Shows::Common };
    let parsed = parser(shows).try_get_matches_from(line);
    let asked = row.map(|row| row.name);
    let matches = parsed.map_err(|error| help::without_far_tips(asked, error))?;
    let (name, matches) = matches.subcommand().ok_or_else(|| usage("a command is needed"))?;
    let row = CommandRow::named(name).ok_or_else(|| usage("unknown command"))?;
    let (command_name, mut given) = (row.name, given(row.flags, matches));
    if matches!(row.operand, Operand::Expression)
        && let Some(text) = matches.get_one::<String>(EXPRESSION)
    {
        given.entry("q").or_default().push(text.clone());
    }
    let settings =
        Settings::resolve(row.flags, &Sources { command: command_name, given, environment })?;
    Ok((command(row, matches, &settings)?, settings.warnings))
}

/// The first flag that takes a value and stands without one.
fn without_value(row: &CommandRow, line: &[String]) -> Option<&'static Flag> {
    let mut names = line.iter().take_while(|argument| *argument != "--");
    names.find_map(|argument| {
        let name = argument.strip_prefix("--")?;
        row.flags.iter().find(|flag| flag.takes_value() && flag.name == name)
    })
}

fn command(row: &CommandRow, matches: &ArgMatches, settings: &Settings) -> Result<Command, Stop> {
    let node = |role| {
        let config = Box::new(NodeConfig::from_settings(settings)?);
        Ok(Command::Node { role, config })
    };
    match row.name {
        "ingeststore" => node(Role::IngestStore),
        "ingest" => node(Role::Ingest),
        "store" => node(Role::Store),
        "forward" => {
            let addresses = matches.get_many::<String>(ADDRESSES).into_iter().flatten();
            let addresses: Vec<String> = addresses.cloned().collect();
            Ok(Command::Forward(Box::new(ForwardConfig::from_settings(settings, &addresses)?)))
        }
        "query" => Ok(Command::Query(QueryConfig::from_settings(settings)?)),
        "stream" => Ok(Command::Stream(StreamConfig::from_settings(settings)?)),
        "histogram" => Ok(Command::Histogram(HistogramConfig::from_settings(settings)?)),
        "topics" => Ok(Command::Topics(TopicsConfig::from_settings(settings)?)),
        "status" => Ok(Command::Status(StatusConfig::from_settings(settings)?)),
        "testsvc" => Ok(Command::TestService(TestServiceConfig::from_settings(settings)?)),
        "fsck" if settings.bool("repair") => Err(usage(
            "fsck --repair is not available in this version; fsck only reads. Nodes and \
                 forwarders pass over what is damaged and set its files aside by themselves: a \
                 forwarder needs none for its spool",
        )),
        "fsck" => {
            let path = matches.get_one::<String>("PATH").cloned().unwrap_or_default();
            Ok(Command::Fsck { path: path.into(), json: settings.bool("json") })
        }
        "drain" => Ok(Command::Drain(DrainConfig::from_settings(settings)?)),
        "restore" => {
            let paths: Vec<String> =
                matches.get_many::<String>("PATH").into_iter().flatten().cloned().collect();
            Ok(Command::Restore(RestoreConfig::new(settings, &paths)))
        }
        "completions" => {
            let name = matches.get_one::<String>(SHELL).map(String::as_str).unwrap_or_default();
            Shell::named(name).map(Command::Completions).ok_or_else(|| usage("unknown shell"))
        }
        "man" => {
            let name = matches.get_one::<String>(COMMAND);
            let row = name.and_then(|name| CommandRow::named(name));
            Ok(Command::Manual(row.map(|row| row.name)))
        }
        _ => Ok(Command::Version),
    }
}

/// The texts that stand on the command line, by flag name.
fn given(flags: &[Flag], matches: &ArgMatches) -> HashMap<&'static str, Vec<String>> {
    let texts = |flag: &Flag| matches.get_many::<String>(flag.name).map(|v| v.cloned().collect());
    flags.iter().filter_map(|flag| Some((flag.name, texts(flag)?))).collect()
}

/// How help looks on a terminal.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

/// What a parser is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Help with the flags that matter.
    Common,
    /// Help with every flag.
    All,
    /// Completions, with the values that flags may have.
    Values,
}

/// The parser.
pub(crate) fn parser(shows: Shows) -> clap::Command {
    let root = clap::Command::new("oklogd")
        .about(ABOUT)
        .styles(STYLES)
        .version(VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(
            "oklogd help COMMAND tells more of one, oklogd man COMMAND all of it, for man(1).",
        )
        .arg(help_all("Print help of every command with every flag and its variable"));
    let root = COMMANDS.iter().fold(root, |root, row| root.subcommand(subcommand(row, shows)));
    if shows == Shows::Values {
        // Read before the parser is asked; completed like the others.
        let help = clap::Command::new("help").about("Print help of a command");
        return root.subcommand(help.arg(command_name()));
    }
    root
}

fn subcommand(row: &CommandRow, shows: Shows) -> clap::Command {
    let mut sub = clap::Command::new(row.name).about(row.about).override_usage(row.usage_line());
    if !row.flags.is_empty() {
        sub = sub.arg(help_all("Print help with every flag and its variable"));
    }
    sub = match row.operand {
        Operand::None => sub,
        Operand::Expression => {
            sub.arg(Arg::new(EXPRESSION).value_hint(ValueHint::Other).help("The same as -q EXPR"))
        }
        Operand::Path => sub.arg(
            Arg::new("PATH")
                .required(true)
                .value_hint(ValueHint::AnyPath)
                .help("A data directory, a directory of segments, a spool, or one file"),
        ),
        Operand::Addresses => sub.arg(
            Arg::new(ADDRESSES)
                .required(true)
                .num_args(1..)
                .value_hint(ValueHint::Hostname)
                .help("Ingesters: HOST[:PORT], tcp://…, tcp+dns://NAME[:PORT], tcp+dnssrv://NAME"),
        ),
        Operand::Paths => sub.arg(
            Arg::new("PATH")
                .required(true)
                .num_args(1..)
                .value_hint(ValueHint::AnyPath)
                .help("Segments, or directories that hold some: data, data/store, data/ingest"),
        ),
        Operand::Shell => {
            let names = PossibleValuesParser::new(Shell::ALL.map(Shell::name));
            sub.arg(Arg::new(SHELL).required(true).value_parser(names).help("The shell"))
        }
        Operand::Command => sub.arg(command_name()),
    };
    sub = sub.after_help(match row.flags {
        [] => String::new(),
        _ if shows == Shows::All => help::PRECEDENCE.to_owned(),
        [flag, ..] => help::more(flag, row.examples),
    });
    row.flags.iter().fold(sub, |sub, flag| sub.arg(arg(flag, shows)))
}

fn command_name() -> Arg {
    let names = PossibleValuesParser::new(COMMANDS.iter().map(|row| row.name));
    Arg::new(COMMAND)
        .value_parser(names)
        .hide_possible_values(true)
        .help("One command (default: all)")
}

fn help_all(help: &'static str) -> Arg {
    Arg::new(HELP_ALL).long(HELP_ALL).action(ArgAction::Help).help(help)
}

fn arg(flag: &Flag, shows: Shows) -> Arg {
    let help = match flag.default {
        Some(default) if !default.is_empty() && flag.kind != Kind::Bool => {
            format!("{} [default: {default}]", flag.help)
        }
        _ => flag.help.to_owned(),
    };
    let help = match shows {
        Shows::All => format!("{help} [env: {}]", flag.variable()),
        Shows::Common | Shows::Values => help,
    };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.kind.placeholder())
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help(help)
        .hide(!flag.common && shows == Shows::Common);
    let arg = arg.visible_aliases(flag.aliases);
    let arg = match flag.short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    let arg = match flag.kind {
        // Values are judged elsewhere, in one line each.
        Kind::Choice(words) if shows == Shows::Values => {
            arg.value_parser(PossibleValuesParser::new(words))
        }
        Kind::Path("DIR") => arg.value_hint(ValueHint::DirPath),
        Kind::Path(_) => arg.value_hint(ValueHint::FilePath),
        Kind::Address | Kind::Host => arg.value_hint(ValueHint::Hostname),
        _ => arg.value_hint(ValueHint::Other),
    };
    if flag.takes_value() {
        arg
    } else {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag_table::NODE;

    /// From, to, expression, whether it is a regular one.
    type Read<'a> = (&'a str, Option<&'a str>, &'a str, bool);

    fn time(text: &str) -> crate::times::Time {
        crate::times::Time::read(text).unwrap()
    }

    fn run(line: &[&str]) -> Result<Command, Stop> {
        let line: Vec<_> = line.iter().map(|&s| s.to_owned()).collect();
        parse(&line, &[]).map(|(command, _)| command)
    }

    #[test]
    fn the_command_lines_of_the_predecessors_readme_are_read() {
        let node = run(&["ingeststore", "-store.segment-replication-factor", "1"]).unwrap();
        let Command::Node { role: Role::IngestStore, config } = node else { panic!("{node:?}") };
        assert_eq!(config.store.unwrap().replication_factor, 1);

        let cases: &[(&[&str], Read<'_>)] = &[
            (&["query", "-from", "5m", "-q", "Hello"], ("5m", None, "Hello", false)),
            (
                &["query", "-from", "2h", "-to", "1h", "-q", "myservice.*(WARN|ERROR)", "-regex"],
                ("2h", Some("1h"), "myservice.*(WARN|ERROR)", true),
            ),
            (
                &["query", "-from", "1h", "-q", "/api/v1/login"],
                ("1h", None, "/api/v1/login", false),
            ),
        ];
        for (line, (from, to, q, regex)) in cases {
            let Command::Query(query) = run(line).unwrap() else { panic!("{line:?}") };
            assert_eq!((query.from, query.to), (Some(time(from)), to.map(time)));
            let asked = (&query.expressions.q[..], query.expressions.regex);
            assert_eq!(asked, (&[(*q).to_owned()][..], *regex));
        }
    }

    #[test]
    fn an_expression_beside_the_flags_is_one_more_that_has_to_match() {
        let environment = [("OKLOGD_Q".to_owned(), "of,old".to_owned())];
        for (line, q, x) in [
            (&["query"][..], &["of,old"][..], &[][..]),
            (&["query", "a b"], &["a b"], &[]),
            (&["query", "a", "-regex", "-q", "b,c", "-x", "d", "-qe"], &["b,c", "e", "a"], &["d"]),
            (&["query", "-x=d", "-x", "", "--", "-a"], &["-a"], &["d", ""]),
        ] {
            let line: Vec<_> = line.iter().map(|&s| s.to_owned()).collect();
            let Ok((Command::Query(query), _)) = parse(&line, &environment) else {
                panic!("{line:?}")
            };
            assert_eq!(
                (&query.expressions.q[..], &query.expressions.x[..]),
                (&strings(q)[..], &strings(x)[..]),
                "{line:?}"
            );
        }
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn wrong_lines_are_usage_errors_that_name_what_is_wrong() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "Usage"),
            (&["nonsense"], "nonsense"),
            (&["forward"], "ADDR"),
            (&["forward", "--mode", "bulk", "x"], "network part"),
            (&["forward", "--mode", "slow", "x"], "fast, durable, bulk"),
            (&["forward", "udp://x"], "udp://x"),
            (&["forward", "tcp+dnssrv://x:1"], "port"),
            (&["forward", "--dns-server", "ns", "x"], "--dns-server"),
            (&["ingeststore", "--nonsense"], "--nonsense"),
            (&["ingeststore", "-peer", "x"], "--peer"),
            (&["ingeststore", "--cores", "many"], "--cores"),
            (&["ingeststore", "extra"], "extra"),
            (&["ingeststore", "--cores"], "--cores"),
            (&["query", "--regex=maybe"], "--regex"),
            (&["query", "--order", "up"], "asc, desc"),
            (&["query", "--topic", "a b"], "--topic"),
            (&["query", "--limit", "-1"], "--limit"),
            (&["query", "a", "b"], "'b'"),
            (&["stream", "-x"], "--x"),
            (&["query", "--store", "a", "-store", "b"], "--store"),
            (&["forward", "--topic", "a", "--topic", "b", "x"], "--topic"),
            (&["completions"], "SHELL"),
            (&["completions", "tcsh"], "bash, zsh, fish, elvish"),
            (&["man", "nonsense"], "nonsense"),
            (&["man", "query", "stream"], "stream"),
            (&["restore"], "PATH"),
            (&["drain", "--timeout", "5"], "--timeout"),
            (&["fsck"], "PATH"),
            (&["fsck", "x", "--repair"], "--repair"),
            (&["testsvc", "--rate", "0"], "--rate"),
            (&["testsvc", "--size", "8"], "--size"),
        ];
        for (line, part) in cases {
            let stop = run(line).unwrap_err();
            assert_eq!(stop.exit, Exit::Usage, "{line:?}");
            assert!(stop.text.contains(part), "{line:?}: {}", stop.text);
        }
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_told_by_the_commands_that_read_it() {
        use std::os::unix::ffi::OsStringExt;
        let read = |command: &str, name: &str| {
            let bad = OsString::from_vec(b"data/\xff".to_vec());
            let variables = [(name.into(), bad), ("HOME".into(), "/".into())];
            environment(&[command.to_owned()], variables)
        };
        for (command, name) in [("ingeststore", "OKLOGD_INGEST_PATH"), ("query", "OKLOGD_Q")] {
            let stop = read(command, name).unwrap_err();
            assert_eq!(stop.exit, Exit::Usage);
            assert!(stop.text.contains(name) && stop.text.contains("UTF-8"), "{}", stop.text);
        }
        // Those of others, and unknown ones, are told as unknown ones are.
        for (command, name) in [("query", "OKLOGD_INGEST_PATH"), ("version", "OKLOGD_X")] {
            assert_eq!(read(command, name).unwrap().len(), 1);
        }
        assert!(read("query", "PATH").unwrap().is_empty());
    }

    /// A line as a shell takes it apart; only single quotes are known.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for (number, part) in line.split('\'').enumerate() {
            let last = words.last_mut().unwrap();
            if number % 2 == 1 {
                last.push_str(part);
                continue;
            }
            let mut pieces = part.split(' ');
            last.push_str(pieces.next().unwrap_or_default());
            words.extend(pieces.map(str::to_owned));
        }
        words
    }

    #[test]
    fn every_example_of_the_manual_is_read() {
        for (line, _) in COMMANDS.iter().flat_map(|row| row.examples) {
            let words = words(line);
            assert_eq!(words[0], "oklogd");
            // There may be no such file here.
            let words: Vec<_> = words[1..]
                .iter()
                .filter(|w| !w.contains("toml") && *w != "--config")
                .cloned()
                .collect();
            assert!(parse(&words, &[]).is_ok(), "{line}");
        }
    }

    /// Values that are wrong for a kind; empty where there is no wrong one.
    fn wrong(flag: &Flag) -> Vec<String> {
        let around = |min: u64, max: u64, unit: &str| {
            let below = min.checked_sub(1).map(|n| format!("{n}{unit}"));
            let above = max.checked_add(1).map(|n| format!("{n}{unit}"));
            below.into_iter().chain(above).collect::<Vec<_>>()
        };
        let (fixed, bounds): (&[&str], _) = match flag.kind {
            Kind::Bool => (&["yes", "2", "TRUE", " true"], Vec::new()),
            Kind::Host => (&["", "a:1", "a b", "[::1"], Vec::new()),
            Kind::Address => (&["", "a b", "x:65536", "udp://x", "x:y", "::1:x"], Vec::new()),
            Kind::Size(min, max) => {
                (&["", "x", "-1", "1.5MiB", "1mb", "99999999TiB"], around(min, max, ""))
            }
            Kind::Duration(min, max) => {
                (&["", "5", "x", "-1s", "1y", "1h 30m"], around(min, max, "ms"))
            }
            Kind::Count(min, max) => {
                (&["", "x", "-1", "1.5", "99999999999999999999"], around(min, max, ""))
            }
            Kind::NoneOr(min, max) => (&["", "x", "-1", "None"], around(min, max, "")),
            Kind::Rate(min, max) => {
                (&["", "x", "-1/s", "5/m", "1.5/s", "/s"], around(min, max, "/s"))
            }
            Kind::Choice(_) => (&["", "nonsense", " "], Vec::new()),
            Kind::Topic => (&["", "a b", "-a", "a/b", "\u{e9}"], vec!["a".repeat(65)]),
            Kind::Time => (&["", "x", "5", "1y", "25:00", "2026-02-30", "\n"], Vec::new()),
            Kind::Zone => (&["", "+25:00", "a b", "/etc/passwd", ".."], Vec::new()),
            Kind::TimeForm => (&["", "%", "%H %!"], Vec::new()),
            Kind::Ulid => (&["", "x", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ"], vec!["U".repeat(26)]),
            Kind::Expression => (&["a\nb"], Vec::new()),
            Kind::Path(_) => (&[""], Vec::new()),
            Kind::Text(_) => match flag.name {
                "prefix" => (&["a\nb"], Vec::new()),
                "dns-server" => (&["", "ns", "1.2.3.4"], Vec::new()),
                _ => (&[], Vec::new()),
            },
        };
        fixed.iter().map(|&text| text.to_owned()).chain(bounds).collect()
    }

    #[test]
    fn every_wrong_value_of_every_flag_is_one_line_that_says_what_is_valid() {
        let mut tried = 0;
        for row in COMMANDS {
            let operand: &[&str] = match row.operand {
                Operand::Path | Operand::Paths | Operand::Addresses => &["x"],
                _ => &[],
            };
            for flag in row.flags {
                for value in wrong(flag) {
                    let given = format!("--{}={value}", flag.name);
                    let line: Vec<_> = [row.name, &given].iter().chain(operand).copied().collect();
                    let by_flag = run(&line).unwrap_err();
                    let line = std::iter::once(row.name).chain(operand.iter().copied());
                    let line: Vec<_> = line.map(str::to_owned).collect();
                    let by_variable = parse(&line, &[(flag.variable(), value.clone())]);
                    let mut told = vec![(by_flag, format!("--{}", flag.name))];
                    // A file that cannot be is told otherwise, and an empty switch is one that is on.
                    if let Err(stop) = by_variable {
                        told.push((stop, flag.variable()));
                    } else {
                        panic!("{} {value:?} is taken by {}", row.name, flag.variable());
                    }
                    for (stop, place) in told {
                        let text = &stop.text;
                        assert_eq!(
                            (stop.exit, text.lines().count()),
                            (Exit::Usage, 1),
                            "{given:?}: {text}"
                        );
                        let is_named =
                            text.contains(&place) || text.contains(&format!("--{}", flag.name));
                        assert!(text.starts_with("error: ") && is_named, "{given:?}: {text}");
                        let reason = text.rsplit(": ").next().unwrap_or_default().trim();
                        assert!(reason.len() > 5, "{given:?}: {text}");
                        tried += 1;
                    }
                }
                let alone = format!("--{}", flag.name);
                if flag.takes_value() {
                    let line: Vec<_> =
                        [row.name].iter().chain(operand).copied().chain([&alone[..]]).collect();
                    let stop = run(&line).unwrap_err();
                    assert_eq!(
                        (stop.exit, stop.text.lines().count()),
                        (Exit::Usage, 1),
                        "{}",
                        stop.text
                    );
                    assert!(
                        stop.text.contains(&format!("{alone} needs a value: ")),
                        "{}",
                        stop.text
                    );
                }
            }
        }
        assert!(tried > 500, "{tried}");
    }

    #[test]
    fn help_shows_what_matters_and_help_all_everything_with_defaults() {
        let short = run(&["ingeststore", "--help"]).unwrap_err();
        let long = run(&["ingeststore", "--help-all"]).unwrap_err();
        assert_eq!((short.exit, long.exit), (Exit::Done, Exit::Done));
        for flag in NODE {
            let name = format!("--{}", flag.name);
            assert!(long.text.contains(&name), "{name}");
            let shown = [' ', '['].iter().any(|end| short.text.contains(&format!("{name}{end}")));
            assert_eq!(shown, flag.common, "{name}");
            assert!(flag.default.is_none_or(|d| flag.kind == Kind::Bool || long.text.contains(d)));
        }
    }

    #[test]
    fn help_all_shows_every_flag_of_every_command_with_its_variable() {
        let all = run(&["--help-all"]).unwrap_err();
        assert_eq!(all.exit, Exit::Done);
        for row in COMMANDS {
            assert!(all.text.contains(&format!("Usage: {}\n", row.usage_line())), "{}", row.name);
            let one = run(&[row.name, "--help-all"]).unwrap_err();
            assert_eq!(one.exit == Exit::Done, !row.flags.is_empty(), "{}", row.name);
            for flag in row.flags {
                let shown = format!("[env: {}]", flag.variable());
                assert!(all.text.contains(&shown) && one.text.contains(&shown), "{shown}");
            }
        }
        let short = run(&["query", "--help"]).unwrap_err();
        assert!(short.text.contains("--store by OKLOGD_STORE"), "{}", short.text);
    }

    #[test]
    fn help_is_a_command_too() {
        for (line, same) in [
            (&["help"][..], &["--help"][..]),
            (&["help", "query"], &["query", "--help"]),
            (&["help", "--help-all"], &["--help-all"]),
            (&["-help"], &["--help"]),
            (&["query", "-help"], &["query", "--help"]),
            (&["-help-all"], &["--help-all"]),
            (&["-version"], &["--version"]),
            (&["-V"], &["--version"]),
        ] {
            let (stop, expected) = (run(line).unwrap_err(), run(same).unwrap_err());
            assert_eq!((stop.exit, stop.text), (Exit::Done, expected.text), "{line:?}");
        }
        assert_eq!(run(&["help", "nonsense"]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn tips_are_given_only_where_they_may_be_what_was_meant() {
        for (line, tip) in [
            (&["quer"][..], Some("'query'")),
            (&["query", "--ordr", "asc"], Some("'--order'")),
            (&["repair"], None),
            (&["ingeststore", "--cluster", "x"], None),
        ] {
            let text = run(line).unwrap_err().text;
            assert_eq!(text.contains("tip:"), tip.is_some(), "{text}");
            assert!(text.contains(tip.unwrap_or("try '--help'")), "{text}");
            assert!(!text.contains("\n\n\n"), "{text}");
        }
        // A usage line is that of the whole command.
        for line in [&["forward"][..], &["forward", "--nonsense", "x"], &["forward", "--help"]] {
            let text = run(line).unwrap_err().text;
            assert!(text.contains("Usage: oklogd forward [OPTIONS] <ADDR>...\n"), "{text}");
        }
    }

    #[test]
    fn colours_are_apart_from_the_words() {
        for line in [&["--help"][..], &["query", "--help"], &["query", "--nonsense"]] {
            let stop = run(line).unwrap_err();
            assert!(!stop.text.contains('\x1b'), "{}", stop.text);
            assert!(stop.coloured.contains("\x1b["), "{}", stop.coloured);
        }
    }

    #[test]
    fn switches_take_a_value_behind_an_equals_sign() {
        for (argument, on) in [("-regex", true), ("--regex=true", true), ("-regex=false", false)] {
            let Ok(Command::Query(query)) = run(&["query", argument, "-q", "x"]) else {
                panic!("{argument}")
            };
            assert_eq!(query.expressions.regex, on, "{argument}");
        }
    }
}
