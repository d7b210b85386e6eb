//! Files that hang, and queries over them and over others.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::testing::TestPart;
use super::tests::{series, spec};
use super::*;
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Part, Text};
use crate::damage::Damage;
use crate::disk_health::HANG_MS;
use crate::run_table::RunTable;
use crate::storage::{Map, Paging};
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Where calls hang.
#[derive(Default)]
struct Hang {
    is_over: Mutex<bool>,
    changed: Condvar,
    /// Calls that have come here.
    met: AtomicUsize,
}

impl Hang {
    fn meet(&self) {
        self.met.fetch_add(1, Ordering::Relaxed);
        let mut is_over = self.is_over.lock().unwrap();
        while !*is_over {
            is_over = self.changed.wait(is_over).unwrap();
        }
    }

    fn end(&self) {
        *self.is_over.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, calls: usize) {
        wait_until(|| self.met.load(Ordering::Relaxed) == calls);
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

/// Ends it, so that threads can be waited for when a test fails.
struct EndOfTest(Arc<Hang>);

impl Drop for EndOfTest {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A part in a file of which a call hangs: opening it, or reading a chunk.
#[derive(Clone)]
pub(super) struct InFile {
    part: TestPart,
    path: &'static str,
    hang: Arc<Hang>,
    /// `None`: opening it.
    chunk: Option<usize>,
}

impl Part for InFile {
    fn range(&self) -> (Ulid, Ulid) {
        self.part.range()
    }

    fn records(&self) -> u64 {
        self.part.records()
    }

    fn text_bytes(&self) -> u64 {
        self.part.text_bytes()
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        if self.chunk.is_none() {
            self.hang.meet();
        }
        Ok(Box::new(OpenInFile { open: self.part.open()?, of: self.clone() }))
    }

    fn file_path(&self) -> Option<PathBuf> {
        Some(PathBuf::from(self.path))
    }

    fn is_stored(&self) -> bool {
        true
    }
}

struct OpenInFile {
    open: Box<dyn OpenPart>,
    of: InFile,
}

impl OpenPart for OpenInFile {
    fn chunks(&self) -> &[ChunkMeta] {
        self.open.chunks()
    }

    fn topics(&self) -> &[Topic] {
        self.open.topics()
    }

    fn damage(&self) -> &[Damage] {
        self.open.damage()
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        if self.of.chunk == Some(index) {
            self.of.hang.meet();
        }
        self.open.read(index)
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        self.open.read_table(index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        self.open.verify(index)
    }
}

pub(super) fn part(first: u64, count: u64) -> TestPart {
    TestPart::new(&series(first, count, |i| format!("record {i}").into_bytes()), 10)
}

pub(super) fn in_file(first: u64, count: u64, chunk: Option<usize>) -> InFile {
    InFile { part: part(first, count), path: "store/hangs", hang: Arc::default(), chunk }
}

fn searcher(threads: usize) -> Searcher {
    let on_thread_start: ThreadHook = Arc::new(|_| {});
    let (node, caches) = ("here".into(), Arc::default());
    Searcher::start(SearcherOptions { threads, node, caches, on_thread_start }).unwrap()
}

fn ask(searcher: &Searcher, parts: &[Arc<dyn Part>]) -> PipeReader {
    let snapshot = Snapshot { parts: parts.to_vec(), missing: Vec::new() };
    searcher.query(spec(""), snapshot, Format::Text)
}

/// Gives up every thread that is at work; says how many.
fn give_up(searcher: &Searcher) -> usize {
    let overseer = searcher.overseer().unwrap();
    let standing = |_| Some(Standing { is_waiting: true, waits: 7 });
    let now = Instant::now();
    assert_eq!(overseer.look(now, &standing), []);
    overseer.look(now + Duration::from_millis(HANG_MS), &standing).len()
}

#[test]
fn a_file_that_hangs_costs_its_own_records_and_keeps_no_other_query_waiting() {
    const THREADS: usize = 2;
    let searcher = searcher(THREADS);
    let hanging = in_file(0, 100, None);
    let hang = Arc::clone(&hanging.hang);
    let _end = EndOfTest(Arc::clone(&hang));
    let parts: [Arc<dyn Part>; 2] = [Arc::new(hanging), Arc::new(part(200, 100))];
    let stuck: Vec<_> = (0..THREADS).map(|_| ask(&searcher, &parts)).collect();
    hang.wait_for(THREADS);
    assert_eq!(give_up(&searcher), THREADS);
    // Those that wait for it, and one that comes now.
    for query in stuck.into_iter().chain([ask(&searcher, &parts)]) {
        let (_, outcome) = query.read_all_blocking();
        assert_eq!(outcome.stats.records, 100);
        let missing = &outcome.stats.missing;
        assert_eq!(missing.len(), 1);
        assert_eq!((missing[0].from, missing[0].to), parts[0].range());
        assert!(missing[0].reason.contains("store/hangs"), "{}", missing[0].reason);
        assert!(missing[0].reason.contains("cannot be read: timed out"), "{}", missing[0].reason);
    }
    let (_, outcome) = ask(&searcher, &parts[1..]).read_all_blocking();
    assert!(outcome.stats.complete);
    assert_eq!(hang.met.load(Ordering::Relaxed), THREADS, "no further thread went there");
    // It answers again, and those who were given up end.
    hang.end();
    wait_until(|| ask(&searcher, &parts).read_all_blocking().1.stats.complete);
    let (_, outcome) = ask(&searcher, &parts).read_all_blocking();
    assert_eq!(outcome.stats.records, 200);
}

#[test]
fn what_was_read_before_a_file_hangs_is_in_the_answer_and_all_behind_it_is_told() {
    let searcher = searcher(1);
    let hanging = in_file(0, 100, Some(4));
    let hang = Arc::clone(&hanging.hang);
    let _end = EndOfTest(Arc::clone(&hang));
    let range = hanging.part.range();
    let query = ask(&searcher, &[Arc::new(hanging)]);
    hang.wait_for(1);
    assert_eq!(give_up(&searcher), 1);
    let (text, outcome) = query.read_all_blocking();
    assert_eq!(outcome.stats.records, 40);
    assert!(!outcome.stats.complete && text.ends_with(b"record 39\n"));
    let (from, to) = (outcome.stats.missing[0].from, outcome.stats.missing[0].to);
    assert_eq!((from.counter(), to, outcome.stats.missing.len()), (40, range.1, 1));
}

#[test]
fn a_query_ends_whose_file_answers_just_as_its_thread_is_given_up() {
    for _ in 0..200 {
        let searcher = searcher(1);
        let hanging = in_file(0, 100, Some(4));
        let hang = Arc::clone(&hanging.hang);
        let _end = EndOfTest(Arc::clone(&hang));
        let query = ask(&searcher, &[Arc::new(hanging)]);
        hang.wait_for(1);
        let overseer = searcher.overseer().unwrap();
        let now = Instant::now();
        let stands = Some(Standing { is_waiting: true, waits: 7 });
        assert_eq!(overseer.look(now, &|_| stands), []);
        let answers = |_| {
            hang.end();
            stands
        };
        overseer.look(now + Duration::from_millis(HANG_MS), &answers);
        let reader = std::thread::spawn(move || query.read_all_blocking().1.stats);
        wait_until(|| reader.is_finished());
        let stats = reader.join().unwrap();
        assert!(stats.complete == (stats.records == 100), "{stats:?}");
    }
}

#[test]
fn the_end_of_a_searcher_waits_for_no_thread_that_hangs() {
    let searcher = searcher(2);
    let hanging = in_file(0, 100, None);
    let hang = Arc::clone(&hanging.hang);
    let _end = EndOfTest(Arc::clone(&hang));
    let query = ask(&searcher, &[Arc::new(hanging)]);
    hang.wait_for(1);
    assert_eq!(give_up(&searcher), 1);
    drop(searcher);
    assert!(!query.read_all_blocking().1.stats.complete);
}

/// Pages of a file that somebody takes out of memory, and that do not come back before the test's end.
#[derive(Default)]
struct Evicted {
    is_gone: AtomicBool,
    /// How often somebody asked whether they are there.
    asked: AtomicUsize,
    hang: Arc<Hang>,
}

impl Paging for Evicted {
    fn is_resident(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        !self.is_gone.load(Ordering::SeqCst)
    }

    fn fetch(&self) {
        if self.is_gone.load(Ordering::SeqCst) {
            self.hang.meet();
        }
    }
}

/// A part whose texts are maps of a file.
struct Mapped {
    part: TestPart,
    pages: Arc<Evicted>,
    /// What is known of the pages, though they are gone.
    is_told: bool,
}

impl Part for Mapped {
    fn range(&self) -> (Ulid, Ulid) {
        self.part.range()
    }

    fn records(&self) -> u64 {
        self.part.records()
    }

    fn text_bytes(&self) -> u64 {
        self.part.text_bytes()
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        let pages: Arc<dyn Paging> = if self.is_told {
            Arc::clone(&self.pages) as _
        } else {
            Arc::new(Untold(Arc::clone(&self.pages)))
        };
        Ok(Box::new(OpenMapped { open: self.part.open()?, pages }))
    }

    fn file_path(&self) -> Option<PathBuf> {
        Some(PathBuf::from("ingest/mapped"))
    }

    fn is_stored(&self) -> bool {
        true
    }
}

/// The system says that they are there.
struct Untold(Arc<Evicted>);

impl Paging for Untold {
    fn is_resident(&self) -> bool {
        true
    }

    fn fetch(&self) {
        self.0.fetch();
    }
}

struct OpenMapped {
    open: Box<dyn OpenPart>,
    pages: Arc<dyn Paging>,
}

impl OpenPart for OpenMapped {
    fn chunks(&self) -> &[ChunkMeta] {
        self.open.chunks()
    }

    fn topics(&self) -> &[Topic] {
        self.open.topics()
    }

    fn damage(&self) -> &[Damage] {
        self.open.damage()
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        let Chunk { table, text } = self.open.read(index)?;
        let map = Map::paged(text.to_vec(), Arc::clone(&self.pages));
        Ok(Chunk { table, text: Text::Mapped(Arc::new(map), 0..text.len()) })
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        self.open.read_table(index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        self.open.verify(index)
    }
}

/// A query whose reader stands still in the middle of a mapped part, whose pages go meanwhile, and its
/// first piece. The searcher has one thread.
fn stalled(searcher: &Searcher, is_told: bool) -> (PipeReader, Vec<u8>, Arc<Evicted>) {
    // Of records that are handed out whole, more than a reader is ahead with.
    let long = |first, count| {
        TestPart::new(&series(first, count, |i| vec![b'a' + (i % 26) as u8; 3000]), 150)
    };
    let pages = Arc::<Evicted>::default();
    let mapped = Mapped { part: long(0, 300), pages: Arc::clone(&pages), is_told };
    let behind = long(1000, 600);
    let read_ahead = Arc::clone(&behind.texts_read);
    let mut query = ask(searcher, &[Arc::new(mapped), Arc::new(behind)]);
    let first = query.next_blocking().unwrap();
    // It reads four chunks ahead, one after the other: those of the map were searched.
    wait_until(|| read_ahead.load(Ordering::Relaxed) == 2);
    pages.is_gone.store(true, Ordering::SeqCst);
    (query, first, pages)
}

fn read_on(mut query: PipeReader, mut text: Vec<u8>) -> (Vec<u8>, Outcome) {
    let reader = std::thread::spawn(move || {
        while let Some(piece) = query.next_blocking() {
            text.extend_from_slice(&piece);
        }
        (text, query.outcome().unwrap())
    });
    wait_until(|| reader.is_finished());
    reader.join().unwrap()
}

#[test]
fn a_text_that_has_left_memory_is_no_business_of_who_hands_out_and_hangs_for_itself_alone() {
    let searcher = searcher(1);
    let (query, first, pages) = stalled(&searcher, true);
    let _end = EndOfTest(Arc::clone(&pages.hang));
    let reading = std::thread::spawn(move || read_on(query, first));
    pages.hang.wait_for(1);
    assert_eq!(give_up(&searcher), 1);
    let (text, outcome) = reading.join().unwrap();
    let missing = &outcome.stats.missing;
    assert!(!missing.is_empty() && !outcome.aborted);
    let is_of_file =
        |reason: &str| reason.contains("ingest/mapped") && reason.contains("timed out");
    assert!(missing.iter().all(|missing| is_of_file(&missing.reason)), "{missing:?}");
    // What was handed out before, and what lies behind.
    let lines = text.split(|&byte| byte == b'\n').count() as u64 - 1;
    assert!(lines == outcome.stats.records && (601..900).contains(&lines), "{lines}");
}

#[test]
fn a_query_that_hangs_where_it_hands_out_breaks_off_and_takes_no_further_thread() {
    let searcher = searcher(1);
    let (query, first, pages) = stalled(&searcher, false);
    let _end = EndOfTest(Arc::clone(&pages.hang));
    let reading = std::thread::spawn(move || read_on(query, first));
    pages.hang.wait_for(1);
    assert_eq!(give_up(&searcher), 1);
    assert!(reading.join().unwrap().1.aborted, "its reader is told");
    // Others get on, and nobody goes there any more.
    for _ in 0..20 {
        assert!(ask(&searcher, &[Arc::new(part(0, 100))]).read_all_blocking().1.stats.complete);
    }
    assert_eq!(pages.hang.met.load(Ordering::Relaxed), 1);
    // It comes back, and what it kept is given back.
    pages.hang.end();
    wait_until(|| searcher.held_bytes() == 0);
}

#[test]
fn whether_a_text_is_in_memory_is_not_asked_for_each_of_its_hits() {
    const CHUNKS: usize = 5;
    let pages = Arc::<Evicted>::default();
    let texts = |i| if i % 2 == 0 { b"a hit".to_vec() } else { b"none".to_vec() };
    let part = TestPart::new(&series(0, 100 * CHUNKS as u64, texts), 100);
    let mapped = Mapped { part, pages: Arc::clone(&pages), is_told: true };
    let snapshot = Snapshot { parts: vec![Arc::new(mapped)], missing: Vec::new() };
    let searcher = searcher(2);
    let query = searcher.query(spec("hit"), snapshot, Format::Text);
    assert_eq!(query.read_all_blocking().1.stats.records, 50 * CHUNKS as u64);
    let asked = pages.asked.load(Ordering::SeqCst);
    assert!(asked <= CHUNKS, "{asked} times");
}
