//! The least that a durable record costs: a write and a sync alone, and the same done by one blocking
//! thread that reads a record from a connection, writes, syncs and answers, and can do nothing else
//! meanwhile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::failure::{Context, Failure, Result};

const WRITE_BYTES: u64 = 4096;
/// A record, about as long as one of the corpus.
const RECORD: [u8; 128] = [b'x'; 128];
/// An acknowledgement.
const ANSWER: [u8; 8] = [0; 8];

/// A file that has all its blocks, of so many writes; removed when dropped.
pub(super) struct BareFile {
    file: File,
    path: PathBuf,
    writes: u64,
}

impl BareFile {
    pub(super) fn create(directory: &Path, writes: u64) -> Result<Self> {
        let path = directory.join("bare");
        let writing = || format!("writing {}", path.display());
        let file = File::create(&path).context(writing)?;
        let this = Self { file, path: path.clone(), writes };
        for index in 0..writes {
            this.write(index).context(writing)?;
        }
        this.file.sync_all().context(writing)?;
        Ok(this)
    }

    fn write(&self, index: u64) -> io::Result<()> {
        self.file.write_all_at(&[b'x'; WRITE_BYTES as usize], index * WRITE_BYTES)
    }

    fn write_and_sync(&self, index: u64) -> io::Result<()> {
        self.write(index)?;
        self.file.sync_data()
    }

    /// Milliseconds of each write and sync.
    pub(super) fn syncs_ms(&self) -> Result<Vec<f64>> {
        let writing = || format!("writing {}", self.path.display());
        (0..self.writes)
            .map(|index| timed_ms(|| self.write_and_sync(index)).context(writing))
            .collect()
    }
}

impl Drop for BareFile {
    fn drop(&mut self) {
        // It lies in a directory that is removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Milliseconds from each record that is sent to the answer that it was written and synced.
pub(super) fn answers_ms(file: BareFile) -> Result<Vec<f64>> {
    let listening = || "listening on loopback".to_string();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(listening)?;
    let address = listener.local_addr().context(listening)?;
    // Before there is a server, which would wait for ever for a client that could not connect.
    let client = TcpStream::connect(address).context(listening)?;
    let writes = file.writes;
    let server = std::thread::spawn(move || serve(&listener, &file));
    let times = ask(client, writes);
    let served = server.join().map_err(|_| Failure::run("the bare server panicked"))?;
    served.context(|| "serving bare writes".to_string())?;
    times.context(|| "asking for bare writes".to_string())
}

fn serve(listener: &TcpListener, file: &BareFile) -> io::Result<()> {
    let (mut client, _) = listener.accept()?;
    client.set_nodelay(true)?;
    let mut record = RECORD;
    for index in 0..file.writes {
        client.read_exact(&mut record)?;
        file.write_and_sync(index)?;
        client.write_all(&ANSWER)?;
    }
    Ok(())
}

fn ask(mut client: TcpStream, writes: u64) -> io::Result<Vec<f64>> {
    client.set_nodelay(true)?;
    let mut answer = ANSWER;
    let mut once = || {
        client.write_all(&RECORD)?;
        client.read_exact(&mut answer)
    };
    (0..writes).map(|_| timed_ms(&mut once)).collect()
}

fn timed_ms(act: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_is_timed_alone_and_for_a_client() {
        let directory = tempfile::tempdir().unwrap();
        let file = BareFile::create(directory.path(), 3).unwrap();
        assert_eq!(std::fs::metadata(&file.path).unwrap().len(), 3 * WRITE_BYTES);
        assert_eq!(file.syncs_ms().unwrap().len(), 3);
        assert!(answers_ms(file).unwrap().iter().all(|&ms| ms > 0.0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it is removed");
    }
}
