//! A tree and its mount, compared by programs that know nothing of us.
//!
//! Not compared, because a commit does not hold it: times, hard links, sizes of directories, attributes
//! without a value.

use std::path::Path;
use std::process::Command;

use grove_fixtures::tree::{Options, Tree};

use super::{View, can_mount_all};
use crate::env::{Env, have};

/// Attribute of the fixture that OSTree's format drops.
const WITHOUT_VALUE: (&str, &str) = ("xattrs/many", "user.a");

/// An odd tree and a commit of it.
fn committed() -> Env {
    let env = Env::new();
    Tree::build(&env.path("tree"), 4, Options::default()).expect("a tree");
    env.ok(&["commit", "-q", "-b", "odd", "--tree=dir=tree"]);
    let (file, name) = WITHOUT_VALUE;
    rustix::fs::removexattr(env.path("tree").join(file), name).expect("an attribute");
    env
}

/// Lines that a comparison by all programs prints: none, if both are the same.
fn differences(tree: &Path, view: &Path) -> Vec<String> {
    let mut found = by_rsync(tree, view);
    found.extend(by_diff(tree, view));
    found.extend(by_find(tree, view));
    found.extend(by_getfattr(tree, view));
    found
}

fn lines(command: &mut Command) -> Vec<String> {
    command.env("LC_ALL", "C");
    let output = command.output().expect("a program");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(str::to_owned).collect()
}

fn by_rsync(tree: &Path, view: &Path) -> Vec<String> {
    if !have("rsync") {
        return Vec::new();
    }
    let mut command = Command::new("rsync");
    command.args(["-aHAXn", "--checksum", "--itemize-changes", "--delete"]);
    command.args(["--no-times", "--omit-link-times"]);
    command.arg(tree.join("")).arg(view.join(""));
    let mut found = lines(&mut command);
    // Two names of one file are two equal files in a commit, and may have one inode or two.
    found.retain(|line| !(line.starts_with("hf") && line.contains("hard-")));
    found
}

fn by_diff(tree: &Path, view: &Path) -> Vec<String> {
    lines(
        Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(tree)
            .arg(view),
    )
}

fn by_find(tree: &Path, view: &Path) -> Vec<String> {
    // Type, type behind a link, permissions, owner, size, target, depth, name.
    let format = "%y %Y %m %U:%G %s '%l' %d %P\\0";
    let dirs = "%y %m %U:%G %d %P\\0";
    let tests = ["-type", "d", "-printf", dirs, "-o", "-printf", format];
    let list = |dir: &Path| {
        let output = Command::new("find")
            .current_dir(dir)
            .arg(".")
            .args(tests)
            .output();
        let output = output.expect("find");
        let text = [output.stdout, output.stderr].concat();
        let mut entries: Vec<String> = text
            .split(|byte| *byte == 0)
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect();
        entries.sort();
        entries
    };
    unequal("find", &list(tree), &list(view))
}

fn by_getfattr(tree: &Path, view: &Path) -> Vec<String> {
    if !have("getfattr") {
        return Vec::new();
    }
    let list = |dir: &Path| {
        let mut command = Command::new("getfattr");
        command.args(["-Rhdm-", "."]).current_dir(dir);
        // One paragraph for each file.
        let mut files: Vec<String> = lines(&mut command)
            .split(String::is_empty)
            .map(|part| part.join("; "))
            .collect();
        files.sort();
        files
    };
    unequal("getfattr", &list(tree), &list(view))
}

fn unequal(program: &str, left: &[String], right: &[String]) -> Vec<String> {
    let only = |side: &str, some: &[String], others: &[String]| {
        let missing = some
            .iter()
            .filter(|line| others.binary_search(line).is_err());
        missing
            .map(|line| format!("{program}: only {side}: {line}"))
            .collect::<Vec<_>>()
    };
    [
        only("in the tree", left, right),
        only("in the view", right, left),
    ]
    .concat()
}

#[test]
fn a_comparison_finds_what_is_different() {
    let env = committed();
    let (one, two) = (env.path("tree"), env.path("other"));
    let copied = Command::new("cp").arg("-a").arg(&one).arg(&two).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    assert_eq!(differences(&one, &two), [""; 0]);
    std::fs::write(two.join("modes/file-0444"), "another\n").expect("a file");
    std::fs::remove_file(two.join("links/up")).expect("a link");
    let found = differences(&one, &two);
    for wanted in ["modes/file-0444", "links/up"] {
        let by = |program| {
            found
                .iter()
                .any(|line| line.starts_with(program) && line.contains(wanted))
        };
        assert!(by("find") && found.len() > 4, "{wanted}: {found:#?}");
    }
}

#[test]
fn a_mount_is_the_tree_by_all_programs_by_itself_bound_and_under_an_overlay() {
    if !can_mount_all() {
        return;
    }
    let env = committed();
    let tree = env.path("tree");
    let mount = View::commit(&env, "odd", "mnt");
    assert_eq!(differences(&tree, mount.path()), [""; 0], "by itself");
    assert_eq!(differences(&tree, mount.path()), [""; 0], "again, cached");
    let bound = View::bind(&env, mount.path(), "bound");
    assert_eq!(differences(&tree, bound.path()), [""; 0], "bound");
    if let Some(overlay) = View::overlay(&env, mount.path(), "merged") {
        assert_eq!(
            differences(&tree, overlay.path()),
            [""; 0],
            "under an overlay"
        );
        overlay_leaves_the_commit_alone(overlay.path(), mount.path());
        assert_eq!(
            differences(&tree, mount.path()),
            [""; 0],
            "under a changed overlay"
        );
    }
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap_or_else(|error| {
        println!("skipped: caches cannot be dropped: {error}");
    });
    assert_eq!(
        differences(&tree, mount.path()),
        [""; 0],
        "after the caches were dropped"
    );
}

/// Every way in which an overlay takes something up.
fn overlay_leaves_the_commit_alone(overlay: &Path, mount: &Path) {
    let before = std::fs::read(mount.join("sizes/random-65536")).expect("a file");
    let mut bytes = before.clone();
    bytes.extend(b"more");
    std::fs::write(overlay.join("sizes/random-65536"), &bytes).expect("a write");
    std::fs::remove_file(overlay.join("links/hard-a")).expect("a removal");
    std::fs::remove_dir_all(overlay.join("names")).expect("a removal");
    std::fs::create_dir(overlay.join("names")).expect("a directory");
    std::fs::rename(overlay.join("modes/file-0755"), overlay.join("moved")).expect("a rename");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(overlay.join("usr"), mode).expect("a mode");
    let found = std::fs::read(overlay.join("sizes/random-65536")).expect("a file");
    assert!(found == bytes && overlay.join("moved").exists());
    assert_eq!(
        std::fs::read_dir(overlay.join("names"))
            .expect("a directory")
            .count(),
        0
    );
    assert!(std::fs::read(mount.join("sizes/random-65536")).expect("a file") == before);
}

#[test]
fn readers_at_the_same_time_see_the_tree_by_all_programs() {
    if !can_mount_all() {
        return;
    }
    let env = committed();
    let tree = env.path("tree");
    let mount = View::commit(&env, "odd", "mnt");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(differences(&tree, mount.path()), [""; 0]));
        }
    });
}
