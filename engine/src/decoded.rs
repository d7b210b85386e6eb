//! Text that was decoded from a compressed block, in buffers that are used again: whoever reads
//! block after block allocates no text.
//!
//! Invariants: at most [`DECODED_IDLE_MAX`] buffers wait for their next use, none of them larger
//! than [`DECODED_IDLE_BYTES_MAX`]; small texts (which would waste a buffer) and large ones are
//! allocated at their size and freed. How many texts are held at a time is for their holders to
//! bound: [`crate::chunk::Text::memory_bytes`].

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::{
    BLOCK_TEXT_TARGET, DECODED_IDLE_BYTES_MAX, DECODED_IDLE_MAX, DECODED_REUSED_BYTES_MIN,
};

/// Buffers that wait for their next use.
static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Vec<u8>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A decoded text; its buffer goes back when it is dropped.
#[derive(Default)]
pub struct DecodedText {
    bytes: Vec<u8>,
}

impl DecodedText {
    /// What `decode` puts into an empty buffer with room for `len` bytes.
    pub fn new<E>(
        len: usize,
        decode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut text = Self { bytes: buffer(len) };
        decode(&mut text.bytes)?;
        Ok(text)
    }

    /// What it takes in memory, bytes: its buffer, which may be longer than the text.
    pub const fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

fn buffer(len: usize) -> Vec<u8> {
    if !(DECODED_REUSED_BYTES_MIN..=DECODED_IDLE_BYTES_MAX).contains(&len) {
        return Vec::with_capacity(len);
    }
    let found = idle().pop().filter(|buffer| buffer.capacity() >= len);
    found.unwrap_or_else(|| Vec::with_capacity(len.max(BLOCK_TEXT_TARGET)))
}

impl Drop for DecodedText {
    fn drop(&mut self) {
        if !(BLOCK_TEXT_TARGET..=DECODED_IDLE_BYTES_MAX).contains(&self.bytes.capacity()) {
            return;
        }
        self.bytes.clear();
        let mut idle = idle();
        if idle.len() < DECODED_IDLE_MAX {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for DecodedText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for DecodedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodedText({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> DecodedText {
        let fill = |buffer: &mut Vec<u8>| {
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            buffer.resize(len, b'x');
            Ok::<_, ()>(())
        };
        DecodedText::new(len, fill).unwrap()
    }

    #[test]
    fn idle_buffers_are_bounded_in_number_and_size() {
        let block = BLOCK_TEXT_TARGET;
        let sizes = [1, block / 2, block, block + 1, DECODED_IDLE_BYTES_MAX + 1, 8 * block];
        let held: Vec<_> = (0..3 * DECODED_IDLE_MAX).map(|n| text(sizes[n % 6])).collect();
        drop(held);
        let idle = idle();
        assert!(idle.len() <= DECODED_IDLE_MAX);
        assert!(idle.iter().all(|buffer| buffer.capacity() <= DECODED_IDLE_BYTES_MAX));
        assert!(idle.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_small_text_takes_no_more_than_its_size() {
        assert_eq!(text(1000).memory_bytes(), 1000);
        assert!(text(BLOCK_TEXT_TARGET - 9).memory_bytes() >= BLOCK_TEXT_TARGET);
    }

    #[test]
    fn what_cannot_be_decoded_is_no_text() {
        let failed = DecodedText::new(100, |buffer| {
            buffer.push(1);
            Err("broken")
        });
        assert_eq!(failed.err(), Some("broken"));
    }
}
