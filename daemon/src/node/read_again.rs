//! The thread that tries again to read what could not be read, on both sides of the node, looks whether
//! segments are where they were, and sees to it that no more stays open than the limit of open
//! files allows, which may be changed from outside.
//!
//! Apart from all others, for a disk that fails takes its time with every byte, and they have theirs to
//! do: neither the keeper nor a gatherer ever waits for it. What fails is told once as long as it lasts.

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::ingest::registry::Look;

use super::data::tell_damage;
use super::disks::Side;
use super::names::Names;
use super::store_work::StoreParts;

/// Time between looks at the ingest side; each of its files has pauses of its own.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks at the ingest side for one at the store: a fault that is over is forgotten within 10 s.
const LOOKS_PER_STORE: u32 = 4;

/// Starts it.
pub(super) fn spawn(parts: StoreParts) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("read-again".into()).spawn(move || {
        let (mut told, mut names) = (Vec::new(), Side::ALL.map(Names::of));
        for turn in 1_u32.. {
            let caches = &parts.catalogue.directory().caches;
            caches.set_segments_open_max(parts.descriptors.segments_now().kept);
            if parts.stop.wait(PAUSE) {
                return;
            }
            // What is not there now may be where nobody looks.
            if parts.doors.is_ground_lost() {
                continue;
            }
            look_at_names(&mut names, &parts);
            let now_ms = parts.clock.now().monotonic_us / 1000;
            let look = parts.source.registry.look_again(now_ms);
            told = tell(look, &parts, &told);
            if turn.is_multiple_of(LOOKS_PER_STORE) {
                for path in parts.catalogue.read_again().back {
                    tracing::info!("{} can be read again", path.display());
                }
            }
        }
    })
}

/// Tells which segments have lost their names, each once, and which have them again.
fn look_at_names([ingest, store]: &mut [Names; 2], parts: &StoreParts) {
    let looks =
        [ingest.look_at_ingest(&parts.source.registry), store.look_at_store(&parts.catalogue)];
    // A directory may have gone meanwhile: then that is what there is to tell.
    if parts.doors.is_ground_lost() {
        return;
    }
    let words = [ingest.words(), store.words()];
    for (look, words) in looks.iter().zip(&words) {
        if let Some(words) = words.as_ref().filter(|_| !look.lost.is_empty()) {
            tracing::error!("{words}");
        }
        if let Some(path) = look.back.first() {
            tracing::info!(files = look.back.len(), "{} is where it was", path.display());
        }
    }
    parts.doors.set_lost_segments(words);
}

/// Tells what became of files that could not be read before. What failed and was told already is not
/// told again; gives back what is known to fail.
fn tell(
    look: Look,
    parts: &StoreParts,
    told: &[(&'static str, PathBuf)],
) -> Vec<(&'static str, PathBuf)> {
    for segment in look.returned {
        tracing::info!(%segment, "can be read again");
    }
    if look.tail_records > 0 {
        tracing::info!(records = look.tail_records, "a tail file can be read again");
    }
    for path in look.taken_away {
        tracing::warn!("{} was taken away and is forgotten", path.display());
    }
    tell_damage(&look.damage, &parts.metrics);
    let mut failing = Vec::with_capacity(look.errors.len());
    for error in look.errors {
        let what = (error.operation, error.path.clone());
        if !told.contains(&what) {
            tracing::error!("{error}; it is tried again");
        }
        failing.push(what);
    }
    failing
}
