//! `oklogd restore PATH…`: adopts copied segments into a store directory, offline.
//!
//! Invariants: the store directory is locked meanwhile; one line per file on standard output says
//! what became of it; a damaged file is told with offset and loss and does not stop the others.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::restore::{Given, Restore, Verdict};
use engine::storage::OsStorage;
use engine::store::StoreDirectory;
use engine::store::name::IdSource;

use crate::exit::Exit;
use crate::node::lock::DirectoryLock;
use crate::settings::Settings;
use crate::terminal::Progress;

/// Where ingest segments are recovered before they are merged, inside the store directory.
const SCRATCH: &str = ".oklogd-restore";
/// Directories that a data directory holds.
const SUBDIRECTORIES: [&str; 2] = ["ingest", "store"];

/// What `restore` is told.
#[derive(Debug)]
pub(crate) struct RestoreConfig {
    store: PathBuf,
    paths: Vec<PathBuf>,
}

impl RestoreConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::RESTORE`].
    pub(crate) fn new(settings: &Settings, paths: &[String]) -> Self {
        let store = settings.text("store.path").into();
        Self { store, paths: paths.iter().map(PathBuf::from).collect() }
    }
}

/// Restores, and says by its exit code whether all of it could be taken.
pub(crate) fn run(config: &RestoreConfig) -> Exit {
    match restore(config) {
        Ok(tally) => tally.exit(),
        Err(words) => {
            eprintln!("error: {words}");
            Exit::Error
        }
    }
}

fn restore(config: &RestoreConfig) -> Result<Tally, String> {
    let store = &config.store;
    let unusable =
        |error: io::Error| format!("{} cannot be used (--store.path): {error}", store.display());
    std::fs::create_dir_all(store).map_err(unusable)?;
    let _lock = DirectoryLock::take(store).map_err(|error| error.to_string())?;
    let directory = StoreDirectory {
        storage: Arc::new(OsStorage),
        path: store.clone(),
        ids: IdSource::random(),
    };
    let now_ms = net::shard::Clock::start().now().wall_ms;
    let mut restore =
        Restore::open(Arc::new(directory), now_ms).map_err(|error| error.to_string())?;
    let mut tally = Tally::new();
    let files = Files::find(&config.paths, &mut tally);
    for path in &files.store {
        let verdict = restore.store_segment(path);
        tally.tell(path, &verdict);
    }
    for group in &files.ingest {
        let scratch = store.join(SCRATCH);
        // What a restore that was killed has left.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir(&scratch).map_err(unusable)?;
        restore.ingest_segments(group, &scratch, &mut |path, verdict| tally.tell(path, &verdict));
        let _ = std::fs::remove_dir_all(&scratch);
    }
    tally.say(&format!(
        "{}: {} files adopted with {} records, {} were there already, {} refused\n",
        store.display(),
        tally.adopted,
        tally.records,
        tally.there,
        tally.refused
    ));
    Ok(tally)
}

/// The files behind the arguments.
#[derive(Default)]
struct Files {
    store: Vec<PathBuf>,
    /// Files of the ingest side, by directory.
    ingest: Vec<Vec<PathBuf>>,
}

impl Files {
    fn find(paths: &[PathBuf], tally: &mut Tally) -> Self {
        let mut files = Self::default();
        for path in paths {
            if path.is_dir() {
                files.directory(path, &SUBDIRECTORIES, tally);
            } else {
                files.file(path.clone(), true, tally);
            }
        }
        files
    }

    fn directory(&mut self, path: &Path, subdirectories: &[&str], tally: &mut Tally) {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries.flatten(),
            Err(error) => return tally.tell(path, &Verdict::Failed(error.to_string())),
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_file() {
                self.file(path, false, tally);
            } else if subdirectories.contains(&name) {
                self.directory(&path, &[], tally);
            }
        }
    }

    /// Sorts a file in; one that was named itself has to be a segment.
    fn file(&mut self, path: PathBuf, is_named: bool, tally: &mut Tally) {
        match Given::of(&path) {
            Given::Store => self.store.push(path),
            Given::Ingest(..) | Given::Tail => {
                match self.ingest.iter_mut().find(|group| group[0].parent() == path.parent()) {
                    Some(group) => group.push(path),
                    None => self.ingest.push(vec![path]),
                }
            }
            Given::Nothing if !is_named => {}
            Given::Unknown if !is_named => {
                tally.say(&format!("{}: no file of ours, left out\n", path.display()));
            }
            Given::Nothing | Given::Unknown => tally.tell(&path, &Verdict::NotOurs),
        }
    }
}

/// What became of the files so far.
struct Tally {
    progress: Progress,
    adopted: u64,
    records: u64,
    there: u64,
    refused: u64,
    damaged: bool,
    failed: bool,
    /// Standard output is gone: the exit code still tells.
    silent: bool,
}

impl Tally {
    fn new() -> Self {
        Self {
            progress: Progress::new("read"),
            adopted: 0,
            records: 0,
            there: 0,
            refused: 0,
            damaged: false,
            failed: false,
            silent: false,
        }
    }

    fn tell(&mut self, path: &Path, verdict: &Verdict) {
        let path_words = path.display();
        let words = match verdict {
            Verdict::Adopted(records) => {
                self.adopted += 1;
                self.records += records;
                format!("{path_words}: adopted, {records} records\n")
            }
            Verdict::AlreadyThere => {
                self.there += 1;
                format!("{path_words}: its records are in the store already\n")
            }
            Verdict::Empty => format!("{path_words}: holds no record\n"),
            Verdict::Damaged(damage) => {
                (self.refused, self.damaged) = (self.refused + 1, true);
                let spans: Vec<String> = damage.iter().map(ToString::to_string).collect();
                let spans = spans.join("\n");
                format!("{spans}\n{path_words}: damaged, not adopted\n")
            }
            Verdict::SetAside => {
                (self.refused, self.damaged) = (self.refused + 1, true);
                format!("{path_words}: was set aside as damaged before, not adopted\n")
            }
            Verdict::NotOurs => {
                (self.refused, self.failed) = (self.refused + 1, true);
                format!("{path_words}: no segment, not adopted\n")
            }
            Verdict::Failed(why) => {
                (self.refused, self.failed) = (self.refused + 1, true);
                format!("{path_words}: not adopted: {why}\n")
            }
        };
        self.say(&words);
        self.progress.add(path.metadata().map_or(0, |meta| meta.len()));
    }

    fn say(&mut self, words: &str) {
        self.progress.clear();
        if !self.silent {
            self.silent = io::stdout().write_all(words.as_bytes()).is_err();
        }
    }

    const fn exit(&self) -> Exit {
        match (self.failed, self.damaged) {
            (true, _) => Exit::Error,
            (false, true) => Exit::Damage,
            (false, false) => Exit::Done,
        }
    }
}
