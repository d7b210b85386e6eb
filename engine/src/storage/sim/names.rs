//! The simulated directory tree: which names processes see, which are on the disk, and the changes
//! in between.
//!
//! Changes of one directory reach the disk in order (a journal), those of different directories in
//! any order: they may even lie on different disks. A directory whose own name did not reach the
//! disk takes everything in it along.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// A file, by the number of its inode.
    File(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn directories(&self) -> Vec<&Path> {
        match self {
            Self::Add(path, _) | Self::Remove(path) => vec![parent(path)],
            Self::Rename(from, to) => vec![parent(from), parent(to)],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// The directory of a path; the root is its own.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if path.parent().is_none() || path.as_os_str().is_empty() {
            return Some(Node::Directory);
        }
        self.live.get(path).copied()
    }

    pub(super) fn children<'a>(
        &'a self,
        directory: &'a Path,
    ) -> impl Iterator<Item = (&'a Path, Node)> {
        let inside = move |(path, node): (&'a PathBuf, &Node)| {
            (path.parent() == Some(directory)).then_some((path.as_path(), *node))
        };
        self.live.iter().filter_map(inside)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.live.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.as_path())
    }

    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.change(Change::Add(path.to_owned(), node));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        if from != to {
            self.change(Change::Rename(from.to_owned(), to.to_owned()));
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// Makes the entries of a directory durable.
    pub(super) fn sync(&mut self, directory: &Path) {
        self.reach_disk(directory, self.unsynced.len());
    }

    /// A sync that failed: of what it should have made durable some reaches the disk, in order, and
    /// the rest never will.
    pub(super) fn fail_sync(&mut self, directory: &Path, random: &mut Random) {
        let end = random.below(self.unsynced.len() as u64 + 1) as usize;
        self.reach_disk(directory, end);
        self.unsynced.retain(|change| !change.directories().contains(&directory));
    }

    /// Takes to the disk, of the first `end` changes, those of the directory and those of other
    /// directories that they are tied to by a rename across.
    fn reach_disk(&mut self, directory: &Path, end: usize) {
        let mut tied = BTreeSet::from([directory.to_owned()]);
        let mut taken = BTreeSet::new();
        for (index, change) in self.unsynced[..end].iter().enumerate().rev() {
            let directories = change.directories();
            if directories.iter().any(|d| tied.contains(*d)) {
                tied.extend(directories.into_iter().map(Path::to_owned));
                taken.insert(index);
            }
        }
        let mut index = 0;
        let durable = &mut self.durable;
        self.unsynced.retain(|change| {
            let take = taken.contains(&index);
            index += 1;
            if take {
                change.apply(durable);
            }
            !take
        });
    }

    /// What is found after the power came back.
    pub(super) fn after_crash(&self, random: &mut Random) -> Self {
        let mut after = self.clone();
        let directories: BTreeSet<PathBuf> =
            self.unsynced.iter().flat_map(Change::directories).map(Path::to_owned).collect();
        for directory in directories {
            let end = match random.below(4) {
                0 => 0,
                1 => after.unsynced.len(),
                _ => random.below(after.unsynced.len() as u64 + 1) as usize,
            };
            after.reach_disk(&directory, end);
        }
        let whole = |path: &Path| {
            path.ancestors().skip(1).all(|above| {
                above.parent().is_none()
                    || above.as_os_str().is_empty()
                    || after.durable.get(above) == Some(&Node::Directory)
            })
        };
        let found: BTreeMap<PathBuf, Node> = after
            .durable
            .iter()
            .filter(|(path, _)| whole(path))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        Self { live: found.clone(), durable: found, unsynced: Vec::new() }
    }

    /// Inodes that have a name for the running process.
    pub(super) fn named(&self) -> BTreeSet<u64> {
        self.live.values().filter_map(inode_of).collect()
    }

    /// Inodes that have a name or may have one after a crash.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let mut all = self.named();
        all.extend(self.durable.values().filter_map(inode_of));
        all.extend(self.unsynced.iter().filter_map(|change| match change {
            Change::Add(_, node) => inode_of(node),
            _ => None,
        }));
        all
    }
}

fn inode_of(node: &Node) -> Option<u64> {
    match node {
        Node::File(inode) => Some(*inode),
        Node::Directory => None,
    }
}
