//! `oklogd restore PATH…`: adopts copied segments into a store directory, offline.
//!
//! Invariants: the store directory is locked meanwhile, and not made when there is nothing to
//! restore; one line per file on standard output (with `--json` one object at the end) says what
//! became of it; a damaged file is told with offset and loss and does not stop the others.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::restore::{Given, Restore, Verdict};
use engine::storage::OsStorage;
use engine::store::StoreDirectory;
use engine::store::name::{IdSource, TRASHED};

use engine::damage::Damage;
use engine::ulid::Ulid;
use net::wall_clock::now_ms;
use serde_json::{Value, json};

use super::fsck::span;
use crate::exit::Exit;
use crate::lock::{DirectoryLock, LockError};
use crate::output;
use crate::settings::Settings;
use crate::terminal::Progress;
use crate::units::format_duration;

/// Where ingest segments are recovered before they are merged, inside the store directory.
const SCRATCH: &str = ".oklogd-restore";
/// Directories that a data directory holds.
const SUBDIRECTORIES: [&str; 2] = ["ingest", "store"];

const DAY_MS: u64 = 86_400_000;

/// What `restore` is told.
#[derive(Debug)]
pub(crate) struct RestoreConfig {
    store: PathBuf,
    retain: Duration,
    salvages: bool,
    as_json: bool,
    paths: Vec<PathBuf>,
}

impl RestoreConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::RESTORE`].
    pub(crate) fn new(settings: &Settings, paths: &[String]) -> Self {
        let store = settings.text("store.path").into();
        Self {
            store,
            retain: settings.duration("store.segment-retain"),
            salvages: settings.bool("salvage"),
            as_json: settings.bool("json"),
            paths: paths.iter().map(PathBuf::from).collect(),
        }
    }
}

/// Restores, and says by its exit code whether all of it could be taken.
pub(crate) fn run(config: &RestoreConfig) -> Exit {
    match restore(config) {
        Ok(tally) => tally.exit(),
        Err(words) => output::fail(Exit::Error, words),
    }
}

fn restore(config: &RestoreConfig) -> Result<Tally, String> {
    let mut tally = Tally::new(config.as_json);
    let files = Files::find(&config.paths, &mut tally);
    let adopted = if files.is_empty() { Vec::new() } else { adopt(config, &files, &mut tally)? };
    tally.finish(config, &adopted);
    Ok(tally)
}

/// Adopts the files; the newest record of each segment that the store has got.
fn adopt(config: &RestoreConfig, files: &Files, tally: &mut Tally) -> Result<Vec<Ulid>, String> {
    let store = &config.store;
    let unusable =
        |error: io::Error| format!("{} cannot be used (--store.path): {error}", store.display());
    let mut lock = DirectoryLock::make(store).map_err(|error| match error {
        LockError::Directory(_, error) => unusable(error),
        error => error.to_string(),
    })?;
    let directory = StoreDirectory::new(Arc::new(OsStorage), store.clone(), IdSource::random());
    let mut restore =
        Restore::open(Arc::new(directory), now_ms()).map_err(|error| error.to_string())?;
    if config.salvages {
        restore.salvage_damaged();
    }
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
    if !restore.adopted().is_empty() {
        lock.keep();
    }
    Ok(restore.adopted().to_vec())
}

/// How many adopted segments have expired already, and the retention that would keep them all.
fn expired(adopted: &[Ulid], retain: Duration, now_ms: u64) -> Option<(usize, Duration)> {
    let ages_ms = adopted.iter().map(|newest| now_ms.saturating_sub(newest.ms()));
    let expired = ages_ms.filter(|age_ms| u128::from(*age_ms) >= retain.as_millis());
    let (count, oldest_ms) = expired.fold((0, 0), |(n, oldest), age| (n + 1, age.max(oldest)));
    let enough = Duration::from_millis((oldest_ms / DAY_MS + 1) * DAY_MS);
    (count > 0).then_some((count, enough))
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
            match path.metadata() {
                Ok(meta) if meta.is_dir() => {
                    let before = (files.count(), tally.refused);
                    files.directory(path, &SUBDIRECTORIES, tally);
                    if (files.count(), tally.refused) == before {
                        let why = "there is no segment in it; give a segment, a directory of \
                                   segments or a data directory";
                        tally.tell(path, &Verdict::Failed(why.to_owned()));
                    }
                }
                // A link that is named here is meant; in data directories none is followed.
                Ok(_) => files.file(path.canonicalize().unwrap_or(path.clone()), true, tally),
                Err(error) => tally.tell(path, &Verdict::Failed(error.to_string())),
            }
        }
        // Whole ones first: what is in the trash may be in a published segment as well.
        files.store.sort_by_key(|path| path.extension().is_some_and(|e| e == TRASHED));
        files
    }

    fn count(&self) -> usize {
        self.store.len() + self.ingest.iter().map(Vec::len).sum::<usize>()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
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
            match path.metadata() {
                Ok(meta) if meta.is_file() => self.file(path, false, tally),
                Ok(_) if subdirectories.contains(&name) => self.directory(&path, &[], tally),
                Ok(_) => {}
                // It went while the directory was read: a node is at work in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tally.tell(&path, &Verdict::Failed(error.to_string())),
            }
        }
    }

    /// Sorts a file in; one that was named itself has to be a segment.
    fn file(&mut self, path: PathBuf, is_named: bool, tally: &mut Tally) {
        match Given::of(&path) {
            Given::Store => self.store.push(path),
            Given::Ingest(..) | Given::Tail | Given::TailAside => {
                match self.ingest.iter_mut().find(|group| group[0].parent() == path.parent()) {
                    Some(group) => group.push(path),
                    None => self.ingest.push(vec![path]),
                }
            }
            Given::Nothing if !is_named => {}
            Given::Unknown if !is_named => {
                tally.leave_out(&path);
            }
            Given::Nothing | Given::Unknown => tally.tell(&path, &Verdict::NotOurs),
        }
    }
}

/// What became of the files so far.
struct Tally {
    progress: Progress,
    /// With `--json`: the files.
    files: Option<Vec<Value>>,
    adopted: u64,
    records: u64,
    /// Damaged ones of which something was adopted.
    salvaged: u64,
    /// Those among them of which no record is lost.
    salvaged_whole: u64,
    there: u64,
    refused: u64,
    damaged: bool,
    failed: bool,
    /// Standard output is gone: the exit code still tells.
    silent: bool,
}

impl Tally {
    fn new(as_json: bool) -> Self {
        Self {
            progress: Progress::new("read"),
            files: as_json.then(Vec::new),
            adopted: 0,
            records: 0,
            salvaged: 0,
            salvaged_whole: 0,
            there: 0,
            refused: 0,
            damaged: false,
            failed: false,
            silent: false,
        }
    }

    fn tell(&mut self, path: &Path, verdict: &Verdict) {
        self.count(verdict);
        if let Some(files) = &mut self.files {
            files.push(object(path, verdict));
        } else {
            self.say(&words(path, verdict));
        }
        self.progress.add(path.metadata().map_or(0, |meta| meta.len()));
    }

    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Adopted(records) => {
                self.adopted += 1;
                self.records += records;
            }
            Verdict::Salvaged { records, damage } => {
                let loses = damage.iter().any(Damage::loses_records);
                self.records += records;
                self.damaged |= loses;
                if *records > 0 {
                    (self.salvaged, self.salvaged_whole) =
                        (self.salvaged + 1, self.salvaged_whole + u64::from(!loses));
                } else {
                    // What can be read of it is.
                    self.there += 1;
                }
            }
            Verdict::AlreadyThere => self.there += 1,
            Verdict::Empty => {}
            Verdict::Damaged(_) | Verdict::Lost(_) | Verdict::SetAside => {
                (self.refused, self.damaged) = (self.refused + 1, true);
            }
            Verdict::NotOurs | Verdict::Failed(_) => {
                (self.refused, self.failed) = (self.refused + 1, true);
            }
        }
    }

    /// A file in a given directory that is none of ours.
    fn leave_out(&mut self, path: &Path) {
        if let Some(files) = &mut self.files {
            files.push(json!({ "path": path.to_string_lossy(), "verdict": "left out" }));
        } else {
            self.say(&format!("{}: no file of ours, left out\n", path.display()));
        }
    }

    /// Sums up; `adopted` is the newest record of each segment that the store has got.
    fn finish(&mut self, config: &RestoreConfig, adopted: &[Ulid]) {
        let expired = expired(adopted, config.retain, now_ms());
        let (store, retain) = (config.store.display(), format_duration(config.retain));
        if let Some(files) = self.files.take() {
            let object = json!({
                "store": config.store.to_string_lossy(),
                "files": files,
                "adopted": self.adopted,
                "salvaged": self.salvaged,
                "salvaged_whole": self.salvaged_whole,
                "already_there": self.there,
                "refused": self.refused,
                "records": self.records,
                "expired_segments": expired.map_or(0, |(count, _)| count),
                "retain_needed": expired.map(|(_, enough)| format_duration(enough)),
            });
            return self.say(&format!("{object}\n"));
        }
        if let Some((count, enough)) = expired {
            let enough = format_duration(enough);
            self.say(&format!(
                "{count} of the new segments are older than --store.segment-retain ({retain}): the \
                 node will move them to the trash again when it starts; to keep them start it with \
                 --store.segment-retain {enough} or more\n"
            ));
        }
        let count = |count: u64, how: &str| match count {
            0 => String::new(),
            n => format!("{n} {how}, "),
        };
        let salvaged = count(self.salvaged - self.salvaged_whole, "salvaged in part")
            + &count(self.salvaged_whole, "salvaged without a loss");
        self.say(&format!(
            "{store}: {} files adopted, {salvaged}{} records in all, {} were there already, {} \
             refused\n",
            self.adopted, self.records, self.there, self.refused
        ));
    }

    fn say(&mut self, words: &str) {
        self.progress.clear();
        if self.silent {
            return;
        }
        if let Err(error) = output::stdout().write_all(words.as_bytes()) {
            self.silent = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                output::tell(format_args!("error: standard output: {error}"));
                self.failed = true;
            }
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

/// What became of a file, and where it was refused how to go on.
fn words(path: &Path, verdict: &Verdict) -> String {
    let spans = |damage: &[Damage]| {
        let lines: Vec<String> = damage.iter().map(|d| format!("{d}\n")).collect();
        lines.concat()
    };
    let (path_words, given) = (path.display(), Given::of(path));
    match verdict {
        Verdict::Adopted(records) => {
            let is_trashed = path.extension().is_some_and(|e| e == TRASHED);
            let (from, copy) = if is_trashed {
                (" out of the trash", "; a copy: this file stays in the trash until it is purged")
            } else {
                ("", "")
            };
            format!("{path_words}: adopted{from}, {records} records{copy}\n")
        }
        Verdict::AlreadyThere => format!("{path_words}: its records are in the store already\n"),
        Verdict::Empty => format!("{path_words}: holds no record\n"),
        Verdict::Salvaged { records: 0, damage } => {
            let spans = spans(damage);
            format!("{spans}{path_words}: damaged; nothing else is readable that the store lacks\n")
        }
        Verdict::Salvaged { records, damage } => {
            let spans = spans(damage);
            let how = if damage.iter().any(Damage::loses_records) {
                "damaged; what is readable was adopted"
            } else {
                "damaged where no record is; all of it was adopted"
            };
            format!("{spans}{path_words}: {how}, {records} records\n")
        }
        Verdict::Damaged(damage) => {
            let how = match given {
                Given::Store => "with --salvage what is readable of it is adopted",
                _ => "a node that finds it in its --ingest.path takes what is readable of it",
            };
            let spans = spans(damage);
            format!("{spans}{path_words}: damaged, nothing of it was adopted; {how}\n")
        }
        Verdict::Lost(damage) => {
            let spans = spans(damage);
            format!(
                "{spans}{path_words}: damaged, nothing of it is readable, nothing was adopted\n"
            )
        }
        Verdict::SetAside => format!(
            "{path_words}: was set aside as damaged before, not adopted; what was readable of it \
             went to the store of its node then\n"
        ),
        Verdict::NotOurs => format!("{path_words}: no segment, not adopted\n"),
        Verdict::Failed(why) => format!("{path_words}: not adopted: {why}\n"),
    }
}

fn object(path: &Path, verdict: &Verdict) -> Value {
    let (what, records, damage, why): (_, _, &[Damage], _) = match verdict {
        Verdict::Adopted(records) => ("adopted", *records, &[], None),
        Verdict::Salvaged { records: 0, damage } => ("already there", 0, damage, None),
        Verdict::Salvaged { records, damage } => ("salvaged", *records, damage, None),
        Verdict::AlreadyThere => ("already there", 0, &[], None),
        Verdict::Empty => ("empty", 0, &[], None),
        Verdict::Damaged(damage) | Verdict::Lost(damage) => ("damaged", 0, damage, None),
        Verdict::SetAside => ("set aside before", 0, &[], None),
        Verdict::NotOurs => ("no segment", 0, &[], None),
        Verdict::Failed(why) => ("failed", 0, &[], Some(why)),
    };
    json!({
        "path": path.to_string_lossy(),
        "verdict": what,
        "records": records,
        "damage": damage.iter().map(span).collect::<Vec<_>>(),
        "why": why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::damage::DamageKind;

    #[test]
    fn expired_segments_are_counted_and_the_retention_that_keeps_them_is_named() {
        let newest = |days: u64| Ulid::from_parts((100 - days) * DAY_MS, 1, 1);
        let now_ms = 100 * DAY_MS;
        let week = Duration::from_millis(7 * DAY_MS);
        let days = |days: u64| Duration::from_millis(days * DAY_MS);
        assert_eq!(expired(&[], week, now_ms), None);
        assert_eq!(expired(&[newest(6)], week, now_ms), None);
        assert_eq!(expired(&[newest(7), newest(3)], week, now_ms), Some((1, days(8))));
        assert_eq!(expired(&[newest(9), newest(30)], week, now_ms), Some((2, days(31))));
    }

    #[test]
    fn a_salvaged_file_is_summed_up_as_what_became_of_it() {
        let path = Path::new("x.flushed");
        let damage = |kind, records| Damage {
            path: path.into(),
            offset: 0,
            len_bytes: 1,
            range: None,
            records,
            kind,
        };
        let in_part = damage(DamageKind::Checksum("block text"), Some(3));
        let nowhere = damage(DamageKind::Dispensable("signature"), Some(0));
        for (records, damage, (counts, exit), said) in [
            (9, &in_part, ((1, 0, 0), Exit::Damage), "what is readable was adopted, 9 records"),
            (0, &in_part, ((0, 0, 1), Exit::Damage), "nothing else is readable"),
            (9, &nowhere, ((1, 1, 0), Exit::Done), "all of it was adopted, 9 records"),
            (0, &nowhere, ((0, 0, 1), Exit::Done), "nothing else is readable"),
        ] {
            let verdict = Verdict::Salvaged { records, damage: vec![damage.clone()] };
            let mut tally = Tally::new(true);
            tally.count(&verdict);
            assert_eq!((tally.salvaged, tally.salvaged_whole, tally.there), counts, "{damage}");
            assert_eq!(tally.exit(), exit, "{damage}");
            assert!(words(path, &verdict).contains(said), "{}", words(path, &verdict));
        }
    }

    #[test]
    fn a_total_loss_is_refused_and_told_as_one() {
        let path = Path::new("x.flushed");
        let verdict = Verdict::Lost(Vec::new());
        let mut tally = Tally::new(true);
        tally.count(&verdict);
        assert_eq!((tally.salvaged, tally.there, tally.refused), (0, 0, 1));
        assert_eq!(tally.exit(), Exit::Damage);
        let said = words(path, &verdict);
        assert!(said.contains("nothing of it is readable"), "{said}");
        assert!(!said.contains("--salvage"), "it was asked for: {said}");
        assert_eq!(object(path, &verdict)["verdict"], "damaged");
    }

    #[test]
    fn a_refused_file_comes_with_a_way_on() {
        let store =
            "00000000050000000000000000-00000000050000000000000000-00000000000000ab.flushed";
        let damaged = Verdict::Damaged(Vec::new());
        assert!(
            words(Path::new(store), &damaged).contains("nothing of it was adopted; with --salvage")
        );
        let ingest = "01ARZ3NDEKTSV4RRFFQ69G5FAV.flushed";
        assert!(words(Path::new(ingest), &damaged).contains("--ingest.path"));
    }
}
