//! What the keeper and the doors have to say, in words for the operator, and what is counted of it.
//!
//! Invariants: a node speaks of what it is: one that only keeps records has no senders, and one that only
//! takes them has no retention.

use std::path::Path;

use engine::node::doors::{LowSpace, Reason};
use engine::node::keeper::{Happened, SealedFor, TooSmall};
use engine::node::{Node, Side};
use net::metrics::NodeMetrics;

use super::disks::flag;

/// What a node is, for words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// It takes records and keeps them.
    Both,
    /// It takes them, for others to keep.
    Ingester,
    /// It keeps them.
    Store,
}

impl Is {
    pub(super) const fn of(node: &Node) -> Self {
        match (&node.ingest, &node.store) {
            (None, _) => Self::Store,
            (Some(_), None) => Self::Ingester,
            (Some(_), Some(_)) => Self::Both,
        }
    }

    const fn takes_records(self) -> bool {
        matches!(self, Self::Both | Self::Ingester)
    }

    /// Who takes what waits.
    const fn taker(self) -> &'static str {
        match self {
            Self::Both | Self::Store => "the store",
            Self::Ingester => "a store",
        }
    }
}

/// Tells and counts what happened.
pub(super) fn tell(happened: &Happened, is: Is, metrics: &NodeMetrics) {
    match happened {
        Happened::Sealed { why, len_bytes, age_ms } => {
            let ingest = &metrics.ingest;
            ingest.flush_size_bytes.observe(*len_bytes as f64);
            ingest.flush_age_seconds.observe(*age_ms as f64 / 1e3);
            let counter = match why {
                SealedFor::Size => &ingest.flushes_by_size,
                SealedFor::Age => &ingest.flushes_by_age,
                SealedFor::Stop => &ingest.flushes_by_shutdown,
                SealedFor::Failure => &ingest.flushes_by_failure,
            };
            counter.inc();
        }
        Happened::ClaimLapsed(segment) => tracing::warn!(
            %segment,
            "was claimed and not committed in time; it is available again"
        ),
        Happened::Ground(ground) => tell_ground(ground, is),
        Happened::BacklogFull { .. } | Happened::BacklogHasRoom { .. } => {
            tell_backlog(happened, is, metrics);
        }
        Happened::SpaceMeasured { .. }
        | Happened::LacksSpace { .. }
        | Happened::HasSpace { .. }
        | Happened::DiskFull { .. } => tell_space(happened, is, metrics),
        _ => tell_file(happened),
    }
}

fn tell_file(happened: &Happened) {
    match happened {
        Happened::WriteFailed { path, len_bytes, error } => tracing::error!(
            segment = %path.display(),
            "writing failed: {error}; the segment is closed after {len_bytes} good bytes and what \
             was not acknowledged goes to another"
        ),
        Happened::NameLost(path) => tracing::error!(
            segment = %path.display(),
            "cannot be marked as flushed: its file was taken away; its records stay readable, and \
             it is tried again"
        ),
        Happened::NotFlushed(error) => tracing::error!(
            segment = %error.path.display(),
            "cannot be marked as flushed: {error}; its records stay readable, and it is tried again"
        ),
        Happened::NotOpened(path, error) => tracing::error!(
            segment = %path.display(),
            "cannot be opened for writing: {error}; it is tried again"
        ),
        Happened::NoSegments(error) => tracing::error!(
            "no ingest segment can be made: {error}; senders wait until that works again (mend the \
             disk, or give --ingest.path another one)"
        ),
        Happened::HasSegments => {
            tracing::info!("ingest segments can be made again; senders go on");
        }
        Happened::MarkNotWritten(path, error) => tracing::error!(
            "{} cannot be written: {error}; until it can, the times of new records stand still, and \
             after a start none are taken",
            path.display()
        ),
        Happened::MarkWritten => tracing::info!("the mark of stamps can be written again"),
        Happened::TopicsNotWritten(path, error) => tracing::error!(
            "{} cannot be written: {error}; it is tried again, and topics whose records are stored \
             elsewhere meanwhile are not known after a start",
            path.display()
        ),
        Happened::TopicsWritten => tracing::info!("the list of topics can be written again"),
        Happened::SegmentDeleted(path) => tracing::error!(
            "{} was deleted while it was written: what it held is written anew",
            path.display()
        ),
        Happened::TailDeleted(path) => tracing::warn!(
            "{} was deleted: small batches are written to the segment at once until a restart",
            path.display()
        ),
        Happened::FileFailed(error) => tracing::error!("{error}; it is tried again"),
        _ => {}
    }
}

fn tell_ground(ground: &[Option<String>; 2], is: Is) {
    let words: Vec<&str> = ground.iter().flatten().map(String::as_str).collect();
    let words = words.join("; ");
    if words.is_empty() {
        tracing::info!("the directories are where they were");
    } else if !is.takes_records() {
        tracing::error!("{words}; nothing is done with its files meanwhile");
    } else if ground[Side::Ingest as usize].is_none() {
        tracing::error!("{words}; records wait on the ingest side meanwhile");
    } else {
        tracing::error!("{words}; nothing is acknowledged meanwhile");
    }
}

fn tell_backlog(happened: &Happened, is: Is, metrics: &NodeMetrics) {
    let full_gauge = &metrics.ingest.backlog_full;
    match happened {
        Happened::BacklogFull { backlog_bytes } => {
            full_gauge.set(1);
            tracing::warn!(
                backlog_bytes,
                "the backlog is full: senders wait until {} has caught up \
                 (--ingest.backlog-max-size)",
                is.taker()
            );
        }
        Happened::BacklogHasRoom { backlog_bytes } => {
            full_gauge.set(0);
            tracing::info!(backlog_bytes, "the backlog has room again");
        }
        _ => {}
    }
}

fn tell_space(happened: &Happened, is: Is, metrics: &NodeMetrics) {
    match happened {
        Happened::SpaceMeasured { judgement, is_refusing } => {
            metrics.disk_free_bytes.set(judgement.free_bytes as i64);
            metrics.disk_until_refusal_bytes.set(judgement.until_refusal_bytes as i64);
            metrics.disk_refusing.set(i64::from(*is_refusing));
        }
        Happened::LacksSpace {
            low: LowSpace::BelowReserve { side, path, free_min_bytes },
            judgement,
        } => {
            let (free_bytes, resume_bytes) = (judgement.free_bytes, judgement.resume_bytes);
            let words = low_space((*side, path), "--disk.free-min", is);
            let goes_on = goes_on(is);
            tracing::warn!(free_bytes, free_min_bytes, resume_bytes, "{words}; {goes_on}");
        }
        Happened::HasSpace { free_bytes } if is.takes_records() => {
            tracing::info!(free_bytes, "there is room on the disk again: new records are taken");
        }
        Happened::HasSpace { free_bytes } => {
            tracing::info!(free_bytes, "there is room on the disk again");
        }
        Happened::DiskFull { error, is_news } => {
            metrics.disk_refusing.set(1);
            metrics.disk_until_refusal_bytes.set(0);
            if *is_news {
                let or_less = match is {
                    Is::Both | Is::Store => {
                        ", or let less be kept: --store.segment-retain, --store.retain-size"
                    }
                    Is::Ingester => "",
                };
                tracing::error!(
                    "the disk is full: {error}; new records are refused and senders wait until \
                     there is room again (free disk space{or_less}); what was taken is kept"
                );
            }
        }
        _ => {}
    }
}

/// What a file system lacks; `reserve` is what is to stay free.
fn low_space((side, path): (Side, &Path), reserve: &str, is: Is) -> String {
    let (path, flag) = (path.display(), flag(side));
    if is.takes_records() {
        format!(
            "new records are refused: the file system of {path} ({flag}) has no room for them above \
             {reserve}"
        )
    } else {
        format!("the file system of {path} ({flag}) has less free than {reserve}")
    }
}

/// What a node does all the same whose disk has no room.
const fn goes_on(is: Is) -> &'static str {
    match is {
        Is::Both => {
            "senders wait, what was taken is kept, and queries, gathering and retention go on"
        }
        Is::Ingester => "senders wait, what was taken is kept, and queries go on",
        Is::Store => "queries and retention go on, and compaction as far as there is room",
    }
}

/// Tells of a file system on which records that are refused once may be refused for ever.
pub(super) fn tell_too_small(found: &TooSmall, is: Is) {
    let TooSmall { side, path, wanted_bytes, most_bytes, free_min_bytes, segment_bytes } = found;
    let (flag, path) = (flag(*side), path.display());
    if !is.takes_records() {
        tracing::warn!(
            most_bytes,
            wanted_bytes,
            free_min_bytes,
            "the file system of {path} ({flag}) is too small: a node that has found less than \
             --disk.free-min free is ready again only with wanted_bytes, and all data of the node \
             gone would make most_bytes; use a larger disk, or lower --disk.free-min"
        );
        return;
    }
    tracing::warn!(
        most_bytes,
        wanted_bytes,
        free_min_bytes,
        segment_bytes,
        "the file system of {path} ({flag}) is too small: once new records are refused they \
         are taken again only from wanted_bytes of free space on, and all data of the node \
         gone would make most_bytes; use a larger disk, or lower \
         --ingest.segment-flush-size or --disk.free-min"
    );
}

/// A sentence for whoever asks why.
pub(super) fn reason(reason: &Reason, is: Is) -> String {
    match reason {
        Reason::SegmentsLost(lost) => super::read_again::words(lost),
        Reason::TakenAway(words)
        | Reason::DiskTrouble(words)
        | Reason::Shortage(words)
        | Reason::Starved(words) => words.clone(),
        Reason::FilesDeleted => {
            "files of --ingest.path were deleted while they were written: what they held is \
             written anew"
                .into()
        }
        Reason::LowSpace(LowSpace::Full(error)) => format!("the disk is full: {error}"),
        Reason::LowSpace(LowSpace::BelowReserve { side, path, free_min_bytes }) => {
            let reserve = format!("the {free_min_bytes} bytes of --disk.free-min");
            low_space((*side, path), &reserve, is)
        }
        Reason::Unmarked => "the mark of stamps cannot be written: the disk is failing".into(),
        Reason::BacklogFull => format!("the backlog is full: senders wait for {}", is.taker()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Is; 3] = [Is::Both, Is::Ingester, Is::Store];

    #[test]
    fn a_store_has_no_senders_and_an_ingester_no_retention() {
        let low = |side| LowSpace::BelowReserve { side, path: "/data".into(), free_min_bytes: 7 };
        for is in ALL {
            let side = if is == Is::Store { Side::Store } else { Side::Ingest };
            let words = reason(&Reason::LowSpace(low(side)), is) + goes_on(is);
            assert!(words.contains("/data") && words.contains("--disk.free-min"), "{words}");
            assert!(words.contains("the 7 bytes") && words.contains("queries"), "{words}");
            assert_eq!(words.contains("records"), is != Is::Store, "{words}");
            assert_eq!(words.contains("senders"), is != Is::Store, "{words}");
            assert_eq!(words.contains("retention"), is != Is::Ingester, "{words}");
            assert_eq!(words.contains("gathering"), is == Is::Both, "{words}");
        }
    }

    #[test]
    fn who_takes_what_waits_is_the_store_of_the_node_or_some_store() {
        let full = |is| reason(&Reason::BacklogFull, is);
        assert_eq!(full(Is::Both), "the backlog is full: senders wait for the store");
        assert_eq!(full(Is::Ingester), "the backlog is full: senders wait for a store");
    }
}
