//! Parts in memory for tests: records cut into chunks, with damage on demand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::chain::{Chain, ChainMatcher};
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Part, Text, TopicList};
use crate::damage::{Damage, DamageKind};
use crate::run_table::{Run, RunTable};
use crate::topic::Topic;
use crate::ulid::Ulid;

/// A record of a test: ULID, topic, text without LF.
pub type TestRecord = (Ulid, Topic, Vec<u8>);

/// Whether a record, without its LF, matches.
pub fn matches(chain: &Chain, record: &[u8]) -> bool {
    let text = [record, b"\n"].concat();
    let mut is_found = false;
    ChainMatcher::new(chain).each(&text, |_| {
        is_found = true;
        false
    });
    is_found
}

#[derive(Clone)]
pub(super) struct TestChunk {
    meta: ChunkMeta,
    table: RunTable,
    pub(super) text: Text,
    checksum: u32,
}

/// A part that lives in memory.
#[derive(Clone)]
pub struct TestPart {
    pub(super) chunks: Arc<Vec<TestChunk>>,
    pub(super) topics: Arc<Vec<Topic>>,
    /// It does not know its topics before its chunks are read.
    pub hides_topics: bool,
    /// Opening fails.
    pub refuses_to_open: bool,
    /// These chunks cannot be read.
    pub unreadable: Vec<usize>,
    /// These chunks are read, but their checksum is wrong when they are verified.
    pub corrupt: Vec<usize>,
    /// How often it was opened.
    pub opened: Arc<AtomicUsize>,
    /// How many texts were read.
    pub texts_read: Arc<AtomicUsize>,
    /// Each text is read into memory of its own, as it is where it has to be decoded.
    pub decoded: Option<Arc<Decoded>>,
    /// A text is read once nobody holds this.
    pub held_up: Arc<Mutex<()>>,
    /// What it says to be damaged or unread before anything is read.
    pub known: Vec<Damage>,
}

/// Texts that are in memory.
#[derive(Default)]
pub struct Decoded {
    alive: Mutex<Vec<Weak<Vec<u8>>>>,
    bytes_max: AtomicUsize,
    /// From now on nothing can be read.
    pub is_gone: AtomicBool,
}

impl Decoded {
    /// What is in memory now, bytes.
    pub fn bytes(&self) -> usize {
        let alive = self.alive.lock().expect("nobody panics while holding it");
        alive.iter().filter_map(Weak::upgrade).map(|text| text.capacity()).sum()
    }

    fn copy(&self, text: &[u8]) -> Text {
        let text = Arc::new(text.to_vec());
        let mut alive = self.alive.lock().expect("nobody panics while holding it");
        alive.retain(|text| text.strong_count() > 0);
        alive.push(Arc::downgrade(&text));
        let bytes = alive.iter().filter_map(Weak::upgrade).map(|text| text.capacity()).sum();
        self.bytes_max.fetch_max(bytes, Ordering::Relaxed);
        Text::Owned(text)
    }

    /// The most that was in memory at a time, bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }
}

impl TestPart {
    /// Cuts records, which are in strict ULID order, into chunks of `chunk_records`.
    pub fn new(records: &[TestRecord], chunk_records: usize) -> Self {
        let mut all = RunTable::default();
        for (_, topic, _) in records {
            all.topic_index(topic).expect("tests have few topics");
        }
        let chunks = records
            .chunks(chunk_records.max(1))
            .map(|records| {
                let mut table = RunTable::default();
                let mut text = Vec::new();
                for (id, topic, record) in records {
                    let topic = table.topic_index(topic).expect("tests have few topics");
                    let text_len = record.len() as u32 + 1;
                    table.push(Run { first: *id, count: 1, text_len, topic });
                    text.extend_from_slice(record);
                    text.push(b'\n');
                }
                let meta = ChunkMeta {
                    first: records[0].0,
                    last: records[records.len() - 1].0,
                    record_count: records.len() as u32,
                    text_len: text.len() as u32,
                    topics: table
                        .topics
                        .iter()
                        .filter_map(|topic| all.topics.iter().position(|t| t == topic))
                        .map(|index| index as u16)
                        .collect::<Vec<_>>()
                        .into(),
                };
                let checksum = crc32fast::hash(&text);
                TestChunk { meta, table, text: Text::Owned(Arc::new(text)), checksum }
            })
            .collect();
        Self {
            chunks: Arc::new(chunks),
            topics: Arc::new(all.topics),
            hides_topics: false,
            refuses_to_open: false,
            unreadable: Vec::new(),
            corrupt: Vec::new(),
            opened: Arc::default(),
            texts_read: Arc::default(),
            decoded: None,
            held_up: Arc::default(),
            known: Vec::new(),
        }
    }

    fn damage(&self, kind: DamageKind, index: Option<usize>) -> Damage {
        let range = index.map(|i| (self.chunks[i].meta.first, self.chunks[i].meta.last));
        let path = PathBuf::from("test.flushed");
        Damage { path, offset: 0, len_bytes: 0, range, records: None, kind }
    }
}

impl Part for TestPart {
    fn range(&self) -> (Ulid, Ulid) {
        match (self.chunks.first(), self.chunks.last()) {
            (Some(first), Some(last)) => (first.meta.first, last.meta.last),
            _ => (Ulid::MAX, Ulid::MIN),
        }
    }

    fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.meta.record_count)).sum()
    }

    fn text_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.meta.text_len)).sum()
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.refuses_to_open {
            return Err(self.damage(DamageKind::Checksum("footer"), None));
        }
        let mut metas: Vec<ChunkMeta> =
            self.chunks.iter().map(|chunk| chunk.meta.clone()).collect();
        if self.hides_topics {
            for meta in &mut metas {
                meta.topics = TopicList::default();
            }
        }
        Ok(Box::new(OpenTestPart { part: self.clone(), metas }))
    }

    fn is_stored(&self) -> bool {
        true
    }

    fn known_damage(&self) -> Vec<Damage> {
        self.known.clone()
    }
}

struct OpenTestPart {
    part: TestPart,
    metas: Vec<ChunkMeta>,
}

impl OpenPart for OpenTestPart {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.metas
    }

    fn topics(&self) -> &[Topic] {
        if self.part.hides_topics { &[] } else { &self.part.topics }
    }

    fn damage(&self) -> &[Damage] {
        &[]
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.part.texts_read.fetch_add(1, Ordering::Relaxed);
        drop(self.part.held_up.lock().expect("nobody panics while holding it"));
        let is_gone = |decoded: &Arc<Decoded>| decoded.is_gone.load(Ordering::Relaxed);
        if self.part.unreadable.contains(&index) || self.part.decoded.as_ref().is_some_and(is_gone)
        {
            return Err(self.part.damage(DamageKind::Checksum("text"), Some(index)));
        }
        let chunk = &self.part.chunks[index];
        let text = match &self.part.decoded {
            Some(decoded) => decoded.copy(&chunk.text),
            None => chunk.text.clone(),
        };
        Ok(Chunk { table: chunk.table.clone(), text })
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        if self.part.unreadable.contains(&index) {
            return Err(self.part.damage(DamageKind::Checksum("run table"), Some(index)));
        }
        Ok(self.part.chunks[index].table.clone())
    }

    fn may_be_counted(&self, _index: usize) -> bool {
        true
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        let chunk = &self.part.chunks[index];
        if self.part.corrupt.contains(&index) || crc32fast::hash(&chunk.text) != chunk.checksum {
            return Err(self.part.damage(DamageKind::Checksum("text"), Some(index)));
        }
        Ok(())
    }
}
