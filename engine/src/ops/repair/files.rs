//! The small files: `meta.json`, `doomed`, and the refs.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::RepairReport;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::Storage;
use crate::id::ObjectId;
use crate::object::Commit;
use crate::pack::doomed;
use crate::refs::Refs;
use crate::refs::is_valid_ref_name;
use crate::repo::meta::Meta;
use crate::repo::{DIRECTORIES, Repository};

/// Where damaged files are kept.
pub(super) fn quarantine(repo: &Path) -> PathBuf {
    repo.join("quarantine")
}

/// Mends what a repository cannot be opened without.
pub(super) fn prepare(
    repo: &Path,
    storage: &dyn Storage,
    dry_run: bool,
    report: &mut RepairReport,
) -> Result<()> {
    match Meta::load(repo) {
        Err(Error::NotARepository { .. } | Error::Corrupt { .. }) if looks_like_one(repo) => {
            report.notes.push("meta.json: written anew".to_owned());
            if dry_run {
                let path = repo.join("meta.json");
                let detail = "a repair would write it anew; nothing else can be told before";
                return Err(Error::Corrupt {
                    path,
                    detail: detail.to_owned(),
                });
            }
            Meta::init(repo, storage)?;
        }
        other => drop(other?),
    }
    for name in DIRECTORIES {
        let dir = repo.join(name);
        if !dir.is_dir() && !dry_run {
            std::fs::create_dir(&dir).at(&dir)?;
            report.notes.push(format!("{name}/: made anew"));
        }
    }
    let list = doomed::list_path(repo);
    match doomed::load(&list) {
        Err(error @ (Error::Corrupt { .. } | Error::Io { .. })) => {
            if dry_run {
                return Err(error);
            }
            put_aside(repo, storage, &list, "doomed")?;
            let note = "doomed: damaged, put aside; packs that it listed are back";
            report.notes.push(note.to_owned());
        }
        other => drop(other?),
    }
    Ok(())
}

/// Whether a directory without a usable `meta.json` is a repository all the same.
fn looks_like_one(repo: &Path) -> bool {
    let is_dir = |name: &str| repo.join(name).is_dir();
    is_dir("packs") && (is_dir("index") || is_dir("staging") || repo.join("refs").is_file())
}

/// Moves a file into the quarantine; gives its new place.
pub(super) fn put_aside(
    repo: &Path,
    storage: &dyn Storage,
    file: &Path,
    name: &str,
) -> Result<PathBuf> {
    let quarantine = quarantine(repo);
    match std::fs::create_dir(&quarantine) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e).at(&quarantine),
        _ => {}
    }
    storage.sync_dir(repo).at(repo)?;
    let target = (0..)
        .map(|n| match n {
            0 => quarantine.join(name),
            n => quarantine.join(format!("{name}.{n}")),
        })
        .find(|path| !path.exists())
        .expect("because there are endless numbers");
    storage.rename(file, &target).at(&target)?;
    storage.sync_dir(&quarantine).at(&quarantine)?;
    let parent = file.parent().unwrap_or(repo);
    storage.sync_dir(parent).at(parent)?;
    Ok(target)
}

/// Restores damaged refs from their copy, and a damaged or old copy from the refs.
pub(super) fn mend_refs(repo: &Repository, dry_run: bool, report: &mut RepairReport) -> Result<()> {
    let file = repo.refs_file();
    let copy = file.load_copy().ok();
    match (file.load(), copy) {
        (Ok(refs), Some(copy)) if refs == copy => Ok(()),
        (Ok(refs), _) => {
            report.notes.push("refs.copy: made anew".to_owned());
            restore(repo, &refs, dry_run)
        }
        (Err(_), Some(copy)) => {
            let note = format!("refs: restored from refs.copy, change {}", copy.generation);
            report.notes.push(note);
            restore(repo, &copy, dry_run)
        }
        // Once all commits are there.
        (Err(_), None) => Ok(()),
    }
}

fn restore(repo: &Repository, refs: &Refs, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    repo.refs_file().restore(repo.storage(), refs)
}

/// With neither refs nor copy: commits say in their metadata which refs they were made for, and
/// the one that no other commit continues is what the ref led to.
pub(super) fn rebuild_refs(
    repo: &Repository,
    dry_run: bool,
    report: &mut RepairReport,
) -> Result<()> {
    if repo.refs().is_ok() || repo.refs_file().load_copy().is_ok() {
        return Ok(());
    }
    let mut bound: BTreeMap<String, Vec<(u64, ObjectId, Option<ObjectId>)>> = BTreeMap::new();
    for id in repo.commits()? {
        let Ok(commit) = repo.commit(&id) else {
            continue;
        };
        for name in bindings(&commit) {
            bound
                .entry(name)
                .or_default()
                .push((commit.timestamp, id, commit.parent));
        }
    }
    let mut refs = Refs {
        // Above anything that a copy elsewhere may have.
        generation: 1 << 32,
        ..Refs::default()
    };
    for (name, commits) in bound {
        let parents: HashSet<ObjectId> = commits.iter().filter_map(|(.., p)| *p).collect();
        let tips = commits.iter().filter(|(_, id, _)| !parents.contains(id));
        let Some((_, id, _)) = tips.max() else {
            continue;
        };
        let below = format!("{name}/");
        let clash = refs.map.keys().any(|other: &String| {
            other.starts_with(&below) || name.starts_with(&format!("{other}/"))
        });
        if !clash {
            report.notes.push(format!(
                "ref {name}: rebuilt from what commits say, as {id}"
            ));
            refs.map.insert(name, *id);
        }
    }
    let count = refs.map.len();
    report
        .notes
        .push(format!("refs: rebuilt, {count} refs; look at them"));
    restore(repo, &refs, dry_run)
}

/// The refs that a commit says it was made for.
fn bindings(commit: &Commit) -> Vec<String> {
    let value = commit.metadata.get("ostree.ref-binding");
    let names = value
        .and_then(|value| value.as_strings())
        .unwrap_or_default();
    let valid = names.into_iter().filter(|name| is_valid_ref_name(name));
    valid.map(str::to_owned).collect()
}
