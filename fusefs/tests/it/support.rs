//! Repositories to mount, and trees to compare.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use grove_engine::object::{Commit, Metadata};
use grove_engine::ops::source::{SourceOptions, add_dir};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, RefUpdate, Repository, Silent};
use grove_fusefs::view::Source;
use grove_fusefs::{MountOptions, Mounted, Umount, What, mount};
use rustix::fs::XattrFlags;
use tempfile::TempDir;

/// A directory with a repository, a tree and a mount point in it.
pub struct Fixture {
    dir: TempDir,
    pub repo: Arc<Repository>,
    pub told: Arc<Mutex<Vec<String>>>,
}

/// Why mounts cannot be tested here, if they cannot.
pub fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root");
    }
    match fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    {
        Ok(_) => None,
        Err(_) => Some("/dev/fuse cannot be opened"),
    }
}

/// Ends a test that needs what is not here.
#[macro_export]
macro_rules! need_mounts {
    () => {
        if let Some(why) = $crate::support::obstacle() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let repo = Arc::new(Repository::init(&dir.path().join("repo")).unwrap());
        Self {
            dir,
            repo,
            told: Arc::default(),
        }
    }

    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    pub fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub fn repo_path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits the tree as it is now.
    pub fn commit(&self, branch: &str) -> ObjectId {
        let mut txn = self.repo.begin(&Silent).unwrap();
        let mut tree = MutableTree::default();
        let options = SourceOptions::default();
        add_dir(&mut txn, &mut tree, &self.tree(), &options, &Silent).unwrap();
        let (tree, meta) = txn.put_tree(&tree).unwrap();
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: branch.to_owned(),
            body: String::new(),
            timestamp: 0,
            tree,
            meta,
        };
        let id = txn.put_commit(&commit).unwrap();
        txn.publish(&[RefUpdate {
            name: branch.to_owned(),
            expected: None,
            new: Some(id),
        }])
        .unwrap();
        id
    }

    pub fn options(&self) -> MountOptions {
        let mut options = MountOptions::default();
        let told = Arc::clone(&self.told);
        options.on_error = Arc::new(move |text| told.lock().unwrap().push(text.to_owned()));
        options
    }

    pub fn mount(&self, what: What) -> Mounted {
        self.mount_source(Arc::clone(&self.repo), what)
    }

    pub fn mount_source<S: Source>(&self, source: Arc<S>, what: What) -> Mounted {
        mount(source, what, &self.mnt(), &self.options()).unwrap()
    }

    /// Mounts a commit in another way than by default.
    pub fn mount_with(&self, id: ObjectId, set: impl FnOnce(&mut MountOptions)) -> Mounted {
        let mut options = self.options();
        set(&mut options);
        let repo = Arc::clone(&self.repo);
        mount(repo, What::Commit(id), &self.mnt(), &options).unwrap()
    }

    /// Commits the tree and mounts it.
    pub fn mounted(&self) -> Mounted {
        let id = self.commit("main");
        self.mount(What::Commit(id))
    }

    /// All kinds of entries that a commit can hold.
    pub fn fill(&self) {
        self.write("usr/bin/tool", b"#!/bin/sh\nexit 7\n");
        self.write("usr/lib/twin-1", &[b'x'; 5000]);
        self.write("usr/lib/twin-2", &[b'x'; 5000]);
        self.write("usr/lib/large", &noise(700_000));
        self.write("usr/share/doc/empty", b"");
        self.write("usr/share/doc/\u{e9}t\u{e9} \\ \"quoted\"\n", b"name");
        self.write("a/b/c/d/e/f/g/deep", b"deep");
        let tree = self.tree();
        fs::create_dir_all(tree.join("var/empty")).unwrap();
        symlink("bin/tool", tree.join("usr/link")).unwrap();
        symlink("x".repeat(4000), tree.join("usr/long-link")).unwrap();
        symlink("/nowhere", tree.join("usr/dangling")).unwrap();
        for (path, mode) in [
            ("usr/bin/tool", 0o755),
            ("usr/lib/large", 0o600),
            ("usr/lib/twin-2", 0o444),
            ("var/empty", 0o1777),
            ("a/b", 0o700),
        ] {
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        xattr(&tree.join("usr/lib/large"), "user.note", b"\0binary\xff");
        xattr(&tree.join("var"), "user.dir", b"value");
    }

    /// What only root can make.
    pub fn fill_as_root(&self) {
        self.fill();
        let tree = self.tree();
        for (path, uid, gid) in [
            ("usr/lib/twin-1", 1000, 100),
            ("usr/link", 5, 6),
            ("a", 7, 8),
        ] {
            lchown(tree.join(path), Some(uid), Some(gid)).unwrap();
        }
        let none = fs::Permissions::from_mode(0o000);
        fs::set_permissions(tree.join("usr/share/doc/empty"), none).unwrap();
        let setuid = fs::Permissions::from_mode(0o6755);
        fs::set_permissions(tree.join("usr/lib/twin-1"), setuid).unwrap();
        // Revision 2, effective, CAP_NET_RAW permitted.
        let mut capability = [0u8; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
        xattr(
            &tree.join("usr/bin/tool"),
            "security.capability",
            &capability,
        );
    }
}

/// Waits until something holds that another thread brings about.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::yield_now();
    }
}

/// Unmounts and waits until nothing of the mount is left.
pub fn end(mounted: Mounted) {
    wait_until("unmounted", || mounted.unmount(Umount::Unused).is_ok());
    mounted.wait().unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Bytes that do not compress, always the same.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Everything that can be compared about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    mode: u32,
    uid: u32,
    gid: u32,
    content: Content,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Directory,
    Link(PathBuf),
    File { size: u64, bytes: Vec<u8> },
}

/// Everything below a directory, itself included, by path; the attributes of each entry are
/// looked at after its directory was listed.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Described> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let described = describe(&full);
        if described.content == Content::Directory {
            let names = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap());
            todo.extend(names.map(|entry| {
                assert_eq!(
                    entry.file_type().unwrap(),
                    fs::symlink_metadata(entry.path()).unwrap().file_type(),
                );
                path.join(entry.file_name())
            }));
        }
        found.insert(path, described);
    }
    found
}

pub fn describe(path: &Path) -> Described {
    let meta = fs::symlink_metadata(path).unwrap();
    let content = if meta.is_dir() {
        Content::Directory
    } else if meta.is_symlink() {
        let target = fs::read_link(path).unwrap();
        assert_eq!(
            meta.size(),
            target.as_os_str().len() as u64,
            "{}",
            path.display()
        );
        Content::Link(target)
    } else {
        Content::File {
            size: meta.size(),
            bytes: fs::read(path).unwrap(),
        }
    };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    Described {
        mode,
        uid,
        gid,
        content,
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let size = rustix::fs::lgetxattr_query(path, name).unwrap();
        let mut value = vec![0; size];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        assert_eq!(len, size);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Fails with the paths that differ, not with all their bytes.
pub fn assert_equal(left: &Path, right: &Path) {
    let (left, right) = (walk(left), walk(right));
    let paths = |map: &BTreeMap<PathBuf, Described>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&left), paths(&right));
    for (path, described) in &left {
        assert!(*described == right[path], "{} differs", path.display());
    }
}
