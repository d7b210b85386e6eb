//! Writing a small file anew: under another name, synced, then renamed.
//!
//! Invariants: under its own name the file is never anything but whole. The name is not durable before
//! its directory is synced, which is the caller's: he knows what else a failed sync of it costs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{File, Open, Refusal, Storage};

/// Writes these pieces at their offsets to `new`, and renames that to `path`. After an error `path` is
/// as it was; one that tells of something else than a file is of `path`, unless it says otherwise.
pub(crate) fn write_anew(
    storage: &dyn Storage,
    new: &Path,
    path: &Path,
    pieces: &[(u64, &[u8])],
) -> io::Result<Arc<dyn File>> {
    match storage.remove(new) {
        Err(error) if Refusal::from(&error).is_no_file() => {
            let words = format!("{} is no file: move it away", new.display());
            return Err(io::Error::new(error.kind(), words));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::OsStorage;

    #[test]
    fn what_is_in_the_way_is_named_and_not_taken_for_the_file_itself() {
        let temp = tempfile::tempdir().unwrap();
        let [new, path] = ["X.new", "X"].map(|name| temp.path().join(name));
        let write = || write_anew(&OsStorage, &new, &path, &[(0, b"later")]).map(|_| ());
        std::fs::write(&path, "whole").unwrap();
        std::fs::create_dir(&new).unwrap();
        let error = write().unwrap_err();
        assert!(error.to_string().contains("X.new is no file"), "{error}");
        assert!(!Refusal::from(&error).is_no_file(), "the file itself is one");
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");

        std::fs::remove_dir(&new).unwrap();
        write().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"later");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Refusal::from(&write().unwrap_err()).is_no_file());
    }
}
