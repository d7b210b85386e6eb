//! Flags of the commands that ask a node.

use engine::limits::HISTOGRAM_BUCKETS_MAX;

use super::{
    CONFIG, DAY_MS, all_count, also, common, each_counts, once, optional, rare, rare_optional,
    short,
};
use crate::flags::{Flag, Kind};

/// The node that is asked.
const STORE: Flag = once(common("store", Kind::Address, "localhost:7650", "Ask this node"));

/// Who asks.
pub(super) const TOKEN_FILE: Flag = rare_optional(
    "token-file",
    Kind::Path("FILE"),
    "Show the node the token that this file holds (default: none)",
);

/// What records have to contain.
const REQUIRED: Flag = short(
    'q',
    each_counts(optional(
        "q",
        Kind::Expression,
        "Print records that contain this; repeatable, then all of them (default: every record)",
    )),
);
/// What they may not.
const EXCLUDED: Flag = short(
    'x',
    each_counts(optional(
        "x",
        Kind::Expression,
        "Leave records out that contain this; repeatable, then any of them (default: none)",
    )),
);
const REGEX: Flag = common("regex", Kind::Bool, "false", "-q and -x are regular expressions");
const IGNORE_CASE: Flag =
    short('i', common("ignore-case", Kind::Bool, "false", "Match letters of either case"));
const WORDS: Flag = short(
    'w',
    common("word-regexp", Kind::Bool, "false", "-q and -x are whole words, as rg -w has it"),
);
const TOPIC: Flag = all_count(optional(
    "topic",
    Kind::Topic,
    "Only records of this topic; repeatable (default: every topic)",
));
/// Since when; what holds by default differs.
const SINCE: Flag = also(
    &["since"],
    common(
        "from",
        Kind::Time,
        "1h",
        "Since this time, inclusive: 2026-11-29, 17:00, yesterday, 1.5h, RFC 3339, Unix seconds, ULID, now",
    ),
);

// How records look.
const ONLY: Flag = short(
    'o',
    common(
        "only-matching",
        Kind::Bool,
        "false",
        "Print only what -q matched, each match on its line",
    ),
);
const SHOW_ULID: Flag = common("ulid", Kind::Bool, "false", "Print the ULID before each record");
const SHOW_TIME: Flag = common(
    "time",
    Kind::Bool,
    "false",
    "Print the time before each record: RFC 3339, in UTC or in --tz",
);
const TIME_FORMAT: Flag = rare_optional(
    "time-format",
    Kind::TimeForm,
    "Print the time before each record so: as strftime(3) has it, '%H:%M:%S', in --tz (default: local)",
);
const ZONE: Flag = optional(
    "tz",
    Kind::Zone,
    "Zone of times that are given and shown: local, UTC, +01:00, Europe/Berlin (default: local; --time: UTC)",
);
const SHOW_TOPIC: Flag =
    rare("show-topic", Kind::Bool, "false", "Print the topic before each record");
const COLOUR: Flag = common(
    "color",
    Kind::Choice(&["auto", "always", "never"]),
    "auto",
    "Colour matches; auto: on a terminal, unless NO_COLOR is set or TERM is dumb",
);
const RAW: Flag = rare(
    "raw",
    Kind::Bool,
    "false",
    "Leave control characters (colours of a record, too) as they are, also on a terminal",
);
/// What this version's command line does not show.
const NO_CONTEXT: &str = "Not available in this version: records around a hit (/query?context=N)";
const CONTEXT_MAX: u64 = 1_000_000;

/// Flags of `query`.
pub(crate) const QUERY: &[Flag] = &[
    STORE,
    TOKEN_FILE,
    SINCE,
    also(
        &["until"],
        optional(
            "to",
            Kind::Time,
            "Until this time, inclusive, as --from has it (default: no bound)",
        ),
    ),
    REQUIRED,
    EXCLUDED,
    REGEX,
    IGNORE_CASE,
    WORDS,
    ONLY,
    short('c', common("count", Kind::Bool, "false", "Print only how many records match")),
    short(
        'n',
        optional(
            "lines",
            Kind::Count(0, u64::MAX),
            "Only the newest so many, oldest first (default: all)",
        ),
    ),
    TOPIC,
    optional("limit", Kind::Count(0, u64::MAX), "Stop after this many records (default: none)"),
    common("order", Kind::Choice(&["asc", "desc"]), "asc", "asc: oldest first; desc: newest first"),
    rare_optional(
        "after",
        Kind::Ulid,
        "Only records behind this one (with --order desc: before it)",
    ),
    rare(
        "partial",
        Kind::Choice(&["allow", "deny"]),
        "allow",
        "deny: no answer, and exit code 1, where part of the range cannot be searched",
    ),
    rare_optional(
        "timeout",
        Kind::Duration(1, 365 * DAY_MS),
        "Stop after this time in all, with exit code 3 where records were printed, else 1 (default: wait)",
    ),
    common(
        "stats",
        Kind::Bool,
        "false",
        "Print what the query costs and finds as a table, no records",
    ),
    SHOW_ULID,
    SHOW_TIME,
    TIME_FORMAT,
    ZONE,
    SHOW_TOPIC,
    common(
        "json",
        Kind::Bool,
        "false",
        "Print one JSON object per record, and a last one for the whole",
    ),
    COLOUR,
    RAW,
    common("fail-empty", Kind::Bool, "false", "Exit with 5 when nothing matched"),
    rare("nocopy", Kind::Bool, "false", "Run the query and read the answer, but print no record"),
    short('v', common("verbose", Kind::Bool, "false", "Tell on standard error how the query went")),
    short('C', rare_optional("context", Kind::Count(0, CONTEXT_MAX), NO_CONTEXT)),
    short('A', rare_optional("after-context", Kind::Count(0, CONTEXT_MAX), NO_CONTEXT)),
    short('B', rare_optional("before-context", Kind::Count(0, CONTEXT_MAX), NO_CONTEXT)),
    CONFIG,
];

/// Flags of `stream`.
pub(crate) const STREAM: &[Flag] = &[
    once(common("store", Kind::Address, "localhost:7650", "Follow this node")),
    TOKEN_FILE,
    REQUIRED,
    EXCLUDED,
    REGEX,
    IGNORE_CASE,
    WORDS,
    ONLY,
    TOPIC,
    Flag {
        default: None,
        help: "First print what is kept since this time, as query --from has it (default: nothing)",
        ..SINCE
    },
    short(
        'n',
        optional(
            "lines",
            Kind::Count(0, u64::MAX),
            "First print the newest so many that are kept (default: none, or all since --from)",
        ),
    ),
    rare(
        "window",
        Kind::Duration(0, DAY_MS),
        "3s",
        "How long several nodes may take to agree on the order; one node needs none of it",
    ),
    SHOW_ULID,
    SHOW_TIME,
    TIME_FORMAT,
    ZONE,
    SHOW_TOPIC,
    common("json", Kind::Bool, "false", "Print one JSON object per record"),
    COLOUR,
    RAW,
    CONFIG,
];

/// Flags of `histogram`.
pub(crate) const HISTOGRAM: &[Flag] = &[
    STORE,
    TOKEN_FILE,
    SINCE,
    also(
        &["until"],
        optional(
            "to",
            Kind::Time,
            "Until this time, as --from has it (default: the newest record's)",
        ),
    ),
    REQUIRED,
    EXCLUDED,
    REGEX,
    IGNORE_CASE,
    WORDS,
    TOPIC,
    common(
        "buckets",
        Kind::Count(1, HISTOGRAM_BUCKETS_MAX as u64),
        "24",
        "Count in this many spans",
    ),
    optional(
        "by",
        Kind::Choice(&["topic", "level"]),
        "Count each of the largest topics, or each level, too",
    ),
    rare(
        "partial",
        Kind::Choice(&["allow", "deny"]),
        "allow",
        "deny: no answer, and exit code 1, where part of the range cannot be searched",
    ),
    ZONE,
    common("json", Kind::Bool, "false", "Print the object that the node answers"),
    common("fail-empty", Kind::Bool, "false", "Exit with 5 when nothing matched"),
    CONFIG,
];

/// Flags of `topics`.
pub(crate) const TOPICS: &[Flag] = &[
    STORE,
    TOKEN_FILE,
    ZONE,
    common("json", Kind::Bool, "false", "Print the object that the node answers"),
    CONFIG,
];

/// Flags of `status`.
pub(crate) const STATUS: &[Flag] = &[
    STORE,
    TOKEN_FILE,
    optional(
        "timeout",
        Kind::Duration(1, 365 * DAY_MS),
        "Stop waiting after this time, with exit code 1 (default: 20s of silence)",
    ),
    common("json", Kind::Bool, "false", "Print one JSON object"),
    CONFIG,
];

/// Flags of `drain`.
pub(crate) const DRAIN: &[Flag] = &[
    STORE,
    TOKEN_FILE,
    optional(
        "timeout",
        Kind::Duration(1, 365 * DAY_MS),
        "Stop waiting after this time, with exit code 1; the node goes on (default: wait)",
    ),
    CONFIG,
];
