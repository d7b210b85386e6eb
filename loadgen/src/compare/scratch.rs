//! A directory for what a comparison writes; removed when dropped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::failure::{Context, Result};

/// The user that a node runs as where this program is root: `nobody` of every distribution.
pub(super) const ORDINARY_USER: u32 = 65_534;

/// Owns its directory.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("loadgen-compare-{}", std::process::id()));
        let creating = || format!("creating {}", path.display());
        fs::create_dir(&path).context(creating)?;
        let scratch = Self(fs::canonicalize(&path).context(creating)?);
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).context(creating)?;
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("loadgen: removing {}: {error}", self.0.display());
        }
    }
}

/// Makes a directory that a node may write to.
pub(super) fn node_directory(parent: &Path, name: &str) -> Result<PathBuf> {
    let path = parent.join(name);
    let creating = || format!("creating {}", path.display());
    fs::create_dir(&path).context(creating)?;
    if is_root() {
        chown(&path, Some(ORDINARY_USER), Some(ORDINARY_USER)).context(creating)?;
    }
    Ok(path)
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every file below a directory.
pub(super) fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(directory) = open.pop() {
        let listing = || format!("listing {}", directory.display());
        for entry in fs::read_dir(&directory).context(listing)? {
            let path = entry.context(listing)?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Bytes that the files below a directory take on the disk.
pub(super) fn disk_bytes_below(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    // A file that has just been removed takes none.
    let blocks = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.blocks());
    Ok(files_below(directory)?.iter().map(blocks).sum::<u64>() * 512)
}
