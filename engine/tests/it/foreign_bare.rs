//! Damaged and hostile OSTree repositories whose objects are files as they are: an import names the
//! object, waits for nothing, and leaves refs and commits as they were.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use grove_engine::object::{Commit, DirMeta, Dirtree, FileHeader, Metadata, Xattrs};
use grove_engine::ops::ostree::{ImportOptions, import};
use grove_engine::{ObjectId, Repository, Silent};
use rustix::fs::XattrFlags;

use crate::foreign::{ours, text};
use crate::support::run;

const CONTENT: &[u8] = b"some content";
const META: &str = "user.ostreemeta";
const LINK: &str = "file-xattrs-link";

/// A repository with one commit of one file.
struct Bare {
    repo: PathBuf,
    mode: &'static str,
    header: FileHeader,
    file: ObjectId,
    tree: ObjectId,
    commit: ObjectId,
}

impl Bare {
    fn new(repo: PathBuf, mode: &'static str, header: FileHeader) -> Self {
        for dir in ["objects", "refs/heads"] {
            fs::create_dir_all(repo.join(dir)).unwrap();
        }
        let config = format!("[core]\nrepo_version=1\nmode={mode}\n");
        fs::write(repo.join("config"), config).unwrap();
        let content = if header.is_symlink() { b"" } else { CONTENT };
        let file = header.object_id(content);
        let nothing = ObjectId::of(b"");
        let mut bare = Self {
            repo,
            mode,
            header,
            file,
            tree: nothing,
            commit: nothing,
        };
        bare.write_file();
        let meta = DirMeta {
            uid: 0,
            gid: 0,
            mode: 0o40755,
            xattrs: Xattrs::default(),
        };
        let meta = bare.add("dirmeta", &meta.to_bytes());
        let tree = Dirtree {
            files: vec![("file".to_owned(), file)],
            dirs: Vec::new(),
        };
        bare.tree = bare.add("dirtree", &tree.to_bytes());
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: String::new(),
            body: String::new(),
            timestamp: 0,
            tree: bare.tree,
            meta,
        };
        bare.commit = bare.add("commit", &commit.to_bytes());
        fs::write(bare.repo.join("refs/heads/bad"), bare.commit.to_string()).unwrap();
        bare
    }

    /// The file as the mode has it.
    fn write_file(&self) {
        let at = self.file_path();
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let target = std::str::from_utf8(&self.header.symlink_target).unwrap();
        match self.mode {
            "bare-user" => {
                fs::write(&at, CONTENT).unwrap();
                self.set_meta(&self.header.to_bare_user());
            }
            _ if self.header.is_symlink() => symlink(target, &at).unwrap(),
            _ => {
                fs::write(&at, CONTENT).unwrap();
                let mode = fs::Permissions::from_mode(self.header.mode & 0o7777);
                fs::set_permissions(&at, mode).unwrap();
            }
        }
        if self.mode == "bare-split-xattrs" {
            fs::write(self.path(&self.file, LINK), self.header.xattrs.to_bytes()).unwrap();
        }
    }

    fn path(&self, id: &ObjectId, extension: &str) -> PathBuf {
        let id = id.to_string();
        let name = format!("objects/{}/{}.{extension}", &id[..2], &id[2..]);
        self.repo.join(name)
    }

    fn file_path(&self) -> PathBuf {
        self.path(&self.file, "file")
    }

    fn add(&self, extension: &str, bytes: &[u8]) -> ObjectId {
        let id = ObjectId::of(bytes);
        let path = self.path(&id, extension);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        id
    }

    fn set_meta(&self, bytes: &[u8]) {
        rustix::fs::setxattr(self.file_path(), META, bytes, XattrFlags::empty()).unwrap();
    }

    /// Its metadata, changed.
    fn with_meta(&self, change: impl FnOnce(&mut FileHeader)) {
        let mut header = self.header.clone();
        change(&mut header);
        self.set_meta(&header.to_bare_user());
    }

    /// Its metadata with some bytes in place of others.
    fn with_bytes(&self, old: &[u8], new: &[u8]) {
        let mut bytes = self.header.to_bare_user();
        let at = bytes.windows(old.len()).position(|window| window == old);
        bytes.splice(at.unwrap()..at.unwrap() + old.len(), new.iter().copied());
        self.set_meta(&bytes);
    }
}

/// The header of a file that whoever runs the tests can make in a directory.
fn header(dir: &Path, xattrs: Xattrs) -> FileHeader {
    let stat = fs::metadata(dir).unwrap();
    FileHeader {
        uid: stat.uid(),
        gid: stat.gid(),
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs,
    }
}

fn xattrs() -> Xattrs {
    Xattrs::from_unsorted(vec![
        (b"user.a".to_vec(), b"1".to_vec()),
        (b"user.b".to_vec(), b"2".to_vec()),
    ])
}

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    fs::remove_file(path).unwrap();
    make(path);
}

fn fifo(path: &Path) {
    run(Command::new("mkfifo").arg(path));
}

/// Whether files can have the attributes that bare-user repositories need; says that a test skips
/// when they cannot.
fn have_attributes(dir: &Path) -> bool {
    let probe = dir.join("probe");
    fs::write(&probe, b"").unwrap();
    let set = rustix::fs::setxattr(&probe, META, b"1", XattrFlags::empty());
    if let Err(error) = &set {
        println!("skipped: no attributes here: {error}");
    }
    set.is_ok()
}

/// What is wrong; how it is made so; and what an error must say, beside the object.
type Case = (&'static str, fn(&Bare), &'static str);

/// Of every mode.
const CASES: &[Case] = &[
    (
        "other content",
        |b| fs::write(b.file_path(), b"same length!").unwrap(),
        "checksum mismatch",
    ),
    (
        "content that is cut short",
        |b| fs::write(b.file_path(), &CONTENT[1..]).unwrap(),
        "checksum mismatch",
    ),
    (
        "no file",
        |b| fs::remove_file(b.file_path()).unwrap(),
        "missing",
    ),
    ("a FIFO", |b| replace(&b.file_path(), fifo), "regular file"),
    (
        "a directory",
        |b| replace(&b.file_path(), |path| fs::create_dir(path).unwrap()),
        "regular file",
    ),
    (
        "a socket",
        |b| {
            replace(&b.file_path(), |path| {
                // Its own name would be too long.
                let short = b.repo.join("socket");
                drop(std::os::unix::net::UnixListener::bind(&short).unwrap());
                fs::rename(short, path).unwrap();
            });
        },
        "regular file",
    ),
    (
        "a listing that is a FIFO",
        |b| replace(&b.path(&b.tree, "dirtree"), fifo),
        "not a regular file",
    ),
    (
        "a commit that is a directory",
        |b| {
            replace(&b.path(&b.commit, "commit"), |path| {
                fs::create_dir(path).unwrap();
            });
        },
        "not a regular file",
    ),
    (
        "detached metadata that is a FIFO",
        |b| fifo(&b.path(&b.commit, "commitmeta")),
        "not a regular file",
    ),
];

const BARE: &[Case] = &[
    (
        "a symbolic link in place of a file",
        |b| replace(&b.file_path(), |path| symlink("target", path).unwrap()),
        "checksum mismatch",
    ),
    (
        "a symbolic link out of the repository",
        |b| replace(&b.file_path(), |path| symlink("/etc/passwd", path).unwrap()),
        "checksum mismatch",
    ),
    (
        "a symbolic link to no text",
        |b| {
            replace(&b.file_path(), |path| {
                use std::os::unix::ffi::OsStrExt;
                symlink(std::ffi::OsStr::from_bytes(b"caf\xe9"), path).unwrap();
            });
        },
        "the target of a symbolic link is no text",
    ),
    (
        "another mode",
        |b| {
            let mode = fs::Permissions::from_mode(0o4755);
            fs::set_permissions(b.file_path(), mode).unwrap();
        },
        "checksum mismatch",
    ),
];

const BARE_USER: &[Case] = &[
    (
        "a symbolic link in place of a file",
        |b| replace(&b.file_path(), |path| symlink("/etc/passwd", path).unwrap()),
        "not a regular file",
    ),
    (
        "no metadata",
        |b| rustix::fs::removexattr(b.file_path(), META).unwrap(),
        "the attribute user.ostreemeta is missing",
    ),
    ("empty metadata", |b| b.set_meta(b""), "at byte"),
    (
        "metadata cut in its numbers",
        |b| b.set_meta(&b.header.to_bare_user()[..11]),
        "at byte",
    ),
    (
        "metadata cut in its attributes",
        |b| {
            let bytes = b.header.to_bare_user();
            b.set_meta(&bytes[..bytes.len() - 1]);
        },
        "at byte",
    ),
    (
        "metadata with something after it",
        |b| b.set_meta(&[&b.header.to_bare_user()[..], &[0xff; 2000]].concat()),
        "at byte",
    ),
    (
        "the mode of a directory",
        |b| b.with_meta(|header| header.mode = 0o40_755),
        "neither a regular file's nor a symbolic link's",
    ),
    (
        "the mode of a device",
        |b| b.with_meta(|header| header.mode = 0o20_644),
        "neither a regular file's nor a symbolic link's",
    ),
    (
        "a mode of unknown bits",
        |b| b.with_meta(|header| header.mode = 0o1_100_644),
        "neither a regular file's nor a symbolic link's",
    ),
    (
        "no type",
        |b| b.with_meta(|header| header.mode = 0o644),
        "neither a regular file's nor a symbolic link's",
    ),
    (
        "another owner",
        |b| b.with_meta(|header| header.uid += 1),
        "checksum mismatch",
    ),
    (
        "set-user-ID",
        |b| b.with_meta(|header| header.mode = 0o104_755),
        "checksum mismatch",
    ),
    (
        "the mode of a symbolic link",
        |b| b.with_meta(|header| header.mode = FileHeader::SYMLINK_MODE),
        "checksum mismatch",
    ),
    (
        "a symbolic link without a target",
        |b| {
            fs::write(b.file_path(), b"").unwrap();
            b.with_meta(|header| header.mode = FileHeader::SYMLINK_MODE);
        },
        "a symbolic link has no target",
    ),
    (
        "a symbolic link with a NUL",
        |b| {
            fs::write(b.file_path(), b"a\0b\0").unwrap();
            b.with_meta(|header| header.mode = FileHeader::SYMLINK_MODE);
        },
        "the target of a symbolic link is no text",
    ),
    (
        "a symbolic link that is longer than any",
        |b| {
            fs::write(b.file_path(), [b'x'; (64 << 10) + 1]).unwrap();
            b.with_meta(|header| header.mode = FileHeader::SYMLINK_MODE);
        },
        "more than the limit of 65536",
    ),
    (
        "an attribute twice",
        |b| b.with_bytes(b"user.b", b"user.a"),
        "an extended attribute occurs twice",
    ),
    (
        "attributes out of order",
        |b| b.with_bytes(b"user.a", b"user.c"),
        "checksum mismatch",
    ),
    (
        "an attribute with a NUL in its name",
        |b| b.with_bytes(b"user.a", b"use\0.a"),
        "not a NUL-terminated string",
    ),
    (
        "another value of an attribute",
        |b| b.with_bytes(b"user.a\x001", b"user.a\x003"),
        "checksum mismatch",
    ),
];

const SPLIT: &[Case] = &[
    (
        "no attributes",
        |b| fs::remove_file(b.path(&b.file, LINK)).unwrap(),
        "its .file-xattrs-link is missing",
    ),
    (
        "attributes of another file",
        |b| fs::write(b.path(&b.file, LINK), Xattrs::default().to_bytes()).unwrap(),
        "checksum mismatch",
    ),
    (
        "attributes that are none",
        |b| fs::write(b.path(&b.file, LINK), b"xxxxxxxx").unwrap(),
        "at byte",
    ),
    (
        "attributes that are cut short",
        |b| {
            let bytes = b.header.xattrs.to_bytes();
            fs::write(b.path(&b.file, LINK), &bytes[..bytes.len() - 1]).unwrap();
        },
        "at byte",
    ),
    (
        "more attributes than there can be",
        |b| {
            let file = fs::File::create(b.path(&b.file, LINK)).unwrap();
            file.set_len((1 << 20) + 1).unwrap();
        },
        "more than the limit of 1048576",
    ),
    (
        "attributes that lead to what is missing",
        |b| {
            replace(&b.path(&b.file, LINK), |path| {
                symlink("missing", path).unwrap();
            });
        },
        "its .file-xattrs-link is not a regular file",
    ),
    (
        "attributes that are a FIFO",
        |b| replace(&b.path(&b.file, LINK), fifo),
        "its .file-xattrs-link is not a regular file",
    ),
    (
        "attributes that are a directory",
        |b| replace(&b.path(&b.file, LINK), |path| fs::create_dir(path).unwrap()),
        "its .file-xattrs-link is not a regular file",
    ),
];

/// Imports what a case has damaged, or not; compares what is said, and that it changes nothing.
fn check(make: impl Fn(PathBuf) -> Bare, case: Option<&Case>) {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let state = |repo: &Repository| {
        (
            repo.refs().unwrap(),
            repo.commits().unwrap(),
            repo.stored().unwrap(),
        )
    };
    let before = state(&repo);
    let bare = make(dir.path().join("foreign"));
    let options = ImportOptions::default();
    let Some((name, damage, says)) = case else {
        import(&repo, &bare.repo, &options, &Silent).unwrap();
        assert_eq!(repo.file(&bare.file).unwrap().header, bare.header);
        return;
    };
    damage(&bare);
    let error = text(&import(&repo, &bare.repo, &options, &Silent).unwrap_err());
    let objects = [
        (bare.file, "file"),
        (bare.tree, "dirtree"),
        (bare.commit, "commit"),
    ];
    let named = objects.iter().any(|(id, extension)| {
        let path = bare.path(id, extension).display().to_string();
        error.contains(&path)
    });
    let context = format!("{}, {name}: {error}", bare.mode);
    assert!(named && error.contains(says), "{context}");
    assert_eq!(state(&repo), before, "{context}");
    let staging = fs::read_dir(repo.path().join("staging")).unwrap();
    assert_eq!(staging.count(), 0, "{context}");
}

fn check_all(make: impl Fn(PathBuf) -> Bare, cases: &[&[Case]]) {
    check(&make, None);
    for case in cases.iter().copied().flatten() {
        check(&make, Some(case));
    }
}

#[test]
fn damage_of_bare_repositories_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let attributes = rustix::fs::listxattr(dir.path().join("file"), &mut [0_u8; 256][..]);
    if attributes.is_ok_and(|len| len > 0) {
        println!("skipped: files have attributes by themselves here");
        return;
    }
    let file = |repo: PathBuf| {
        let header = header(dir.path(), Xattrs::default());
        Bare::new(repo, "bare", header)
    };
    check_all(file, &[CASES, BARE]);
    let link = |repo: PathBuf| {
        let header = FileHeader {
            mode: FileHeader::SYMLINK_MODE,
            symlink_target: b"target".to_vec(),
            ..header(dir.path(), Xattrs::default())
        };
        Bare::new(repo, "bare", header)
    };
    let case: &[Case] = &[(
        "a file in place of a symbolic link",
        |b| replace(&b.file_path(), |path| fs::write(path, b"target").unwrap()),
        "checksum mismatch",
    )];
    check_all(link, &[case]);
}

#[test]
fn damage_of_bare_user_repositories_is_named() {
    let dir = tempfile::tempdir().unwrap();
    if !have_attributes(dir.path()) {
        return;
    }
    let make = |repo: PathBuf| {
        let header = FileHeader {
            uid: 7,
            gid: 8,
            ..header(dir.path(), xattrs())
        };
        Bare::new(repo, "bare-user", header)
    };
    check_all(make, &[CASES, BARE_USER]);
}

#[test]
fn damage_of_bare_split_xattrs_repositories_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let make = |repo: PathBuf| {
        let header = header(dir.path(), xattrs());
        Bare::new(repo, "bare-split-xattrs", header)
    };
    check_all(make, &[CASES, BARE, SPLIT]);
}
