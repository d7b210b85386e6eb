//! Signatures: per block of a store segment, which short pieces of text occur in it, so that a
//! query can pass over blocks that cannot hold a match without reading them.
//!
//! A *gram* is five bytes of one line, letters folded to lower case (`grams`). Each gram is hashed
//! to one row of the slab's bit matrix, whose columns are the slab's blocks (`matrix`); a query
//! reads a row for each gram that its expression requires and ANDs them (`filter`).
//! `docs/format-store.md` §7 has the bytes, `docs/decisions/0006-signatures.md` the measurements.
//!
//! Invariants: a signature only ever passes over blocks that hold no match, whatever the hash does;
//! rows are verified before they are believed, and one that is damaged passes over nothing; what
//! makes a gram depends on its own five bytes alone, so that a gram of a needle is a gram of every
//! text that contains the needle.
//!
//! Not here: which literals an expression requires (`search::required`), and topics, which the block
//! index lists exactly.

pub mod filter;
pub mod grams;
pub mod matrix;

pub use filter::{Bits, Filter, Rows};
pub use grams::BlockSignature;
pub use matrix::{Matrix, MatrixBuilder, SIGNATURE_SCHEME, Shape};
