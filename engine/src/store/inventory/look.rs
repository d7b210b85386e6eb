//! What lies in a store directory, as names and footers say, and what is missing there: for `fsck`, and
//! for a node to which something has come back.
//!
//! Invariants: read-only. Beside a running node, which renames and removes files meanwhile, a record
//! counts as missing only if no look found it; what cannot be read is not known to be absent.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::damage::{Damage, DamageKind};
use crate::identity::{self, IDENTITY_FILE, NodeId};
use crate::storage::{Entry, FileBytes, Open, Refusal, Storage};
use crate::store::fields::read_small;
use crate::ulid::Ulid;

use super::super::coverage::{Coverage, Gap};
use super::super::name::Name;
use super::super::open::read_footer;
use super::{
    BYTES_MAX, Holdings, INVENTORY_FILE, Inventory, Present, damage_of, damage_of_file, is_later,
};

/// Looks at most, if a running node changes what lies there each time.
const LOOKS_MAX: usize = 5;

/// An inventory that was read; `None`: there is no such file.
pub(super) type Read = Option<Result<Inventory, DamageKind>>;

/// Reads an inventory, which is to be that of `own`, where it is known whose directory it is in.
pub(super) fn load(storage: &dyn Storage, path: &Path, own: Option<NodeId>) -> io::Result<Read> {
    let read = read_small(storage, path, BYTES_MAX, "inventory")?;
    Ok(read.map(|bytes| believed(&bytes?, own)))
}

fn believed(bytes: &[u8], own: Option<NodeId>) -> Result<Inventory, DamageKind> {
    match (Inventory::decode(bytes)?, own) {
        ((store, _), Some(own)) if store != own => {
            Err(DamageKind::Foreign("inventory", "another store"))
        }
        ((_, inventory), _) => Ok(inventory),
    }
}

/// Whose directory this is, if it says so.
fn owner(storage: &dyn Storage, directory: &Path) -> Option<NodeId> {
    let (found, _) = identity::check(storage, &directory.join(IDENTITY_FILE)).ok()?;
    found.map(|identity| identity.id)
}

/// Checks the inventory of a directory, offline and read-only: its own bytes, and what is missing of what
/// it claims.
///
/// # Errors
/// The file or its directory cannot be read.
pub fn check(storage: &dyn Storage, path: &Path) -> io::Result<Vec<Damage>> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let own = owner(storage, directory);
    let inventory = match load(storage, path, own)? {
        None => return Ok(Vec::new()),
        Some(Err(kind)) => return Ok(vec![damage_of_file(path, kind)]),
        Some(Ok(inventory)) => inventory,
    };
    let gaps = gaps(storage, directory, &inventory, None)?;
    // What was let go meanwhile is not missing.
    let Some(Ok(later)) = load(storage, path, own)? else { return Ok(Vec::new()) };
    let holes = gaps.into_iter().filter_map(|gap| later.clip(gap));
    Ok(holes.map(|hole| damage_of(&hole, directory)).collect())
}

/// What a store directory has, or had, or may have of what is missing elsewhere.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn holdings(storage: &dyn Storage, directory: &Path) -> io::Result<Holdings> {
    let present = present(storage, directory, None)?;
    let path = directory.join(INVENTORY_FILE);
    let inventory = match load(storage, &path, owner(storage, directory)) {
        Ok(Some(Ok(inventory))) => Some(inventory),
        Ok(Some(Err(kind))) if is_later(&kind) => None,
        Ok(Some(Err(_)) | None) => Some(Inventory::default()),
        Err(_) => None,
    };
    Ok(Holdings::of(present, inventory))
}

/// What lies in a store directory; of what changes all the time, what lay there.
pub(super) fn present(
    storage: &dyn Storage,
    directory: &Path,
    known: Option<Known<'_>>,
) -> io::Result<Present> {
    let mut present = Present::default();
    for _ in 0..LOOKS_MAX {
        if look(storage, directory, known, &mut present)? {
            break;
        }
    }
    Ok(present)
}

/// Files of published segments that a node knows: what others have put there counts once it was published.
pub(in super::super) type Known<'a> = &'a dyn Fn() -> HashSet<PathBuf>;

/// What of all that an inventory says was published lies in no file, or in none that is known.
pub(super) fn gaps(
    storage: &dyn Storage,
    directory: &Path,
    inventory: &Inventory,
    known: Option<Known<'_>>,
) -> io::Result<Vec<Gap>> {
    let mut present = Present::default();
    let mut looks = 0;
    loop {
        let is_still = look(storage, directory, known, &mut present)?;
        looks += 1;
        let gaps = inventory.gaps(&mut present);
        if is_still || gaps.is_empty() || looks == LOOKS_MAX {
            return Ok(gaps);
        }
    }
}

/// Adds what lies in a directory; says whether nothing was renamed or removed meanwhile.
fn look(
    storage: &dyn Storage,
    directory: &Path,
    known: Option<Known<'_>>,
    present: &mut Present,
) -> io::Result<bool> {
    let (before, mut is_still) = (segments(storage, directory)?, true);
    // Asked for behind the list: what was published before that is known.
    let known = known.map(|known| known());
    let is_unknown = |text: &str, path: &Path| {
        let is_published = matches!(Name::parse(text), Some(Name::Flushed { .. }));
        is_published && known.as_ref().is_some_and(|known| !known.contains(path))
    };
    for (text, range) in &before {
        let path = directory.join(text);
        if is_unknown(text, &path) {
            continue;
        }
        match coverage(storage, &path) {
            Err(refusal) if refusal.is_absence() => is_still = false,
            read => present.add(read.ok().flatten().as_ref(), *range),
        }
    }
    Ok(is_still && segments(storage, directory)? == before)
}

/// Names of store segments, published or in the trash, in order, and which records they say to hold.
pub(in super::super) fn segments(
    storage: &dyn Storage,
    directory: &Path,
) -> io::Result<Vec<(String, (Ulid, Ulid))>> {
    let named = |entry: Entry| {
        let text = entry.name?;
        let (first, last, _) = Name::parse(&text)?.segment()?;
        Some((text, (first, last)))
    };
    let mut names: Vec<_> = storage.list(directory)?.into_iter().filter_map(named).collect();
    names.sort_unstable();
    Ok(names)
}

/// Which records a store segment holds, as its footer says; `None`: that is damaged.
pub(in super::super) fn coverage(
    storage: &dyn Storage,
    path: &Path,
) -> Result<Option<Coverage>, Refusal> {
    let file = storage.open(path, Open::Read).map_err(|error| Refusal::from(&error))?;
    match read_footer(&mut FileBytes::new(file)?) {
        Ok(footer) => Ok(Some(footer.coverage)),
        Err(DamageKind::Unread(refusal)) => Err(refusal),
        Err(_) => Ok(None),
    }
}
