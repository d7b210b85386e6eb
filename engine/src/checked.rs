//! What was verified of a segment: its blocks or frames, and which of them are bad, three bits each; its
//! signatures, a bit a page and one more for each slab, and as many again for what the kernel was told of.
//!
//! Invariants: belongs to one state of the file (its version stamp); a bad block counts as not
//! verified, so that the next read looks at all of it again; of damaged signatures the one that was
//! met first is remembered, so that every answer tells the same.

use std::sync::OnceLock;

use crate::bitmap::Bitmap;
use crate::damage::Damage;

/// See the page of the module.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    blocks: usize,
    tables: Bitmap,
    texts: Bitmap,
    bad: Bitmap,
    signature_bits: usize,
    signatures: Bitmap,
    announced: Bitmap,
    bad_signature: OnceLock<Damage>,
}

impl Checked {
    /// Of so many blocks, and signatures whose verification takes so many bits, nothing is known.
    pub(crate) fn new(blocks: usize, signature_bits: usize) -> Self {
        let [tables, texts, bad] = [(); 3].map(|()| Bitmap::new(blocks));
        let [signatures, announced] = [(); 2].map(|()| Bitmap::new(signature_bits));
        let bad_signature = OnceLock::new();
        Self { blocks, tables, texts, bad, signature_bits, signatures, announced, bad_signature }
    }

    /// Whether both are of segments of the same shape.
    pub(crate) const fn is_like(&self, other: &Self) -> bool {
        self.blocks == other.blocks && self.signature_bits == other.signature_bits
    }

    /// What was verified of the signatures.
    pub(crate) const fn signatures(&self) -> &Bitmap {
        &self.signatures
    }

    /// Which of the signatures' pages the kernel was told of.
    pub(crate) const fn announced(&self) -> &Bitmap {
        &self.announced
    }

    /// A damaged signature was met: the one that was met first.
    pub(crate) fn signature_is_bad(&self, damage: impl FnOnce() -> Damage) -> &Damage {
        self.bad_signature.get_or_init(damage)
    }

    /// Whether the block's text was verified.
    pub(crate) fn is_text_verified(&self, block: usize) -> bool {
        self.texts.get(block)
    }

    /// Whether the block's run table was verified and nothing of it is known to be damaged.
    pub(crate) fn is_countable(&self, block: usize) -> bool {
        self.tables.get(block) && !self.bad.get(block)
    }

    /// Whether the block was damaged when it was read last.
    pub(crate) fn is_bad(&self, block: usize) -> bool {
        self.bad.get(block)
    }

    /// The block's run table was verified.
    pub(crate) fn table_is_whole(&self, block: usize) {
        self.tables.set(block);
    }

    /// The block's run table and its text were verified.
    pub(crate) fn block_is_whole(&self, block: usize) {
        self.tables.set(block);
        self.texts.set(block);
        self.bad.clear(block);
    }

    /// The block could not be read.
    pub(crate) fn block_is_bad(&self, block: usize) {
        self.bad.set(block);
        self.tables.clear(block);
        self.texts.clear(block);
    }
}
