//! Checks every byte that means something in a data directory, offline and read-only.
//!
//! Each kind of file has one function here that lists what it holds and what is damaged, with the
//! offset and what is lost. Redundant parts (a block header that the index repeats, say) are
//! checked too: their damage costs no record yet, and says so.
//!
//! Invariants: nothing is ever written; a file that is no file of ours is listed as unknown and
//! is not an error; one unreadable file or directory does not stop the check of the
//! others; what a running node takes away meanwhile is left out.

mod store;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::damage::{Damage, DamageKind};
use crate::identity::{self, IDENTITY_FILE, IDENTITY_NEW_FILE, Identity, Side};
use crate::ingest::check::{Checked, check_segment, check_tail};
use crate::ingest::known_topics::{self, TOPICS_FILE, TOPICS_NEW_FILE};
use crate::ingest::segment::{SegmentState, parse_file_name};
use crate::ingest::stamp_mark::{STAMP_MARK_FILE, STAMP_MARK_NEW_FILE, check_mark};
use crate::ingest::tail;
use crate::ingest::waiting::{self, WAITING_FILE, WAITING_NEW_FILE};
use crate::spool::check::{self as spool, CheckedSpool, SpoolFileKind};
use crate::storage::Refusal;
use crate::storage::{Bytes, Entry, FileBytes, Open, Storage};
use crate::store::inventory::look::check as check_inventory;
use crate::store::inventory::{INVENTORY_FILE, INVENTORY_NEW_FILE};
use crate::store::name::Name;

use store::{SegmentCheck, of_file};

/// Directories that a data directory holds unless flags name others: those are known by what is in them.
const SUBDIRECTORIES: [&str; 3] = ["ingest", "store", "spool"];

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// An ingest segment, and its state.
    IngestSegment(SegmentState),
    /// The tail file of a shard.
    IngestTail,
    /// One that was set aside because it is damaged.
    IngestTailAside,
    /// One that was not finished: it holds nothing.
    IngestTailUnfinished,
    /// Which stamps the ingester has given.
    StampMark,
    /// A mark that was not finished: it means nothing.
    StampMarkUnfinished,
    /// Which topics an ingester knows.
    Topics,
    /// A list of topics that was not finished: it means nothing.
    TopicsUnfinished,
    /// What waited in an ingest directory when its node stopped.
    Waiting,
    /// Such a list that was not finished: it means nothing.
    WaitingUnfinished,
    /// Who the directory is.
    Identity,
    /// An identity that was not finished: it means nothing.
    IdentityUnfinished,
    /// What was published in a store directory.
    Inventory,
    /// An inventory that was not finished: it means nothing.
    InventoryUnfinished,
    /// A published store segment.
    StoreSegment,
    /// A store segment in the trash.
    StoreTrashed,
    /// A store segment that was set aside because a whole copy of it was restored.
    StoreSetAside,
    /// A store segment that was being written: the next start removes it.
    StoreUnfinished,
    /// Lines of a forwarder that wait to be sent.
    Spool,
    /// A file of a spool that the forwarder passed over because it could not be read.
    SpoolPassedOver,
    /// A file of a spool that was set aside because something in it is damaged.
    SpoolSetAside,
    /// Up to where the lines of a spool are handed over.
    SpoolMark,
    /// The lock of a directory.
    Lock,
    /// What a node tried the disk with when it ended.
    Probe,
    /// That the clock was set.
    ClockNote,
    /// Not a file of ours.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IngestSegment(SegmentState::Active) => "active ingest segment",
            Self::IngestSegment(SegmentState::Flushed) => "flushed ingest segment",
            Self::IngestSegment(SegmentState::Pending) => "pending ingest segment",
            Self::IngestSegment(SegmentState::Damaged) => "ingest segment that was set aside",
            Self::IngestTail => "tail file",
            Self::IngestTailAside => "tail file that was set aside",
            Self::IngestTailUnfinished => "unfinished tail file",
            Self::StampMark => "mark of stamps",
            Self::StampMarkUnfinished => "unfinished mark of stamps",
            Self::Topics => "list of topics",
            Self::TopicsUnfinished => "unfinished list of topics",
            Self::Waiting => "list of what waits",
            Self::WaitingUnfinished => "unfinished list of what waits",
            Self::Identity => "identity",
            Self::IdentityUnfinished => "unfinished identity",
            Self::Inventory => "inventory",
            Self::InventoryUnfinished => "unfinished inventory",
            Self::StoreSegment => "store segment",
            Self::StoreTrashed => "store segment in the trash",
            Self::StoreSetAside => "store segment that was set aside",
            Self::StoreUnfinished => "unfinished store segment",
            Self::Spool => "spool file",
            Self::SpoolPassedOver => "spool file that could not be read when it was its turn",
            Self::SpoolSetAside => "spool file that was set aside",
            Self::SpoolMark => "mark of a spool",
            Self::Lock => "lock",
            Self::Probe => "probe of the disk",
            Self::ClockNote => "note that the clock was set",
            Self::Unknown => "unknown",
        })
    }
}

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// Records in it that are whole.
    pub record_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Whose directory it is in, if it says so.
    pub identity: Option<Identity>,
}

/// What was found out about all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Per file, by path.
    pub files: Vec<FileReport>,
    /// Spools among them, by path.
    pub spools: Vec<SpoolReport>,
}

/// What waits in a forwarder's spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolReport {
    /// Its directory.
    pub path: PathBuf,
    /// Lines that can be read and are not handed over.
    pub waiting_lines: u64,
}

impl FileKind {
    /// Whether records may be lost with it, as opposed to what is known of them.
    const fn may_hold_records(self) -> bool {
        !matches!(
            self,
            Self::StampMark | Self::Topics | Self::Waiting | Self::Identity | Self::Inventory
        )
    }

    /// Whether a node or forwarder put it aside, for an operator to look at.
    pub const fn is_set_aside(self) -> bool {
        matches!(
            self,
            Self::IngestSegment(SegmentState::Damaged)
                | Self::IngestTailAside
                | Self::StoreSetAside
                | Self::SpoolSetAside
        )
    }
}

impl Report {
    /// Whether there is anything of a node or forwarder to check.
    pub fn has_data(&self) -> bool {
        !self.spools.is_empty()
            || self
                .files
                .iter()
                .any(|file| file.kind != FileKind::Unknown || !file.damage.is_empty())
    }

    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.files.iter().all(|file| file.damage.is_empty())
    }

    /// All damages.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.files.iter().flat_map(|file| &file.damage)
    }

    /// Whole records in all files; copies count each.
    pub fn record_count(&self) -> u64 {
        self.files.iter().map(|file| file.record_count).sum()
    }
}

/// Checks a data directory, one of its directories, a forwarder's spool, or one file. An error:
/// there is no such path or it cannot be listed.
pub fn check(storage: &dyn Storage, path: &Path) -> io::Result<Report> {
    check_with(storage, path, &mut |_| {})
}

/// [`check`] that tells each file's report as soon as it is made.
pub fn check_with(
    storage: &dyn Storage,
    path: &Path,
    on_file: &mut dyn FnMut(&FileReport),
) -> io::Result<Report> {
    let (stores, report) = (Vec::new(), Report::default());
    let mut check = Check { storage, on_file, stores, report };
    match storage.list(path) {
        Ok(entries) => {
            check.stores = stores_in(storage, path, &entries);
            check.directory(path, entries, true);
        }
        Err(not_a_directory) => match storage.open(path, Open::Read).and_then(|f| f.len()) {
            Ok(len_bytes) => check.file(path.to_owned(), len_bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            Err(_) => return Err(not_a_directory),
        },
    }
    let mut report = check.report;
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    report.spools.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

/// A check on its way.
struct Check<'a> {
    storage: &'a dyn Storage,
    on_file: &'a mut dyn FnMut(&FileReport),
    /// Store directories of the data directory: what waited beside them may be there.
    stores: Vec<PathBuf>,
    report: Report,
}

impl Check<'_> {
    fn add(&mut self, file: FileReport) {
        let is_gone = |damage: &Damage| damage.refusal().is_some_and(Refusal::is_absence);
        if !file.damage.is_empty() && file.damage.iter().all(is_gone) {
            // A node or forwarder renamed or removed it after it was listed.
            return;
        }
        (self.on_file)(&file);
        self.report.files.push(file);
    }

    /// Checks what a directory holds; of the directories in it those that a data directory has, if
    /// it may be one.
    fn directory(&mut self, path: &Path, entries: Vec<Entry>, is_outermost: bool) {
        let is_spool = self.is_spool(path, &entries);
        if is_spool {
            let checked = spool::check_spool(self.storage, path, &entries);
            let waiting_lines = checked.waiting_lines;
            self.report.spools.push(SpoolReport { path: path.to_owned(), waiting_lines });
            self.add_spool_files(checked);
        }
        let is_side = !is_outermost
            || entries.iter().any(|entry| entry.name.as_deref().is_some_and(is_nobody_elses));
        let side = side_of(path, &entries, is_outermost);
        for entry in entries {
            let Some(name) = entry.name else {
                let path = path.join("(a name that is not UTF-8)");
                self.add(unknown(path, entry.len_bytes));
                continue;
            };
            let path = path.join(&name);
            if entry.is_file {
                if !is_spool || SpoolFileKind::of(&name).is_none() {
                    let report = self.check_file(path, entry.len_bytes);
                    self.add(tell_other_side(report, side));
                }
                continue;
            }
            if is_segment_name(&name) || is_side && is_needed_name(&name) {
                // Told as what it is: opening it is refused.
                let report = self.check_file(path, entry.len_bytes);
                self.add(report);
                continue;
            }
            let is_ours = is_outermost && SUBDIRECTORIES.contains(&name.as_str());
            match self.storage.list(&path) {
                Ok(entries) if is_ours || (is_outermost && self.holds_ours(&path, &entries)) => {
                    self.directory(&path, entries, false);
                }
                Err(e) if is_ours => {
                    let damage = of_file(&path, DamageKind::Unread(Refusal::from(&e)));
                    self.add(FileReport { damage: vec![damage], ..unknown(path, 0) });
                }
                _ => self.add(unknown(path, entry.len_bytes)),
            }
        }
    }

    /// Whether a directory under any name is a spool or one side of a node.
    fn holds_ours(&self, path: &Path, entries: &[Entry]) -> bool {
        let mut names = entries.iter().filter_map(|entry| entry.name.as_deref());
        names.any(is_nobody_elses) || self.is_spool(path, entries)
    }

    fn is_spool(&self, path: &Path, entries: &[Entry]) -> bool {
        spool::is_spool(self.storage, path, entries)
    }

    /// Checks a file that was named by itself.
    fn file(&mut self, path: PathBuf, len_bytes: u64) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SpoolFileKind::of(name).is_some() {
            return self.add_spool_files(spool::check_spool_file(self.storage, &path, len_bytes));
        }
        let report = self.check_file(path, len_bytes);
        self.add(report);
    }

    fn check_file(&self, path: PathBuf, len_bytes: u64) -> FileReport {
        check_file(self.storage, path, len_bytes, &self.stores)
    }

    fn add_spool_files(&mut self, checked: CheckedSpool) {
        for file in checked.files {
            self.add(FileReport {
                path: file.path,
                kind: match file.kind {
                    SpoolFileKind::Entries => FileKind::Spool,
                    SpoolFileKind::PassedOver { .. } => FileKind::SpoolPassedOver,
                    SpoolFileKind::SetAside => FileKind::SpoolSetAside,
                    SpoolFileKind::Mark => FileKind::SpoolMark,
                },
                file_bytes: file.file_bytes,
                record_count: file.line_count,
                damage: file.damage,
                identity: None,
            });
        }
    }
}

/// Store directories in a data directory.
fn stores_in(storage: &dyn Storage, path: &Path, entries: &[Entry]) -> Vec<PathBuf> {
    let directories = entries.iter().filter(|entry| !entry.is_file);
    let paths = directories.filter_map(|entry| Some(path.join(entry.name.as_deref()?)));
    let is_store = |path: &PathBuf| {
        let is_of = |entries: Vec<Entry>| side_of(path, &entries, false) == Some(Side::Store);
        storage.list(path).is_ok_and(is_of)
    };
    paths.filter(is_store).collect()
}

/// Which side's directory this is by what is in it; where there is nothing, by its name in a data
/// directory. `None`: nobody knows.
fn side_of(path: &Path, entries: &[Entry], is_outermost: bool) -> Option<Side> {
    let names = || entries.iter().filter_map(|entry| entry.name.as_deref());
    let holds = |is_of: &dyn Fn(&str) -> bool| names().any(is_of);
    let of_ingest = |name: &str| {
        name == STAMP_MARK_FILE || parse_file_name(name).is_some() || is_tail_name(name)
    };
    let of_store = |name: &str| {
        use Name::{Flushed, Inventory, Trashed, Writing};
        matches!(Name::parse(name), Some(Flushed { .. } | Trashed { .. } | Writing(_) | Inventory))
    };
    let name = path.file_name().filter(|_| !is_outermost).and_then(|name| name.to_str());
    match (holds(&of_ingest), holds(&of_store), name) {
        (true, false, _) | (false, false, Some("ingest")) => Some(Side::Ingest),
        (false, true, _) | (false, false, Some("store")) => Some(Side::Store),
        _ => None,
    }
}

/// An identity of the other side: no node starts with it.
fn tell_other_side(mut report: FileReport, side: Option<Side>) -> FileReport {
    if let (Some(found), Some(side)) = (report.identity, side)
        && found.side != side
    {
        let whose = match found.side {
            Side::Ingest => "an ingester",
            Side::Store => "a store",
        };
        let kind = DamageKind::Foreign("identity", whose);
        let damage = of_file(&report.path, kind);
        report.damage.push(Damage { records: Some(0), ..damage });
    }
    report
}

const fn unknown(path: PathBuf, file_bytes: u64) -> FileReport {
    FileReport {
        path,
        kind: FileKind::Unknown,
        file_bytes,
        record_count: 0,
        damage: Vec::new(),
        identity: None,
    }
}

fn check_file(
    storage: &dyn Storage,
    path: PathBuf,
    file_bytes: u64,
    stores: &[PathBuf],
) -> FileReport {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some((id, state)) = parse_file_name(name) {
        let checked = check_segment(storage, &path, id, state);
        return checked_file(path, file_bytes, FileKind::IngestSegment(state), checked);
    }
    if is_tail_name(name) {
        let checked = check_tail(storage, &path);
        let is_aside = !tail::is_file_name(name);
        let kind = if is_aside { FileKind::IngestTailAside } else { FileKind::IngestTail };
        return checked_file(path, file_bytes, kind, checked);
    }
    if name == IDENTITY_FILE {
        let checked = identity::check(storage, &path);
        let found = checked.as_ref().ok().and_then(|(found, _)| *found);
        let checked = checked.map(|(_, damage)| Checked { damage, ..Checked::default() });
        let report = checked_file(path, file_bytes, FileKind::Identity, checked);
        return FileReport { identity: found, ..report };
    }
    if let Some((kind, damage)) = check_small(storage, &path, name, stores) {
        let checked = damage.map(|damage| Checked { damage, ..Checked::default() });
        return checked_file(path, file_bytes, kind, checked);
    }
    if let Some(kind) = unfinished(name) {
        return FileReport { kind, ..unknown(path, file_bytes) };
    }
    match Name::parse(name) {
        Some(Name::Flushed { .. }) => {
            check_store_segment(storage, path, file_bytes, FileKind::StoreSegment)
        }
        Some(Name::Trashed { .. }) => {
            check_store_segment(storage, path, file_bytes, FileKind::StoreTrashed)
        }
        Some(Name::Writing(_)) => {
            FileReport { kind: FileKind::StoreUnfinished, ..unknown(path, file_bytes) }
        }
        Some(Name::Lock) => FileReport { kind: FileKind::Lock, ..unknown(path, file_bytes) },
        None if is_set_aside(name) => {
            FileReport { kind: FileKind::StoreSetAside, ..unknown(path, file_bytes) }
        }
        Some(Name::Probe) => FileReport { kind: FileKind::Probe, ..unknown(path, file_bytes) },
        Some(Name::ClockNote) => {
            FileReport { kind: FileKind::ClockNote, ..unknown(path, file_bytes) }
        }
        Some(Name::Identity | Name::Inventory) | None => unknown(path, file_bytes),
    }
}

/// One of the small files, and what is wrong with it.
fn check_small(
    storage: &dyn Storage,
    path: &Path,
    name: &str,
    stores: &[PathBuf],
) -> Option<(FileKind, io::Result<Vec<Damage>>)> {
    Some(match name {
        STAMP_MARK_FILE => (FileKind::StampMark, check_mark(storage, path)),
        INVENTORY_FILE => (FileKind::Inventory, check_inventory(storage, path)),
        TOPICS_FILE => (FileKind::Topics, known_topics::check(storage, path)),
        WAITING_FILE => {
            let stores: Vec<&Path> = stores.iter().map(PathBuf::as_path).collect();
            (FileKind::Waiting, waiting::check(storage, path, &stores))
        }
        _ => return None,
    })
}

/// One of the small files before it was whole.
fn unfinished(name: &str) -> Option<FileKind> {
    Some(match name {
        STAMP_MARK_NEW_FILE => FileKind::StampMarkUnfinished,
        WAITING_NEW_FILE => FileKind::WaitingUnfinished,
        TOPICS_NEW_FILE => FileKind::TopicsUnfinished,
        INVENTORY_NEW_FILE => FileKind::InventoryUnfinished,
        IDENTITY_NEW_FILE => FileKind::IdentityUnfinished,
        _ if tail::is_new_file_name(name) => FileKind::IngestTailUnfinished,
        _ => return None,
    })
}

fn is_segment_name(name: &str) -> bool {
    parse_file_name(name).is_some() || matches!(Name::parse(name), Some(Name::Flushed { .. }))
}

/// Whether a node needs what has this name in a side's directory to be a file of its own.
fn is_needed_name(name: &str) -> bool {
    [STAMP_MARK_FILE, TOPICS_FILE, WAITING_FILE, IDENTITY_FILE, INVENTORY_FILE].contains(&name)
        || is_tail_name(name)
}

/// Whether it is the name of a tail file, or of one that was set aside.
fn is_tail_name(name: &str) -> bool {
    tail::is_file_name(name) || tail::parse_aside_file_name(name).is_some()
}

/// Whether nobody but a node gives this name. A lock, say, may be anybody's.
fn is_nobody_elses(name: &str) -> bool {
    use Name::{Flushed, Trashed, Writing};
    parse_file_name(name).is_some()
        || is_tail_name(name)
        || is_set_aside(name)
        || matches!(Name::parse(name), Some(Flushed { .. } | Trashed { .. } | Writing(_)))
}

/// Whether a file of the store directory was set aside by a restore.
fn is_set_aside(name: &str) -> bool {
    name.strip_suffix(".damaged")
        .is_some_and(|name| matches!(Name::parse(name), Some(Name::Flushed { .. })))
}

/// Reports on a file that was checked.
fn checked_file(
    path: PathBuf,
    file_bytes: u64,
    kind: FileKind,
    checked: io::Result<Checked>,
) -> FileReport {
    match checked {
        Ok(checked) => {
            let (record_count, damage) = (checked.record_count, checked.damage);
            FileReport { kind, record_count, damage, ..unknown(path, file_bytes) }
        }
        Err(e) => {
            let records = (!kind.may_hold_records()).then_some(0);
            let damage = Damage { records, ..of_file(&path, Refusal::from(&e).into()) };
            FileReport { kind, damage: vec![damage], ..unknown(path, file_bytes) }
        }
    }
}

/// Checks a store segment, published or in the trash.
fn check_store_segment(
    storage: &dyn Storage,
    path: PathBuf,
    file_bytes: u64,
    kind: FileKind,
) -> FileReport {
    let mut report = FileReport { kind, ..unknown(path.clone(), file_bytes) };
    let opened = storage.open(&path, Open::Read).map_err(|e| Refusal::from(&e));
    match opened.and_then(FileBytes::new) {
        Ok(mut bytes) => {
            (report.record_count, report.damage) = check_store_bytes(&path, &mut bytes);
        }
        Err(refusal) => report.damage.push(of_file(&path, refusal.into())),
    }
    report
}

/// Checks the bytes of a store segment that goes by the name `path`: its whole records, and what
/// is damaged or could not be read.
pub fn check_store_bytes(path: &Path, bytes: &mut dyn Bytes) -> (u64, Vec<Damage>) {
    let mut check = SegmentCheck::new(path, bytes);
    check.run();
    (check.record_count, check.damage)
}

#[cfg(test)]
mod tests;
