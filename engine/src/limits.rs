//! Every bound of the engine, with its unit and its reason. A bound that an operator may move has
//! a flag; what stands here is its default or the hard edge that keeps memory finite.

/// Longest topic name, bytes. Names are stored in each frame and block that uses them.
pub const TOPIC_LEN_MAX: usize = 64;

/// Default number of distinct topics a node accepts; further ones are kept as `invalid`.
pub const TOPICS_MAX: usize = 1024;

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

/// Most blocks in one slab: bounds the index and the signature matrix that a query reads.
pub const SLAB_BLOCKS_MAX: usize = 1024;

/// Alignment of blocks and slabs inside a store segment, bytes.
pub const BLOCK_ALIGNMENT: usize = 64;

/// Alignment of frames in an ingest segment when the file system does not say otherwise, bytes.
pub const FRAME_ALIGNMENT: usize = 512;

/// Default size at which an ingest segment is flushed, bytes.
pub const SEGMENT_FLUSH_SIZE: u64 = 16 << 20;

/// Most bytes of ingest segments that wait preallocated for their next life.
pub const RECYCLE_POOL_BYTES_MAX: u64 = 64 << 20;

/// Largest store segment that compaction makes, bytes.
pub const STORE_SEGMENT_SIZE_MAX: u64 = 2 << 30;

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

/// Longest handshake line of a connection that wants acknowledgements, bytes.
pub const HELLO_BYTES_MAX: usize = 512;

/// Longest session name in a handshake, bytes.
pub const SESSION_LEN_MAX: usize = 64;

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

/// Most topics that a segment's footer lists; further ones are found in the slabs' indexes.
pub const FOOTER_TOPICS_MAX: usize = 65_536;

/// Most inputs that a footer names, of either kind. Hostile-input bound.
pub const FOOTER_INPUTS_MAX: usize = 65_536;

/// Most bytes that a footer may claim. Hostile-input bound.
pub const FOOTER_BYTES_MAX: usize = 64 << 20;

/// Text from which on a slab that overlaps no other is copied by compaction as it is, bytes: below,
/// its blocks are too few to be worth an index of their own.
pub const SLAB_COPY_TEXT_MIN: u64 = 4 << 20;
