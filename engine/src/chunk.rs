//! What merge and search see of data, wherever it lies: a *part* (an ingest segment, a store
//! segment, frames still in memory) is a list of *chunks* (a frame or a block), each of whole
//! lines with its run table, in ULID order.
//!
//! Invariants: inside one part chunks are sorted and do not overlap; a part stays readable for as
//! long as its handle lives (what was opened of it does not hold it), whatever happens to its
//! name; reading never panics, damage is returned and costs the chunk it is in and nothing else.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

use crate::damage::Damage;
use crate::decoded::DecodedText;
use crate::entries::EntryRow;
use crate::run_table::RunTable;
use crate::search::required::Required;
use crate::signature::Bits;
use crate::storage::Map;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// What is known of a chunk before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Its first record.
    pub first: Ulid,
    /// Its last record.
    pub last: Ulid,
    /// Its records.
    pub record_count: u32,
    /// Its text, LFs included, bytes.
    pub text_len: u32,
    /// Which of the part's topics (indexes into [`OpenPart::topics`]) occur in it; empty when the
    /// part does not know and the chunk has to be read to find out.
    pub topics: TopicList,
}

/// Indexes into a topic dictionary. Takes 8 bytes where it is kept; clones share the list, and an
/// empty one allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicList(Option<Arc<Vec<u16>>>);

impl TopicList {
    /// Whether both are clones of the same list.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// What the list takes in memory beside the value, bytes, about; clones share it.
    pub fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |list| LIST_BYTES + list.capacity() * size_of::<u16>())
    }
}

/// Counts, a vector's fields and the allocator's headers, bytes.
const LIST_BYTES: usize = 64;

impl From<Vec<u16>> for TopicList {
    fn from(mut list: Vec<u16>) -> Self {
        list.shrink_to_fit();
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

impl Deref for TopicList {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        self.0.as_ref().map_or(&[], |list| list.as_slice())
    }
}

/// As the slice that it is, so that one is found by it.
impl Hash for TopicList {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<[u16]> for TopicList {
    fn borrow(&self) -> &[u16] {
        self
    }
}

/// Text of a chunk: each record followed by LF.
#[derive(Debug, Clone)]
pub enum Text {
    /// A span of a mapped file; costs no memory of ours.
    Mapped(Arc<Map>, Range<usize>),
    /// A span of shared memory.
    Shared(Arc<[u8]>, Range<usize>),
    /// In memory of its own.
    Owned(Arc<Vec<u8>>),
    /// Decoded from bytes that were verified and readable: final, whatever becomes of them.
    Decoded(Arc<DecodedText>),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map, span) => &map[span.clone()],
            Self::Shared(bytes, span) => &bytes[span.clone()],
            Self::Owned(bytes) => bytes,
            Self::Decoded(text) => text,
        }
    }
}

impl Text {
    /// What it keeps in memory while it is held, bytes; clones share it. Nothing for a mapped text:
    /// the page cache is not ours.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Mapped(..) => 0,
            Self::Shared(bytes, _) => bytes.len(),
            Self::Owned(bytes) => bytes.capacity(),
            Self::Decoded(text) => text.memory_bytes(),
        }
    }

    /// Whether it can be read without waiting for a disk.
    pub fn is_at_hand(&self) -> bool {
        match self {
            Self::Mapped(map, span) => map.is_resident(span.clone()),
            Self::Shared(..) | Self::Owned(_) | Self::Decoded(_) => true,
        }
    }

    /// Whether the bytes turned out unreadable underneath us (a map whose file was cut). Checked
    /// after use: what was derived from such text is thrown away.
    pub fn is_poisoned(&self) -> bool {
        match self {
            Self::Mapped(map, _) => map.is_poisoned(),
            Self::Shared(..) | Self::Owned(_) | Self::Decoded(_) => false,
        }
    }
}

/// A chunk that was read and verified.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Its runs; their text lengths add up to the text.
    pub table: RunTable,
    /// Its text.
    pub text: Text,
}

/// Which chunks of a part may hold what was asked for.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// By number; `None`: the part cannot tell, so all of them may.
    pub blocks: Option<Bits>,
    /// Why more of them may than need be: what is damaged of that which could have told.
    pub damage: Option<Damage>,
}

/// A pinned part, not yet opened. Cheap to hold; opening may read and map.
pub trait Part: Send + Sync {
    /// First and last ULID that it may hold.
    fn range(&self) -> (Ulid, Ulid);
    /// How many records it holds at most (a part still being written may hold a few more).
    fn records(&self) -> u64;
    /// How many bytes of text it holds, those aside that are known to be damaged.
    fn text_bytes(&self) -> u64;
    /// Damage that is known without opening it, because it was met before.
    fn known_damage(&self) -> Vec<Damage> {
        Vec::new()
    }
    /// Opens it. An error means that none of it can be read.
    fn open(&self) -> Result<Box<dyn OpenPart>, Damage>;
    /// Opens it for one who writes its records anew, after which nobody can check them against what
    /// was taken in: each chunk is verified when it is read, whatever was verified before.
    fn open_to_move(&self) -> Result<Box<dyn OpenPart>, Damage> {
        self.open()
    }
    /// The file that it lies in, by the name that it has now; `None`: it is in memory.
    fn file_path(&self) -> Option<PathBuf> {
        None
    }
    /// Whether it is (part of) a store segment, as opposed to the ingest side.
    fn is_stored(&self) -> bool;
}

/// An open part.
pub trait OpenPart: Send + Sync {
    /// Its chunks in ULID order.
    fn chunks(&self) -> &[ChunkMeta];
    /// Its topic dictionary; empty when it has none.
    fn topics(&self) -> &[Topic];
    /// What was found damaged while opening.
    fn damage(&self) -> &[Damage];
    /// Which of its chunks may hold a record that has what is required. May read, but no text.
    fn candidates(&self, _required: &Required) -> Candidates {
        Candidates::default()
    }
    /// Shows of which entries it is told, without reading them, that they are in some of its chunks: one
    /// call for each chunk of which all that it holds is told, perhaps none. Reads no text. Says what is
    /// damaged of that which tells it.
    fn entries(
        &self,
        _chunks: Range<usize>,
        _see: &mut dyn FnMut(usize, &[EntryRow<'_>]),
    ) -> Option<Damage> {
        None
    }
    /// Reads chunk `index` with its text and verifies it (a store may remember that it has
    /// verified a chunk before). A text that is decoded is decoded from readable bytes only; one
    /// that is mapped may turn out unreadable while it is used ([`Text::is_poisoned`]).
    fn read(&self, index: usize) -> Result<Chunk, Damage>;
    /// Reads the run table alone.
    fn read_table(&self, index: usize) -> Result<RunTable, Damage>;
    /// The chunk will be read soon: whoever has to fetch it may begin. Does not wait.
    fn will_read(&self, _index: usize) {}
    /// Whether the chunk was read before and found damaged: what is known of it without reading it
    /// is not to be relied on, nor its run table alone.
    fn is_bad(&self, _index: usize) -> bool {
        false
    }
    /// Whether what [`OpenPart::chunks`] says of it may be counted without reading it: its run
    /// table was verified, and no damage of it is known.
    fn may_be_counted(&self, _index: usize) -> bool {
        false
    }
    /// Verifies the chunk's checksums again, now, whatever was remembered: called before a record
    /// of a chunk is shown. In-memory parts have nothing to verify.
    fn verify(&self, index: usize) -> Result<(), Damage>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_takes_no_more_than_48_bytes_beside_its_list_of_topics() {
        assert_eq!(size_of::<ChunkMeta>(), 48);
        assert_eq!(TopicList::default().memory_bytes(), 0);
        let mut list = Vec::with_capacity(1000);
        list.push(7);
        assert_eq!(TopicList::from(list).memory_bytes(), LIST_BYTES + 2);
    }

    #[test]
    fn a_list_is_found_by_the_slice_that_it_is_and_shared_by_clones_alone() {
        let list = TopicList::from(vec![3, 5]);
        let known = std::collections::HashSet::from([list.clone()]);
        assert!(known.get(&[3, 5][..]).is_some_and(|found| found.is_shared_with(&list)));
        assert!(!known.contains(&[3][..]));
        assert_eq!(TopicList::from(vec![3, 5]), list);
        assert!(!TopicList::from(vec![3, 5]).is_shared_with(&list));
        assert!(TopicList::from(Vec::new()).is_shared_with(&TopicList::default()));
        assert!(!TopicList::default().is_shared_with(&list));
    }
}
