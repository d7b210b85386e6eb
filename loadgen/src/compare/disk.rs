//! What the disk takes: text of the corpus in whole mebibytes, written past the page cache into
//! preallocated files, a file per core and as many writes at once as a node has frames under way.
//!
//! Nothing is received, stamped, counted or checked here: no node that keeps what it takes can be
//! faster for long.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{FallocateFlags, OFlags};

use crate::failure::{Context, Failure, Result};
use crate::units::MB;

const WRITE_BYTES: usize = 1 << 20;
const WRITES_AT_ONCE: usize = 3;
/// Whatever block size a disk has divides this.
const ALIGNMENT: usize = 4096;
/// So much text is written over and over.
const TEXT_WRITES: usize = 32;

/// Text at an address that direct writes are possible from.
struct Text {
    bytes: Vec<u8>,
    start: usize,
}

impl Text {
    fn of(corpus: &Path) -> Result<Self> {
        let mut bytes = vec![b'\n'; TEXT_WRITES * WRITE_BYTES + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        let reading = || format!("reading {}", corpus.display());
        let mut rest = File::open(corpus).context(reading)?;
        let mut room = &mut bytes[start..start + TEXT_WRITES * WRITE_BYTES];
        while !room.is_empty() {
            // A short corpus leaves line feeds behind it.
            let Some(len) = Some(rest.read(room).context(reading)?).filter(|&len| len > 0) else {
                break;
            };
            room = &mut room[len..];
        }
        Ok(Self { bytes, start })
    }

    fn piece(&self, index: u64) -> &[u8] {
        let at = self.start + (index as usize % TEXT_WRITES) * WRITE_BYTES;
        &self.bytes[at..at + WRITE_BYTES]
    }
}

/// Megabytes per second at which so many bytes of the corpus are taken below `directory`; `None`
/// where the file system has no direct writes or no preallocation.
pub(super) fn writes_mb_per_s(corpus: &Path, directory: &Path, bytes: u64) -> Result<Option<f64>> {
    let text = Text::of(corpus)?;
    let files = std::thread::available_parallelism().map_or(1, usize::from);
    let writes = bytes.div_ceil((WRITE_BYTES * files) as u64);
    let paths: Vec<_> = (0..files).map(|n| directory.join(format!("disk-{n}"))).collect();
    let opened: Option<Vec<File>> = paths
        .iter()
        .map(|path| preallocated(path, writes * WRITE_BYTES as u64))
        .collect::<Result<_>>()?;
    let taken = opened.map(|files| {
        let start = Instant::now();
        write_all(&files, &text, writes)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((files.len() as u64 * writes * WRITE_BYTES as u64) as f64 / MB / seconds)
    });
    for path in paths.iter().filter(|path| path.exists()) {
        std::fs::remove_file(path).context(|| format!("removing {}", path.display()))?;
    }
    taken.transpose()
}

fn preallocated(path: &Path, len: u64) -> Result<Option<File>> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let opened = OpenOptions::new().write(true).create_new(true).custom_flags(direct).open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(None),
        opened => opened.context(|| format!("creating {}", path.display()))?,
    };
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(Failure::run(format!("preallocating {}: {error}", path.display()))),
        Ok(()) => Ok(Some(file)),
    }
}

fn write_all(files: &[File], text: &Text, writes: u64) -> Result<()> {
    let next: Vec<_> = files.iter().map(|_| AtomicU64::new(0)).collect();
    let ended: std::io::Result<Vec<()>> = std::thread::scope(|scope| {
        let of_file = |(file, next)| {
            let writer = move || write_some(file, next, text, writes);
            [(); WRITES_AT_ONCE].map(|()| scope.spawn(writer))
        };
        let writers: Vec<_> = files.iter().zip(&next).flat_map(of_file).collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer only returns")).collect()
    });
    ended.context(|| "writing directly".to_string()).map(drop)
}

fn write_some(file: &File, next: &AtomicU64, text: &Text, writes: u64) -> std::io::Result<()> {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= writes {
            return Ok(());
        }
        file.write_all_at(text.piece(index), index * WRITE_BYTES as u64)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_corpus_at_an_aligned_address() {
        let directory = tempfile::tempdir().unwrap();
        let corpus = directory.path().join("corpus");
        std::fs::write(&corpus, b"a line\n".repeat(300_000)).unwrap();
        let text = Text::of(&corpus).unwrap();
        assert!(text.piece(0).starts_with(b"a line\na line\n"));
        assert!(text.piece(5).iter().all(|&byte| byte == b'\n'), "behind a short corpus");
        for index in [0, 1, 31, 32] {
            assert_eq!(text.piece(index).as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(text.piece(index).len(), WRITE_BYTES);
        }
    }

    #[test]
    fn every_byte_is_written_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let corpus = directory.path().join("corpus");
        std::fs::write(&corpus, b"a line\n").unwrap();
        let rate = writes_mb_per_s(&corpus, directory.path(), 3 * WRITE_BYTES as u64).unwrap();
        assert!(rate.is_none_or(|rate| rate > 0.0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the corpus alone");
        let path = directory.path().join("whole");
        if let Some(file) = preallocated(&path, 3 * WRITE_BYTES as u64).unwrap() {
            let text = Text::of(&corpus).unwrap();
            write_all(std::slice::from_ref(&file), &text, 3).unwrap();
            let written = std::fs::read(&path).unwrap();
            let expected = [text.piece(0), text.piece(1), text.piece(2)].concat();
            assert!(written == expected);
        }
    }
}
