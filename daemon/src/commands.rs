//! Every command as one table: what it is for, its flags, examples, files. Command lines, help, manual and
//! completions are made of it.
//!
//! Invariants: every example is a command line that is read (a test of [`crate::cli`] reads them all).

use crate::flag_table::{
    DRAIN, FORWARD, FSCK, HISTOGRAM, NODE, QUERY, RESTORE, STATUS, STREAM, TESTSVC, TOPICS,
};
use crate::flags::Flag;

/// One row of the command table.
pub(crate) struct CommandRow {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
    /// What stands beside the flags.
    pub(crate) operand: Operand,
    /// What else is to be known of it, for the manual.
    pub(crate) more: &'static str,
    /// Command lines as a shell reads them, and what they do.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Paths, and what is there.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Commands to read on with.
    pub(crate) see_also: &'static [&'static str],
}

/// Arguments beside flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
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
    /// The name of a command, or none.
    Command,
}

impl CommandRow {
    /// The one with this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|row| row.name == name)
    }

    /// What stands behind "Usage:", the same wherever it is shown.
    pub(crate) fn usage_line(&self) -> String {
        let flags = if self.flags.is_empty() { "" } else { " [OPTIONS]" };
        let operand = match self.operand {
            Operand::None => "",
            Operand::Expression => " [EXPR]",
            Operand::Path => " <PATH>",
            Operand::Addresses => " <ADDR>...",
            Operand::Paths => " <PATH>...",
            Operand::Shell => " <SHELL>",
            Operand::Command => " [COMMAND]",
        };
        format!("oklogd {}{flags}{operand}", self.name)
    }
}

/// Nothing but a name.
const ROW: CommandRow = CommandRow {
    name: "",
    about: "",
    flags: &[],
    operand: Operand::None,
    more: "",
    examples: &[],
    files: &[],
    see_also: &[],
};

const DATA: &[(&str, &str)] = &[
    ("data/ingest", "what was taken in and is not stored yet (--ingest.path)"),
    ("data/store", "what is stored, and the trash (--store.path)"),
];

/// How a query and its relatives read times and expressions.
const TIMES: &str = "--since and --until are other names of --from and --to. Times are read in the zone of the client, or in that of --tz: 2026-11-29 is the midnight \
    with which that day begins, 17:00 a time of today, yesterday the midnight before the last one. A time that \
    the clocks showed twice is the first of the two for --from and the second for --to; one that they skipped is \
    the moment in which they did. Durations (90s, 1.5h, -1h, 1w) count back from the node's clock. Numbers of \
    nine digits or more, and those behind an @, are Unix seconds. RFC 3339, ULIDs and now go to the node as \
    they are.";

/// Every command.
pub(crate) const COMMANDS: &[CommandRow] = &[
    CommandRow {
        name: "ingeststore",
        about: "Run a node that takes records in, keeps and searches them",
        flags: NODE,
        more: "It listens on 127.0.0.1 unless --listen says otherwise. SIGTERM and SIGINT end it in order; \
            a second one at once.",
        examples: &[
            ("oklogd ingeststore", "a node on its own"),
            (
                "oklogd ingeststore --config /etc/oklogd.toml --log-format json",
                "the same with settings of a file",
            ),
        ],
        files: DATA,
        see_also: &["status", "query", "forward", "fsck", "drain"],
        ..ROW
    },
    CommandRow {
        name: "ingest",
        about: "Run a node that takes records in (needs the network part, not in this version)",
        flags: NODE,
        see_also: &["ingeststore"],
        ..ROW
    },
    CommandRow {
        name: "store",
        about: "Run a node that keeps and searches records (needs the network part, not in this version)",
        flags: NODE,
        see_also: &["ingeststore"],
        ..ROW
    },
    CommandRow {
        name: "forward",
        about: "Send standard input to ingesters",
        flags: FORWARD,
        operand: Operand::Addresses,
        more: "Lines go to one ingester of several, and to another one when that is lost. What is not \
            acknowledged is sent again. An address that is no ingester's, or makes another promise than \
            --mode asks for, is told.",
        examples: &[
            ("oklogd forward logs1 logs2", "fast, port 7651"),
            (
                "oklogd forward --mode durable --topic shop logs1 logs2",
                "each line is kept until it is on a node's disk",
            ),
            (
                "oklogd forward --mode durable --on-full spool tcp+dnssrv://_oklog._tcp.example.org",
                "addresses from DNS; what cannot be sent waits on disk",
            ),
        ],
        files: &[("data/spool", "lines that wait (--spool.path, with --on-full spool)")],
        see_also: &["ingeststore", "query"],
    },
    CommandRow {
        name: "query",
        about: "Print matching records",
        flags: QUERY,
        operand: Operand::Expression,
        more: TIMES,
        examples: &[
            ("oklogd query timeout", "the last hour, as grep would"),
            (
                "oklogd query -q timeout -q db1 -x retried --since yesterday",
                "both, and not the third",
            ),
            ("oklogd query -w 500 -n 20 --time", "the newest twenty, each with its time"),
            ("oklogd query -o 'user=[0-9]+' --regex --since -1.5h", "only what matched"),
            (
                "oklogd query error --from '2026-11-29 17:00' --to '2026-11-29 18:00' --tz UTC -c",
                "how many there were",
            ),
            ("oklogd query error --json --partial deny", "for programs: all of it, or exit code 1"),
        ],
        see_also: &["stream", "histogram", "topics"],
        ..ROW
    },
    CommandRow {
        name: "stream",
        about: "Print records as they come",
        flags: STREAM,
        operand: Operand::Expression,
        more: "With --from or -n it first prints what is kept, then what comes, without gap or copy. When \
            the node is lost it is tried again, and gone on behind the last record.",
        examples: &[
            ("oklogd stream error -x healthz", "as tail -f and grep"),
            (
                "oklogd stream -n 20 --show-topic --time-format %T",
                "the newest twenty, then what comes",
            ),
            (
                "oklogd stream --since today --topic shop --json",
                "today's records of a topic, and what comes",
            ),
        ],
        see_also: &["query"],
        ..ROW
    },
    CommandRow {
        name: "histogram",
        about: "Show how many records match over time",
        flags: HISTOGRAM,
        operand: Operand::Expression,
        more: TIMES,
        examples: &[
            ("oklogd histogram error --since today", "bars of today's errors"),
            (
                "oklogd histogram --since 1w --buckets 7 --by topic",
                "a week, also of the largest topics",
            ),
        ],
        see_also: &["query", "topics"],
        ..ROW
    },
    CommandRow {
        name: "topics",
        about: "Show what is held of each topic",
        flags: TOPICS,
        examples: &[("oklogd topics --tz local", "with times as the clock here shows them")],
        see_also: &["query", "histogram"],
        ..ROW
    },
    CommandRow {
        name: "status",
        about: "Show how a node is: health, readiness, backlog, disks, versions; 0 if it is well",
        flags: STATUS,
        more: "Its exit code is 0 where the node is healthy and ready, else 1, so that it can be the health \
            check of a container.",
        examples: &[
            ("oklogd status", "the node of this host"),
            ("oklogd status --store logs1 --timeout 2s --json", "for a script"),
        ],
        see_also: &["topics", "drain"],
        ..ROW
    },
    CommandRow {
        name: "testsvc",
        about: "Emit synthetic records on standard output",
        flags: TESTSVC,
        examples: &[("oklogd testsvc --id web --size 200 --rate 100", "a hundred lines a second")],
        see_also: &["forward"],
        ..ROW
    },
    CommandRow {
        name: "fsck",
        about: "Check every file of a data directory or spool, without changing any",
        flags: FSCK,
        operand: Operand::Path,
        more: "It may run beside a node. Exit code 4: something is damaged.",
        examples: &[("oklogd fsck data", "both directories of a node")],
        files: DATA,
        see_also: &["restore"],
    },
    CommandRow {
        name: "drain",
        about: "Empty a node before it goes: no new records, everything into the store",
        flags: DRAIN,
        examples: &[("oklogd drain --timeout 5m", "exit code 1 if that was not enough")],
        see_also: &["status"],
        ..ROW
    },
    CommandRow {
        name: "restore",
        about: "Verify copied segments and adopt them into a store directory, offline",
        flags: RESTORE,
        operand: Operand::Paths,
        examples: &[("oklogd restore backup/ingest backup/store", "what a backup holds")],
        files: DATA,
        see_also: &["fsck"],
        ..ROW
    },
    CommandRow {
        name: "completions",
        about: "Print what completes command lines in a shell",
        operand: Operand::Shell,
        examples: &[("oklogd completions bash", "to be kept in /etc/bash_completion.d/oklogd")],
        see_also: &["man"],
        ..ROW
    },
    CommandRow {
        name: "man",
        about: "Print the manual page of a command, or of all, as man(1) reads it",
        operand: Operand::Command,
        examples: &[
            ("oklogd man query", "oklogd-query(1)"),
            ("oklogd man", "oklogd(1): all commands"),
        ],
        see_also: &["completions"],
        ..ROW
    },
    CommandRow { name: "version", about: "Print the version, and the commit it is made of", ..ROW },
];
