//! Objects and metadata written by the installed `ostree`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use grove_engine::object::{Commit, DirMeta, Dirtree, FileHeader, Metadata, Variant};
use grove_engine::{ObjectId, ObjectKind};

/// A repository in archive mode, or `None` where `ostree` is not installed.
struct Ostree {
    dir: tempfile::TempDir,
}

impl Ostree {
    fn new() -> Option<Self> {
        if Command::new("ostree").arg("--version").output().is_err() {
            eprintln!("skipped: ostree is not installed");
            return None;
        }
        let ostree = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        ostree.run(&["init", "--mode=archive"]);
        Some(ostree)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command on the repository, gives what it prints.
    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("ostree")
            .arg(format!("--repo={}", self.path("repo").display()))
            .args(args)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commits a directory with more options, gives the new commit.
    fn commit(&self, tree: &Path, options: &[&str]) -> ObjectId {
        let tree = format!("--tree=dir={}", tree.display());
        let all = [
            &[
                "commit",
                "-b",
                "t/main",
                "--owner-uid=0",
                "--owner-gid=0",
                &tree,
            ],
            options,
        ];
        self.run(&all.concat()).trim().parse().unwrap()
    }

    fn object(&self, id: &ObjectId, extension: &str) -> Vec<u8> {
        let (head, tail) = (
            id.to_string()[..2].to_owned(),
            id.to_string()[2..].to_owned(),
        );
        fs::read(self.path(&format!("repo/objects/{head}/{tail}.{extension}"))).unwrap()
    }
}

fn make_tree(root: &Path) {
    for dir in ["a", "a/b", "empty", "many"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("a/hello"), "hello\n").unwrap();
    fs::write(root.join("a/b/nothing"), "").unwrap();
    fs::write(root.join("a/b/\u{fc}ber"), "x".repeat(100_000)).unwrap();
    fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../a/hello", root.join("a/link")).unwrap();
    for number in 0..1500 {
        fs::write(root.join(format!("many/{number}")), number.to_string()).unwrap();
    }
}

/// Checks the listing `id` and everything below against the source; counts the objects.
fn check_tree(ostree: &Ostree, id: &ObjectId, source: &Path) -> usize {
    let bytes = ostree.object(id, ObjectKind::Dirtree.as_str());
    let tree = Dirtree::parse(&bytes).unwrap();
    assert_eq!(tree.to_bytes(), bytes);
    assert_eq!(tree.object_id(), *id);
    for (name, file) in &tree.files {
        let path = source.join(name);
        let stat = fs::symlink_metadata(&path).unwrap();
        let header = match stat.is_symlink() {
            true => FileHeader {
                symlink_target: fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                ..root_owned(FileHeader::SYMLINK_MODE)
            },
            false => root_owned(stat.permissions().mode()),
        };
        let payload: Box<dyn Read> = match stat.is_symlink() {
            true => Box::new(std::io::empty()),
            false => Box::new(fs::File::open(&path).unwrap()),
        };
        assert_eq!(header.object_id_of(payload).unwrap(), *file, "{name}");
    }
    let below = tree.dirs.iter().map(|dir| {
        let path = source.join(&dir.name);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(check_dirmeta(ostree, &dir.meta).mode, mode);
        check_tree(ostree, &dir.tree, &path)
    });
    1 + tree.files.len() + below.sum::<usize>()
}

fn root_owned(mode: u32) -> FileHeader {
    FileHeader {
        uid: 0,
        gid: 0,
        mode,
        symlink_target: vec![],
        xattrs: Default::default(),
    }
}

fn check_dirmeta(ostree: &Ostree, id: &ObjectId) -> DirMeta {
    let bytes = ostree.object(id, ObjectKind::Dirmeta.as_str());
    let meta = DirMeta::parse(&bytes).unwrap();
    assert_eq!(meta.to_bytes(), bytes);
    assert_eq!(meta.object_id(), *id);
    meta
}

#[test]
fn objects_of_ostree_are_read_and_written_alike() {
    let Some(ostree) = Ostree::new() else { return };
    let source = ostree.path("source");
    make_tree(&source);
    let options = ["--no-xattrs", "-s", "subject", "-m", "body\nof more lines"];
    let first = ostree.commit(&source, &options);
    let second = ostree.commit(&source, &["--no-xattrs", "--generate-sizes"]);
    for id in [first, second] {
        let bytes = ostree.object(&id, ObjectKind::Commit.as_str());
        let commit = Commit::parse(&bytes).unwrap();
        assert_eq!(commit.to_bytes(), bytes);
        assert_eq!(commit.object_id(), id);
        assert_eq!(commit.timestamp, 1_700_000_000);
        let binding = commit.metadata.get("ostree.ref-binding").unwrap();
        assert_eq!(binding.as_strings(), Some(vec!["t/main"]));
        check_dirmeta(&ostree, &commit.meta);
        assert_eq!(check_tree(&ostree, &commit.tree, &source), 5 + 5 + 1500);
    }
    let commit = |id| Commit::parse(&ostree.object(id, "commit")).unwrap();
    assert_eq!(
        (commit(&first).parent, commit(&second).parent),
        (None, Some(first))
    );
    assert_eq!(
        commit(&first).content_checksum(),
        commit(&second).content_checksum()
    );
    assert_eq!(
        (
            commit(&first).subject.as_str(),
            commit(&first).body.as_str()
        ),
        ("subject", "body\nof more lines")
    );
    let sizes = commit(&second)
        .metadata
        .get("ostree.sizes")
        .cloned()
        .unwrap();
    assert_eq!(sizes.signature(), "aay");
}

#[test]
fn metadata_is_encoded_and_shown_as_by_ostree() {
    let Some(ostree) = Ostree::new() else { return };
    let source = ostree.path("source");
    fs::create_dir(&source).unwrap();
    let values = [
        ("string", r#""it's""#),
        ("escapes", r"'tab\t \u00e9 \u200b \U0001f600 \\ \''"),
        ("bool", "true"),
        ("int", "5"),
        ("negative", "int64 -5"),
        ("u64", "uint64 5"),
        ("double", "1.5"),
        ("byte", "byte 5"),
        ("bytes", "[byte 1, 2]"),
        ("bytestring", r#"b"it's\001""#),
        ("none", "@as []"),
        ("no-dict", "@a{sv} {}"),
        ("strings", "['a', 'b']"),
        ("dict", "{'a': <1>, 'b': <[uint16 3, 4]>, 'c': <<'x'>>}"),
        (
            "tuple",
            "(1, 'x', (byte 0x2a,), objectpath '/a', signature 'as')",
        ),
        (
            "rows",
            "[('a', 'b', '1', '2', 'noarch'), ('c', 'd', '', '4', 'x86_64')]",
        ),
        ("maybe", "@mai just [1, 2]"),
        ("hex", "[0x10, 017]"),
    ];
    let options: Vec<String> = values
        .iter()
        .map(|(key, text)| format!("--add-metadata={key}={text}"))
        .collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let id = ostree.commit(&source, &options);

    let mut metadata = Metadata::default();
    for (key, text) in values {
        metadata.push(key, Variant::from_text(text).unwrap());
    }
    metadata.push("ostree.ref-binding", Variant::strings(["t/main"]));
    let commit = Commit::parse(&ostree.object(&id, "commit")).unwrap();
    assert_eq!(commit.metadata, metadata);
    assert_eq!(commit.object_id(), id);
    for (key, value) in metadata.iter() {
        let shown = ostree.run(&["show", &format!("--print-metadata-key={key}"), "t/main"]);
        assert_eq!(shown, format!("{}\n", value.print_as_ostree()), "{key}");
    }
}
