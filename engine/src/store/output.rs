//! A new file that is written front to back through a small buffer and removed again unless it
//! is kept.
//!
//! Invariants: the file is made by its first write, so that a kill leaves no empty one behind;
//! nothing here is durable before [`Output::sync`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{File, Open};

use super::StoreDirectory;
use super::fields::aligned;
use super::write_error::WriteError;

/// Bytes that wait for their write.
const BUFFER_BYTES: usize = 1 << 20;
/// From here on bytes are written from where they lie, without a copy.
const DIRECT_BYTES: usize = 256 << 10;

pub(super) struct Output {
    directory: Arc<StoreDirectory>,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    buffer: Vec<u8>,
    written_bytes: u64,
    /// Bytes that the file may have in all: more, after it was rewound.
    reached_bytes: u64,
    /// All of it is durable.
    is_synced: bool,
    kept: bool,
}

impl Output {
    pub(super) fn new(directory: Arc<StoreDirectory>, path: PathBuf) -> Self {
        let (file, buffer) = (None, Vec::new());
        let (written_bytes, reached_bytes, is_synced, kept) = (0, 0, false, false);
        Self { directory, path, file, buffer, written_bytes, reached_bytes, is_synced, kept }
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn directory(&self) -> &Arc<StoreDirectory> {
        &self.directory
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.is_synced = false;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES || bytes.len() >= DIRECT_BYTES {
            self.flush()?;
        }
        if bytes.len() >= DIRECT_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Fills up with zeros to the block alignment.
    pub(super) fn pad(&mut self) -> Result<(), WriteError> {
        let gap = aligned(self.position()) - self.position();
        self.put(&[0; crate::limits::BLOCK_ALIGNMENT][..gap as usize])
    }

    /// Takes back what was put from `position` on.
    pub(super) fn rewind(&mut self, position: u64) {
        let waiting = position.saturating_sub(self.written_bytes) as usize;
        self.buffer.truncate(waiting);
        self.written_bytes = self.written_bytes.min(position);
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let file = if let Some(file) = &self.file {
            file
        } else {
            let file = self.directory.storage.open(&self.path, Open::CreateNew);
            self.file.insert(file.map_err(|e| self.error("create", e))?)
        };
        file.write_all_at(bytes, self.written_bytes).map_err(|e| self.error("write", e))?;
        self.written_bytes += bytes.len() as u64;
        self.reached_bytes = self.reached_bytes.max(self.written_bytes);
        Ok(())
    }

    /// Writes what waits and makes all of it durable (its name is not).
    pub(super) fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        let Some(file) = &self.file else { return Ok(()) };
        if self.reached_bytes > self.written_bytes {
            file.set_len(self.written_bytes).map_err(|e| self.error("cut", e))?;
        }
        file.sync().map_err(|e| self.error("sync", e))?;
        self.is_synced = true;
        Ok(())
    }

    /// Gives the file its final name, durably, in the directory that is ours. On an error neither name
    /// is left behind.
    pub(super) fn publish(mut self, path: &Path) -> Result<(), WriteError> {
        assert!(self.is_synced, "{} is durable before it gets its name", self.path.display());
        let directory = Arc::clone(&self.directory);
        directory.begin().map_err(|e| self.error("rename", e))?;
        directory.look().map_err(|e| self.error("rename", e))?;
        let before = directory.before_name();
        let renamed = directory.storage.rename(&self.path, path);
        renamed.map_err(|e| self.error("rename", e))?;
        // What has its name now may not be what it was renamed in.
        if let Err(e) = directory.sync_since(before).and_then(|()| directory.look()) {
            path.clone_into(&mut self.path);
            return Err(self.error("make the name durable of", e));
        }
        self.kept = true;
        Ok(())
    }

    fn error(&self, action: &'static str, error: io::Error) -> WriteError {
        WriteError::Io { action, path: self.path.clone(), error }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.kept && self.file.is_some() {
            // Best effort: what is left behind is found and removed when the store is opened.
            let _ = self.directory.storage.remove(&self.path);
        }
    }
}
