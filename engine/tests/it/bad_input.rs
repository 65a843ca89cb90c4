//! Input that cannot be committed, and repositories that cannot be opened: a clear error, and the
//! repository as it was.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use grove_engine::ops::source::{SourceOptions, add_tar};
use grove_engine::ops::static_delta;
use grove_engine::tree::MutableTree;
use grove_engine::{Error, Repository, Silent};
use tempfile::tempdir;

use super::support::{Mount, commit_dir, commit_dir_with, make_tree, packs};

fn open_error(path: &Path) -> Error {
    Repository::open(path).map(drop).unwrap_err()
}

#[test]
fn what_is_no_repository_is_said_to_be_none() {
    let dir = tempdir().unwrap();
    for path in [
        dir.path().to_owned(),
        dir.path().join("missing"),
        "/dev/null".into(),
    ] {
        assert!(
            matches!(open_error(&path), Error::NotARepository { .. }),
            "{path:?}"
        );
    }
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(
        Repository::init(dir.path()),
        Err(Error::NotEmpty { .. })
    ));
}

#[test]
fn newer_formats_are_refused_by_what_they_say() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("repo");
    Repository::init(&path).unwrap();
    let meta = |features: &str| {
        let text = format!(r#"{{"version": 1, "features": {{{features}}}}}"#);
        fs::write(path.join("meta.json"), text).unwrap();
        Repository::open(&path)
    };
    let lists = |compatible: &str, read_only: &str, incompatible: &str| {
        format!(
            r#""compatible": [{compatible}], "read-only-compatible": [{read_only}], "incompatible": [{incompatible}]"#
        )
    };
    assert!(
        meta(&lists(r#""tea""#, "", ""))
            .unwrap()
            .begin(&Silent)
            .is_ok()
    );
    let read_only = meta(&lists("", r#""tea""#, "")).unwrap();
    assert!(matches!(
        read_only.begin(&Silent),
        Err(Error::UnsupportedFormat { .. })
    ));
    let refused = meta(&lists("", "", r#""tea""#)).unwrap_err();
    assert!(refused.to_string().contains("tea"), "{refused}");
    fs::write(path.join("meta.json"), r#"{"version": 2}"#).unwrap();
    let refused = open_error(&path);
    assert!(
        matches!(refused, Error::UnsupportedFormat { .. })
            && refused.to_string().contains("version 2")
    );
}

#[test]
fn special_files_and_foreign_names_are_refused_by_path_or_skipped_with_a_count() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let strange = tree.join(std::ffi::OsStr::from_bytes(b"usr/caf\xe9"));
    let fifo = tree.join("usr/pipe");
    let socket = tree.join("usr/socket");
    type Make<'a> = (&'a Path, &'a dyn Fn(&Path));
    let make: [Make<'_>; 3] = [
        (&strange, &|p| fs::write(p, "x").unwrap()),
        (&fifo, &|p| {
            assert!(Command::new("mkfifo").arg(p).status().unwrap().success());
        }),
        (&socket, &|p| {
            drop(std::os::unix::net::UnixListener::bind(p).unwrap());
        }),
    ];
    for (path, make) in make {
        make(path);
        let error = commit_dir(&repo, "os", &tree).unwrap_err();
        let Error::UnsupportedInput { path: named, .. } = &error else {
            panic!("{error}")
        };
        assert!(named.starts_with("usr/"), "{error}");
        let options = SourceOptions {
            skip_special: true,
            ..Default::default()
        };
        assert_eq!(
            commit_dir_with(&repo, "skipped", &tree, &options)
                .unwrap()
                .1
                .skipped,
            1
        );
        fs::remove_file(path).unwrap();
    }
    assert!(!repo.refs().unwrap().map.contains_key("os"));
    assert_eq!(
        fs::read_dir(repo.path().join("staging")).unwrap().count(),
        0
    );
}

/// Adds an archive to a fresh transaction; nothing is published.
fn try_tar(repo: &Repository, bytes: &[u8], options: &SourceOptions) -> Result<u64, Error> {
    let mut txn = repo.begin(&Silent)?;
    let mut tree = MutableTree::default();
    let report = add_tar(&mut txn, &mut tree, bytes, "test.tar", options, &Silent)?;
    txn.put_tree(&tree)?;
    Ok(report.files + report.skipped)
}

fn tar_with(path: &str, kind: tar::EntryType, link: Option<&str>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut root = tar::Header::new_gnu();
    root.set_entry_type(tar::EntryType::Directory);
    root.set_mode(0o755);
    root.set_size(0);
    root.set_uid(0);
    root.set_gid(0);
    root.as_old_mut().name[..2].copy_from_slice(b"./");
    root.set_cksum();
    builder.append(&root, std::io::empty()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    // Written past the builder, which would refuse such names.
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn hostile_archives_are_refused_by_path() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let deep = "d/".repeat(48);
    for (bytes, fragment) in [
        (
            tar_with("../escape", tar::EntryType::Regular, None),
            "../escape",
        ),
        (
            tar_with("a/../../escape", tar::EntryType::Regular, None),
            "escape",
        ),
        (tar_with("dev/null", tar::EntryType::Char, None), "dev/null"),
        (tar_with("pipe", tar::EntryType::Fifo, None), "pipe"),
        (
            tar_with("hard", tar::EntryType::Link, Some("absent")),
            "absent",
        ),
        (
            tar_with(&deep, tar::EntryType::Regular, None),
            "owner and mode",
        ),
    ] {
        let error = try_tar(&repo, &bytes, &SourceOptions::default()).unwrap_err();
        assert!(error.to_string().contains(fragment), "{error}");
    }
    assert_eq!(packs(repo.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_bomb_of_nested_directories_is_refused() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    builder
        .append_data(&mut header, "d/".repeat(5000), std::io::empty())
        .unwrap();
    let error = try_tar(
        &repo,
        &builder.into_inner().unwrap(),
        &SourceOptions::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn a_truncated_archive_is_an_error_at_every_length() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &tree).unwrap();
    let whole = builder.into_inner().unwrap();
    let count = try_tar(&repo, &whole, &SourceOptions::default()).unwrap();
    for cut in (1..whole.len()).step_by(whole.len() / 60) {
        // Cut between two entries, or in the padding at its end, an archive is just shorter.
        match try_tar(&repo, &whole[..cut], &SourceOptions::default()) {
            Ok(files) => assert!(files == count || cut % 512 == 0, "cut at {cut}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn a_cancelled_commit_leaves_nothing_behind() {
    #[derive(Debug)]
    struct Stop(std::sync::atomic::AtomicU32);
    impl grove_engine::Monitor for Stop {
        fn is_cancelled(&self) -> bool {
            self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 1
        }
    }
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let monitor = Stop(2.into());
    let mut txn = repo.begin(&monitor).unwrap();
    let mut root = MutableTree::default();
    let options = SourceOptions::default();
    let result = grove_engine::ops::source::add_dir(&mut txn, &mut root, &tree, &options, &monitor);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    drop(txn);
    assert_eq!(
        fs::read_dir(repo.path().join("staging")).unwrap().count(),
        0
    );
    assert_eq!(packs(repo.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_repository_as_it_was() {
    let dir = tempdir().unwrap();
    let disk = dir.path().join("disk");
    let Some(_mount) = Mount::disk(&disk, 6 << 20) else {
        return;
    };
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("small"), "fits").unwrap();
    let repo = Repository::init(&disk.join("repo")).unwrap();
    let (first, ..) = commit_dir(&repo, "os", &tree).unwrap();
    fs::write(tree.join("large"), super::support::noise(1, 12 << 20)).unwrap();
    let error = commit_dir(&repo, "os", &tree).unwrap_err();
    let Error::Io { path, source } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(path.starts_with(repo.path()), "{error}");
    assert_eq!(repo.resolve_rev("os").unwrap(), first);
    assert_eq!(
        fs::read_dir(repo.path().join("staging")).unwrap().count(),
        0
    );
    let report = grove_engine::ops::fsck(&repo, grove_engine::ops::Level::Deep, &Silent).unwrap();
    assert_eq!(report.problems, []);
    fs::write(tree.join("large"), "fits again").unwrap();
    commit_dir(&repo, "os", &tree).unwrap();
}

#[test]
fn what_is_no_regular_file_is_no_delta() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let fifo = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [Path::new("/dev/zero"), &fifo, dir.path()] {
        let of_ostree = static_delta::show(&repo, &static_delta::DeltaAt::Path(path)).map(drop);
        let of_ours = grove_engine::ops::delta::show(path).map(drop);
        for (refused, is_named) in [(of_ostree, path != dir.path()), (of_ours, true)] {
            let error = refused.unwrap_err();
            let Error::Io { source, .. } = &error else {
                panic!("{error}")
            };
            let text = source.to_string();
            assert_eq!(text == "not a regular file", is_named, "{error}: {text}");
        }
    }
}
