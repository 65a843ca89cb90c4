//! Large files that the kernel reads by itself.

use std::fs::{self, File};
use std::io::Read;

use grove_fusefs::What;

use crate::need_mounts;
use crate::support::{Fixture, assert_equal, end, noise};

fn copies(fixture: &Fixture) -> Vec<std::path::PathBuf> {
    let dir = fixture.repo_path().join("cache/plain");
    let names = fs::read_dir(dir).unwrap();
    names.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn large_files_are_read_from_their_copies_and_others_as_ever() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    fixture.write("usr/lib/huge", &noise(3 << 20));
    fixture.write("usr/lib/other", &vec![7; 2 << 20]);
    let id = fixture.commit("main");
    for _ in 0..2 {
        let mounted = fixture.mount_with(id, |options| options.materialise = true);
        let huge = fixture.mnt().join("usr/lib/huge");
        // Several at once, closed in another order.
        let mut first = File::open(&huge).unwrap();
        let second = File::open(&huge).unwrap();
        assert_eq!(first.read(&mut [0; 10]).unwrap(), 10);
        drop(first);
        let mut bytes = Vec::new();
        (&second).read_to_end(&mut bytes).unwrap();
        assert!(bytes == noise(3 << 20));
        drop(second);
        assert_eq!(mounted.stats().read, 0);
        assert!(mounted.stats().open >= 2);
        assert_equal(&fixture.tree(), &fixture.mnt());
        assert_eq!(copies(&fixture).len(), 2);
        assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
        end(mounted);
    }
}

#[test]
fn a_damaged_copy_is_replaced() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("large", &noise(2 << 20));
    let id = fixture.commit("main");
    let read = |fixture: &Fixture| fs::read(fixture.mnt().join("large")).unwrap();
    let mounted = fixture.mount_with(id, |options| options.materialise = true);
    assert!(read(&fixture) == noise(2 << 20));
    end(mounted);
    let copy = copies(&fixture).pop().unwrap();
    fs::write(&copy, vec![0; 2 << 20]).unwrap();
    // Another process would find it so; here the repository is opened anew.
    let repo = std::sync::Arc::new(grove_engine::Repository::open(&fixture.repo_path()).unwrap());
    let mut options = fixture.options();
    options.materialise = true;
    let mounted = grove_fusefs::mount(repo, What::Commit(id), &fixture.mnt(), &options).unwrap();
    assert!(read(&fixture) == noise(2 << 20));
    assert_eq!(mounted.stats().read, 0);
    end(mounted);
}
