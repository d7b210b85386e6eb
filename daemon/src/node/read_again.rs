//! The thread that turns [`ReadingAgain`], and sees to it that no more stays open than the limit of open
//! files allows, which may be changed from outside.
//!
//! Apart from all others, for a disk that fails takes its time with every byte, and they have theirs to
//! do: neither the keeper nor a gatherer ever waits for it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use engine::caches::Caches;
use engine::ingest::recover::Note as IngestNote;
use engine::node::Side;
use engine::node::names::LostSegments;
use engine::node::reading_again::{Happened, ReadingAgain};
use net::metrics::NodeMetrics;

use super::common::Common;
use super::data::tell_damage;
use super::disks::flag;
use crate::lock::is_absence;

/// Starts it. Nobody waits for its end: a read that hangs must not keep the node from stopping.
pub(super) fn spawn(common: Arc<Common>, caches: Arc<Caches>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("read-again".into()).spawn(move || {
        let doors = Arc::clone(&common.doors);
        let mut reading = ReadingAgain::start(&common.node, doors, common.now_ms());
        loop {
            caches.set_segments_open_max(common.descriptors.segments_now().kept);
            if common.work_ends.wait(common.until(reading.next_ms())) {
                return;
            }
            for happened in reading.turn(common.clock.now(), &is_lost) {
                tell(&happened, &common.metrics);
            }
        }
    })
}

/// Whether a name is nobody's, or that of something else.
pub(super) fn is_lost(path: &Path, len_bytes: Option<u64>) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(found) => {
            !found.is_file() || len_bytes.is_some_and(|len_bytes| len_bytes != found.len())
        }
        Err(error) => is_absence(&error),
    }
}

fn tell(happened: &Happened, metrics: &NodeMetrics) {
    match happened {
        Happened::NamesLost(lost) => tracing::error!("{}", words(lost)),
        Happened::NamesBack(path, files) => {
            tracing::info!(files, "{} is where it was", path.display());
        }
        Happened::SegmentBack(segment) => tracing::info!(%segment, "can be read again"),
        Happened::TailBack(records) => tracing::info!(records, "a tail file can be read again"),
        Happened::Forgotten(path) => {
            tracing::warn!("{} was taken away and is forgotten", path.display());
        }
        Happened::GivenUp(path) => tracing::warn!("{}", IngestNote::GivenUp(path.clone())),
        Happened::Damaged(damage) => tell_damage(damage, metrics),
        Happened::FileFailed(error) => tracing::error!("{error}; it is tried again"),
        Happened::StoreSegmentBack(path) => tracing::info!("{} can be read again", path.display()),
    }
}

/// A sentence for the operator.
pub(super) fn words(lost: &LostSegments) -> String {
    let LostSegments { side, path, files, records } = lost;
    let (path, flag) = (path.display(), flag(*side));
    let until = match side {
        Side::Ingest => "a stop in good order lets the next start tell, a kill forgets it",
        Side::Store => "a restart tells what is missing for as long as it is",
    };
    match (files, records) {
        // What was no file at the start, for one.
        (_, 0) => {
            let again = match side {
                Side::Ingest => "",
                Side::Store => ", then start the node again",
            };
            format!(
                "no file has the name of the segment {path} ({flag}): take away what has it, and put \
                 the segment back if there was one{again}; answers are incomplete until then"
            )
        }
        (1, _) => format!(
            "{path} ({flag}) was taken away, and {records} records with it: answers lack them; put \
             it back ({until})"
        ),
        _ => format!(
            "{files} files ({flag}) were taken away, {path} among them, and {records} records with \
             them: answers lack them; put them back ({until})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lost_when_it_is_nobodys_or_anothers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        assert!(is_lost(&path, None) && is_lost(&path.join("below"), Some(3)));
        std::fs::write(&path, "abc").unwrap();
        assert!(!is_lost(&path, None) && !is_lost(&path, Some(3)));
        assert!(is_lost(&path, Some(4)), "another file");
        assert!(is_lost(&path.join("below"), None), "below a file there is none");
        assert!(is_lost(directory.path(), None), "a directory is no segment");
    }
}
