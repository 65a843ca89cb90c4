//! What was read once is there before it is asked for, at the next mount.

use std::fs;
use std::os::unix::fs::symlink;

use crate::need_mounts;
use crate::support::{Fixture, end, noise, wait_until};

#[test]
fn a_recorded_mount_replayed_needs_no_reads() {
    need_mounts!();
    let fixture = Fixture::new();
    let large = noise(5 << 20);
    fixture.write("usr/lib/large", &large);
    for n in 0..50 {
        fixture.write(
            &format!("usr/share/{n}"),
            format!("file {n}").repeat(99).as_bytes(),
        );
    }
    fixture.write("usr/share/odd \\ \n name", b"odd");
    let id = fixture.commit("main");
    let trace = fixture.mnt().with_file_name("trace");

    let mounted = fixture.mount_with(id, |options| options.record = Some(trace.clone()));
    let read = || {
        assert_eq!(
            fs::read(fixture.mnt().join("usr/lib/large")).unwrap(),
            large
        );
        for n in (0..50).rev() {
            let content = fs::read(fixture.mnt().join(format!("usr/share/{n}"))).unwrap();
            assert_eq!(content, format!("file {n}").repeat(99).as_bytes());
        }
        let odd = fixture.mnt().join("usr/share/odd \\ \n name");
        assert_eq!(fs::read(odd).unwrap(), b"odd");
    };
    read();
    assert_eq!(mounted.stats().data.pushed_files, 0, "nothing hides a read");
    let files = (0..50).map(|n| 99 * format!("file {n}").len() as u64);
    let served = files.sum::<u64>() + large.len() as u64 + 3;
    end(mounted);
    let text = fs::read_to_string(&trace).unwrap();
    assert_eq!(
        text.lines().nth(1).unwrap().split(' ').next_back(),
        Some("usr/lib/large")
    );

    // Replayed while it is recorded anew into the same file.
    let mounted = fixture.mount_with(id, |options| {
        options.prefetch = Some(trace.clone());
        options.record = Some(trace.clone());
    });
    let prefetched = || mounted.stats().data.prefetched_bytes;
    wait_until("everything is there", || prefetched() >= served);
    read();
    assert_eq!((mounted.stats().read, prefetched()), (0, served));
    assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_trace_of_another_commit_serves_as_far_as_it_goes() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("outside", b"not in the mount");
    fixture.write("grown", &noise(9000));
    fixture.write("last", b"still there");
    symlink("../../outside", fixture.tree().join("link")).unwrap();
    fs::create_dir(fixture.tree().join("dir")).unwrap();
    let trace = fixture.mnt().with_file_name("trace");
    let lines = "grove-trace 1\n0 99 gone\n0 5 link\n0 5 link/x\n0 5 dir\n0 5000 grown\n900000 9 grown\n0 11 last\n";
    fs::write(&trace, lines).unwrap();
    let id = fixture.commit("main");
    let mounted = fixture.mount_with(id, |options| options.prefetch = Some(trace.clone()));
    // Whole pages of what has grown.
    wait_until("the last line", || {
        mounted.stats().data.prefetched_bytes == 8192 + 11
    });
    assert_eq!(
        fs::read(fixture.mnt().join("last")).unwrap(),
        b"still there"
    );
    assert_eq!(mounted.stats().read, 0);
    assert_eq!(fs::read(fixture.mnt().join("grown")).unwrap(), noise(9000));
    end(mounted);
    assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn what_is_no_trace_is_an_error_before_anything_is_mounted() {
    need_mounts!();
    let fixture = Fixture::new();
    let id = fixture.commit("main");
    let mut options = fixture.options();
    for path in [
        fixture.repo_path().join("meta.json"),
        fixture.mnt().join("missing"),
    ] {
        options.prefetch = Some(path);
        let what = grove_fusefs::What::Commit(id);
        let repo = std::sync::Arc::clone(&fixture.repo);
        let error = grove_fusefs::mount(repo, what, &fixture.mnt(), &options).unwrap_err();
        assert!(error.to_string().contains("trace"), "{error}");
        assert_eq!(fs::read_dir(fixture.mnt()).unwrap().count(), 0);
    }
}
