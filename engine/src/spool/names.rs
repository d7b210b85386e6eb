//! Whether files of what waits still have their names, also while nothing is written: somebody may take
//! them away, and no start would find them.
//!
//! Invariants: looking is bounded, and done without holding the spool; what cannot be looked up is not
//! gone. What can still be read without its name is written again; what cannot is known as lost until its
//! file is back, or done with.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::file::SpoolFile;
use super::{Spool, find};
use crate::storage::Storage;

/// Files that one look asks for.
const LOOKED_UP_AT_A_TIME: usize = 64;

/// Files to be looked up without holding the spool.
pub struct NamesJob {
    /// Sequence number, path, and how long it is at least, bytes.
    files: Vec<(u64, PathBuf, u64)>,
    storage: Arc<dyn Storage>,
}

/// What a job found of each file.
pub struct NamesFound(Vec<(u64, io::Result<()>)>);

impl NamesJob {
    /// Looks. Blocks.
    pub fn run(self) -> NamesFound {
        let look = |(sequence, path, len_bytes): (u64, PathBuf, u64)| {
            (sequence, find(&*self.storage, &path, len_bytes))
        };
        NamesFound(self.files.into_iter().map(look).collect())
    }
}

/// What a look brought.
#[derive(Debug, Default)]
pub struct NamesSeen {
    /// What is gone since the last look.
    pub gone: Option<io::Error>,
    /// Whether some of it was written again; where that failed it is to be done before the next sync.
    pub is_written_again: bool,
}

impl Spool {
    /// The next files that hold what is not handed over; `None`: there are none.
    pub fn names_job(&mut self) -> Option<NamesJob> {
        let files = &self.files;
        self.nameless.retain(|sequence| files.iter().any(|file| file.sequence == *sequence));
        let waits = |file: &&SpoolFile| {
            let is_whole = !file.is_unread && !file.sync_failed;
            is_whole && file.entries_end > self.mark.released
        };
        let files = |from: u64| self.files.iter().filter(move |file| file.sequence >= from);
        let next = self.names_next;
        let mut chosen: Vec<_> = files(next).filter(waits).take(LOOKED_UP_AT_A_TIME).collect();
        if chosen.len() < LOOKED_UP_AT_A_TIME {
            let before = files(0).take_while(|file| file.sequence < next).filter(waits);
            chosen.extend(before.take(LOOKED_UP_AT_A_TIME - chosen.len()));
        }
        let (last, storage) = (chosen.last()?.sequence, Arc::clone(&self.storage));
        let files = chosen.iter().map(|f| (f.sequence, f.path.clone(), f.len_bytes)).collect();
        self.names_next = last + 1;
        Some(NamesJob { files, storage })
    }

    /// Takes what a job found.
    pub fn on_names(&mut self, found: NamesFound) -> NamesSeen {
        let mut seen = NamesSeen::default();
        let mut first_open = None;
        for (sequence, found) in found.0 {
            // What is done with is gone as it should be.
            let file = self.files.iter().find(|file| file.sequence == sequence);
            let Some(file) = file.filter(|file| file.entries_end > self.mark.released) else {
                continue;
            };
            match found {
                Ok(()) => {
                    self.nameless.remove(&sequence);
                }
                Err(error) => {
                    if file.file.is_some() {
                        first_open.get_or_insert(sequence);
                    } else if !self.nameless.insert(sequence) {
                        continue;
                    }
                    seen.gone.get_or_insert(error);
                }
            }
        }
        if let Some(first) = first_open {
            let from_there = self.files.iter_mut().filter(|file| file.sequence >= first);
            from_there.for_each(|file| file.is_named = false);
            seen.is_written_again = self.write_again(first).is_ok();
        }
        seen
    }

    /// Files that hold what is not handed over and have lost their names.
    pub fn nameless_files(&self) -> usize {
        self.nameless.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{entry, open, sync};
    use super::*;
    use crate::storage::sim::SimStorage;

    fn look(spool: &mut Spool) -> NamesSeen {
        let found = spool.names_job().expect("something waits").run();
        spool.on_names(found)
    }

    /// The files that hold entries.
    fn files(disk: &SimStorage) -> Vec<PathBuf> {
        let mut files = disk.files();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        files
    }

    #[test]
    fn a_file_that_nobody_has_open_is_known_as_gone_once_until_it_is_back() {
        let disk = SimStorage::new(1);
        let mut spool = open(&disk);
        spool.append(&entry(1, 100), false).unwrap();
        sync(&mut spool).unwrap();
        drop(spool);
        let mut spool = open(&disk);
        sync(&mut spool).unwrap();
        assert!(look(&mut spool).gone.is_none());
        let path = files(&disk).remove(0);
        disk.rename(&path, Path::new("/elsewhere")).unwrap();
        let seen = look(&mut spool);
        assert!(seen.gone.is_some() && !seen.is_written_again);
        assert!(look(&mut spool).gone.is_none(), "told once");
        assert_eq!(spool.nameless_files(), 1);
        disk.rename(Path::new("/elsewhere"), &path).unwrap();
        assert!(look(&mut spool).gone.is_none());
        assert_eq!(spool.nameless_files(), 0);
        let (number, _) = spool.read_next().unwrap().unwrap();
        spool.release(number + 1).unwrap();
        assert!(spool.names_job().is_none(), "nothing waits any more");
    }

    #[test]
    fn a_file_that_is_open_is_written_again_under_another_name() {
        let disk = SimStorage::new(1);
        let mut spool = open(&disk);
        spool.append(&entry(1, 100), false).unwrap();
        sync(&mut spool).unwrap();
        disk.remove(&files(&disk)[0]).unwrap();
        let seen = look(&mut spool);
        assert!(seen.gone.is_some() && seen.is_written_again);
        sync(&mut spool).unwrap();
        assert!(look(&mut spool).gone.is_none());
        drop(spool);
        let mut spool = open(&disk.crash(1));
        assert_eq!(spool.read_next().unwrap().unwrap().1, entry(1, 100));
    }
}
