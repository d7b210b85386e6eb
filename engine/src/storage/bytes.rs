//! The bytes of a file, read piece by piece into a buffer that is used again.
//!
//! Invariants: what is handed out was read, never made up: a refusal of the storage is an error at
//! the place where it happened; a piece that is shorter than was asked for ends where the file does.
//! The buffer grows with what was asked for at a time, which the caller bounds, and no further.
//!
//! Not here: maps, which queries alone read.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{File, Refusal};

/// Bytes that can be asked for by their place.
pub trait Bytes {
    /// How many there are.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Those of a span; fewer where they end before it does, none where it ends before it starts.
    fn read(&mut self, span: Range<u64>) -> Result<&[u8], Refusal>;
}

impl Bytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&mut self, span: Range<u64>) -> Result<&[u8], Refusal> {
        let end = span.end.min(Bytes::len(self)) as usize;
        Ok(&self[(span.start as usize).min(end)..end])
    }
}

/// Read at a time where only little was asked for, bytes.
const LITTLE_BYTES: u64 = 4 << 10;
/// The same where it follows what was read last: whoever searches a file goes through all of it.
const AHEAD_BYTES: u64 = 128 << 10;

/// Those of an open file, whose length is that of the moment when it was asked.
pub struct FileBytes {
    file: Arc<dyn File>,
    len: u64,
    /// What was read last, and where it starts.
    buffer: Vec<u8>,
    start: u64,
}

impl FileBytes {
    /// Those of this file.
    pub fn new(file: Arc<dyn File>) -> Result<Self, Refusal> {
        let len = file.len().map_err(|e| Refusal::from(&e))?;
        Ok(Self { file, len, buffer: Vec::new(), start: 0 })
    }

    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Reads a span into the buffer, as far as the file goes.
    fn fill(&mut self, span: &Range<u64>) -> io::Result<()> {
        self.start = span.start;
        let result = read_into(&*self.file, &mut self.buffer, span);
        if result.is_err() {
            self.buffer.clear();
        }
        result
    }
}

impl Bytes for FileBytes {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, span: Range<u64>) -> Result<&[u8], Refusal> {
        let start = span.start.min(self.len);
        let span = start..span.end.min(self.len).max(start);
        if span.start < self.start || span.end > self.end() {
            let follows = (self.start..=self.end()).contains(&span.start);
            let ahead = if follows { AHEAD_BYTES } else { LITTLE_BYTES };
            let more = span.start..span.end.max(span.start + ahead).min(self.len);
            // What nobody asked for may be what the storage refuses.
            if self.fill(&more).is_err() {
                self.fill(&span).map_err(|e| Refusal::from(&e))?;
            }
        }
        let from = (span.start - self.start) as usize;
        let to = (span.end - self.start) as usize;
        let to = to.min(self.buffer.len());
        Ok(&self.buffer[from.min(to)..to])
    }
}

/// Reads a span of a file into a buffer, whose content goes; less where the file ends.
pub fn read_into(file: &dyn File, buffer: &mut Vec<u8>, span: &Range<u64>) -> io::Result<()> {
    let wanted = usize::try_from(span.end.saturating_sub(span.start)).unwrap_or(usize::MAX);
    buffer.resize(wanted, 0);
    let mut done = 0;
    while done < wanted {
        match file.read_at(&mut buffer[done..], span.start + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buffer.truncate(done);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sim::{Call, Fault, FaultError, SimStorage};
    use super::super::{Open, Storage};
    use super::*;
    use std::path::Path;

    fn disk(len: u64) -> (SimStorage, Vec<u8>, FileBytes) {
        let disk = SimStorage::new(1);
        let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let of_file = FileBytes::new(file).unwrap();
        (disk, bytes, of_file)
    }

    #[test]
    fn a_piece_is_what_the_file_holds_there_and_ends_with_it() {
        let (_, bytes, mut file) = disk(300_000);
        for span in [0..10, 5..9000, 8990..9100, 299_000..300_500, 400_000..400_010, 7..7, 1..4] {
            let memory = (&mut &bytes[..]).read(span.clone()).unwrap().to_vec();
            assert!(file.read(span.clone()).unwrap() == memory, "{span:?}");
        }
        assert_eq!(Bytes::len(&file), 300_000);
        let (start, end) = (200_000, 10);
        assert_eq!(file.read(start..end), Ok(&[][..]));
    }

    #[test]
    fn a_refusal_is_told_where_it_happens_and_nothing_is_made_up() {
        let (disk, bytes, mut file) = disk(400_000);
        let refuse = || disk.fail(Fault::random(Call::Read, 1.0, FaultError::Io));
        refuse();
        let refused = file.read(0..10).unwrap_err();
        assert_eq!(io::Error::from(refused).raw_os_error(), Some(libc::EIO));
        disk.clear_faults();
        assert!(file.read(0..10).unwrap() == &bytes[..10]);
        refuse();
        assert!(file.read(300_000..300_010).is_err());
        assert!(file.read(0..10).is_err(), "what was read before is gone");
    }

    #[test]
    fn what_nobody_asked_for_refuses_nothing() {
        let (disk, bytes, mut file) = disk(10_000);
        disk.fail(Fault { call: Some(Call::Read), ..Fault::nth(1, FaultError::Io) });
        assert!(file.read(0..10).unwrap() == &bytes[..10], "read again without what follows");
    }
}
