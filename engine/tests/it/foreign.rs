//! Damaged and hostile OSTree repositories: an import says which object and which file is wrong, and
//! leaves refs and commits as they were.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use grove_engine::object::{Commit, DirEntry, DirMeta, Dirtree, FileHeader, Metadata, Xattrs};
use grove_engine::ops::ostree::{ImportOptions, import};
use grove_engine::{Error, Monitor, ObjectId, Repository, Silent};

use crate::support::commit_dir;

const CONTENT: &[u8] = b"some content";

/// A small archive with one commit, whose parts are known by name.
struct Foreign {
    repo: PathBuf,
    commit: ObjectId,
    root: ObjectId,
    sub: ObjectId,
    meta: ObjectId,
    file: ObjectId,
}

/// A header and a stored, uncompressed block.
fn filez(header: &FileHeader, declared: u64, content: &[u8]) -> Vec<u8> {
    let len = content.len() as u16;
    let (plain, inverted) = (len.to_le_bytes(), (!len).to_le_bytes());
    [
        &header.archive_prefix(declared)[..],
        &[1][..],
        &plain,
        &inverted,
        content,
    ]
    .concat()
}

fn header() -> FileHeader {
    FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs: Xattrs::default(),
    }
}

impl Foreign {
    fn new(repo: PathBuf) -> Self {
        for dir in ["objects", "refs/heads"] {
            fs::create_dir_all(repo.join(dir)).unwrap();
        }
        fs::write(
            repo.join("config"),
            "[core]\nrepo_version=1\nmode=archive-z2\n",
        )
        .unwrap();
        let nothing = ObjectId::of(b"");
        let mut foreign = Self {
            repo,
            commit: nothing,
            root: nothing,
            sub: nothing,
            meta: nothing,
            file: header().object_id(CONTENT),
        };
        foreign.write(
            &foreign.file,
            "filez",
            &filez(&header(), CONTENT.len() as u64, CONTENT),
        );
        let meta = DirMeta {
            uid: 0,
            gid: 0,
            mode: 0o40755,
            xattrs: Xattrs::default(),
        };
        foreign.meta = foreign.add("dirmeta", &meta.to_bytes());
        foreign.tree(&foreign.listing());
        foreign
    }

    fn listing(&self) -> Dirtree {
        Dirtree {
            files: vec![("file".to_owned(), self.file)],
            dirs: Vec::new(),
        }
    }

    /// Puts a listing below the root, and makes it the commit of the ref.
    fn tree(&mut self, listing: &Dirtree) {
        self.sub = self.add("dirtree", &listing.to_bytes());
        let root = Dirtree {
            files: Vec::new(),
            dirs: vec![self.entry("sub")],
        };
        self.root = self.add("dirtree", &root.to_bytes());
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: String::new(),
            body: String::new(),
            timestamp: 0,
            tree: self.root,
            meta: self.meta,
        };
        self.commit = self.add("commit", &commit.to_bytes());
        let head = format!("{}\n", self.commit);
        fs::write(self.repo.join("refs/heads/bad"), head).unwrap();
    }

    fn entry(&self, name: &str) -> DirEntry {
        DirEntry {
            name: name.to_owned(),
            tree: self.sub,
            meta: self.meta,
        }
    }

    fn path(&self, id: &ObjectId, extension: &str) -> PathBuf {
        let id = id.to_string();
        self.repo
            .join(format!("objects/{}/{}.{extension}", &id[..2], &id[2..]))
    }

    fn write(&self, id: &ObjectId, extension: &str, bytes: &[u8]) {
        let path = self.path(id, extension);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn add(&self, extension: &str, bytes: &[u8]) -> ObjectId {
        let id = ObjectId::of(bytes);
        self.write(&id, extension, bytes);
        id
    }

    fn write_file(&self, bytes: &[u8]) {
        self.write(&self.file, "filez", bytes);
    }

    fn file_path(&self) -> PathBuf {
        self.path(&self.file, "filez")
    }

    fn replace_config(&self, text: &str) {
        fs::write(self.repo.join("config"), text).unwrap();
    }
}

/// What is wrong; how it is made so, giving what an error must name; and what it must say.
type Case = (&'static str, fn(&mut Foreign) -> Vec<String>, &'static str);

fn object(foreign: &Foreign, id: ObjectId, extension: &str) -> Vec<String> {
    let path = foreign.path(&id, extension).display().to_string();
    vec![format!("object {id}"), path]
}

fn listing(foreign: &mut Foreign, listing: &Dirtree) -> Vec<String> {
    foreign.tree(listing);
    object(foreign, foreign.sub, "dirtree")
}

fn files(foreign: &mut Foreign, names: &[&str]) -> Vec<String> {
    let files = names.iter().map(|name| ((*name).to_owned(), foreign.file));
    let made = Dirtree {
        files: files.collect(),
        dirs: Vec::new(),
    };
    listing(foreign, &made)
}

fn content(foreign: &mut Foreign, bytes: &[u8]) -> Vec<String> {
    foreign.write_file(bytes);
    object(foreign, foreign.file, "filez")
}

fn whole() -> Vec<u8> {
    filez(&header(), CONTENT.len() as u64, CONTENT)
}

const CASES: &[Case] = &[
    (
        "name ..",
        |f| files(f, &[".."]),
        "a file name is empty, `.` or `..`",
    ),
    (
        "name with a slash",
        |f| files(f, &["../../etc/passwd"]),
        "contains `/`",
    ),
    (
        "names out of order",
        |f| files(f, &["b", "a"]),
        "not in order",
    ),
    ("a name twice", |f| files(f, &["a", "a"]), "not in order"),
    (
        "a file and a directory of one name",
        |f| {
            let made = Dirtree {
                files: vec![("x".to_owned(), f.file)],
                dirs: vec![f.entry("x")],
            };
            listing(f, &made)
        },
        "both a file's and a directory's",
    ),
    (
        "a directory named ..",
        |f| {
            let dirs = vec![f.entry("..")];
            let files = Vec::new();
            listing(f, &Dirtree { files, dirs })
        },
        "a file name is empty, `.` or `..`",
    ),
    (
        "a listing with another name",
        |f| {
            f.write(&f.sub, "dirtree", b"");
            object(f, f.sub, "dirtree")
        },
        "checksum mismatch",
    ),
    (
        "a commit with another name",
        |f| {
            f.write(&f.commit, "commit", b"x");
            object(f, f.commit, "commit")
        },
        "checksum mismatch",
    ),
    (
        "a commit that is none",
        |f| {
            f.commit = f.add("commit", b"x");
            fs::write(f.repo.join("refs/heads/bad"), f.commit.to_string()).unwrap();
            object(f, f.commit, "commit")
        },
        "at byte",
    ),
    (
        "a huge listing",
        |f| {
            let file = fs::File::create(f.path(&f.sub, "dirtree")).unwrap();
            file.set_len(129 << 20).unwrap();
            object(f, f.sub, "dirtree")
        },
        "more than the limit of 134217728",
    ),
    (
        "a listing that is missing",
        |f| {
            fs::remove_file(f.path(&f.sub, "dirtree")).unwrap();
            object(f, f.sub, "dirtree")
        },
        "missing",
    ),
    (
        "metadata of a directory that is missing",
        |f| {
            fs::remove_file(f.path(&f.meta, "dirmeta")).unwrap();
            object(f, f.meta, "dirmeta")
        },
        "missing",
    ),
    (
        "a commit that is missing",
        |f| {
            fs::remove_file(f.path(&f.commit, "commit")).unwrap();
            object(f, f.commit, "commit")
        },
        "missing",
    ),
    (
        "a file that is missing",
        |f| {
            fs::remove_file(f.file_path()).unwrap();
            object(f, f.file, "filez")
        },
        "missing",
    ),
    ("an empty file", |f| content(f, b""), "cut short"),
    (
        "a file cut in its header",
        |f| content(f, &whole()[..20]),
        "cut short",
    ),
    (
        "a file cut in its content",
        |f| {
            let bytes = whole();
            content(f, &bytes[..bytes.len() - 1])
        },
        "does not decompress",
    ),
    (
        "bytes after the content",
        |f| content(f, &[whole(), b"x".to_vec()].concat()),
        "bytes follow the compressed content",
    ),
    (
        "other content",
        |f| content(f, &filez(&header(), 5, b"other")),
        "checksum mismatch",
    ),
    (
        "more content than declared",
        |f| content(f, &filez(&header(), 3, CONTENT)),
        "more content than the header declares",
    ),
    (
        "less content than declared",
        |f| content(f, &filez(&header(), 100, CONTENT)),
        "less content than the header declares",
    ),
    (
        "a declared size that cannot be",
        |f| content(f, &filez(&header(), 1 << 50, CONTENT)),
        "cannot hold the declared 1125899906842624 bytes",
    ),
    (
        "a huge header",
        |f| content(f, &[0xff; 64]),
        "more than the limit of 1048576",
    ),
    (
        "a mode of a device",
        |f| {
            let mode = 0o20_644;
            let device = FileHeader { mode, ..header() };
            content(f, &filez(&device, 0, b""))
        },
        "neither a regular file's nor a symbolic link's",
    ),
    (
        "content of a symbolic link",
        |f| {
            let link = FileHeader {
                mode: FileHeader::SYMLINK_MODE,
                symlink_target: b"x".to_vec(),
                ..header()
            };
            content(f, &filez(&link, 0, b"x"))
        },
        "bytes follow the header",
    ),
    (
        "detached metadata that is none",
        |f| {
            f.write(&f.commit, "commitmeta", b"x");
            let path = f.path(&f.commit, "commitmeta");
            vec![path.display().to_string()]
        },
        "at byte",
    ),
    (
        "an object that is a symbolic link",
        |f| {
            fs::remove_file(f.path(&f.meta, "dirmeta")).unwrap();
            symlink("/etc/passwd", f.path(&f.meta, "dirmeta")).unwrap();
            object(f, f.meta, "dirmeta")
        },
        "not a regular file",
    ),
    (
        "a mode that nobody knows",
        |f| {
            f.replace_config("[core]\nrepo_version=1\nmode=strange\n");
            vec![f.repo.display().to_string()]
        },
        "mode \"strange\" is not known",
    ),
    (
        "a version of later times",
        |f| {
            f.replace_config("[core]\nrepo_version=2\n");
            vec![f.repo.display().to_string()]
        },
        "repo_version is 2",
    ),
    (
        "a configuration that is none",
        |f| {
            f.replace_config("nothing");
            vec![f.repo.display().to_string()]
        },
        "line 1 of 'config' is malformed",
    ),
    (
        "no objects",
        |f| {
            fs::remove_dir_all(f.repo.join("objects")).unwrap();
            vec![f.repo.display().to_string()]
        },
        "not an OSTree repository",
    ),
];

/// An error and its causes.
pub fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A repository with a commit of its own.
pub fn ours(dir: &Path) -> Repository {
    let repo = Repository::init(&dir.join("grove")).unwrap();
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("own"), "own").unwrap();
    commit_dir(&repo, "own", &tree).unwrap();
    repo
}

#[test]
fn damage_is_named_and_leaves_the_repository_as_it_was() {
    for (name, damage, says) in CASES {
        let dir = tempfile::tempdir().unwrap();
        let repo = ours(dir.path());
        let before = (
            repo.refs().unwrap(),
            repo.commits().unwrap(),
            repo.stored().unwrap(),
        );
        let mut foreign = Foreign::new(dir.path().join("foreign"));
        let named = damage(&mut foreign);
        let error = import(&repo, &foreign.repo, &ImportOptions::default(), &Silent).unwrap_err();
        let error = text(&error);
        for part in named.iter().map(String::as_str).chain([*says]) {
            assert!(error.contains(part), "{name}: {part:?} in {error:?}");
        }
        let after = (
            repo.refs().unwrap(),
            repo.commits().unwrap(),
            repo.stored().unwrap(),
        );
        assert_eq!(before, after, "{name}");
    }
}

/// Keeps warnings.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn the_undamaged_one_is_imported_and_what_is_no_ref_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let foreign = Foreign::new(dir.path().join("foreign"));
    let heads = foreign.repo.join("refs/heads");
    fs::write(heads.join("garbage"), "not a checksum").unwrap();
    fs::write(heads.join(".hidden"), foreign.commit.to_string()).unwrap();
    fs::write(heads.join("long"), "0".repeat(100)).unwrap();
    symlink("bad", heads.join("alias")).unwrap();
    symlink("/etc/passwd", heads.join("escapes")).unwrap();
    fs::write(heads.join("longer"), foreign.commit.to_string().repeat(3)).unwrap();
    fs::write(heads.join("n".repeat(200)), "no checksum".repeat(50)).unwrap();
    fs::create_dir_all(heads.join("deep/".repeat(80))).unwrap();
    let made = Command::new("mkfifo").arg(heads.join("pipe")).status();
    assert!(made.unwrap().success());
    let told = Told::default();
    let report = import(&repo, &foreign.repo, &ImportOptions::default(), &told).unwrap();
    for name in ["garbage", ".hidden", "longer", "/long", "escapes", "/pipe"] {
        let told = told.0.lock().unwrap();
        assert!(
            told.iter()
                .any(|told| told.contains(&format!("{name} is no ref"))),
            "{told:?}"
        );
    }
    let expected = ["alias", "bad"].map(|name| (name.to_owned(), foreign.commit));
    assert_eq!(report.refs, expected.into());
    let file = repo.file(&foreign.file).unwrap();
    assert_eq!(file.size, CONTENT.len() as u64);
}

#[test]
fn a_tree_that_unfolds_to_billions_of_paths_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let mut foreign = Foreign::new(dir.path().join("foreign"));
    for _ in 0..40 {
        let doubled = Dirtree {
            files: Vec::new(),
            dirs: vec![foreign.entry("a"), foreign.entry("b")],
        };
        foreign.tree(&doubled);
    }
    let report = import(&repo, &foreign.repo, &ImportOptions::default(), &Silent).unwrap();
    assert_eq!(report.files, 1);
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    for flat in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let repo = ours(dir.path());
        let mut foreign = Foreign::new(dir.path().join("foreign"));
        let mut all = Vec::new();
        for n in 0..600 {
            all.push(foreign.entry(&format!("{n:03}")));
            let deeper = Dirtree {
                files: Vec::new(),
                dirs: vec![foreign.entry("d")],
            };
            foreign.tree(&deeper);
        }
        if flat {
            // Every directory also lies at the top, where it is met first.
            all.push(foreign.entry("deep"));
            let files = Vec::new();
            foreign.tree(&Dirtree { files, dirs: all });
        }
        let options = ImportOptions::default();
        let refused = import(&repo, &foreign.repo, &options, &Silent).unwrap_err();
        assert!(
            text(&refused).contains("nested deeper than 512"),
            "{refused}"
        );
    }
}

#[test]
fn a_large_file_that_is_not_what_its_name_says_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let mut foreign = Foreign::new(dir.path().join("foreign"));
    // Larger than what is held in memory, so that it is spooled: stored blocks of 65535 bytes.
    let block = [&[0][..], &[0xff, 0xff, 0, 0], &[7; 65_535]].concat();
    let mut packed = block.repeat(600);
    packed.extend([1, 0, 0, 0xff, 0xff]);
    let size = 600 * 65_535;
    let bytes = [&header().archive_prefix(size)[..], &packed].concat();
    let content = vec![7; usize::try_from(size).unwrap()];
    for (cut, says) in [(0, "checksum mismatch"), (9, "does not decompress")] {
        let named = if cut == 0 {
            foreign.file
        } else {
            header().object_id(&content)
        };
        foreign.file = named;
        foreign.write_file(&bytes[..bytes.len() - cut]);
        let listing = foreign.listing();
        foreign.tree(&listing);
        let options = ImportOptions::default();
        let error = text(&import(&repo, &foreign.repo, &options, &Silent).unwrap_err());
        assert!(
            error.contains(says) && error.contains(&named.to_string()),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(repo.path().join("staging")).unwrap().count(),
            0
        );
    }
    foreign.write_file(&bytes);
    import(&repo, &foreign.repo, &ImportOptions::default(), &Silent).unwrap();
    let file = repo.file(&foreign.file).unwrap();
    let mut read = vec![0; content.len()];
    assert_eq!(repo.read_at(&file, 0, &mut read).unwrap(), content.len());
    assert!(read == content);
}

#[test]
fn a_file_that_says_it_is_larger_than_the_disk_is_refused_before_any_of_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let foreign = Foreign::new(dir.path().join("foreign"));
    // A file of holes is large enough to hold so much.
    foreign.write_file(&header().archive_prefix(1 << 50));
    let file = fs::File::options().write(true).open(foreign.file_path());
    file.unwrap().set_len(2 << 40).unwrap();
    let options = ImportOptions::default();
    let refused = import(&repo, &foreign.repo, &options, &Silent).unwrap_err();
    let Error::Io { path, source } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    assert!(path.starts_with(repo.path().join("staging")), "{refused}");
    let staging = fs::read_dir(repo.path().join("staging")).unwrap();
    assert_eq!(staging.count(), 0);
}

/// Stops when some of a file has been written to the staging directory, but not all of it.
#[derive(Debug)]
struct StopWithin {
    staging: PathBuf,
    size: u64,
}

impl Monitor for StopWithin {
    fn is_cancelled(&self) -> bool {
        let dirs = fs::read_dir(&self.staging).unwrap();
        dirs.flatten().any(|dir| {
            let spool = fs::metadata(dir.path().join("spool.0"));
            spool.is_ok_and(|stat| 0 < stat.len() && stat.len() < self.size)
        })
    }
}

#[test]
fn an_import_can_be_interrupted_within_a_large_file() {
    let dir = tempfile::tempdir().unwrap();
    let repo = ours(dir.path());
    let mut foreign = Foreign::new(dir.path().join("foreign"));
    let content = vec![7; 40 << 20];
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &content).unwrap();
    let prefix = header().archive_prefix(content.len() as u64);
    foreign.file = header().object_id(&content);
    foreign.write_file(&[prefix, encoder.finish().unwrap()].concat());
    let listing = foreign.listing();
    foreign.tree(&listing);
    let monitor = StopWithin {
        staging: repo.path().join("staging"),
        size: content.len() as u64,
    };
    let options = ImportOptions::default();
    let stopped = import(&repo, &foreign.repo, &options, &monitor);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(fs::read_dir(&monitor.staging).unwrap().count(), 0);
    import(&repo, &foreign.repo, &options, &Silent).unwrap();
    assert!(repo.file(&foreign.file).is_ok());
}
