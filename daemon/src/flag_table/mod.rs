//! The rows of the flag table, of commands that ask nodes in `asking`; what a row means is in [`crate::flags`].

mod asking;

use engine::limits::{RECORD_SIZE_CEILING, RECORD_SIZE_FLOOR, SPOOL_BYTES_MIN, TOPICS_CEILING};

use self::asking::TOKEN_FILE;
pub(crate) use self::asking::{DRAIN, HISTOGRAM, QUERY, STATUS, STREAM, TOPICS};
use crate::flags::{Flag, Kind, Several};

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

/// A flag that `--help` shows.
const fn common(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    let several = Several::LastHolds;
    Flag {
        name,
        short: None,
        aliases: &[],
        kind,
        default: Some(default),
        several,
        common: true,
        help,
    }
}

/// A flag that only `--help-all` shows.
const fn rare(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    let several = Several::LastHolds;
    Flag {
        name,
        short: None,
        aliases: &[],
        kind,
        default: Some(default),
        several,
        common: false,
        help,
    }
}

/// A flag whose absence means something that no value says.
const fn optional(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    let several = Several::LastHolds;
    Flag { name, short: None, aliases: &[], kind, default: None, several, common: true, help }
}

/// The same, for `--help-all` only.
const fn rare_optional(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { common: false, ..optional(name, kind, help) }
}

/// A flag of which every value counts.
const fn all_count(flag: Flag) -> Flag {
    Flag { several: Several::AllCount, ..flag }
}

/// The same, of which a variable holds one.
const fn each_counts(flag: Flag) -> Flag {
    Flag { several: Several::EachCounts, ..flag }
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag { short: Some(letter), ..flag }
}

/// The same under other names, too, on a command line.
const fn also(aliases: &'static [&'static str], flag: Flag) -> Flag {
    Flag { aliases, ..flag }
}

/// A flag that takes one value, where two would both be meant.
const fn once(flag: Flag) -> Flag {
    Flag { several: Several::Refused, ..flag }
}

/// Where settings come from; every command takes it.
pub(crate) const CONFIG: Flag = once(optional(
    "config",
    Kind::Path("FILE"),
    "Read further settings from this TOML file; its keys are flag names, quoted where they hold a dot",
));

const SHUTDOWN_TIMEOUT: Flag = common(
    "shutdown-timeout",
    Kind::Duration(0, DAY_MS),
    "30s",
    "Time to finish work after SIGINT or SIGTERM",
);
const LOG_LEVEL: Flag = common(
    "log-level",
    Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
    "info",
    "Log this and worse",
);
const LOG_FORMAT: Flag = common(
    "log-format",
    Kind::Choice(&["text", "json"]),
    "text",
    "Form of log lines on standard error",
);
const DEBUG: Flag = common("debug", Kind::Bool, "false", "Same as --log-level debug");

/// Flags of `ingest`, `store` and `ingeststore`.
pub(crate) const NODE: &[Flag] = &[
    common("listen", Kind::Host, "127.0.0.1", "Host of every listener that names none"),
    common("api", Kind::Address, ":7650", "Listen here for HTTP"),
    common("ingest.fast", Kind::Address, ":7651", "Listen here for records, fast mode"),
    common("ingest.durable", Kind::Address, ":7652", "Listen here for records, durable mode"),
    common(
        "ingest.path",
        Kind::Path("DIR"),
        "data/ingest",
        "Keep what was taken in here until it is stored",
    ),
    common(
        "ingest.topic-mode",
        Kind::Choice(&["static", "dynamic"]),
        "static",
        "static: every record gets --ingest.topic; dynamic: the first word of a line is its topic",
    ),
    common("ingest.topic", Kind::Topic, "default", "Topic of records in static mode"),
    rare(
        "ingest.flush-interval",
        Kind::Duration(1, 10_000),
        "20ms",
        "Fast mode: a killed process loses at most what came in for this long",
    ),
    common(
        "ingest.max-record-size",
        Kind::Size(RECORD_SIZE_FLOOR as u64, RECORD_SIZE_CEILING as u64),
        "1MiB",
        "Longer lines are cut into records of this size",
    ),
    common(
        "ingest.backlog-max-size",
        Kind::Size(64 << 20, 1 << 50),
        "4GiB",
        "Bytes that may wait for the store before senders are slowed down",
    ),
    common("store.path", Kind::Path("DIR"), "data/store", "Keep store segments here"),
    common(
        "store.segment-retain",
        Kind::Duration(1_000, 36_500 * DAY_MS),
        "7d",
        "Keep records for this long",
    ),
    optional(
        "store.retain-size",
        Kind::Size(1 << 20, 1 << 60),
        "Keep at most this much in the store, the oldest goes first (default: no bound)",
    ),
    optional(
        "disk.free-min",
        Kind::Size(0, 1 << 60),
        "Refuse new records below this much free space (default: the smaller of 1GiB and 5 %)",
    ),
    common(
        "store.segment-replication-factor",
        Kind::Count(1, 16),
        "1",
        "Copies of each segment: no more than there are stores",
    ),
    common(
        "query.max-concurrent",
        Kind::Count(1, 10_000),
        "256",
        "Queries that run at a time; further ones are told to come again",
    ),
    rare(
        "query.memory-max",
        Kind::Size(8 << 20, 1 << 40),
        "128MiB",
        "Memory that all queries may hold together",
    ),
    optional(
        "cores",
        Kind::Count(1, 1024),
        "Use this many cores (default: what affinity and cgroup quota leave)",
    ),
    rare(
        "io",
        Kind::Choice(&["auto", "uring", "posix"]),
        "auto",
        "What shards wait on: io_uring; epoll and writing threads (posix); auto: io_uring where it is not refused",
    ),
    SHUTDOWN_TIMEOUT,
    LOG_LEVEL,
    LOG_FORMAT,
    Flag { common: false, ..DEBUG },
    CONFIG,
    rare(
        "ingest.framing",
        Kind::Choice(&["lf", "octet", "nul", "auto"]),
        "lf",
        "How messages of plain senders end: lf; octet: their length stands before them (RFC 6587); nul; auto: octet where the first bytes are LEN SP <",
    ),
    rare(
        "ingest.unfinished-line-after",
        Kind::Duration(0, DAY_MS),
        "0s",
        "A line of a plain sender whose end has not come for this long is a record; 0s: never, it waits",
    ),
    rare(
        "ingest.topics-max",
        Kind::Count(1, TOPICS_CEILING as u64),
        "1024",
        "Distinct topics; records of further ones are kept as 'invalid'",
    ),
    rare(
        "ingest.connections-max",
        Kind::Count(1, 1_000_000),
        "16384",
        "Ingest connections at a time; further ones are closed at once",
    ),
    rare(
        "ingest.connections-per-address-max",
        Kind::Count(1, 1_000_000),
        "8192",
        "Ingest connections of one address (IPv6: of one /64); further ones are closed at once",
    ),
    rare(
        "http.connections-max",
        Kind::Count(16, 1_000_000),
        "4096",
        "HTTP connections at a time; further ones get 503. Streams and queries may hold three quarters",
    ),
    rare(
        "http.connections-per-address-max",
        Kind::Count(1, 1_000_000),
        "2048",
        "HTTP connections of one address (IPv6: of one /64), at most seven eighths of all",
    ),
    rare(
        "http.idle-timeout",
        Kind::Duration(100, DAY_MS),
        "30s",
        "A connection that sends no request, or does not complete its head, for this long is closed",
    ),
    all_count(rare_optional(
        "http.host",
        Kind::Text("NAME"),
        "Answer to this name, too, on a loopback address: that of a proxy's site, say (otherwise only localhost, 127.0.0.0/8 and [::1])",
    )),
    all_count(rare_optional(
        "http.cors-origin",
        Kind::Text("ORIGIN"),
        "Let pages of this origin (https://logs.example.com) read answers and send records",
    )),
    rare_optional(
        "http.rate-limit",
        Kind::Rate(1, 1_000_000),
        "Requests a second of one address (IPv6: of one /64), and of one token; further ones get 429 (default: any)",
    ),
    all_count(rare_optional(
        "http.trusted-proxy",
        Kind::Text("CIDR"),
        "Believe this proxy (an address, or a network of proxies and nothing else, as in 10.1.2.0/28) for whom it asks: X-Forwarded-For, which it has to set",
    )),
    once(rare_optional(
        "auth.file",
        Kind::Path("FILE"),
        "Let in only who has a token of this file, with its rights and topics; read again when it changes (default: everybody may do everything)",
    )),
    rare(
        "http.log-topic",
        Kind::Topic,
        "log",
        "Topic of the entries that POST /log and /logs take",
    ),
    rare(
        "http.api-stats",
        Kind::Choice(&["object", "array"]),
        "object",
        "What /api/stats answers without by: an object; array: level and count each, as OgLogStream's dashboard reads it, and what is missing in headers alone",
    ),
    rare(
        "query.wait-max",
        Kind::Duration(0, DAY_MS),
        "5s",
        "A query waits this long for its turn before it is told to come again",
    ),
    rare(
        "ingest.partial-max-size",
        Kind::Size(1 << 20, 1 << 40),
        "64MiB",
        "Memory for unfinished lines, beyond it the longest is cut early; as much for POST /records",
    ),
    rare(
        "ingest.segment-flush-size",
        Kind::Size(1 << 20, GIB),
        "16MiB",
        "Flush an ingest segment at this size",
    ),
    rare(
        "ingest.segment-flush-age",
        Kind::Duration(10, DAY_MS),
        "3s",
        "Flush an ingest segment at this age",
    ),
    rare(
        "ingest.segment-pending-timeout",
        Kind::Duration(100, DAY_MS),
        "1m",
        "A claimed segment whose storing does not get on for this long is available again",
    ),
    rare(
        "store.compression-level",
        Kind::NoneOr(1, 19),
        "1",
        "zstd level of store segments: 1 makes 27 % of mixed logs, 3 25 %, 6 23 % in five times the time; none: as they are",
    ),
    rare(
        "store.signature-percent",
        Kind::Count(0, 100),
        "14",
        "Share of what blocks take that their signatures may take, percent; 0: none",
    ),
    rare(
        "store.segment-purge",
        Kind::Duration(0, 36_500 * DAY_MS),
        "24h",
        "Keep expired segments in the trash for this long",
    ),
    rare(
        "store.segment-consumers",
        Kind::Count(1, 64),
        "1",
        "Gather this many batches of segments at a time",
    ),
    rare(
        "store.segment-target-size",
        Kind::Size(1 << 20, 2 * GIB),
        "128MiB",
        "Gather this much text into one store segment",
    ),
    rare(
        "store.segment-target-age",
        Kind::Duration(10, DAY_MS),
        "3s",
        "Gather for this long at most before a store segment is written",
    ),
    rare(
        "store.segment-delay",
        Kind::Duration(1, DAY_MS),
        "100ms",
        "Wait this long between looks for segments",
    ),
];

/// Flags of `testsvc`.
pub(crate) const TESTSVC: &[Flag] = &[
    common("id", Kind::Text("ID"), "foo", "Name of this service in each record"),
    common("size", Kind::Size(1, 1 << 30), "512", "Bytes of a record, its newline included"),
    common("rate", Kind::Count(1, 10_000_000), "5", "Records per second"),
    CONFIG,
];

/// Flags of `fsck`.
pub(crate) const FSCK: &[Flag] = &[
    common("json", Kind::Bool, "false", "Print one JSON object"),
    common("repair", Kind::Bool, "false", "Not available in this version: fsck only reads"),
    CONFIG,
];

/// Flags of `forward`.
pub(crate) const FORWARD: &[Flag] = &[
    Flag {
        several: Several::AllCount,
        ..optional(
            "prefix",
            Kind::Text("TEXT"),
            "Put this and a space before each line, nothing if it is empty; repeatable (default: nothing)",
        )
    },
    common(
        "mode",
        Kind::Choice(&["fast", "durable", "bulk"]),
        "fast",
        "Sent again until an ingester says so: fast: it is in its hands; durable: it is on its disk; bulk: not in this version",
    ),
    once(optional("topic", Kind::Topic, "Topic of all lines (default: the ingester's choice)")),
    common(
        "on-full",
        Kind::Choice(&["block", "drop-oldest", "spool"]),
        "block",
        "What to do while no ingester takes lines: standard input waits, the oldest are dropped, or they are kept on disk",
    ),
    common(
        "buffer-size",
        Kind::Size(64 << 10, 1 << 40),
        "16MiB",
        "Memory for lines that wait (block, drop-oldest)",
    ),
    common("spool.path", Kind::Path("DIR"), "data/spool", "Keep lines that wait in here (spool)"),
    common(
        "spool.max-size",
        Kind::Size(SPOOL_BYTES_MIN, 1 << 50),
        "1GiB",
        "Disk for lines that wait; when it is full, standard input waits (spool)",
    ),
    optional("api", Kind::Address, "Serve /metrics and /health here (default: nowhere)"),
    SHUTDOWN_TIMEOUT,
    LOG_LEVEL,
    LOG_FORMAT,
    DEBUG,
    CONFIG,
    TOKEN_FILE,
    Flag {
        common: false,
        ..optional(
            "dns-server",
            Kind::Text("IP:PORT"),
            "Ask this name server for tcp+dns and tcp+dnssrv (default: the system's)",
        )
    },
    rare(
        "backoff-max",
        Kind::Duration(10, DAY_MS),
        "5s",
        "Longest pause between tries to reach an ingester",
    ),
    rare(
        "ingest.max-record-size",
        Kind::Size(RECORD_SIZE_FLOOR as u64, RECORD_SIZE_CEILING as u64),
        "1MiB",
        "Longer lines are cut into records of this size",
    ),
];

/// Flags of `restore`.
pub(crate) const RESTORE: &[Flag] = &[
    common("store.path", Kind::Path("DIR"), "data/store", "Keep store segments here"),
    common(
        "store.segment-retain",
        Kind::Duration(1_000, 36_500 * DAY_MS),
        "7d",
        "Tell which segments a node with this retention would move to the trash again",
    ),
    common("salvage", Kind::Bool, "false", "Adopt what is readable of damaged store segments"),
    common("json", Kind::Bool, "false", "Print one JSON object"),
    CONFIG,
];

/// Every table; names that occur twice are the same setting.
pub(crate) const ALL: &[&[Flag]] =
    &[NODE, FORWARD, QUERY, STREAM, HISTOGRAM, TOPICS, STATUS, TESTSVC, FSCK, DRAIN, RESTORE];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_default_passes_its_own_check_and_names_are_unique_per_command() {
        for table in ALL {
            let mut names = HashSet::new();
            for flag in *table {
                assert!(names.insert(flag.name), "{} twice", flag.name);
                assert!(
                    flag.default.is_none_or(|text| flag.kind.read(text).is_ok()),
                    "{}",
                    flag.name
                );
            }
        }
    }

    #[test]
    fn the_help_of_a_node_shows_twenty_flags() {
        assert_eq!(NODE.iter().filter(|flag| flag.common).count(), 20);
    }

    /// The page of all flags, made of the tables.
    fn page() -> String {
        let mut page = String::from(
            "# Flags\n\nMade from the tables in `daemon/src/flag_table`; a test keeps it \
             current. A flag beats its variable, which beats its key in the `--config` file (the \
             flag's name, quoted where it holds a dot), which beats the default.\n",
        );
        let commands = [
            ("ingeststore", NODE),
            ("forward", FORWARD),
            ("query", QUERY),
            ("stream", STREAM),
            ("histogram", HISTOGRAM),
            ("topics", TOPICS),
            ("status", STATUS),
            ("testsvc", TESTSVC),
            ("fsck", FSCK),
            ("drain", DRAIN),
            ("restore", RESTORE),
        ];
        for (command, table) in commands {
            let row = |flag: &Flag| {
                let (name, value, help) = (flag.name, flag.kind.placeholder(), flag.help);
                let default = flag.default.filter(|text| !text.is_empty()).unwrap_or("–");
                let value = value.replace('|', "\\|");
                let short = flag.short.map(|letter| format!("`-{letter}`"));
                let others = flag.aliases.iter().map(|other| format!("`--{other}`"));
                let own = std::iter::once(format!("`--{name}`"));
                let names: Vec<_> = own.chain(short).chain(others).collect();
                let names = names.join(", ");
                let variable = flag.variable();
                format!("| {names} | {value} | {default} | `{variable}` | {help} |\n")
            };
            let rows: String = table.iter().map(row).collect();
            page += "\n## oklogd ";
            page += command;
            page += "\n\n| flag | value | default | variable | meaning |\n|---|---|---|---|---|\n";
            page += &rows;
        }
        page
    }

    #[test]
    fn the_page_of_flags_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flags.md");
        if std::env::var_os("UPDATE_PAGES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "run this test with UPDATE_PAGES=1 to write {path}");
    }

    #[test]
    fn different_names_have_different_variables() {
        let names: HashSet<_> = ALL.iter().flat_map(|t| t.iter()).map(|f| f.name).collect();
        let variables: HashSet<_> = ALL.iter().flat_map(|t| t.iter()).map(Flag::variable).collect();
        assert_eq!(names.len(), variables.len());
    }
}
