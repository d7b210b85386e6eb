//! A segment's file as it is lent to a shard: opened for writing, and once more for the keeper, who can
//! read it whoever deletes its name.
//!
//! Invariants: both opens are one call to who judges the disks: whichever finds no descriptor left,
//! nothing can be written. A file that is not as it was made is somebody else's, and is not lent.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use engine::disk_health::DiskCall;
use engine::storage::{DiskWatch, File, Open, Storage};

/// Opens the file of an unused segment, `len_bytes` long, for reading and for writing. `NotFound`: its
/// name is nobody's, or somebody else's.
pub(super) fn open(
    storage: &dyn Storage,
    disk: &DiskWatch,
    (path, len_bytes): (&Path, u64),
    for_writing: impl FnOnce() -> io::Result<std::fs::File>,
) -> io::Result<(Arc<dyn File>, std::fs::File)> {
    disk.observe(DiskCall::OpenForWriting, path, || {
        let source = storage.open(path, Open::Read)?;
        if source.len()? != len_bytes {
            let what = "another file has its name, and is left alone";
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok((source, for_writing()?))
    })
}

/// Opens for direct writing, or for buffered writing where the file system is known to refuse that.
pub(super) fn for_writing(path: &Path, direct_refused: &mut bool) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if !*direct_refused {
        match options.custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => return Ok(file),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                *direct_refused = true;
                tracing::warn!(
                    "the file system of --ingest.path refuses direct I/O: writes go through the \
                     page cache, which costs processor time and memory"
                );
            }
            Err(e) => return Err(e),
        }
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::disk_health::{Change, DiskHealth};
    use engine::storage::{ObservedStorage, OsStorage};

    fn watch() -> Arc<DiskWatch> {
        Arc::new(DiskWatch::new(Arc::new(|| 7)))
    }

    #[test]
    fn want_of_descriptors_is_seen_though_one_of_the_two_opens_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let (path, disk) = (directory.path().join("segment"), watch());
        std::fs::write(&path, [0; 9]).unwrap();
        let watches = vec![(directory.path().to_owned(), Arc::clone(&disk))];
        let storage = ObservedStorage::new(Arc::new(OsStorage), watches);
        let want = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(open(&storage, &disk, (&path, 9), want).is_err());
        let judged = DiskHealth::of_process().look(7, &disk.calls());
        assert!(matches!(judged, Some(Change::Began(_))), "{judged:?}");
    }

    #[test]
    fn a_file_that_is_not_as_it_was_made_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        std::fs::write(&path, "another's").unwrap();
        let error = open(&OsStorage, &watch(), (&path, 512), || panic!("opened for writing"));
        assert_eq!(error.err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
