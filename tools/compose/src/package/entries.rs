//! The file list of a package's header: decoded, and checked against hostile paths.
//!
//! Owns the rules for names. After [`FileList::read`] every path is relative, UTF-8, free of `.`
//! and `..`, unique, and does not pass through a file or symlink of the same package.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rpm::{FileFlags, IndexTag, PackageMetadata};

use super::PackageError;
use super::digest::{Algorithm, Expected};
use super::structure::RawHeader;

/// Longest path and longest component, in bytes.
const MAX_PATH: usize = 4096;
const MAX_COMPONENT: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket, which no commit can hold.
    Special,
    /// Anything whose name is not UTF-8, which no commit can hold either.
    Unnameable,
}

/// One entry of a package.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path relative to the root, `/`-separated; the root itself is empty.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Full `st_mode`, type bits included.
    pub mode: u32,
    /// Owner's name.
    pub user: Arc<str>,
    /// Group's name.
    pub group: Arc<str>,
    /// File capabilities as text; `None` when it has none.
    pub caps: Option<String>,
    /// Size in bytes of a regular file.
    pub size: u64,
    /// Target of a symbolic link.
    pub target: String,
    /// Flags such as configuration, documentation, ghost.
    pub flags: FileFlags,
    /// Digest of a regular file, hexadecimal, if the header gives one.
    pub digest: Option<String>,
    /// Device and inode that the header gives: the same for all names of one file.
    pub(crate) inode: Option<(u32, u32)>,
    pub(crate) position: usize,
}

impl Entry {
    /// Its place in the header's list.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether the entry is only announced: the payload does not hold it.
    pub fn is_ghost(&self) -> bool {
        self.flags.contains(FileFlags::GHOST)
    }

    /// What the entry is, in words.
    pub fn kind_name(&self) -> &'static str {
        match self.mode & 0o170000 {
            0o040000 => "directory",
            0o100000 => "regular file",
            0o120000 => "symbolic link",
            0o060000 => "block device",
            0o020000 => "character device",
            0o010000 => "FIFO",
            0o140000 => "socket",
            _ => "file of unknown type",
        }
    }
}

/// The entries of a package in header order.
#[derive(Debug)]
pub struct FileList {
    entries: Vec<Entry>,
    /// By the bytes of the path.
    by_path: HashMap<Vec<u8>, usize>,
    algorithm: u32,
}

impl FileList {
    /// All entries in header order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Finds an entry's index by its path.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    /// The digest that an entry's content must have, if it is one that can be computed.
    pub(super) fn expected(&self, entry: &Entry) -> Option<Expected> {
        let hex = entry.digest.as_ref()?.to_ascii_lowercase();
        let algorithm = Algorithm::from_number(self.algorithm)?;
        Some(Expected {
            algorithm,
            hex,
            unpacked: false,
        })
    }

    pub(super) fn read(
        metadata: &PackageMetadata,
        raw: RawHeader<'_>,
        source: bool,
        names: Names,
    ) -> Result<Self, PackageError> {
        let columns = Columns::read(metadata, raw).map_err(PackageError::Header)?;
        let count = columns.names.len();
        let mut entries = Vec::with_capacity(count);
        let mut by_path = HashMap::with_capacity(count);
        let mut owners = HashSet::new();
        for at in 0..count {
            let (key, entry) = columns.entry(at, source, names, &mut owners)?;
            if by_path.insert(key, at).is_some() {
                return Err(PackageError::entry(
                    &entry.path,
                    "listed twice in the header",
                ));
            }
            entries.push(entry);
        }
        let list = Self {
            entries,
            by_path,
            algorithm: columns.algorithm,
        };
        list.check_ancestors()?;
        Ok(list)
    }

    fn check_ancestors(&self) -> Result<(), PackageError> {
        for (path, at) in &self.by_path {
            let mut rest = path.as_slice();
            while let Some(cut) = rest.iter().rposition(|byte| *byte == b'/') {
                rest = rest.get(..cut).unwrap_or_default();
                let above = self.find(rest).and_then(|at| self.entries.get(at));
                if let Some(above) = above
                    && above.mode & 0o170_000 != 0o040_000
                    && !above.is_ghost()
                {
                    let reason = format!("passes through the {} {}", above.kind_name(), above.path);
                    let path = self
                        .entries
                        .get(*at)
                        .map_or("", |entry| entry.path.as_str());
                    return Err(PackageError::entry(path, reason));
                }
            }
        }
        Ok(())
    }
}

/// What to do with names that no commit can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Refuse the package.
    #[default]
    Utf8Only,
    /// List them as [`EntryKind::Unnameable`].
    Any,
}

/// The header's parallel arrays.
struct Columns<'a> {
    names: Vec<&'a [u8]>,
    dirs: Vec<&'a [u8]>,
    dir_indexes: Vec<u32>,
    modes: Vec<u16>,
    users: Vec<&'a str>,
    groups: Vec<&'a str>,
    sizes: Vec<u64>,
    targets: Vec<&'a [u8]>,
    flags: Vec<u32>,
    digests: Vec<&'a str>,
    caps: Vec<&'a str>,
    devices: Vec<u32>,
    inodes: Vec<u32>,
    algorithm: u32,
}

impl<'a> Columns<'a> {
    fn read(metadata: &'a PackageMetadata, raw: RawHeader<'a>) -> Result<Self, rpm::Error> {
        let header = &metadata.header;
        let names = raw.strings(IndexTag::RPMTAG_BASENAMES as u32);
        let sizes = header.get_entry_data_as_u64_array(IndexTag::RPMTAG_LONGFILESIZES);
        let sizes = match sizes {
            Ok(sizes) => sizes,
            Err(_) => optional(header.get_entry_data_as_u32_array(IndexTag::RPMTAG_FILESIZES))?
                .into_iter()
                .map(u64::from)
                .collect(),
        };
        let strings = |tag| optional(header.get_entry_data_as_string_array(tag));
        let numbers = |tag| optional(header.get_entry_data_as_u32_array(tag));
        let columns = Self {
            dirs: raw.strings(IndexTag::RPMTAG_DIRNAMES as u32),
            dir_indexes: numbers(IndexTag::RPMTAG_DIRINDEXES)?,
            modes: optional(header.get_entry_data_as_u16_array(IndexTag::RPMTAG_FILEMODES))?,
            users: strings(IndexTag::RPMTAG_FILEUSERNAME)?,
            groups: strings(IndexTag::RPMTAG_FILEGROUPNAME)?,
            sizes,
            targets: raw.strings(IndexTag::RPMTAG_FILELINKTOS as u32),
            flags: numbers(IndexTag::RPMTAG_FILEFLAGS)?,
            digests: strings(IndexTag::RPMTAG_FILEDIGESTS)?,
            caps: strings(IndexTag::RPMTAG_FILECAPS)?,
            devices: numbers(IndexTag::RPMTAG_FILEDEVICES)?,
            inodes: numbers(IndexTag::RPMTAG_FILEINODES)?,
            algorithm: header
                .get_entry_data_as_u32(IndexTag::RPMTAG_FILEDIGESTALGO)
                .unwrap_or(1),
            names,
        };
        columns
            .check_lengths()
            .then_some(columns)
            .ok_or(rpm::Error::InconsistentTagArrayLengths)
    }

    fn check_lengths(&self) -> bool {
        let count = self.names.len();
        let required = [
            self.dir_indexes.len(),
            self.modes.len(),
            self.users.len(),
            self.groups.len(),
            self.sizes.len(),
        ];
        let optional = [
            self.targets.len(),
            self.flags.len(),
            self.digests.len(),
            self.caps.len(),
            self.devices.len(),
            self.inodes.len(),
        ];
        required.iter().all(|len| *len == count)
            && optional.iter().all(|len| *len == count || *len == 0)
    }

    fn entry(
        &self,
        at: usize,
        source: bool,
        names: Names,
        owners: &mut HashSet<Arc<str>>,
    ) -> Result<(Vec<u8>, Entry), PackageError> {
        fn nth<T: Copy + Default>(column: &[T], at: usize) -> T {
            column.get(at).copied().unwrap_or_default()
        }
        let dir_index = nth(&self.dir_indexes, at) as usize;
        let bytes = match self.dirs.get(dir_index) {
            Some(dir) => [*dir, nth(&self.names, at)].concat(),
            None => {
                let name = String::from_utf8_lossy(nth(&self.names, at)).into_owned();
                return Err(PackageError::entry(
                    name,
                    "its directory is not in the header",
                ));
            }
        };
        let refuse = |reason: &str| {
            PackageError::entry(String::from_utf8_lossy(&bytes).into_owned(), reason)
        };
        let key = check_path(&bytes, source).map_err(refuse)?;
        let path = match std::str::from_utf8(key) {
            Ok(path) => Some(path),
            Err(_) if names == Names::Any => None,
            Err(_) => return Err(refuse("the name is not UTF-8")),
        };
        let target = std::str::from_utf8(nth(&self.targets, at))
            .map_err(|_| refuse("the link's target is not UTF-8"))?;
        let mode = u32::from(nth(&self.modes, at));
        let kind = match mode & 0o170000 {
            _ if path.is_none() => EntryKind::Unnameable,
            0o040000 => EntryKind::Dir,
            0o100000 => EntryKind::File,
            0o120000 => EntryKind::Symlink,
            _ => EntryKind::Special,
        };
        let mut intern = |name: &str| match owners.get(name) {
            Some(known) => Arc::clone(known),
            None => {
                let name = Arc::<str>::from(name);
                owners.insert(Arc::clone(&name));
                name
            }
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let entry = Entry {
            path: path.map_or_else(|| String::from_utf8_lossy(key).into_owned(), str::to_owned),
            kind,
            mode,
            user: intern(nth(&self.users, at)),
            group: intern(nth(&self.groups, at)),
            caps: text(nth(&self.caps, at)),
            size: if mode & 0o170_000 == 0o100_000 {
                nth(&self.sizes, at)
            } else {
                0
            },
            target: target.to_owned(),
            flags: FileFlags::from_bits_retain(nth(&self.flags, at)),
            digest: text(nth(&self.digests, at)).filter(|_| kind == EntryKind::File),
            inode: self
                .devices
                .get(at)
                .copied()
                .zip(self.inodes.get(at).copied()),
            position: at,
        };
        Ok((key.to_vec(), entry))
    }
}

/// A missing tag is an empty column.
fn optional<T>(column: Result<Vec<T>, rpm::Error>) -> Result<Vec<T>, rpm::Error> {
    match column {
        Err(rpm::Error::TagNotFound(_)) => Ok(Vec::new()),
        column => column,
    }
}

/// Makes a header's path relative, and refuses it unless it is plain.
fn check_path(path: &[u8], source: bool) -> Result<&[u8], &'static str> {
    if path.len() > MAX_PATH {
        return Err("the path is too long");
    }
    let relative = match path.strip_prefix(b"/") {
        Some(relative) => relative,
        None if source => path,
        None => return Err("not an absolute path"),
    };
    if relative.is_empty() {
        return if source {
            Err("an empty name")
        } else {
            Ok(relative)
        };
    }
    for component in relative.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err("an empty path component"),
            b"." | b".." => return Err("\".\" or \"..\" in the path"),
            _ if component.len() > MAX_COMPONENT => return Err("a path component is too long"),
            _ => {}
        }
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_accepted() {
        let long = format!("/{}", "x".repeat(256));
        for (path, good) in [
            ("/usr/bin/x", Some("usr/bin/x")),
            ("/", Some("")),
            ("/a\nb", Some("a\nb")),
            ("/...", Some("...")),
            ("usr/x", None),
            ("", None),
            ("/usr/../etc", None),
            ("/..", None),
            ("/./x", None),
            ("//x", None),
            ("/x/", None),
            (&long, None),
        ] {
            let found = check_path(path.as_bytes(), false).ok();
            assert_eq!(found, good.map(str::as_bytes), "{path:?}");
        }
        assert_eq!(check_path(b"x.spec", true), Ok(&b"x.spec"[..]));
        assert!(check_path(b"../x.spec", true).is_err());
    }
}
