//! From arguments and environment to one checked command.
//!
//! Invariants: a pure function of what is passed in; it neither prints nor exits. Flags come from
//! [`crate::flag_table`] alone; the parser behind it only knows `--name[=value]`, because
//! [`crate::arguments`] has rewritten every other form.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::builder::styling::{AnsiColor, Effects, Styles};
use clap::{Arg, ArgAction, ArgMatches};

use crate::arguments::normalise;
use crate::client::drain::DrainConfig;
use crate::client::forward::command::ForwardConfig;
use crate::client::histogram::HistogramConfig;
use crate::client::query::QueryConfig;
use crate::client::status::StatusConfig;
use crate::client::stream::StreamConfig;
use crate::client::topics::TopicsConfig;
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::flag_table::{
    DRAIN, FORWARD, FSCK, HISTOGRAM, NODE, QUERY, RESTORE, STATUS, STREAM, TESTSVC, TOPICS,
};
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
    /// Print the manual page.
    Manual,
    /// Print the version.
    Version,
}

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

fn usage(words: &str) -> Stop {
    let text = format!("error: {words}\n");
    Stop { coloured: text.clone(), text, exit: Exit::Usage }
}

/// One row of the command table.
struct CommandRow {
    name: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    /// What stands beside the flags.
    operand: Operand,
}

/// Arguments beside flags.
#[derive(Clone, Copy)]
enum Operand {
    None,
    /// One more expression, or none.
    Expression,
    /// One data directory.
    Path,
    /// One address or more.
    Addresses,
    /// One file or directory or more.
    Paths,
    /// The name of a shell.
    Shell,
}

impl CommandRow {
    /// What stands behind "Usage:", the same wherever it is shown.
    fn usage_line(&self) -> String {
        let flags = if self.flags.is_empty() { "" } else { " [OPTIONS]" };
        let operand = match self.operand {
            Operand::None => "",
            Operand::Expression => " [EXPR]",
            Operand::Path => " <PATH>",
            Operand::Addresses => " <ADDR>...",
            Operand::Paths => " <PATH>...",
            Operand::Shell => " <SHELL>",
        };
        format!("oklogd {}{flags}{operand}", self.name)
    }
}

const COMMANDS: [CommandRow; 16] = [
    CommandRow {
        name: "ingeststore",
        about: "Run a node that takes records in, keeps and searches them",
        flags: NODE,
        operand: Operand::None,
    },
    CommandRow {
        name: "ingest",
        about: "Run a node that takes records in (needs the network part, not in this version)",
        flags: NODE,
        operand: Operand::None,
    },
    CommandRow {
        name: "store",
        about: "Run a node that keeps and searches records (needs the network part, not in this version)",
        flags: NODE,
        operand: Operand::None,
    },
    CommandRow {
        name: "forward",
        about: "Send standard input to ingesters",
        flags: FORWARD,
        operand: Operand::Addresses,
    },
    CommandRow {
        name: "query",
        about: "Print matching records",
        flags: QUERY,
        operand: Operand::Expression,
    },
    CommandRow {
        name: "stream",
        about: "Print records as they come",
        flags: STREAM,
        operand: Operand::Expression,
    },
    CommandRow {
        name: "histogram",
        about: "Show how many records match over time",
        flags: HISTOGRAM,
        operand: Operand::Expression,
    },
    CommandRow {
        name: "topics",
        about: "Show what is held of each topic",
        flags: TOPICS,
        operand: Operand::None,
    },
    CommandRow {
        name: "status",
        about: "Show how a node is: health, readiness, backlog, disks, versions; 0 if it is well",
        flags: STATUS,
        operand: Operand::None,
    },
    CommandRow {
        name: "testsvc",
        about: "Emit synthetic records on standard output",
        flags: TESTSVC,
        operand: Operand::None,
    },
    CommandRow {
        name: "fsck",
        about: "Check every file of a data directory or spool, without changing any",
        flags: FSCK,
        operand: Operand::Path,
    },
    CommandRow {
        name: "drain",
        about: "Empty a node before it goes: no new records, everything into the store",
        flags: DRAIN,
        operand: Operand::None,
    },
    CommandRow {
        name: "restore",
        about: "Verify copied segments and adopt them into a store directory, offline",
        flags: RESTORE,
        operand: Operand::Paths,
    },
    CommandRow {
        name: "completions",
        about: "Print what completes command lines in a shell",
        flags: &[],
        operand: Operand::Shell,
    },
    CommandRow {
        name: "man",
        about: "Print the manual page, as man(1) reads it",
        flags: &[],
        operand: Operand::None,
    },
    CommandRow { name: "version", about: "Print the version", flags: &[], operand: Operand::None },
];

/// The variables of the environment that concern us. An error: one of those that set flags of this
/// command is not UTF-8.
pub(crate) fn environment(
    arguments: &[String],
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Stop> {
    let row = arguments.first().and_then(|word| COMMANDS.iter().find(|row| row.name == word));
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
    let row = arguments.first().and_then(|word| COMMANDS.iter().find(|row| row.name == word));
    let mut line = vec!["oklogd".to_owned()];
    match row {
        Some(row) => {
            line.push(row.name.to_owned());
            line.extend(normalise(row.flags, &arguments[1..]));
        }
        None => line.extend_from_slice(arguments),
    }
    let show_all = line.iter().any(|argument| argument == "--help-all");
    if show_all && row.is_none() {
        return Err(help::of_all_commands(parser(true)));
    }
    let matches = parser(show_all).try_get_matches_from(line).map_err(help::without_far_tips)?;
    let (name, matches) = matches.subcommand().ok_or_else(|| usage("a command is needed"))?;
    let row =
        COMMANDS.iter().find(|row| row.name == name).ok_or_else(|| usage("unknown command"))?;
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
        "status" => Ok(Command::Status(StatusConfig::from_settings(settings))),
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
        "drain" => Ok(Command::Drain(DrainConfig::from_settings(settings))),
        "restore" => {
            let paths: Vec<String> =
                matches.get_many::<String>("PATH").into_iter().flatten().cloned().collect();
            Ok(Command::Restore(RestoreConfig::new(settings, &paths)))
        }
        "completions" => {
            let name = matches.get_one::<String>(SHELL).map(String::as_str).unwrap_or_default();
            Shell::named(name).map(Command::Completions).ok_or_else(|| usage("unknown shell"))
        }
        "man" => Ok(Command::Manual),
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

/// The parser; with `show_all` its help hides no flag.
pub(crate) fn parser(show_all: bool) -> clap::Command {
    let root = clap::Command::new("oklogd")
        .about(ABOUT)
        .styles(STYLES)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help("oklogd help COMMAND tells more of one; oklogd man is all of it, for man(1).")
        .arg(help_all("Print help of every command with every flag and its variable"));
    COMMANDS.iter().fold(root, |root, row| {
        let mut sub =
            clap::Command::new(row.name).about(row.about).override_usage(row.usage_line());
        if !row.flags.is_empty() {
            sub = sub.arg(help_all("Print help with every flag and its variable"));
        }
        sub =
            match row.operand {
                Operand::None => sub,
                Operand::Expression => sub.arg(Arg::new(EXPRESSION).help("The same as -q EXPR")),
                Operand::Path => sub.arg(
                    Arg::new("PATH")
                        .required(true)
                        .help("A data directory, a directory of segments, a spool, or one file"),
                ),
                Operand::Addresses => {
                    sub.arg(Arg::new(ADDRESSES).required(true).num_args(1..).help(
                        "Ingesters: HOST[:PORT], tcp://…, tcp+dns://NAME[:PORT], tcp+dnssrv://NAME",
                    ))
                }
                Operand::Paths => sub.arg(Arg::new("PATH").required(true).num_args(1..).help(
                    "Segments, or directories that hold some: data, data/store, data/ingest",
                )),
                Operand::Shell => {
                    let names = PossibleValuesParser::new(Shell::ALL.map(Shell::name));
                    sub.arg(Arg::new(SHELL).required(true).value_parser(names).help("The shell"))
                }
            };
        sub = sub.after_help(match row.flags {
            [] => String::new(),
            _ if show_all => help::PRECEDENCE.to_owned(),
            [flag, ..] => help::more(flag),
        });
        root.subcommand(row.flags.iter().fold(sub, |sub, flag| sub.arg(arg(flag, show_all))))
    })
}

fn help_all(help: &'static str) -> Arg {
    Arg::new(HELP_ALL).long(HELP_ALL).action(ArgAction::Help).help(help)
}

fn arg(flag: &Flag, show_all: bool) -> Arg {
    let help = match flag.default {
        Some(default) if !default.is_empty() && flag.kind != Kind::Bool => {
            format!("{} [default: {default}]", flag.help)
        }
        _ => flag.help.to_owned(),
    };
    let help = if show_all { format!("{help} [env: {}]", flag.variable()) } else { help };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.kind.placeholder())
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help(help)
        .hide(!flag.common && !show_all);
    let arg = arg.visible_aliases(flag.aliases);
    let arg = match flag.short {
        Some(letter) => arg.short(letter),
        None => arg,
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
            (&["man", "query"], "query"),
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
        for row in &COMMANDS {
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
