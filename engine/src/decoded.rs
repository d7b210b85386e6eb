//! Text that was decoded from a compressed block, and what it is decoded with: decompressors and
//! buffers are used again, so that whoever reads block after block allocates no text.
//!
//! Invariants: at most [`DECODED_IDLE_MAX`] buffers and as many decompressors wait for their next use, no
//! buffer larger than [`DECODED_IDLE_BYTES_MAX`]; small texts (which would waste a buffer) and large ones
//! are allocated at their size and freed; what a decompressor has decoded tells nothing on the next. How
//! many texts are held at a time is for their holders to bound: [`crate::chunk::Text::memory_bytes`].

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zstd::bulk::Decompressor;

use crate::limits::{
    BLOCK_TEXT_TARGET, DECODED_IDLE_BYTES_MAX, DECODED_IDLE_MAX, DECODED_REUSED_BYTES_MIN,
};

/// What waits for its next use. Clones share it.
#[derive(Clone, Default)]
pub struct Decoders {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    decompressors: Vec<Decompressor<'static>>,
}

impl Decoders {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer with room for `len` bytes.
    fn buffer(&self, len: usize) -> Vec<u8> {
        if !(DECODED_REUSED_BYTES_MIN..=DECODED_IDLE_BYTES_MAX).contains(&len) {
            return Vec::with_capacity(len);
        }
        let found = self.lock().buffers.pop().filter(|buffer| buffer.capacity() >= len);
        found.unwrap_or_else(|| Vec::with_capacity(len.max(BLOCK_TEXT_TARGET)))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        if !(BLOCK_TEXT_TARGET..=DECODED_IDLE_BYTES_MAX).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut idle = self.lock();
        if idle.buffers.len() < DECODED_IDLE_MAX {
            idle.buffers.push(buffer);
        }
    }

    /// What `decode` puts into an empty buffer with room for `len` bytes.
    pub(crate) fn text<E>(
        &self,
        len: usize,
        decode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<DecodedText, E> {
        let mut text = DecodedText { bytes: self.buffer(len), home: self.clone() };
        decode(&mut text.bytes)?;
        Ok(text)
    }

    /// Decompresses into what room there is in `buffer`; how many bytes that took.
    pub(crate) fn unpack(&self, stored: &[u8], buffer: &mut Vec<u8>) -> io::Result<usize> {
        let idle = self.lock().decompressors.pop();
        let mut decompressor = idle.map_or_else(Decompressor::new, Ok)?;
        let unpacked = decompressor.decompress_to_buffer(stored, buffer);
        let mut idle = self.lock();
        if idle.decompressors.len() < DECODED_IDLE_MAX {
            idle.decompressors.push(decompressor);
        }
        unpacked
    }
}

impl fmt::Debug for Decoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoders")
    }
}

/// A decoded text; its buffer goes back when it is dropped.
pub struct DecodedText {
    bytes: Vec<u8>,
    home: Decoders,
}

impl DecodedText {
    /// What it takes in memory, bytes: its buffer, which may be longer than the text.
    pub const fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Drop for DecodedText {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
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

    fn text(decoders: &Decoders, len: usize) -> DecodedText {
        let fill = |buffer: &mut Vec<u8>| {
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            buffer.resize(len, b'x');
            Ok::<_, ()>(())
        };
        decoders.text(len, fill).unwrap()
    }

    #[test]
    fn idle_buffers_are_bounded_in_number_and_size() {
        let decoders = Decoders::default();
        let block = BLOCK_TEXT_TARGET;
        let sizes = [1, block / 2, block, block + 1, DECODED_IDLE_BYTES_MAX + 1, 8 * block];
        let held: Vec<_> =
            (0..3 * DECODED_IDLE_MAX).map(|n| text(&decoders, sizes[n % 6])).collect();
        drop(held);
        let idle = decoders.lock();
        assert_eq!(idle.buffers.len(), DECODED_IDLE_MAX);
        assert!(idle.buffers.iter().all(|buffer| buffer.capacity() <= DECODED_IDLE_BYTES_MAX));
        assert!(idle.buffers.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_buffer_goes_back_to_where_it_came_from() {
        let [a, b] = [Decoders::default(), Decoders::default()];
        let idle = |decoders: &Decoders| decoders.lock().buffers.len();
        let held: Vec<_> = (0..DECODED_IDLE_MAX).map(|_| text(&a, BLOCK_TEXT_TARGET)).collect();
        drop(text(&b, BLOCK_TEXT_TARGET));
        assert_eq!((idle(&a), idle(&b)), (0, 1));
        drop(held);
        assert_eq!((idle(&a), idle(&b)), (DECODED_IDLE_MAX, 1));
    }

    #[test]
    fn a_small_text_takes_no_more_than_its_size() {
        let decoders = Decoders::default();
        assert_eq!(text(&decoders, 1000).memory_bytes(), 1000);
        assert!(text(&decoders, BLOCK_TEXT_TARGET - 9).memory_bytes() >= BLOCK_TEXT_TARGET);
    }

    #[test]
    fn what_cannot_be_decoded_is_no_text() {
        let decoders = Decoders::default();
        let failed = decoders.text(100, |buffer| {
            buffer.push(1);
            Err("broken")
        });
        assert_eq!(failed.err(), Some("broken"));
    }

    #[test]
    fn a_decompressor_that_failed_is_as_good_as_new_and_no_more_are_kept_than_were_at_work() {
        let decoders = Decoders::default();
        let packed = zstd::bulk::compress(&[b'x'; 1000], 1).unwrap();
        for _ in 0..3 {
            assert!(
                decoders
                    .unpack(&packed[..packed.len() - 1], &mut Vec::with_capacity(1000))
                    .is_err()
            );
            let mut text = Vec::with_capacity(1000);
            assert_eq!(decoders.unpack(&packed, &mut text).unwrap(), 1000);
            assert_eq!(text, [b'x'; 1000]);
        }
        assert_eq!(decoders.lock().decompressors.len(), 1);
    }
}
