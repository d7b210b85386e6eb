//! Every bound of the network side, with its unit and its reason.

use std::time::Duration;

/// HTTP connections at a time unless told otherwise; further ones get 503 and are closed. Room for
/// as many followers and queries as may be, and as many short requests again.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;

/// The same of one address: a proxy in front of the node brings everybody from one.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = 2048;

/// Largest request head, bytes; larger ones get 431. The query string is most of it.
pub const HTTP_HEAD_BYTES_MAX: usize = 64 << 10;

/// What of that a connection may always hold, bytes: the first buffer that the library allocates.
pub const HTTP_HEAD_BYTES_FREE: usize = 8 << 10;

/// What unfinished heads hold beyond that, over all connections, bytes; a head that finds nothing
/// left gets 503.
pub const HTTP_HEADS_BYTES_MAX: usize = 16 << 20;

/// Bytes that a connection buffers in each direction before it waits.
pub const HTTP_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Most header fields of a request.
pub const HTTP_HEADERS_MAX: usize = 100;

/// A request head that is not complete after this time closes its connection; so does an idle
/// connection.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A request body that brings nothing for this long ends with 408: a sender that waits must not
/// hold a connection for ever.
pub const HTTP_BODY_IDLE: Duration = Duration::from_secs(60);

/// Largest request body as decoded, bytes; more gets 413. Larger inputs belong on the TCP ports,
/// or into several requests.
pub const HTTP_BODY_BYTES_MAX: u64 = 1 << 30;

/// Largest query string, bytes: an expression of [`engine::limits::EXPRESSION_BYTES_MAX`] of which every
/// third byte is percent-encoded, and room for the rest of a head.
pub const HTTP_QUERY_BYTES_MAX: usize = 56 << 10;

/// Most of an expression that the head of an answer repeats, bytes: proxies take heads of 4 KiB (nginx) to
/// 16 KiB (Node) in all.
pub const HTTP_ECHO_BYTES_MAX: usize = 1 << 10;

/// Whole lines handed to a shard at a time, bytes: enough to reach its speed, little enough for
/// many requests at a time. A longer single line goes as a batch of its own.
pub const APPEND_BATCH_BYTES_MAX: usize = 256 << 10;

/// How long whole lines of a body wait for more before they are handed on, and how long a body holds its
/// turn before others get theirs.
pub const BATCH_LINGER: Duration = Duration::from_millis(5);

/// Decoded bytes taken from one piece of a compressed body at a time.
pub const DECODE_STEP_BYTES: usize = 64 << 10;

/// Largest zstd window that a body may ask for, as a power of two of bytes: 8 MiB, what RFC 9659
/// allows in content codings.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// What a decoder of zstd holds for its window, bytes.
pub const DECODER_WINDOW_BYTES_MAX: usize = (1 << ZSTD_WINDOW_LOG_MAX) + (256 << 10);

/// Largest body of `POST /log`, bytes; more gets 413, as from OgLogStream.
pub const ENTRY_BODY_BYTES_MAX: usize = 50 << 10;

/// What is held for one, and for what is made of it, in lengths of it.
pub const ENTRIES_HELD_FACTOR: usize = 3;

/// What is held for the largest, bytes.
pub const ENTRY_BODY_HELD_BYTES: usize = ENTRIES_HELD_FACTOR * ENTRY_BODY_BYTES_MAX;

/// Longest `message` of an entry, bytes, as there.
pub const ENTRY_MESSAGE_BYTES_MAX: usize = 10 << 10;

/// Longest `service` of an entry, characters, as there.
pub const ENTRY_SERVICE_CHARS_MAX: usize = 100;

/// Longest line of a follower that an entry may be in, bytes: a record whose message is escaped as far as it
/// can be, and its ULID.
pub const ENTRY_RECORD_BYTES_MAX: usize = 64 << 10;

/// What a WebSocket reads, and writes, at a time, bytes: there may be thousands of them.
pub const WEBSOCKET_BUFFER_BYTES: usize = 4 << 10;

/// Longest message that a client may send over a WebSocket, bytes: nobody looks at it.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Messages of a client that are taken before others have their turn.
pub const WEBSOCKET_READS_MAX: usize = 16;

/// What is read of a client before others have their turn, bytes: some hundred of the shortest frames.
pub const WEBSOCKET_TURN_BYTES: usize = 4 << 10;

/// What a client may send over a WebSocket between two pings of ours, bytes; one that sends more is hung up
/// on. Nobody looks at it: signs of life, however often they come, are a few of these.
pub const WEBSOCKET_SENT_BYTES_MAX: usize = 64 << 10;

/// What waits to be sent over a WebSocket, bytes: the longest line, of which all but the end came earlier, the
/// rest of a piece, and pings, their answers and a close.
pub const WEBSOCKET_UNSENT_BYTES_MAX: usize =
    ENTRY_RECORD_BYTES_MAX + engine::limits::FOLLOW_PIECE_BYTES + WEBSOCKET_BUFFER_BYTES;

/// A client that answers no ping for this long is gone: as many as can be missed in a minute.
pub const WEBSOCKET_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Entries that `/api/logs` shows unless told otherwise, as OgLogStream.
pub const ENTRIES_SHOWN_DEFAULT: u64 = 100;

/// Most entries that it shows at a time.
pub const ENTRIES_SHOWN_MAX: u64 = 1_000;

/// Most entries that it passes over: they are searched and sorted like those that are shown.
pub const ENTRIES_PASSED_MAX: u64 = 1_000_000;

/// How far back entries are looked for by default.
pub const ENTRIES_FROM_DEFAULT: &str = "24h";

/// Services that are counted each; further ones are counted together.
pub const ENTRY_SERVICES_MAX: usize = 4_096;

/// Longest service that is counted by itself, bytes as it stands in JSON: as long as an entry's may be there.
pub const ENTRY_SERVICE_TEXT_BYTES_MAX: usize = 6 * ENTRY_SERVICE_CHARS_MAX;

/// What these counts may hold, bytes: each service as long as it may be, and its counts.
pub const ENTRY_COUNTS_BYTES_MAX: usize = 4 << 20;

/// Largest body of `POST /logs`, bytes; more gets 413: it is in memory as a whole, since all or none of its
/// entries are kept.
pub const ENTRIES_BODY_BYTES_MAX: usize = 8 << 20;

/// What is held for one of these, bytes.
pub const ENTRIES_BODY_HELD_BYTES: usize = ENTRIES_HELD_FACTOR * ENTRIES_BODY_BYTES_MAX;

/// A body of entries up to that long is taken apart at once, bytes: it takes no longer than a few requests.
/// A longer one is, on a thread that may take its time.
pub const ENTRIES_SHORT_BYTES: usize = 32 << 10;

/// Time in which a body of entries has to come to its end: what is held for it others may wait for.
pub const ENTRIES_BODY_MAX: Duration = Duration::from_secs(60);

/// How fast such a body has to come while others wait for room, bytes a second on average, once it has had
/// [`ENTRIES_BODY_GRACE`]: slower ones give way.
pub const ENTRIES_BODY_RATE_MIN: u64 = 64 << 10;

/// How long a body may come as slowly as it likes, and how often is looked whether others wait.
pub const ENTRIES_BODY_GRACE: Duration = Duration::from_secs(1);

/// What is held for bodies of `POST /log` that do not come with their heads, and what is made of them,
/// bytes: over a hundred of the longest, and as many short ones as there may be connections.
pub const ENTRY_BODIES_BYTES_MAX: u64 = 16 << 20;

/// The same for `POST /logs`, bytes: three of the longest at a time, of which two may be of one address,
/// or many short ones.
pub const ENTRIES_BODIES_BYTES_MAX: u64 = 72 << 20;

/// Values of one repeated parameter.
pub const QUERY_TOPICS_MAX: usize = 256;

/// Buckets of a histogram that names none.
pub const HISTOGRAM_BUCKETS_DEFAULT: u64 = 100;

/// What a histogram by topic may hold beyond that of any query, bytes: its counts and, of some thousand
/// topics, their names and sums, and the text of the answer; one by level holds less. Less than the least that all queries may
/// hold, so that there is room for its expressions.
pub const SERIES_BYTES_MAX: usize = 6 << 20;

/// What a query with context may hold beyond that of any query, bytes: the ULIDs of what it shows
/// ([`engine::limits::CONTEXT_RECORDS_MAX`]), twice while they are sorted.
pub const CONTEXT_BYTES_MAX: usize = 6 << 20;

/// What a client is told to wait where waiting helps, seconds.
pub const RETRY_AFTER_SECONDS: u64 = 1;

/// How long open requests may go on once the server is told to stop.
pub const HTTP_DRAIN: Duration = Duration::from_secs(5);

/// Requests that take a piece of their body apart at a time: each holds up to a batch, a step and
/// the beginning of a line. Those that wait between pieces hold no turn.
pub const RECORDS_REQUESTS_MAX: usize = 64;

/// How long a request that brings records waits for its turn before it gets 429.
pub const RECORDS_REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Longest unfinished line that is held as part of a turn, or while a request waits without one,
/// bytes. A longer one takes room for the longest there is.
pub const PARTIAL_BYTES_MAX: usize = 64 << 10;

/// What a waiting request may always hold of an unfinished line, bytes.
pub const UNFINISHED_LINE_BYTES_FREE: usize = 4 << 10;

/// What waiting requests hold of unfinished lines beyond that, all together, bytes; one that finds
/// no room gets 429.
pub const UNFINISHED_LINES_BYTES_MAX: u64 = 32 << 20;

/// What unfinished long lines of request bodies hold together, bytes, unless told otherwise: as on
/// the TCP ports.
pub const LONG_LINES_BYTES_MAX: u64 = 64 << 20;

/// What a long line costs beside its own bytes: the step and the piece that bring it, and the
/// buffer that it has outgrown.
pub const LONG_LINE_OVERHEAD_BYTES: usize = 256 << 10;

/// What the decoders of compressed bodies hold for their windows together, bytes. Those of zstd
/// count by the largest window that a body may ask for.
pub const DECODER_WINDOWS_BYTES_MAX: u64 = 128 << 20;

/// What a decoder of gzip holds, bytes: its window of 32 KiB and its tables.
pub const GZIP_DECODER_BYTES: usize = 48 << 10;

/// What the decoders of bodies in gzip hold together, bytes: apart from those of zstd, which hold so
/// much more that a few would leave no room.
pub const GZIP_DECODERS_BYTES_MAX: u64 = 32 << 20;

/// Lines of request bodies on their way into the log, bytes; the next ones wait. A long line keeps
/// the room that it had.
pub const LINES_ON_THEIR_WAY_BYTES_MAX: u64 = 32 << 20;

/// A line longer than that has to come to its end, or to the length at which it is cut, within
/// this time.
pub const LONG_LINE_MAX: Duration = Duration::from_secs(60);

/// A compressed body has to come within this time: its decoder holds what others wait for.
pub const ENCODED_BODY_MAX: Duration = Duration::from_secs(600);

/// A client that takes nothing of its answer for this long is cut off.
pub const HTTP_WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// A client that has closed its side and to which nothing is sent is probed for the first time
/// after this time: to see whether it is gone altogether.
pub const HALF_CLOSED_PROBE_TIME: Duration = Duration::from_secs(10);

/// Time between such probes.
pub const HALF_CLOSED_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Probes without an answer after which a client is gone.
pub const HALF_CLOSED_PROBES: u32 = 3;

/// How long a query or a stream is silent towards a client that has closed its side, before it
/// sends what it can, so that a client which is gone shows it by a reset.
pub const HALF_CLOSED_SILENCE: Duration = Duration::from_millis(200);

/// A query whose reader takes nothing for this long is ended: it pins files.
pub const QUERY_STALL_MAX: Duration = Duration::from_secs(60);

/// A query older than this is ended, for the same reason.
pub const QUERY_AGE_MAX: Duration = Duration::from_secs(3600);

/// Whoever asks for signs of life hears of a query or stream at least this often.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// How often the query's age and stall are looked at.
pub const QUERY_WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// How long accepting pauses after it failed for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that is accepted on the reserve of descriptors may take: others wait for it.
pub const RESERVE_SERVES: Duration = Duration::from_secs(2);

/// How long a closed connection still takes what its client is sending, so that the client comes
/// to read the answer.
pub const LINGER: Duration = Duration::from_secs(2);

/// How much of that, bytes.
pub const LINGER_BYTES_MAX: u64 = 64 << 20;

/// What one query may hold beside its expression, bytes: unread output in the pipe and on the
/// connection, hits in order. Taken from `--query.memory-max`, as its expression is.
pub const QUERY_BYTES_MAX: usize = 512 << 10;

/// What is handed to a connection at a time of an answer that is in memory as a whole, bytes.
pub const HELD_PIECE_BYTES: usize = 32 << 10;

/// Pages of metrics that clients have not taken yet hold together, bytes; further scrapes get 503.
pub const METRICS_PAGES_BYTES_MAX: u64 = 16 << 20;

/// Queries that wait for their turn at a time; further ones get 429 at once.
pub const QUERIES_WAITING_MAX: usize = 256;

/// Expressions that are compiled at a time: each of the worst takes 70 MiB for some milliseconds, beside
/// what it will hold.
pub const EXPRESSIONS_COMPILING_MAX: usize = 2;

/// How long a query waits at most for shards to say what they hold in memory; those that do not are
/// told as missing.
pub const PIN_WITHIN: Duration = Duration::from_secs(5);

/// How long a query waits for its turn before it gets 429: a person still waits that long.
pub const QUERY_TURN_WAIT: Duration = Duration::from_secs(5);

/// What the compiled expressions of all followers hold, bytes; further followers get 429.
pub const FOLLOW_EXPRESSIONS_BYTES_MAX: u64 = 64 << 20;

/// Live followers at a time; further ones get 429.
pub const FOLLOWERS_MAX: usize = 2048;

/// A replay whose follower takes nothing for this long gives its place to others.
pub const REPLAY_STALL: Duration = Duration::from_secs(1);

/// Text that shards have handed over for followers and nobody has taken yet, bytes.
pub const FOLLOW_INCOMING_BYTES_MAX: usize = 32 << 20;

/// Text that waits for the other shards' promises before followers get it, bytes.
pub const FOLLOW_HELD_BYTES_MAX: usize = 32 << 20;

/// Text that is matched against all followers at a time, bytes.
pub const FOLLOW_BATCH_BYTES: usize = 256 << 10;

/// What waits for one follower, bytes; one that is further behind misses records.
pub const FOLLOW_QUEUE_BYTES_MAX: usize = 2 << 20;

/// What is kept for each follower whatever the others hold, bytes: those that take nothing cost the
/// others no shorter record.
pub const FOLLOW_QUEUE_OWN_BYTES: usize = 16 << 10;

/// What waits for all followers together beyond that, bytes: twice the longest record there may be, in
/// its longest form, fits.
pub const FOLLOW_QUEUES_BYTES_MAX: usize = 64 << 20;

/// Time after which a silent stream shows that it is alive, if it is one of server-sent events, or
/// its client has closed its side.
pub const FOLLOW_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Tokens of one file: as many people and programs as one node knows by name.
pub const TOKENS_MAX: usize = 4096;

/// Wrong tokens of one address that are answered as such at once, and then a second: a page that reconnects
/// with an old one is far below, and who guesses gets nowhere.
pub const WRONG_TOKENS_AT_ONCE: u64 = 30;

/// See [`WRONG_TOKENS_AT_ONCE`].
pub const WRONG_TOKENS_PER_SECOND: u64 = 1;

/// How long a sender has to say who it is, where nobody may write without a token, microseconds.
pub const HELLO_WITHIN_US: u64 = 10_000_000;

/// Time between looks for those who have not, microseconds.
pub const HELLO_LOOK_EVERY_US: u64 = 1_000_000;

/// Time between two lines of the log about those who are refused for one reason, ms.
pub const REFUSAL_TOLD_EVERY_MS: u64 = 60_000;

/// Body of a log-in, bytes: a token in JSON.
pub const LOGIN_BODY_BYTES_MAX: usize = 4 << 10;

/// Time for it to come.
pub const LOGIN_BODY_WITHIN: Duration = Duration::from_secs(10);
