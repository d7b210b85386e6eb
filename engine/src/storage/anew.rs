//! Writing a small file anew: under another name, synced, then renamed.
//!
//! Invariants: under its own name the file is never anything but whole. The name is not durable before
//! its directory is synced, which is the caller's: he knows what else a failed sync of it costs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{File, Open, Storage};

/// Writes these pieces at their offsets to `new`, and renames that to `path`. After an error `path` is
/// as it was.
pub(crate) fn write_anew(
    storage: &dyn Storage,
    new: &Path,
    path: &Path,
    pieces: &[(u64, &[u8])],
) -> io::Result<Arc<dyn File>> {
    match storage.remove(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.open(new, Open::CreateNew)?;
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset)?;
    }
    file.sync()?;
    storage.rename(new, path)?;
    // The handle follows the name.
    Ok(file)
}
