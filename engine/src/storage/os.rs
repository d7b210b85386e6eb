//! Storage on the operating system's file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::{Entry, File, Map, Open, Space, Storage};

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsStorage;

impl Storage for OsStorage {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        // Links are not followed, and nobody waits for the other end of a FIFO.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() {
            let errno = if kind.is_dir() { libc::EISDIR } else { libc::ENXIO };
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(Arc::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can: then it is looked at first.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                match fs::symlink_metadata(to) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
                    Err(error) => Err(error),
                }
            }
            renamed => renamed.map_err(io::Error::from),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed or renamed since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(Entry {
                name: entry.file_name().into_string().ok(),
                is_file: metadata.is_file(),
                len_bytes: metadata.len(),
            });
        }
        Ok(entries)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        })
    }

    fn identity(&self, directory: &Path) -> io::Result<u128> {
        let found = fs::metadata(directory)?;
        Ok(u128::from(found.dev()) << 64 | u128::from(found.ino()))
    }
}

struct OsFile(fs::File);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let allocate =
            || rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len);
        match rustix::io::retry_on_intr(allocate) {
            // A file system without preallocation: the length alone has to do.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            other => Ok(other?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self) -> io::Result<Map> {
        Map::of_file(&self.0)
    }

    fn version_stamp(&self) -> io::Result<u128> {
        let m = self.0.metadata()?;
        let changed = m.ctime() as u128 * 1_000_000_000 + m.ctime_nsec() as u128;
        let modified = m.mtime() as u128 * 1_000_000_000 + m.mtime_nsec() as u128;
        Ok((changed << 64) ^ modified ^ u128::from(m.len()).rotate_left(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Refusal;

    #[test]
    fn what_is_no_file_is_not_opened_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, mode, 0).unwrap();
        for name in ["link", "directory", "fifo"] {
            for how in [Open::Read, Open::Write] {
                let error = OsStorage.open(&at(name), how).err().expect("it is no file");
                assert!(Refusal::from(&error).is_no_file(), "{name}: {error}");
            }
        }
        assert_eq!(OsStorage.open(&at("file"), Open::Write).unwrap().len().unwrap(), 4);
    }
}
