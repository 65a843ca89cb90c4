//! Commits are deleted beside a mount that keeps reading.

use std::fs;
use std::thread;

use grove_engine::ops::{PruneOptions, prune};
use grove_engine::{ObjectId, RefUpdate, Repository, Silent};
use grove_fusefs::What;

use crate::need_mounts;
use crate::support::{Fixture, noise};

const FILES: usize = 400;

fn content(n: usize) -> Vec<u8> {
    let mut bytes = noise(1000 + 37 * n);
    bytes.extend_from_slice(&n.to_le_bytes());
    bytes
}

/// `main`, whose files lie in the same packs as those of a commit that no ref leads to.
fn with_a_dead_commit() -> (Fixture, ObjectId, ObjectId) {
    let fixture = Fixture::new();
    for n in 0..FILES {
        fixture.write(&format!("dir{}/{n}", n % 7), &content(n));
        fixture.write(&format!("gone/{n}"), &content(FILES + n));
    }
    fixture.write("large", &noise(3 << 20));
    let dead = fixture.commit("old");
    fs::remove_dir_all(fixture.tree().join("gone")).unwrap();
    let main = fixture.commit("main");
    let update = RefUpdate {
        name: "old".into(),
        expected: None,
        new: None,
    };
    fixture.repo.update_refs(&[update]).unwrap();
    (fixture, main, dead)
}

fn prune_all_but_heads(fixture: &Fixture) -> grove_engine::ops::PruneReport {
    // As another process would.
    let repo = Repository::open(&fixture.repo_path()).unwrap();
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    prune(&repo, &options, &Silent).unwrap()
}

#[test]
fn a_mount_keeps_reading_while_packs_are_replaced_under_it() {
    need_mounts!();
    let (fixture, main, _) = with_a_dead_commit();
    let _mounted = fixture.mount(What::Commit(main));
    let read = |n: usize| {
        let path = fixture.mnt().join(format!("dir{}/{n}", n % 7));
        assert_eq!(fs::read(&path).unwrap(), content(n), "{}", path.display());
    };
    // No read is answered from the kernel's cache: each file is read once.
    (0..FILES / 4).for_each(read);
    thread::scope(|scope| {
        for share in 0..2 {
            scope.spawn(move || {
                (FILES / 4..FILES / 2)
                    .filter(|n| n % 2 == share)
                    .for_each(read);
            });
        }
        let report = prune_all_but_heads(&fixture);
        assert_eq!(report.commits_deleted, 1);
        assert!(report.packs_rewritten > 0, "{report:?}");
    });
    (FILES / 2..FILES).for_each(read);
    assert_eq!(
        fs::read(fixture.mnt().join("large")).unwrap(),
        noise(3 << 20)
    );
    assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_mounted_commit_stays_although_no_ref_leads_to_it() {
    need_mounts!();
    let (fixture, _, dead) = with_a_dead_commit();
    let mounted = fixture.mount(What::Commit(dead));
    let report = prune_all_but_heads(&fixture);
    assert_eq!((report.commits_deleted, report.leased), (0, vec![dead]));
    assert_eq!(
        fs::read(fixture.mnt().join("gone/7")).unwrap(),
        content(FILES + 7)
    );
    mounted.unmount(grove_fusefs::Umount::Unused).unwrap();
    mounted.wait().unwrap();
    assert_eq!(prune_all_but_heads(&fixture).commits_deleted, 1);
}

#[test]
fn a_mount_of_everything_fails_only_for_what_is_gone() {
    need_mounts!();
    let (fixture, main, dead) = with_a_dead_commit();
    let _mounted = fixture.mount(What::All);
    let of = |id: ObjectId| fixture.mnt().join("commits").join(id.to_string());
    for (id, name) in [(dead, "gone/1"), (main, "dir1/1")] {
        fs::read(of(id).join(name)).unwrap();
    }
    assert_eq!(prune_all_but_heads(&fixture).commits_deleted, 1);
    for n in 0..FILES {
        let name = format!("dir{}/{n}", n % 7);
        assert_eq!(fs::read(of(main).join(name)).unwrap(), content(n));
    }
    // What was looked at before is still named, but cannot be read any more.
    assert!(fs::read(of(dead).join("gone/200")).is_err());
    let listed = fs::read_dir(fixture.mnt().join("refs")).unwrap();
    assert_eq!(listed.count(), 1);
}
