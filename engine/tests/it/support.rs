//! What several tests need: a small tree, committing it, and comparing it with what is stored.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use grove_engine::object::{Commit, Metadata};
use grove_engine::ops::source::{SourceOptions, SourceReport, add_dir};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, RefUpdate, Repository, Result, Silent, WriteReport};

/// Pseudo-random bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A small tree with every kind of entry that a commit can hold, and sizes around every limit of
/// the format.
pub fn make_tree(root: &Path, seed: u64) {
    let write = |path: &str, bytes: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("usr/bin/tool", &noise(seed, 50_000), 0o755);
    write("usr/bin/su", b"set-user-id", 0o4755);
    write("usr/empty", b"", 0o644);
    for size in [
        1, 4095, 4096, 131_071, 131_072, 131_073, 262_144, 262_145, 1_048_579,
    ] {
        write(
            &format!("usr/sizes/{size}"),
            &noise(seed ^ size as u64, size),
            0o600,
        );
        write(
            &format!("usr/text/{size}.txt"),
            &b"all work and no play ".repeat(size / 21 + 1)[..size],
            0o644,
        );
    }
    write("usr/same-1", b"the same bytes", 0o644);
    write("usr/same-2", b"the same bytes", 0o444);
    let deep = (0..40).map(|n| format!("d{n}/")).collect::<String>();
    write(&format!("{deep}leaf"), b"deep", 0o640);
    write(&format!("{}.conf", "n".repeat(250)), b"long name", 0o644);
    symlink("../usr/bin/tool", root.join("usr/link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    fs::create_dir(root.join("private")).unwrap();
    fs::set_permissions(root.join("private"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// A cpio archive as in an initramfs.
pub fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let mut fields = [0usize; 13];
        (fields[6], fields[11]) = (bytes.len(), name.len() + 1);
        out.extend_from_slice(b"070701");
        out.extend(fields.iter().flat_map(|n| format!("{n:08X}").into_bytes()));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// Commits a directory to a ref.
pub fn commit_dir(
    repo: &Repository,
    name: &str,
    dir: &Path,
) -> Result<(ObjectId, SourceReport, WriteReport)> {
    commit_dir_with(repo, name, dir, &SourceOptions::default())
}

/// Commits a directory to a ref, with options.
pub fn commit_dir_with(
    repo: &Repository,
    name: &str,
    dir: &Path,
    options: &SourceOptions,
) -> Result<(ObjectId, SourceReport, WriteReport)> {
    let mut txn = repo.begin(&Silent)?;
    let parent = repo.refs()?.map.get(name).copied();
    if let Some(parent) = &parent {
        txn.set_parent(parent)?;
    }
    let mut tree = MutableTree::default();
    let source = add_dir(&mut txn, &mut tree, dir, options, &Silent)?;
    let (tree, meta) = txn.put_tree(&tree)?;
    let commit = Commit {
        metadata: Metadata::default(),
        parent,
        subject: "test".to_owned(),
        body: String::new(),
        timestamp: 1_700_000_000,
        tree,
        meta,
    };
    let id = txn.put_commit(&commit)?;
    let update = RefUpdate {
        name: name.to_owned(),
        expected: Some(parent),
        new: Some(id),
    };
    Ok((id, source, txn.publish(&[update])?))
}

/// What a tree holds: path to a description with all metadata and a digest of the bytes.
pub type Listing = BTreeMap<String, String>;

/// Lists a commit by reading everything in it.
pub fn list_commit(repo: &Repository, commit: &ObjectId) -> Result<Listing> {
    let commit = repo.commit(commit)?;
    let mut listing = Listing::new();
    let mut queue = vec![(String::new(), commit.tree, commit.meta)];
    while let Some((path, tree, meta)) = queue.pop() {
        let meta = repo.dirmeta(&meta)?;
        listing.insert(
            format!("{path}/"),
            format!("{:o} {}:{}", meta.mode, meta.uid, meta.gid),
        );
        let tree = repo.dirtree(&tree)?;
        for (name, id) in &tree.files {
            let file = repo.file(id)?;
            let mut bytes = vec![0; file.size as usize];
            assert_eq!(repo.read_at(&file, 0, &mut bytes)?, bytes.len());
            let header = &file.header;
            let target = String::from_utf8_lossy(&header.symlink_target).into_owned();
            listing.insert(
                format!("{path}/{name}"),
                format!(
                    "{:o} {}:{} {} {target} {}",
                    header.mode,
                    header.uid,
                    header.gid,
                    file.size,
                    ObjectId::of(&bytes)
                ),
            );
        }
        for dir in &tree.dirs {
            queue.push((format!("{path}/{}", dir.name), dir.tree, dir.meta));
        }
    }
    Ok(listing)
}

/// Lists a directory of the host in the same form.
pub fn list_dir(root: &Path) -> Listing {
    use std::os::unix::fs::MetadataExt;
    let mut listing = Listing::new();
    let mut queue = vec![(String::new(), root.to_owned())];
    while let Some((path, full)) = queue.pop() {
        let meta = fs::symlink_metadata(&full).unwrap();
        let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
        if meta.is_dir() {
            listing.insert(format!("{path}/"), format!("{mode:o} {uid}:{gid}"));
            for entry in fs::read_dir(&full).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                queue.push((format!("{path}/{name}"), full.join(&name)));
            }
        } else {
            let (size, target, bytes) = if meta.is_symlink() {
                (
                    0,
                    fs::read_link(&full).unwrap().display().to_string(),
                    Vec::new(),
                )
            } else {
                (meta.size(), String::new(), fs::read(&full).unwrap())
            };
            let sum = ObjectId::of(&bytes);
            listing.insert(path, format!("{mode:o} {uid}:{gid} {size} {target} {sum}"));
        }
    }
    listing
}

/// Whether a program is installed; says that a test skips when it is not.
pub fn have(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program that must succeed; gives its standard output, trimmed.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// The pack files of a repository, sorted.
pub fn packs(repo: &Path) -> Vec<std::path::PathBuf> {
    let mut packs: Vec<_> = fs::read_dir(repo.join("packs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    packs.sort();
    packs
}

/// Something that is mounted for as long as this lives.
pub struct Mount(std::path::PathBuf);

impl Mount {
    /// Mounts at a directory; says that a test skips when this needs other rights.
    pub fn new(at: &Path, args: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(args).arg(at).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: to mount a file system needs root");
        None
    }

    /// A file system in memory of so many bytes.
    pub fn disk(at: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let size = format!("size={bytes}");
        Self::new(at, &["-t", "tmpfs", "-o", &size, "none"])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
