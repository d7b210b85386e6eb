//! A small file system of its own, in an image that is mounted through a loop device. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;

/// Name of the image in its directory.
const IMAGE: &str = "image";

/// A mounted ext4 image; unmounted when dropped, before its directory goes.
#[derive(Debug)]
pub struct LoopDisk {
    at: PathBuf,
    directory: tempfile::TempDir,
}

impl LoopDisk {
    /// An empty file system of about so many bytes. An error: it cannot be had here, and why.
    pub fn new(bytes: u64) -> Result<Self, String> {
        if !tools::is_root() {
            return Err("needs root to mount a loop file system".to_owned());
        }
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = directory.path().join(IMAGE);
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(bytes).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        Self::mount(directory)
    }

    /// Mounts the image in this directory.
    fn mount(directory: tempfile::TempDir) -> Result<Self, String> {
        let at = directory.path().join("disk");
        std::fs::create_dir(&at).map_err(|e| e.to_string())?;
        let image = directory.path().join(IMAGE);
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self { at, directory })
    }

    /// What a sudden loss of power would leave of it now, if nobody writes meanwhile: what the
    /// page cache holds and the image does not is not in it.
    pub fn copy_image(&self) -> Result<Image, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (from, to) = (self.directory.path().join(IMAGE), directory.path().join(IMAGE));
        run(Command::new("cp").arg("--sparse=always").arg(from).arg(to))?;
        Ok(Image { directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).expect("a mounted file system can be asked");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes space away with a file of this name.
    pub fn take(&self, name: &str, bytes: u64) -> std::io::Result<()> {
        let file = std::fs::File::create(self.at.join(name))?;
        let flags = rustix::fs::FallocateFlags::empty();
        Ok(rustix::fs::fallocate(&file, flags, 0, bytes)?)
    }

    /// Takes all space away that is left, with files that begin with this name.
    pub fn fill(&self, name: &str) {
        let mut piece_bytes = 16 << 20;
        for number in 0.. {
            while self.take(&format!("{name}-{number}"), piece_bytes).is_err() {
                piece_bytes /= 4;
                if piece_bytes < 4096 {
                    return;
                }
            }
        }
    }

    /// Gives back what was taken with files that begin with this name.
    pub fn give_back(&self, name: &str) {
        for entry in std::fs::read_dir(&self.at).expect("a mounted directory can be read").flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(name) {
                std::fs::remove_file(entry.path()).expect("a file can be removed");
            }
        }
    }
}

/// A copy of a disk's image, not mounted.
#[derive(Debug)]
pub struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    /// Mounts it; its file system recovers as after a power loss.
    pub fn mount(self) -> Result<LoopDisk, String> {
        LoopDisk::mount(self.directory)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = tools::text(&output.stderr);
    output.status.success().then_some(()).ok_or(format!("{command:?}: {said}"))
}
