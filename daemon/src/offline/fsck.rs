//! `oklogd fsck PATH`: tells what the engine's check found.
//!
//! Invariants: reads only. Text goes to standard output, one line per damaged span and per file
//! that is none of ours, then a summary; `--json` is one object that lists every file. What cannot be
//! read is an error, not damage, and nothing is said of what it holds; a path without any data of ours
//! is an error; a file that was set aside counts as damage for as long as it is there.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use engine::damage::{Damage, DamageKind};
use engine::fsck::{FileKind, FileReport, Report, SpoolReport, check_with};
use engine::storage::OsStorage;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::lock;
use crate::output;
use crate::terminal::Progress;

/// Checks a data directory, prints what was found, and says by its exit code whether it is whole.
pub(crate) fn run(path: &Path, as_json: bool) -> Exit {
    let mut progress = Progress::new("checked");
    // A link that is named here is meant; in data directories none is followed.
    let resolved = if path.is_symlink() { path.canonicalize().ok() } else { None };
    let path = resolved.as_deref().unwrap_or(path);
    let checked = check_with(&OsStorage, path, &mut |file| progress.add(file.file_bytes));
    progress.clear();
    let report = match checked {
        Ok(report) => report,
        Err(error) => {
            let words = format_args!("{}: cannot be checked: {error}", path.display());
            return output::fail(Exit::Error, words);
        }
    };
    tell_owners(&report);
    tell_unchecked(path, &report);
    let words = if as_json { format!("{}\n", object(&report)) } else { text(path, &report) };
    output::print(words.as_bytes(), exit(&report))
}

fn exit(report: &Report) -> Exit {
    let is_damaged =
        report.files.iter().any(|file| file.kind.is_set_aside()) || !report.damage().all(is_unread);
    match (is_damaged, report.is_clean() && report.has_data()) {
        (true, _) => Exit::Damage,
        (false, true) => Exit::Done,
        (false, false) => Exit::Error,
    }
}

/// Whether it is not known what is there.
const fn is_unread(damage: &Damage) -> bool {
    damage.refusal().is_some()
}

/// Whether records are in no file that is there.
const fn is_hole(damage: &Damage) -> bool {
    matches!(damage.kind, DamageKind::Missing(..))
}

/// Says on standard error why nothing, or not everything, was checked.
fn tell_unchecked(path: &Path, report: &Report) {
    if !report.has_data() {
        output::tell(format_args!(
            "error: {}: nothing of oklogd's is there: name a data directory, a spool, or a file of \
             one",
            path.display()
        ));
    }
    let is_forbidden = |damage: &&Damage| {
        damage.refusal().is_some_and(|refusal| refusal.kind() == io::ErrorKind::PermissionDenied)
    };
    let unread = report.damage().filter(|damage| is_unread(damage)).count();
    let forbidden = report.damage().filter(is_forbidden).count();
    if forbidden > 0 {
        output::tell(format_args!(
            "error: {forbidden} files or directories may not be read by this user and were not \
             checked: run fsck as the user of the node"
        ));
    }
    if unread > forbidden {
        output::tell(format_args!(
            "error: {} places could not be read and were not checked",
            unread - forbidden
        ));
    }
}

/// Says on standard error who is writing to what was read.
fn tell_owners(report: &Report) {
    // Of each directory: a lock file may have been taken away from its owner.
    let directories: BTreeSet<&Path> =
        report.files.iter().filter_map(|file| file.path.parent()).collect();
    for directory in directories {
        if let Some(pid) = lock::holder(directory) {
            output::tell(format_args!(
                "note: {}: in use by the process with pid {pid}; what it writes meanwhile may look \
                 unfinished",
                directory.display()
            ));
        }
    }
}

fn text(path: &Path, report: &Report) -> String {
    let mut lines: Vec<String> = report.damage().map(|damage| format!("{damage}\n")).collect();
    let unknown =
        report.files.iter().filter(|file| file.kind == FileKind::Unknown && file.damage.is_empty());
    lines.extend(unknown.map(|file| format!("{}: no file of ours\n", file.path.display())));
    let set_aside = report.files.iter().filter(|file| file.kind.is_set_aside());
    lines.extend(set_aside.map(|file| format!("{}: {}\n", file.path.display(), file.kind)));
    let is_whole = |damage: &Damage| is_unread(damage) || is_hole(damage);
    let is_damaged = |file: &&FileReport| !file.damage.iter().all(is_whole);
    let damaged = report.files.iter().filter(is_damaged).count();
    let records = |unfinished: bool| -> u64 {
        let which = report.damage().filter(|d| !is_whole(d));
        let which = which.filter(|d| (d.kind == DamageKind::Unfinished) == unfinished);
        which.filter_map(|damage| damage.records).sum()
    };
    let (lost, unfinished) = (records(false), records(true));
    let maybe = if unfinished > 0 { format!(", {unfinished} may be") } else { String::new() };
    let is_uncounted = |d: &Damage| d.loses_records() && d.records.is_none() && !is_unread(d);
    let uncounted = report.damage().any(is_uncounted);
    let how_many = match (uncounted, lost) {
        (true, 0) => "an unknown number of records is lost".to_owned(),
        (true, _) => format!("at least {lost} records are lost"),
        (false, _) => format!("{lost} records are lost"),
    };
    for file in &report.files {
        let identity =
            file.identity.map(|identity| format!("{}: {identity}\n", file.path.display()));
        lines.extend(identity);
    }
    for spool in &report.spools {
        let (path, waiting) = (spool.path.display(), spool.waiting_lines);
        lines.push(format!("{path}: the spool of a forwarder, {waiting} lines wait to be sent\n"));
    }
    let missing = report.damage().filter(|damage| is_hole(damage));
    let missing = match missing.filter_map(|damage| damage.records).sum() {
        0 => String::new(),
        count => format!(", {count} are missing"),
    };
    lines.push(format!(
        "{}: {} files, {} records; {damaged} files are damaged, {how_many}{maybe}{missing}\n",
        path.display(),
        report.files.len(),
        report.record_count(),
    ));
    lines.concat()
}

fn object(report: &Report) -> Value {
    json!({
        "clean": report.is_clean(),
        "records": report.record_count(),
        "files": report.files.iter().map(file).collect::<Vec<_>>(),
        "spools": report.spools.iter().map(spool).collect::<Vec<_>>(),
    })
}

fn spool(spool: &SpoolReport) -> Value {
    json!({
        "path": spool.path.to_string_lossy(),
        "waiting_lines": spool.waiting_lines,
    })
}

fn file(file: &FileReport) -> Value {
    json!({
        "path": file.path.to_string_lossy(),
        "kind": file.kind.to_string(),
        "bytes": file.file_bytes,
        "records": file.record_count,
        "damage": file.damage.iter().map(span).collect::<Vec<_>>(),
        "identity": file.identity.map(|identity| json!({
            "side": identity.side.to_string(),
            "id": identity.id.to_string(),
            "boot": identity.boot,
        })),
    })
}

/// A damaged span as JSON.
pub(crate) fn span(damage: &Damage) -> Value {
    json!({
        "offset": damage.offset,
        "bytes": damage.len_bytes,
        "what": damage.kind.to_string(),
        "loses_records": damage.loses_records()
            && damage.records != Some(0)
            && !is_unread(damage),
        "records": damage.records,
        "from": damage.range.map(|(first, _)| first.to_string()),
        "to": damage.range.map(|(_, last)| last.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::identity::{Identity, NodeId, Side};
    use engine::ingest::segment::SegmentState;
    use engine::storage::Refusal;
    use engine::ulid::Ulid;

    fn report() -> Report {
        let damage = Damage {
            path: "d/store/x.flushed".into(),
            offset: 64,
            len_bytes: 100,
            range: Some((Ulid::from_parts(1, 2, 3), Ulid::from_parts(1, 2, 4))),
            records: Some(2),
            kind: DamageKind::Checksum("block text"),
        };
        let store = FileReport {
            path: "d/store/x.flushed".into(),
            kind: FileKind::StoreSegment,
            file_bytes: 4096,
            record_count: 7,
            damage: vec![damage],
            identity: None,
        };
        let unknown = FileReport {
            path: "d/notes".into(),
            kind: FileKind::Unknown,
            damage: Vec::new(),
            identity: Some(Identity { boot: 3, id: NodeId(0xabc), side: Side::Store }),
            ..store.clone()
        };
        let spool = SpoolReport { path: "d/spool".into(), waiting_lines: 9 };
        Report { files: vec![unknown, store], spools: vec![spool] }
    }

    #[test]
    fn the_text_names_file_offset_and_loss() {
        let text = text(Path::new("d"), &report());
        assert!(text.contains("d/store/x.flushed: offset 64, 100 bytes: checksum"), "{text}");
        assert!(text.contains("d/notes: no file of ours"));
        assert!(
            text.contains("d/notes: store 00000000000000000000000000000abc, boot 3\n"),
            "{text}"
        );
        assert!(text.contains("d/spool: the spool of a forwarder, 9 lines wait to be sent\n"));
        assert!(text.ends_with("1 files are damaged, 2 records are lost\n"), "{text}");
    }

    #[test]
    fn the_object_lists_every_file() {
        let object = object(&report());
        assert_eq!(object["clean"], false);
        assert_eq!(object["spools"][0]["waiting_lines"], 9);
        assert_eq!(object["files"].as_array().unwrap().len(), 2);
        assert_eq!(object["files"][0]["identity"]["boot"], 3);
        assert_eq!(object["files"][1]["identity"], Value::Null);
        let damage = &object["files"][1]["damage"][0];
        assert_eq!((&damage["offset"], &damage["records"]), (&64.into(), &2.into()));
        assert_eq!(damage["from"], Ulid::from_parts(1, 2, 3).to_string());
    }

    #[test]
    fn a_file_that_may_not_be_read_is_an_error_and_not_damage() {
        let mut report = report();
        assert_eq!(exit(&report), Exit::Damage);
        let kind = DamageKind::Unread(Refusal::of_kind(io::ErrorKind::PermissionDenied));
        let damage = &mut report.files[1].damage[0];
        (damage.kind, damage.records) = (kind, None);
        assert_eq!(exit(&report), Exit::Error);
        let text = text(Path::new("d"), &report);
        assert!(text.contains("offset 64") && text.contains("permission denied"), "{text}");
        assert!(text.ends_with("0 files are damaged, 0 records are lost\n"), "{text}");
    }

    #[test]
    fn what_could_not_be_read_is_no_damage_and_never_whole() {
        let mut report = report();
        let refused = std::io::Error::from_raw_os_error(libc::EIO);
        let damage = &mut report.files[1].damage[0];
        damage.kind = DamageKind::Unread(Refusal::from(&refused));
        assert_eq!(exit(&report), Exit::Error);
        let words = text(Path::new("d"), &report);
        assert!(words.contains("Input/output error (os error 5)"), "{words}");
        assert!(words.ends_with("0 files are damaged, 0 records are lost\n"), "{words}");
        report.files[1].damage[0].kind = DamageKind::Bypassed(Refusal::from(&refused));
        assert_eq!(exit(&report), Exit::Error);
    }

    #[test]
    fn a_file_that_was_set_aside_counts_for_as_long_as_it_is_there() {
        for kind in [FileKind::StoreSetAside, FileKind::IngestSegment(SegmentState::Damaged)] {
            let mut report = report();
            report.files[1].damage.clear();
            assert_eq!(exit(&report), Exit::Done);
            report.files[1].kind = kind;
            assert_eq!(exit(&report), Exit::Damage);
            assert!(text(Path::new("d"), &report).contains("set aside"));
        }
    }

    #[test]
    fn a_path_without_data_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(run(directory.path(), false), Exit::Error);
        std::fs::write(directory.path().join("notes"), "mine").unwrap();
        assert_eq!(run(directory.path(), false), Exit::Error);
        assert_eq!(run(&directory.path().join("absent"), true), Exit::Error);
        std::fs::create_dir(directory.path().join("store")).unwrap();
        std::fs::write(directory.path().join("store/LOCK"), "1\n").unwrap();
        assert_eq!(run(directory.path(), false), Exit::Done);
    }
}
