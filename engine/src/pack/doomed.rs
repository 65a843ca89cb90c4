//! Packs on their way out: the list that makes deleting several packs one atomic step.
//!
//! A prune first publishes copies of what it keeps, then writes the list of packs to delete; from
//! that moment none of them is looked at any more, whatever of them is still there. Whoever comes
//! next after a crash finishes the deletion. Layout: docs/format.md, "Doomed packs".

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::{Lock, LockMode};
use crate::fs::{Storage, replace_file};
use crate::id::PackId;
use crate::pack::parity;

const HEADER: &str = "grove-doomed 1";
const FOOTER: &str = "end";
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the list lies.
pub(crate) fn list_path(repo: &Path) -> PathBuf {
    repo.join("doomed")
}

/// The packs that are to be regarded as deleted; mostly none.
pub(crate) fn load(path: &Path) -> Result<BTreeSet<PackId>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(e).at(path),
    };
    decode(&text).ok_or_else(|| Error::Corrupt {
        path: path.to_owned(),
        detail: "malformed list".into(),
    })
}

pub(crate) fn decode(text: &str) -> Option<BTreeSet<PackId>> {
    let mut lines = text.lines();
    let first = lines.next();
    let last = lines.next_back();
    (first == Some(HEADER) && last == Some(FOOTER)).then_some(())?;
    lines.map(|line| line.parse().ok()).collect()
}

/// Dooms packs, durably and all at once; [`finish`] deletes them. An unfinished list is replaced,
/// so finish it first.
pub(crate) fn doom<'a>(
    storage: &dyn Storage,
    repo: &Path,
    packs: impl IntoIterator<Item = &'a PackId>,
) -> Result<()> {
    let ids: Vec<String> = packs.into_iter().map(PackId::to_string).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let text = format!("{HEADER}\n{}\n{FOOTER}\n", ids.join("\n"));
    replace_file(storage, &list_path(repo), text.as_bytes())
}

/// Finishes a deletion that was interrupted, if there is one.
pub(crate) fn finish(storage: &dyn Storage, repo: &Path) -> Result<()> {
    let path = list_path(repo);
    if load(&path)?.is_empty() {
        return Ok(());
    }
    // Read again under the lock: a pack of the same name may be published once the list is gone.
    let _lock = Lock::acquire(&repo.join("index/lock"), LockMode::Exclusive, PATIENCE)?;
    let packs = repo.join("packs");
    for id in load(&path)? {
        let pack = packs.join(format!("{id}.pack"));
        // The parity file first: it must not outlive its pack.
        for file in [parity::path_of(&pack), pack] {
            match storage.remove_file(&file) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at(&file),
                _ => {}
            }
        }
    }
    storage.sync_dir(&packs).at(&packs)?;
    match storage.remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at(&path),
        _ => {}
    }
    storage.sync_dir(repo).at(repo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_not_whole_is_refused() {
        let id = PackId::from_bytes([7; 16]);
        let good = format!("{HEADER}\n{id}\n{FOOTER}\n");
        assert_eq!(decode(&good), Some([id].into()));
        for bad in [
            "",
            HEADER,
            "grove-doomed 1\n00\nend\n",
            &good[..good.len() - 3],
            &good[1..],
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
