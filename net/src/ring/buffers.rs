//! Receive buffers that the kernel picks from by itself (a *provided buffer ring*, see
//! `io_uring_register_buf_ring(3)`): an idle connection holds no memory at all.
//!
//! Invariants: each buffer is either the kernel's (its entry lies between the kernel's head and
//! our tail) or is named by exactly one [`Received`]; entries and memory never move.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::driver::Received;

/// Alignment that the kernel asks of the ring of entries, bytes.
const PAGE_BYTES: usize = 4096;
/// Bytes of one entry (`struct io_uring_buf`).
const ENTRY_BYTES: usize = 16;

pub(super) struct Buffers {
    /// Room for the entries, one page more than needed so that an aligned start can be found.
    entries: Box<[UnsafeCell<u8>]>,
    first_entry: usize,
    /// The kernel fills what it owns while we hold a shared reference: hence the cells.
    memory: Box<[UnsafeCell<u8>]>,
    count: u16,
    buffer_bytes: usize,
    tail: Cell<u16>,
}

impl Buffers {
    pub(super) fn new(count: u16, buffer_bytes: usize) -> Self {
        assert!(count.is_power_of_two(), "the kernel takes powers of two");
        let entries = zeroes(usize::from(count) * ENTRY_BYTES + PAGE_BYTES);
        let first_entry = entries.as_ptr().align_offset(PAGE_BYTES);
        let memory = zeroes(usize::from(count) * buffer_bytes);
        let buffers =
            Self { entries, first_entry, memory, count, buffer_bytes, tail: Cell::new(0) };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers
    }

    pub(super) fn ring_address(&self) -> u64 {
        self.entries[self.first_entry].get().expose_provenance() as u64
    }

    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        let start = usize::from(received.id) * self.buffer_bytes;
        let cells = &self.memory[start..start + received.len];
        // SAFETY: a cell has the layout of its content; the kernel gave this buffer to us and does
        // not touch it until it is recycled, which takes `received` away.
        unsafe { &*(std::ptr::from_ref(cells) as *const [u8]) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a buffer is handed back once")]
    pub(super) fn recycle(&mut self, received: Received) {
        self.give_back(received.id);
    }

    /// Puts buffer `id` at the tail of the ring.
    pub(super) fn give_back(&self, id: u16) {
        assert!(id < self.count, "the kernel gives back buffers that it was given");
        let base: *mut BufRingEntry =
            std::ptr::with_exposed_provenance_mut(self.ring_address() as usize);
        let slot = usize::from(self.tail.get() & (self.count - 1));
        let address = self.memory[usize::from(id) * self.buffer_bytes].get() as u64;
        // SAFETY: `slot` is inside the ring; the entry at the tail belongs to us until the tail
        // moves past it, which the release store below publishes to the kernel.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(base).cast::<AtomicU16>();
            self.tail.set(self.tail.get().wrapping_add(1));
            (*tail).store(self.tail.get(), Ordering::Release);
        }
    }
}

fn zeroes(len: usize) -> Box<[UnsafeCell<u8>]> {
    (0..len).map(|_| UnsafeCell::new(0)).collect()
}
