//! A writable view: an overlay above a mounted commit, whose changes are kept elsewhere.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use grove_engine::ObjectId;
use rustix::fs::{FlockOperation, XattrFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::error::{MountError, Result};
use super::{MountAttrs, list, point, table};

const KIND: &str = "overlay";

/// Where the changes of a writable view are kept. Layers hold differences to one commit; above
/// another one they would make nonsense, so the commit is noted beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layers {
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    /// Makes the layers in a directory, or takes those of the same commit that are there.
    fn prepare(dir: &Path, commit: &ObjectId) -> Result<Self> {
        fs::create_dir_all(dir).map_err(MountError::io("make", dir))?;
        let dir = dir.canonicalize().map_err(MountError::io("find", dir))?;
        let note = dir.join("commit");
        match fs::read_to_string(&note) {
            Ok(text) if text.trim_end() == commit.to_string() => {}
            Ok(text) => {
                return Err(MountError::OtherCommit {
                    path: dir,
                    commit: text.trim_end().to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::write(&note, format!("{commit}\n")).map_err(MountError::io("write", &note))?;
            }
            Err(error) => return Err(MountError::io("read", &note)(error)),
        }
        let overlay = Self {
            upper: dir.join("upper"),
            work: dir.join("work"),
        };
        let work = &overlay.work;
        fs::create_dir_all(work).map_err(MountError::io("make", work))?;
        Ok(overlay)
    }

    /// The options of the file system.
    fn data(&self, lower: &Path) -> Vec<u8> {
        let mut data = b"lowerdir=".to_vec();
        escape(lower, b":,\\", &mut data);
        for (name, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            data.extend_from_slice(format!(",{name}=").as_bytes());
            escape(path, b",\\", &mut data);
        }
        data
    }
}

/// Lays a writable view over a mounted commit, at the same directory and with the same rights.
/// What is changed there is kept below `dir`, which is made or, for the same commit, used again.
pub fn overlay(at: &Path, dir: &Path) -> Result<()> {
    let at = point::resolve(at)?;
    let not_mounted = || MountError::NotMounted { path: at.clone() };
    let row = table::at(&at)?.ok_or_else(not_mounted)?;
    let info = list::info(&row).filter(|info| !info.overlay);
    let info = info.ok_or_else(not_mounted)?;
    let commit = info.commit.ok_or_else(not_mounted)?;
    let layers = Layers::prepare(dir, &commit)?;
    // Of two at once one finds the other's lock, or its mount.
    let lock = alone(dir)?;
    if lock.is_none() || is_used(&layers.upper)? {
        return Err(MountError::Busy {
            path: layers.upper,
            users: Vec::new(),
        });
    }
    make_upper(&at, &layers.upper)?;
    let refuse = |source: Errno| MountError::io("lay an overlay over", &at)(source);
    let data = CString::new(layers.data(&at)).map_err(|_| refuse(Errno::INVAL))?;
    let source = list::source_name(&info.repository, Some(&commit));
    let attrs = MountAttrs::of(&row.options).flags();
    let flags = attrs - MountFlags::RDONLY - MountFlags::NOATIME;
    rustix::mount::mount(source, &at, KIND, flags, data.as_c_str()).map_err(refuse)
}

/// Two overlays with the same layer would corrupt it, and the kernel only warns of it.
fn is_used(upper: &Path) -> Result<bool> {
    // Kernels show the path as it is, or as it was given.
    let options = [&b""[..], b",\\"].map(|special| {
        let mut option = b"upperdir=".to_vec();
        escape(upper, special, &mut option);
        String::from_utf8_lossy(&option).into_owned()
    });
    let has = |data: &str| options.iter().any(|option| has_option(data, option));
    let uses = |row: &table::Row| row.kind == KIND && has(&row.data);
    Ok(table::read()?.iter().any(uses))
}

/// Whether an option, which may have commas in it, is one of those that commas separate.
fn has_option(options: &str, option: &str) -> bool {
    options.match_indices(option).any(|(at, _)| {
        let (before, here) = options.split_at(at);
        let after = here.strip_prefix(option).unwrap_or_default();
        (before.is_empty() || before.ends_with(',')) && (after.is_empty() || after.starts_with(','))
    })
}

/// A lock on the directory of layers; `None` if another one has it.
fn alone(dir: &Path) -> Result<Option<File>> {
    let file = File::open(dir).map_err(MountError::io("open", dir))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(MountError::io("lock", dir)(error)),
    }
}

/// The layer's root stands for the commit's, so it begins with the same attributes.
fn make_upper(at: &Path, upper: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(MountError::io("make", upper))?,
    }
    let meta = fs::metadata(at).map_err(MountError::io("look at", at))?;
    chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(MountError::io("own", upper))?;
    let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
    fs::set_permissions(upper, mode).map_err(MountError::io("set the mode of", upper))?;
    let mut names = vec![0; 65536];
    let len = rustix::fs::listxattr(at, &mut names[..]).unwrap_or(0);
    for name in names
        .get(..len)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
    {
        let mut value = vec![0; 65536];
        let Ok(len) = rustix::fs::getxattr(at, name, &mut value[..]) else {
            continue;
        };
        // Where the layer is may know other attributes than the commit has.
        let value = value.get(..len).unwrap_or_default();
        let _ = rustix::fs::setxattr(upper, name, value, XattrFlags::empty());
    }
    Ok(())
}

/// Appends a path as the file system wants it: a backslash before what would end it.
fn escape(path: &Path, special: &[u8], into: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if special.contains(byte) {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_as_overlayfs_reads_them() {
        let layers = Layers {
            upper: "/u,p/upper".into(),
            work: "/u\\:/work".into(),
        };
        let data = layers.data(Path::new("/a:b,c"));
        let expected = "lowerdir=/a\\:b\\,c,upperdir=/u\\,p/upper,workdir=/u\\\\:/work";
        assert_eq!(String::from_utf8(data).unwrap(), expected);
    }

    #[test]
    fn layers_in_use_are_told_from_those_whose_path_begins_alike() {
        for (options, has) in [
            ("rw,lowerdir=/l,upperdir=/u/upper,workdir=/u/work", true),
            ("upperdir=/u/upper", true),
            ("rw,upperdir=/u/upper2,workdir=/u/work", false),
            ("rw,xupperdir=/u/upper", false),
            ("rw,upperdir=/u/upper2,upperdir=/u/upper", true),
            ("rw", false),
        ] {
            assert_eq!(has_option(options, "upperdir=/u/upper"), has, "{options}");
        }
    }

    #[test]
    fn one_at_a_time_lays_an_overlay_over_layers() {
        let dir = tempfile::tempdir().unwrap();
        let first = alone(dir.path()).unwrap();
        assert!(first.is_some() && alone(dir.path()).unwrap().is_none());
        drop(first);
        assert!(alone(dir.path()).unwrap().is_some());
    }

    #[test]
    fn layers_belong_to_one_commit() {
        let dir = tempfile::tempdir().unwrap();
        let one = ObjectId::of(b"1");
        let layers = Layers::prepare(dir.path(), &one).unwrap();
        assert_eq!(Layers::prepare(dir.path(), &one).unwrap(), layers);
        let error = Layers::prepare(dir.path(), &ObjectId::of(b"2")).unwrap_err();
        assert!(error.to_string().contains(&one.to_string()), "{error}");
    }
}
