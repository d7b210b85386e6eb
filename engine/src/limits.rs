//! Every bound of the engine, with its unit and its reason. A bound that an operator may move has
//! a flag; what stands here is its default or the hard edge that keeps memory finite.

/// Longest topic name, bytes. Names are stored in each frame and block that uses them.
pub const TOPIC_LEN_MAX: usize = 64;

/// Default number of distinct topics a node accepts; further ones are kept as `invalid`.
pub const TOPICS_MAX: usize = 1024;

/// The largest `--ingest.topics-max` that can be configured: with `invalid` they fit one dictionary.
pub const TOPICS_CEILING: usize = DICTIONARY_TOPICS_MAX - 1;

/// Most topics that one dictionary (one frame or block) may hold. Hostile-input bound.
pub const DICTIONARY_TOPICS_MAX: usize = 65_536;

/// Default longest record without its LF, bytes.
pub const RECORD_SIZE_MAX: usize = 1 << 20;

/// The largest `--ingest.max-record-size` that can be configured, bytes: a record must fit one
/// frame and one block, and readers hold one of each per open input.
pub const RECORD_SIZE_CEILING: usize = 16 << 20;

/// The smallest `--ingest.max-record-size` that can be configured, bytes.
pub const RECORD_SIZE_FLOOR: usize = 64;

/// Text of a frame after which it is written, bytes: large enough to reach the disk's bandwidth
/// with one write, small enough to keep several in flight per shard.
pub const FRAME_TEXT_TARGET: usize = 1 << 20;

/// Most text bytes a frame or block may claim. Hostile-input bound: a record of the ceiling size
/// and its LF beside a full frame.
pub const CHUNK_TEXT_MAX: usize = RECORD_SIZE_CEILING + FRAME_TEXT_TARGET + 1;

/// Most bytes a run table may claim. Hostile-input bound: one run per empty record, with slack.
pub const RUN_TABLE_BYTES_MAX: usize = 64 << 20;

/// Text of a store block after which it ends, bytes: the unit of skipping and of decompression.
pub const BLOCK_TEXT_TARGET: usize = 512 << 10;

/// Run tables up to this size are stored as they are, bytes: there is little to win, and counting
/// reads tables alone.
pub const PACKED_TABLE_BYTES_MIN: usize = 4 << 10;

/// Buffers of decoded text that wait for their next use: those of the blocks that scan threads turn
/// over, not those that queries hold.
pub const DECODED_IDLE_MAX: usize = 16;

/// The largest such buffer that is kept, bytes; larger ones hold a block of one long record.
pub const DECODED_IDLE_BYTES_MAX: usize = 1 << 20;

/// Texts below this size get memory of their own when they are decoded, bytes.
pub const DECODED_REUSED_BYTES_MIN: usize = 64 << 10;

/// Most blocks in one slab: bounds the index and the signature matrix that a query reads.
pub const SLAB_BLOCKS_MAX: usize = 1024;

/// Rows of a signature matrix before it is folded: 24 KiB a block. Three times a power of two: halved
/// once it is 2.3 % of a full block's text.
pub const SIGNATURE_ROWS_MAX: usize = 3 << 16;

/// Most bytes of what a slab tells of the entries in its blocks: some ten for each topic, service and level
/// of a block, so 800 of them in each of 32. Read into memory as a whole.
pub const ENTRY_TABLE_BYTES_MAX: usize = 256 << 10;

/// Longest text of a service that is told there, bytes: 100 characters, each escaped.
pub const ENTRY_TABLE_SERVICE_BYTES_MAX: usize = 600;

/// Longest time of RFC 3339 that is read, and longest that an entry has, bytes: as precise as it may be, it has 35.
/// So the level of an entry stands where levels are looked for.
pub const TIME_TEXT_BYTES_MAX: usize = 64;

/// Share of a slab's stored blocks that its signature matrix may take, percent.
pub const SIGNATURE_SHARE_PERCENT: u64 = 14;

/// Blocks after which a writer ends a slab: 16 MiB of text. Compaction copies a slab as it is unless
/// it overlaps another, and gathered segments overlap by about as much at their ends; larger slabs
/// are decoded and encoded again for it, smaller ones cost each query more lookups.
pub const SLAB_BLOCKS_TARGET: usize = 32;

/// Alignment of blocks and slabs inside a store segment, bytes.
pub const BLOCK_ALIGNMENT: usize = 64;

/// Alignment of frames in an ingest segment when the file system does not say otherwise, bytes.
pub const FRAME_ALIGNMENT: usize = 512;

/// Default size at which an ingest segment is flushed, bytes.
pub const SEGMENT_FLUSH_SIZE: u64 = 16 << 20;

/// Most bytes of ingest segments that wait preallocated for their next life.
pub const RECYCLE_POOL_BYTES_MAX: u64 = 64 << 20;

/// How far the mark of stamps is ahead of the clock when it is moved, milliseconds; it is moved again
/// when half of it is used up. After a kill stamps start so far ahead at most, and each move is two
/// small syncs.
pub const STAMPS_AHEAD_MS: u64 = 4_000;

/// How far it is ahead of the newest stamp at least, milliseconds: while stamps are ahead of the clock
/// they rise by one in 10 ms, as long as followers wait for them.
pub const STAMPS_ROOM_MS: u64 = 500;

/// Most claims that are remembered after they have lapsed: their consumers may still commit. Each is
/// some hundred bytes for each of its segments, and more than a few at a time mean that nobody gets on.
pub const CLAIMS_LAPSED_MAX: usize = 256;

/// Largest store segment that compaction makes, bytes.
pub const STORE_SEGMENT_SIZE_MAX: u64 = 2 << 30;

/// Longest expression of a query, or all of its expressions together, bytes.
pub const EXPRESSION_BYTES_MAX: usize = 32 << 10;

/// Most expressions of a query that have to match, and most that may not: each may be asked about each
/// record, and what nobody wants to see is better said in one regular expression.
pub const CHAIN_EXPRESSIONS_MAX: usize = 32;

/// What an expression takes beside its text and its compiled form, bytes: some hundred, and what its finder
/// has set up.
pub const CHAIN_EXPRESSION_BYTES: usize = 1 << 10;

/// Memory of one scan thread for the lazy automata of one chain, bytes: each has an equal share of it, and at
/// most [`EXPRESSION_CACHE_BYTES_MAX`]. An expression whose automaton needs more (that of `\pL{8}` more than
/// 256 KiB) is matched without one, ten times as slowly.
pub const CHAIN_AUTOMATA_BYTES_MAX: usize = 8 << 20;

/// Largest compiled form of a regular expression, bytes: what `rg` and `regex` allow by default.
pub const EXPRESSION_COMPILED_BYTES_MAX: usize = 10 << 20;

/// The sizes to which an expression may compile at the first try, and where that is too little at the
/// next, bytes: what most take, so that few have to have as much at hand as the largest.
pub const EXPRESSION_TRIES_BYTES: [usize; 4] =
    [256 << 10, 1 << 20, 4 << 20, EXPRESSION_COMPILED_BYTES_MAX];

/// What an expression holds for each byte of its text, bytes, beside [`EXPRESSION_COMPILED_FACTOR`].
pub const EXPRESSION_PARSED_BYTES: usize = 512;

/// How many times the size to which it may compile an expression holds: it is made in both directions.
/// While it is made it takes five times that size, and some megabytes more where it is long.
pub const EXPRESSION_COMPILED_FACTOR: usize = 2;

/// Most Unicode classes (`\w`, `\pL` …) in an expression: some kilobytes each before any other limit
/// applies.
pub const EXPRESSION_CLASSES_MAX: usize = 1000;

/// Memory of one scan thread for the lazy automaton of one query, bytes, per direction.
pub const EXPRESSION_CACHE_BYTES_MAX: usize = 1 << 20;

/// Automaton memory that is kept between two uses, bytes, over all queries and followers: so that a
/// query which waits for its reader holds none that others need. Without it a chunk begins with an
/// empty automaton, which costs less than searching it.
pub const EXPRESSION_IDLE_CACHES_BYTES_MAX: usize = 16 << 20;

/// Unread output of a query after which it is parked, bytes.
pub const PIPE_BYTES_MAX: usize = 128 << 10;

/// Output that is handed to the pipe at once, bytes.
pub const OUTPUT_PIECE_BYTES: usize = 64 << 10;

/// Memory for such output, bytes: a piece and the record that fills it up, if that is not long.
pub const OUTPUT_CAPACITY_BYTES: usize = OUTPUT_PIECE_BYTES + (8 << 10);

/// Chunks that are fetched ahead of the one that is scanned, counted in the order of the query: some
/// MiB, so that a disk is asked for much at a time.
pub const READ_AHEAD_CHUNKS: usize = 16;

/// Topics that a histogram by topic shows each on its own: more can neither be told apart by their
/// colours nor listed beside it.
pub const SERIES_TOPICS_MAX: usize = 20;

/// Counts that such a histogram may keep at a time, over all topics, 2 MiB: those of 1,000 topics in 250
/// buckets, and of the topics that are shown in as many buckets as there may be.
pub const SERIES_CELLS_MAX: usize = 256 << 10;

/// What a topic's row costs beside its counts, in counts.
pub const SERIES_ROW_CELLS: usize = 16;

/// What is kept of segments that were opened before, bytes, of store and ingest each, so that the next
/// query need not read and validate their indexes, find their frames and map them again. A store
/// takes some 100 bytes for a block of half a MiB of text: enough for 160 GiB. Of what does not fit a
/// query that asks all of it opens each GiB again in 1.7 ms, where its signatures are asked in 0.1 ms.
pub const SEGMENTS_OPEN_BYTES_MAX: usize = 32 << 20;

/// Segments that are kept open, of store and ingest each: a descriptor and a map each.
pub const SEGMENTS_OPEN_MAX: usize = 240;

/// What an open segment counts beside its chunks, bytes: handles, paths and the allocator's headers.
pub const SEGMENT_OPEN_BYTES: usize = 2 << 10;

/// Decoded text and run tables that all queries together keep between their turns on the scan
/// threads, bytes. Beyond it nobody takes more, but one query that cannot hand out what it has
/// otherwise, and those that wait longest for their readers give theirs back and read again when it is
/// their turn; beyond half of it nobody reads ahead. A block that a thread has at hand comes on top.
pub const QUERY_HELD_BYTES_MAX: usize = 64 << 20;

/// For how long a query may keep what its reader is behind with while others wait for memory,
/// nanoseconds for each byte: some times what it takes to read and search it again, so that little of
/// the work is done twice, and a reader that has stalled keeps a block of 17 MiB for 0.14 s.
pub const QUERY_HELD_NS_PER_BYTE: u64 = 8;

/// Records that a query with context shows at most, hits and those around them; their ULIDs are kept until
/// the last stage, up to 140 bytes each while they are sorted.
pub const CONTEXT_RECORDS_MAX: u64 = 32 << 10;

/// Records that are shown at most on either side of a hit.
pub const CONTEXT_MAX: u32 = 1_000;

/// Spans that an answer lists as missing; further ones are counted only.
pub const QUERY_MISSING_MAX: usize = 1024;

/// Text that a scan thread searches for one query before it turns to the next, bytes.
pub const SCAN_SLICE_BYTES: u64 = 4 << 20;

/// Hits that a query holds in memory over all chunks it works on; 32 bytes each, so that they are
/// a quarter of what a query may hold.
pub const QUERY_HITS_MAX: usize = 4 << 10;

/// Fewest hits that one chunk may return at a time, however many chunks a query works on.
pub const BATCH_HITS_MIN: usize = 256;

/// Most buckets of a histogram.
pub const HISTOGRAM_BUCKETS_MAX: usize = 10_000;
/// Most bytes of an encoded run table in one ingest frame: a thousand topic names of full length
/// and some thousand runs; a frame whose table is full is written early.
pub const FRAME_TABLE_BYTES_MAX: usize = 128 << 10;

/// Staged text from which a flush writes a frame instead of a tail chunk, bytes: below it padding
/// and the write itself cost more than the data.
pub const DIRECT_WRITE_BYTES_MIN: usize = 64 << 10;

/// Frames of one shard that are being written at once: keeps the disk busy.
pub const FRAMES_IN_FLIGHT_MAX: usize = 3;

/// Frames of one shard that are in memory beside the one being filled (waiting, being written, or
/// written and waiting for a sync): beyond it the shard stops reading.
pub const FRAMES_HELD_MAX: usize = 6;

/// Bytes of one of the two slots of a tail file: staged text below [`DIRECT_WRITE_BYTES_MIN`] with
/// the headers and tables of its chunks; a chunk that does not fit makes the frame be written.
pub const TAIL_SLOT_BYTES: usize = 256 << 10;

/// Longest token that says who somebody is, bytes: with every other field it fits a handshake.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Longest handshake line of a connection that wants acknowledgements, bytes.
pub const HELLO_BYTES_MAX: usize = 512;

/// Longest message that a sender which counts octets may tell of, bytes: the largest size of a record. A
/// larger number is no length.
pub const OCTET_MESSAGE_BYTES_MAX: usize = RECORD_SIZE_CEILING;

/// Longest first line of a connection that is looked at for being a request of HTTP, bytes: what
/// servers commonly take.
pub const STRANGER_LINE_BYTES_MAX: usize = 8 << 10;

/// The first reply to a client that asked for counts of bytes: it gets them. No count is as large.
pub const COUNTING_BYTES: u64 = u64::MAX;

/// Longest session name in a handshake, bytes.
pub const SESSION_LEN_MAX: usize = 64;

/// First pause before an ingest file that could not be read is read again, milliseconds.
pub const UNREAD_PAUSE_MS_MIN: u64 = 1_000;

/// Longest such pause, milliseconds: a fault that is over is to be forgotten within ten seconds.
pub const UNREAD_PAUSE_MS_MAX: u64 = 4_000;

/// Pause before a file that was read and is damaged is read again, milliseconds: somebody may have
/// brought a good copy.
pub const WORSE_PAUSE_MS: u64 = 60_000;

/// How long the disk may refuse a flushed segment before what it gives goes to the store and the file
/// is set aside, milliseconds: long enough for a cable, a controller or a volume to come back.
pub const UNREAD_GIVEN_UP_MS: u64 = 300_000;

/// Files that are read again at a time, so that the keeper gets on: each has some tens of MiB.
pub const UNREAD_FILES_AT_A_TIME: usize = 4;

/// Damaged tail files that are kept aside, of half a MiB each; of more the oldest goes. A disk that
/// damages one at every start has other troubles by then.
pub const TAILS_ASIDE_MAX: usize = 32;

/// Spans of one ingest file that answers name apart; of more one is told that covers them.
pub const LOST_SPANS_OF_FILE_MAX: usize = 64;

/// Longest time that a shard waits before it writes again after failed writes, microseconds.
pub const WRITE_RETRY_US_MAX: u64 = 5_000_000;

/// Most topic entries that the block index of one slab lists over all its blocks; the slab ends
/// before. Bounds the index at a few MiB.
pub const SLAB_BLOCK_TOPICS_MAX: usize = 1 << 20;

/// Most bytes that a block index may claim. Hostile-input bound: full block and topic lists.
pub const SLAB_INDEX_BYTES_MAX: usize = 16 << 20;

/// Most slabs in one store segment. Hostile-input bound: the largest segment in slabs that
/// compaction copies (≥ 4 MiB of text) is far below.
pub const SEGMENT_SLABS_MAX: usize = 65_536;

/// Most spans of consecutive records that an ingest directory claims to have waited; further segments are not
/// missed if they vanish. One or two for each segment: far more than a full backlog has. 40 bytes each.
pub const WAITING_SPANS_MAX: usize = 65_536;

/// Most intervals that a segment's coverage has; further ones count as not covered. As a rule it has one
/// for each stream: more come from damage only, or from thousands of restarts. 40 bytes each.
pub const COVERAGE_INTERVALS_MAX: usize = 65_536;

/// Files of a volume after which its store opens the next one, bytes: small enough that moving one
/// is soon done, large enough that there are not too many to talk about.
pub const VOLUME_BYTES_MAX: u64 = 8 << 30;

/// Most topics that a segment's footer lists; further ones are found in the slabs' indexes.
pub const FOOTER_TOPICS_MAX: usize = 65_536;

/// Most inputs that a footer names, of either kind. Hostile-input bound.
pub const FOOTER_INPUTS_MAX: usize = 65_536;

/// Most bytes that a footer may claim. Hostile-input bound.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;

/// Text from which on a slab that overlaps no other is copied by compaction as it is, bytes: below,
/// its blocks are too few to be worth an index of their own.
pub const SLAB_COPY_TEXT_MIN: u64 = 4 << 20;

/// Most bytes of one entry of a forwarder's spool: a record of the ceiling size and its LF.
/// Hostile-input bound.
pub const SPOOL_ENTRY_BYTES_MAX: usize = RECORD_SIZE_CEILING + 1;

/// Bytes that are read at a time when a damaged spool file is searched for the next entry.
pub const SPOOL_SCAN_BYTES: usize = 64 << 10;

/// Size after which a spool file is followed by another, bytes; a spool that may hold little has
/// smaller ones. Space is freed by whole files.
pub const SPOOL_FILE_BYTES_MAX: u64 = 8 << 20;

/// The smallest that a spool may be, bytes.
pub const SPOOL_BYTES_MIN: u64 = 1 << 20;

/// What a live follower is handed at a time, bytes: what its connection holds beside its queue.
pub const FOLLOW_PIECE_BYTES: usize = 16 << 10;

/// Longest literal of a live follower that is looked for together with those of others, bytes.
pub const FOLLOW_LITERAL_BYTES_MAX: usize = 1 << 10;

/// Literals of live followers that are looked for together, bytes; the automaton over them takes
/// some hundred times as much at worst.
pub const FOLLOW_LITERALS_BYTES_MAX: usize = 128 << 10;

/// Bytes of the grams that signatures are made of: fewer literal bytes cannot be looked for in one.
pub const SIGNATURE_GRAM_BYTES: usize = 5;

/// Most alternatives of a part of an expression whose strings are multiplied out for planning.
pub const REQUIRED_STRINGS_MAX: usize = 64;

/// Longest of these strings, bytes: many grams already; longer literals are taken in pieces.
pub const REQUIRED_STRING_BYTES_MAX: usize = 64;

/// Most characters of a class, folded, that count as alternatives: hexadecimal digits do.
pub const REQUIRED_CLASS_MEMBERS_MAX: usize = 16;

/// Most literals in what an expression requires: bounds the look-ups of each block.
pub const REQUIRED_LITERALS_MAX: usize = 256;
