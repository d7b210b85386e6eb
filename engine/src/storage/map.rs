//! Read-only maps of files that survive the file being cut or its disk failing underneath.
//!
//! This is the engine's one home of `unsafe`. Reading a mapped page that the file no longer backs
//! raises SIGBUS. A handler, installed once per process, looks the address up in a fixed table of
//! our maps, puts a page of zeros there and marks the map *poisoned*; the reader goes on with
//! zeros and its caller asks [`Map::is_poisoned`] before it believes what it read. A SIGBUS
//! elsewhere goes to whoever handled the signal before us.
//!
//! Invariants: the handler only loads and stores atomics and calls mmap(2) and sigaction(2); the
//! table has a fixed size, and a map that finds no slot reads its file into memory instead.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Maps that can be guarded at once; bounds the handler's search.
const GUARDED_MAPS_MAX: usize = 4096;

/// Pages that the kernel is asked for at a time.
const RESIDENT_PAGES_AT_A_TIME: usize = 256;

struct Slot {
    /// 0: free. 1: being filled. Otherwise the first address.
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

static SLOTS: [Slot; GUARDED_MAPS_MAX] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), poisoned: AtomicBool::new(false) }
}; GUARDED_MAPS_MAX];

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static INSTALLED: OnceLock<bool> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// Bytes of a file for as long as this value lives, whatever becomes of the file's name.
#[derive(Debug)]
pub struct Map {
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Guarded {
        map: memmap2::Mmap,
        slot: usize,
    },
    Memory(Arc<Vec<u8>>),
    /// Bytes of a simulated disk, which says whether reading them meets a fault now.
    #[cfg(any(test, feature = "testing"))]
    Simulated(Simulated),
}

#[cfg(any(test, feature = "testing"))]
struct Simulated {
    bytes: Arc<Vec<u8>>,
    /// Whether a page that is read now meets a fault.
    meets_fault: Box<dyn Fn() -> bool + Send + Sync>,
    poisoned: AtomicBool,
    paging: Option<Arc<dyn Paging>>,
}

/// How the pages of a simulated map come into memory.
#[cfg(any(test, feature = "testing"))]
pub trait Paging: Send + Sync {
    /// Whether they are there.
    fn is_resident(&self) -> bool;
    /// Somebody reads them: waits as long as the disk takes.
    fn fetch(&self);
    /// The system is told that these bytes will be read.
    fn will_need(&self, _bytes: Range<usize>) {}
}

#[cfg(any(test, feature = "testing"))]
impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Map {
    /// Maps a whole file.
    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(Self::of_memory(Vec::new()));
        }
        if !*INSTALLED.get_or_init(install_handler) {
            return Self::read_whole(file);
        }
        // SAFETY: the map is private to this value and only read. The file may be changed or cut
        // by others meanwhile: every reader validates what it reads, and a cut raises SIGBUS,
        // which the handler turns into zeros and the poison mark.
        let map = unsafe { memmap2::Mmap::map(file)? };
        match claim_slot(map.as_ptr() as usize, map.len()) {
            Some(slot) => Ok(Self { bytes: Bytes::Guarded { map, slot } }),
            None => Self::read_whole(file),
        }
    }

    fn read_whole(mut file: &File) -> io::Result<Self> {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok(Self::of_memory(bytes))
    }

    /// Bytes that are in memory anyway (the simulated disk).
    pub fn of_memory(bytes: impl Into<Arc<Vec<u8>>>) -> Self {
        Self { bytes: Bytes::Memory(bytes.into()) }
    }

    /// Bytes of a simulated disk. They stay what they are, but are not to be believed once reading
    /// them has met a fault.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn simulated(
        bytes: Arc<Vec<u8>>,
        meets_fault: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        let (poisoned, paging) = (AtomicBool::new(false), None);
        Self { bytes: Bytes::Simulated(Simulated { bytes, meets_fault, poisoned, paging }) }
    }

    /// Bytes whose pages are not always in memory.
    #[cfg(any(test, feature = "testing"))]
    pub fn paged(bytes: impl Into<Arc<Vec<u8>>>, paging: Arc<dyn Paging>) -> Self {
        let mut map = Self::simulated(bytes.into(), Box::new(|| false));
        if let Bytes::Simulated(simulated) = &mut map.bytes {
            simulated.paging = Some(paging);
        }
        map
    }

    /// Whether some of the bytes turned out unreadable and were replaced by zeros.
    pub fn is_poisoned(&self) -> bool {
        match &self.bytes {
            Bytes::Guarded { slot, .. } => SLOTS[*slot].poisoned.load(Ordering::Acquire),
            Bytes::Memory(_) => false,
            #[cfg(any(test, feature = "testing"))]
            Bytes::Simulated(map) => {
                if !map.poisoned.load(Ordering::Acquire) && (map.meets_fault)() {
                    map.poisoned.store(true, Ordering::Release);
                }
                map.poisoned.load(Ordering::Acquire)
            }
        }
    }

    /// Tells the kernel that pages will be read here and there, and that longer spans are told
    /// ([`Map::will_need`]): else it reads megabytes around each, as disks with long readahead have it.
    pub fn expect_random_reads(&self) {
        if let Bytes::Guarded { map, .. } = &self.bytes {
            // Advice only: a refusal changes nothing.
            let _ = map.advise(memmap2::Advice::Random);
        }
    }

    /// Whether all of a span can be read without waiting for the disk, as far as the system says. It
    /// may be otherwise a moment later.
    pub fn is_resident(&self, span: Range<usize>) -> bool {
        match &self.bytes {
            Bytes::Guarded { map, .. } => {
                let Some(bytes) = map.get(span).filter(|bytes| !bytes.is_empty()) else {
                    return true;
                };
                are_pages_resident(bytes)
            }
            Bytes::Memory(_) => true,
            #[cfg(any(test, feature = "testing"))]
            Bytes::Simulated(map) => map.paging.as_ref().is_none_or(|paging| paging.is_resident()),
        }
    }

    /// Tells the kernel that a span will be read soon.
    pub fn will_need(&self, offset: usize, len: usize) {
        match &self.bytes {
            Bytes::Guarded { map, .. } => {
                // Advice only: a refusal changes nothing.
                let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
            }
            Bytes::Memory(_) => {}
            #[cfg(any(test, feature = "testing"))]
            Bytes::Simulated(map) => {
                map.paging.iter().for_each(|paging| paging.will_need(offset..offset + len));
            }
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Guarded { map, .. } => map,
            Bytes::Memory(bytes) => bytes,
            #[cfg(any(test, feature = "testing"))]
            Bytes::Simulated(map) => {
                if let Some(paging) = &map.paging {
                    paging.fetch();
                }
                &map.bytes
            }
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Bytes::Guarded { slot, .. } = self.bytes {
            // The slot is freed before the memory is: a fault in between cannot happen, because
            // nobody else holds this value.
            SLOTS[slot].start.store(0, Ordering::Release);
        }
    }
}

/// Whether mapped bytes lie in the page cache. Where the system does not say they count as there.
fn are_pages_resident(bytes: &[u8]) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let start = bytes.as_ptr() as usize & !(page_bytes - 1);
    let end = bytes.as_ptr() as usize + bytes.len();
    let mut pages = [0_u8; RESIDENT_PAGES_AT_A_TIME];
    for from in (start..end).step_by(RESIDENT_PAGES_AT_A_TIME * page_bytes) {
        let len = (end - from).min(RESIDENT_PAGES_AT_A_TIME * page_bytes);
        let count = len.div_ceil(page_bytes);
        // SAFETY: the pages lie inside a live map, for `bytes` is borrowed from it, and their number is
        // that of the bytes that the kernel may write.
        let told = unsafe { libc::mincore(from as *mut libc::c_void, len, pages.as_mut_ptr()) };
        if told == 0 && pages[..count].iter().any(|page| page & 1 == 0) {
            return false;
        }
    }
    true
}

fn claim_slot(start: usize, len: usize) -> Option<usize> {
    let free = SLOTS.iter().position(|slot| {
        slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })?;
    let slot = &SLOTS[free];
    slot.poisoned.store(false, Ordering::Relaxed);
    slot.end.store(start + len, Ordering::Relaxed);
    slot.start.store(start, Ordering::Release);
    Some(free)
}

fn install_handler() -> bool {
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if let Ok(page @ 1..) = usize::try_from(page) {
        PAGE_BYTES.store(page, Ordering::Relaxed);
    }
    // SAFETY: a zeroed sigaction is a valid value to be filled in; both pointers are valid for
    // the calls, and the handler keeps to async-signal-safe operations.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) != 0 {
            return false;
        }
        // Known before the handler can run.
        PREVIOUS.get_or_init(|| previous);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo, and SIGBUS carries an address.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &SLOTS {
        let start = slot.start.load(Ordering::Acquire);
        if start > 1 && (start..slot.end.load(Ordering::Relaxed)).contains(&address) {
            let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
            let page = address & !(page_bytes - 1);
            slot.poisoned.store(true, Ordering::Release);
            // SAFETY: the page lies inside a live map of ours that is only ever read (its owner
            // is the thread we interrupted, or keeps it alive for that thread); it is replaced
            // by a page of zeros of the same protection.
            let replaced = unsafe {
                libc::mmap(
                    page as *mut libc::c_void,
                    page_bytes,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            if replaced != libc::MAP_FAILED {
                return;
            }
        }
    }
    // Not ours: put the previous handler back; the instruction faults again and reaches it.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` is what sigaction returned for this very signal.
        unsafe { libc::sigaction(signal, previous, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_is_cut_under_its_map_poisons_it_and_nothing_else() {
        let mut cut = tempfile::tempfile().unwrap();
        let mut whole = tempfile::tempfile().unwrap();
        for file in [&mut cut, &mut whole] {
            file.write_all(&vec![7; 1 << 20]).unwrap();
        }
        let (cut_map, whole_map) = (Map::of_file(&cut).unwrap(), Map::of_file(&whole).unwrap());
        assert_eq!(cut_map[0], 7);
        cut.set_len(4096).unwrap();
        assert_eq!(cut_map[(1 << 20) - 1], 0, "what is gone reads as zero");
        assert!(cut_map.is_poisoned());
        assert!(whole_map.iter().all(|&b| b == 7));
        assert!(!whole_map.is_poisoned());
    }

    #[test]
    fn pages_that_were_just_written_are_there_and_those_that_were_dropped_are_not() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        let map = Map::of_file(&file).unwrap();
        assert!(map.is_resident(0..map.len()) && map.is_resident(5..9) && map.is_resident(7..7));
        file.sync_all().unwrap();
        // The system may keep them all the same.
        let advice = rustix::fs::Advice::DontNeed;
        if rustix::fs::fadvise(&file, 0, None, advice).is_ok() && !map.is_resident(0..map.len()) {
            assert!(map.iter().all(|&byte| byte == 7));
            assert!(map.is_resident(0..map.len()));
        }
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        assert!(Map::of_file(&tempfile::tempfile().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn slots_are_free_again_after_use() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"x").unwrap();
        for _ in 0..2 * GUARDED_MAPS_MAX {
            assert_eq!(&*Map::of_file(&file).unwrap(), b"x");
        }
    }
}
