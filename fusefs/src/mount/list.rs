//! What is mounted: rows of the kernel's table, read as ours.

use std::path::{Component, Path, PathBuf};

use grove_engine::ObjectId;

use super::error::Result;
use super::table::{self, Row};
use super::{KIND, SOURCE, is_overlay};

/// A Grove mount, of whichever process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountInfo {
    /// Where it is.
    pub point: PathBuf,
    /// The repository, as it was named when its session began.
    pub repository: PathBuf,
    /// The commit; `None` for all of them.
    pub commit: Option<ObjectId>,
    /// The directory in the commit, empty for its root: for bind mounts of a part.
    pub path: PathBuf,
    /// Options of the mount, as mount(8) shows them.
    pub options: String,
    /// Device number of the session's file system, also below a writable view.
    pub device: (u32, u32),
    /// Whether it is a writable view above a commit.
    pub overlay: bool,
}

/// Every Grove mount that can be seen from here, in the order in which they were made; a commit
/// below a writable view is not told apart from it.
pub fn mounts() -> Result<Vec<MountInfo>> {
    let rows = table::read()?;
    let mut found: Vec<MountInfo> = Vec::new();
    for row in &rows {
        let Some(mut info) = info(row) else { continue };
        if info.overlay
            && let Some(low) = found.iter().rposition(|low| low.point == info.point)
        {
            info.device = found.remove(low).device;
        }
        found.push(info);
    }
    Ok(found)
}

/// What a session's file system is called in the table of mounts.
pub(crate) fn source_name(repository: &Path, commit: Option<&ObjectId>) -> String {
    match commit {
        None => format!("{SOURCE}{}", repository.display()),
        Some(id) => format!("{SOURCE}{}#{id}", repository.display()),
    }
}

pub(super) fn info(row: &Row) -> Option<MountInfo> {
    let overlay = is_overlay(row);
    if row.kind != KIND && !overlay {
        return None;
    }
    let source = row.source.to_string_lossy();
    let name = source.strip_prefix(SOURCE)?;
    let (repository, named) = match name.rsplit_once('#') {
        Some((path, id)) if id.parse::<ObjectId>().is_ok() => (path, id.parse().ok()),
        _ => (name, None),
    };
    let shared = SharedRoot::of(&row.root);
    let below = || row.root.strip_prefix("/").unwrap_or(&row.root).to_owned();
    Some(MountInfo {
        point: row.point.clone(),
        repository: repository.into(),
        commit: named.or(shared.as_ref().map(|root| root.commit)),
        path: match (named, shared) {
            (None, Some(root)) => root.path,
            _ => below(),
        },
        options: row.options.clone(),
        device: row.device,
        overlay,
    })
}

/// A directory of a session that has all commits, which lies in one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRoot {
    pub(crate) commit: ObjectId,
    pub(crate) path: PathBuf,
}

impl SharedRoot {
    /// Where the view has commits: with shared inode numbers, and with numbers of their own.
    const PARENTS: [&str; 2] = ["commits", "unique"];

    pub(crate) fn of(root: &Path) -> Option<Self> {
        let mut parts = root.components();
        let first = parts.next();
        let (Some(Component::RootDir), Some(parent), Some(name)) =
            (first, parts.next(), parts.next())
        else {
            return None;
        };
        if !Self::PARENTS
            .iter()
            .any(|known| parent.as_os_str() == *known)
        {
            return None;
        }
        let commit = name.as_os_str().to_str()?.parse().ok()?;
        let path = parts.as_path().to_owned();
        Some(Self { commit, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_mounts_of_commits() {
        let id = ObjectId::of(b"commit");
        let line = |root: &str, kind: &str, source: &str| {
            format!("40 35 0:44 {root} /m ro,nosuid - {kind} {source} ro")
        };
        let table = [
            (
                line(&format!("/commits/{id}"), KIND, "grove:/r"),
                Some(id),
                "",
                false,
            ),
            (
                line(&format!("/unique/{id}/usr/lib"), KIND, "grove:/r"),
                Some(id),
                "usr/lib",
                false,
            ),
            (
                line("/", KIND, &format!("grove:/r#{id}")),
                Some(id),
                "",
                false,
            ),
            (
                line("/usr", KIND, &format!("grove:/r#{id}")),
                Some(id),
                "usr",
                false,
            ),
            (line("/", KIND, "grove:/r"), None, "", false),
            (line("/refs", KIND, "grove:/r"), None, "refs", false),
            (
                line("/", "overlay", &format!("grove:/r#{id}")),
                Some(id),
                "",
                true,
            ),
        ];
        for (line, commit, path, overlay) in table {
            let rows = table::parse_all(line.as_bytes());
            let info = info(&rows[0]).unwrap();
            assert_eq!(info.repository, Path::new("/r"), "{line}");
            assert_eq!((info.commit, info.overlay), (commit, overlay), "{line}");
            assert_eq!(info.path, Path::new(path), "{line}");
        }
        for (kind, source) in [("ext4", "grove:/r"), ("overlay", "x"), (KIND, "other:/r")] {
            let rows = table::parse_all(line("/", kind, source).as_bytes());
            assert_eq!(info(&rows[0]), None);
        }
    }

    #[test]
    fn names_with_a_hash_are_not_taken_for_commits() {
        let name = source_name(Path::new("/a#b"), None);
        let rows = table::parse_all(format!("1 1 0:4 / /m ro - {KIND} {name} ro").as_bytes());
        let info = info(&rows[0]).unwrap();
        assert_eq!(
            (info.repository.as_path(), info.commit),
            (Path::new("/a#b"), None)
        );
    }
}
