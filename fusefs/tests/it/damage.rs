//! What cannot be read is an error that someone hears of, and nothing worse.

use std::fs;
use std::sync::Arc;

use grove_engine::object::{Commit, DirMeta, Dirtree, FileObject};
use grove_engine::{ObjectId, ObjectKind, Refs, Repository, Result};
use grove_fusefs::What;
use grove_fusefs::view::Source;

use crate::need_mounts;
use crate::support::{Fixture, wait_until};

/// A repository that fails on files of some sizes.
struct Failing(Arc<Repository>);

const PANICS: u64 = 1001;
const MISSING: u64 = 1002;
const SHORT: u64 = 1003;

impl Source for Failing {
    fn commit(&self, id: &ObjectId) -> Result<Commit> {
        self.0.commit(id)
    }
    fn dirtree(&self, id: &ObjectId) -> Result<Arc<Dirtree>> {
        self.0.dirtree(id)
    }
    fn dirmeta(&self, id: &ObjectId) -> Result<Arc<DirMeta>> {
        self.0.dirmeta(id)
    }
    fn file(&self, id: &ObjectId) -> Result<FileObject> {
        self.0.file(id)
    }
    fn objects_between(
        &self,
        kind: ObjectKind,
        first: &ObjectId,
        last: &ObjectId,
    ) -> Result<Vec<ObjectId>> {
        self.0.objects_between(kind, first, last)
    }
    fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match file.size {
            PANICS => panic!("a bug"),
            MISSING => {
                let id = file.payload.unwrap();
                Err(grove_engine::Error::MissingPayload { id })
            }
            SHORT => Ok(self.0.read_at(file, offset, buf)? - 1),
            _ => self.0.read_at(file, offset, buf),
        }
    }
    fn refs(&self) -> Result<Refs> {
        self.0.refs()
    }
    fn commits(&self) -> Result<Vec<ObjectId>> {
        self.0.commits()
    }
    fn generation(&self) -> Result<u64> {
        self.0.generation()
    }
    fn stored(&self) -> Result<(u64, u64)> {
        self.0.stored()
    }
}

#[test]
fn failures_and_panics_are_eio_and_told_and_the_mount_goes_on() {
    need_mounts!();
    let fixture = Fixture::new();
    let sizes = [("panics", PANICS), ("missing", MISSING), ("short", SHORT)];
    for (name, size) in sizes {
        fixture.write(&format!("dir/{name}"), &vec![b'x'; size as usize]);
    }
    fixture.write("dir/good", b"good");
    let id = fixture.commit("main");
    let source = Arc::new(Failing(Arc::clone(&fixture.repo)));
    let _mounted = fixture.mount_source(source, What::Commit(id));
    // More often than there are threads.
    for _ in 0..20 {
        for (name, _) in sizes {
            let error = fs::read(fixture.mnt().join("dir").join(name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{name}: {error}");
        }
    }
    assert_eq!(fs::read(fixture.mnt().join("dir/good")).unwrap(), b"good");
    let told = fixture.told.lock().unwrap();
    for text in [
        "a bug",
        "\"dir/missing\"",
        "payload",
        "\"dir/short\"",
        "ends at byte 1002",
    ] {
        assert!(
            told.iter().any(|line| line.contains(text)),
            "{text}: {told:?}"
        );
    }
}

#[test]
fn a_panic_while_files_are_given_to_the_kernel_is_told_and_the_next_ones_are_given() {
    need_mounts!();
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.write(&format!("bad/{name}"), name.as_bytes());
    }
    for n in 0..4 {
        fixture.write(&format!("bad/panics{n}"), &[b'0' + n; PANICS as usize]);
        fixture.write(&format!("good/{n}"), &[b'0' + n; 5000]);
    }
    let id = fixture.commit("main");
    let source = Arc::new(Failing(Arc::clone(&fixture.repo)));
    let mounted = fixture.mount_source(source, What::Commit(id));
    let read = |paths: &[&str]| {
        let dir = fixture.mnt().join(paths[0]).parent().unwrap().to_owned();
        for entry in fs::read_dir(dir).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
        wait_until("the listing is noted", || {
            let stats = mounted.stats();
            let noted: u64 = stats.latency.readdirplus.counts().iter().sum();
            noted == stats.readdirplus
        });
        for path in paths {
            fs::read(fixture.mnt().join(path)).unwrap();
        }
    };
    read(&["bad/a", "bad/b"]);
    wait_until("the panic is told", || {
        let told = fixture.told.lock().unwrap();
        told.iter()
            .any(|line| line.contains("giving files") && line.contains("a bug"))
    });
    let before = mounted.stats().data.pushed_files;
    read(&["good/0", "good/1"]);
    wait_until("files are given", || {
        mounted.stats().data.pushed_files > before
    });
}

#[test]
fn a_flipped_bit_in_a_pack_is_an_error_not_other_bytes() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("large", &crate::support::noise(4 << 20));
    let id = fixture.commit("main");
    let mut packs = Vec::new();
    let mut dirs = vec![fixture.repo_path().join("packs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => packs.push((entry.metadata().unwrap().len(), entry.path())),
            }
        }
    }
    let (size, pack) = packs.into_iter().max().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[size as usize / 2] ^= 1;
    let mut permissions = fs::metadata(&pack).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&pack, permissions).unwrap();
    fs::write(&pack, bytes).unwrap();

    let repo = Arc::new(Repository::open(&fixture.repo_path()).unwrap());
    let _mounted = fixture.mount_source(repo, What::Commit(id));
    let error = fs::read(fixture.mnt().join("large")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    let told = fixture.told.lock().unwrap();
    assert!(
        told.iter().any(|line| line.contains("\"large\"")),
        "{told:?}"
    );
}
