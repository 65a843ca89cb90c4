//! What `grove diff` says beyond the list of paths, and that the list is the one of `ostree`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use grove_fixtures::spec::PackageSpec;

use crate::env::{Env, FIXED, have};

/// Commits `old` and `new` as `t^` and `t`.
fn commit_both(env: &Env) {
    for tree in ["old", "new"] {
        let tree = format!("--tree=dir={tree}");
        env.ok(&[&["commit", "-b", "t", "--timestamp=@1", &tree][..], &FIXED].concat());
    }
}

fn lines(count: usize, changed: usize) -> String {
    let line = |n: usize| {
        format!(
            "line {n} of the file{}\n",
            if n == changed { "!" } else { "" }
        )
    };
    (0..count).map(line).collect()
}

/// Bytes that repeat nowhere.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn write(env: &Env, name: &str, bytes: &[u8]) {
    env.file(name, "", 0o644);
    fs::write(env.path(name), bytes).expect("a file");
}

/// A tree of a few directories; each entry's kind, mode and content follow from the numbers.
fn random_tree(root: &Path, seed: u64, round: u64) {
    let mut state = seed;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    fs::create_dir(root).expect("a directory");
    let own = if (seed + round).is_multiple_of(3) {
        0o750
    } else {
        0o755
    };
    fs::set_permissions(root, fs::Permissions::from_mode(own)).expect("a mode");
    let mut dirs = vec![root.to_owned()];
    for n in 0..40 {
        let dir = dirs[next(dirs.len() as u64) as usize].clone();
        let path = dir.join(format!(
            "{}{n}",
            ["a", "b", "c d", "e\u{e9}"][next(4) as usize]
        ));
        let (kind, changes, value) = (next(10), next(5) == 0, next(1000));
        let value = value + if changes { round } else { 0 };
        match (kind + if changes && round > 0 { next(4) } else { 0 }) % 11 {
            0..=2 => {
                fs::create_dir(&path).expect("a directory");
                let mode = if value % 2 == 0 { 0o755 } else { 0o700 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
                dirs.push(path);
            }
            3 => symlink(format!("target{value}"), &path).expect("a link"),
            4 if changes => {}
            _ => {
                fs::write(&path, format!("{}", value / 2)).expect("a file");
                let mode = if value % 2 == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            }
        }
    }
}

/// Sorted lines, their paths without `/` at the beginning.
fn bare(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|l| l.replacen("    /", "    ", 1))
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_list_of_paths_is_that_of_ostree_for_commits_and_directories() {
    if !have("ostree") {
        return;
    }
    let env = Env::new();
    let ostree = |args: &[&str]| {
        let mut command = Command::new("ostree");
        command
            .arg("--repo=ostree")
            .args(args)
            .current_dir(env.path(""));
        let output = command.output().expect("ostree runs");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    ostree(&["init", "--mode=archive"]);
    let mut changes = 0;
    for seed in 0..8 {
        let [old, new] = ["old", "new"].map(|name| format!("{name}{seed}"));
        for (tree, round) in [(&old, 0), (&new, 1)] {
            random_tree(&env.path(tree), seed, round);
            let tree = format!("--tree=dir={tree}");
            let commit = ["commit", "-b", "t", "--timestamp=@1", &tree];
            assert_eq!(env.ok(&commit), ostree(&commit));
        }
        let dirs = [format!("./{old}"), format!("./{new}")];
        for (a, b) in [
            ("t^", "t"),
            ("t", "t^"),
            (&dirs[0], &dirs[1]),
            (&dirs[0], "t"),
        ] {
            let (ours, theirs) = (env.ok(&["diff", a, b]), ostree(&["diff", a, b]));
            if a.starts_with('.') {
                // Of directories it prints paths without `/`, in the order the kernel lists them.
                assert_eq!(bare(&ours), bare(&theirs), "{seed}: {a} {b}");
            } else {
                assert_eq!(ours, theirs, "{seed}: {a} {b}");
            }
            let names: String = ours
                .lines()
                .map(|line| format!("{}\n", &line[5..]))
                .collect();
            assert_eq!(env.ok(&["diff", "--name-only", a, b]), names);
            changes += ours.lines().count();
        }
    }
    assert!(changes > 200, "{changes} changes are too few to tell");
}

/// Files that moved, in every way that is recognised.
fn trees_with_moves(env: &Env) {
    let alike = noise(5, 60_000);
    for (name, bytes) in [
        ("old/opt/a/same", b"the same content".as_slice()),
        ("new/opt/b/same", b"the same content"),
        ("old/opt/a/empty", b""),
        ("new/opt/b/empty", b""),
        ("old/usr/name", b"kept under another name"),
        ("new/usr/other", b"kept under another name"),
        ("old/lib/6.1.0-21/x.ko", b"one"),
        ("new/lib/6.1.10-3/x.ko", b"another one"),
        ("old/usr/alike.dat", &alike),
        (
            "new/share/renamed.dat",
            &[b"with a new beginning", &alike[1000..]].concat(),
        ),
        ("old/usr/gone.dat", &noise(6, 60_000)),
        ("new/usr/new.dat", &noise(7, 60_000)),
    ] {
        write(env, name, bytes);
    }
    symlink("x", env.path("old/opt/a/link")).expect("a link");
    symlink("x", env.path("new/opt/b/link")).expect("a link");
    fs::set_permissions(env.path("new/usr/other"), fs::Permissions::from_mode(0o600))
        .expect("a mode");
}

#[test]
fn what_was_moved_is_told_from_what_is_new() {
    let env = Env::new();
    trees_with_moves(&env);
    commit_both(&env);
    let from_dirs = env.ok(&[
        "diff",
        "--files",
        "--no-xattrs",
        "--owner-uid=0",
        "--owner-gid=0",
        "./old",
        "./new",
    ]);
    assert_eq!(env.ok(&["diff", "--files", "t"]), from_dirs);
    snapshot!(env.runs(&[
        &["diff", "t"],
        &["diff", "--files", "t"],
        &["diff", "--files", "--no-renames", "--subpath=usr", "t"],
        &["diff", "--stat", "--depth=1", "t"],
    ]));
    let json = env.ok(&["diff", "--json", "--stat", "t"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["totals"]["moved"], 8);
    let rows = json["changes"].as_array().expect("rows");
    let row = rows
        .iter()
        .find(|row| row["path"] == "/share/renamed.dat")
        .expect("a row");
    assert_eq!(
        (&row["change"], &row["moved_by"]),
        (&"moved".into(), &"likeness".into())
    );
    assert_eq!(row["moved_from"], "/usr/alike.dat");
    assert_eq!(json["directories"]["/usr"]["added"], 1);
}

#[test]
fn a_part_of_the_trees_can_be_compared() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["diff", "--subpath=/sub", "os/main"],
        &["diff", "--subpath=sub/z", "--files", "os/main"],
        &["diff", "--subpath=/new", "os/main"],
        &["diff", "--subpath=/link", "--files", "os/main"],
        &["diff", "--subpath=/none", "os/main"],
    ]));
}

#[test]
fn the_exit_code_says_whether_anything_differs() {
    let env = Env::with_commits();
    let code = |args: &[&str]| env.output(args).status.code();
    assert_eq!(code(&["diff", "os/main"]), Some(0));
    assert_eq!(code(&["diff", "--exit-code", "os/main"]), Some(3));
    assert_eq!(
        code(&["diff", "--exit-code", "--stat", "--json", "os/main"]),
        Some(3)
    );
    assert_eq!(
        code(&["diff", "--exit-code", "os/main", "os/main"]),
        Some(0)
    );
    assert_eq!(
        code(&["diff", "--exit-code", "--subpath=/hello", "os/main"]),
        Some(3)
    );
    assert_eq!(code(&["diff", "--exit-code", "os/main", "none"]), Some(1));
}

#[test]
fn directories_are_compared_where_there_is_no_repository() {
    let env = Env::new();
    trees_with_moves(&env);
    write(&env, "old/lib/cut.so", b"\x7fELF and more");
    env.file("old/text", "one\n", 0o644);
    env.file("new/text", "two\n", 0o644);
    let everything = [
        "diff", "--files", "--stat", "--patch", "--elf", "./old", "./new",
    ];
    let with_repo = env.ok(&everything);
    assert!(with_repo.contains("+two\n"), "{with_repo}");
    fs::remove_dir_all(env.path("repo")).expect("the repository");
    assert_eq!(env.ok(&everything), with_repo);
    assert_eq!(
        env.output(&["diff", "os/main", "./new"]).status.code(),
        Some(10)
    );
    let alone = env.output(&["diff", "./new"]);
    let errors = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.status.code(), Some(2), "{errors}");
    assert!(errors.contains("no parent"), "{errors}");
}

#[test]
fn what_a_commit_cannot_hold_is_left_out_of_directories_on_request() {
    let env = Env::new();
    let _socket = UnixListener::bind(env.path("two/new/socket")).expect("a socket");
    let refused = env.output(&["diff", "./one", "./two"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    assert!(errors.contains("two/new/socket"), "{errors}");
    let name = OsStr::from_bytes(b"\xff");
    fs::write(env.path("two").join(name), "").expect("a file");
    let skipped = env.output(&["diff", "--skip-special", "./one", "./two"]);
    let errors = String::from_utf8_lossy(&skipped.stderr).into_owned();
    assert!(skipped.status.success(), "{errors}");
    assert!(errors.contains("left out 2 entries"), "{errors}");
    let text = String::from_utf8(skipped.stdout).expect("UTF-8");
    assert!(
        text.contains("A    /new/n\n") && !text.contains("socket"),
        "{text}"
    );
    // What is left out elsewhere is not told.
    let part = env.output(&["diff", "--skip-special", "--subpath=/sub", "./one", "./two"]);
    assert!(part.status.success() && part.stderr.is_empty(), "{part:?}");
}

#[test]
fn metadata_of_the_root_is_told_of_but_not_in_the_plain_list() {
    let env = Env::new();
    env.file("old/same", "same", 0o644);
    env.file("new/same", "same", 0o644);
    fs::set_permissions(env.path("new"), fs::Permissions::from_mode(0o700)).expect("a mode");
    commit_both(&env);
    symlink("new", env.path("link")).expect("a link");
    for trees in [
        &["t"][..],
        &["./old", "./new"],
        &["t^", "./new"],
        &["./old", "./link"],
    ] {
        let diff = |more: &[&str]| {
            let fixed = ["diff", "--owner-uid=0", "--owner-gid=0", "--no-xattrs"];
            env.output(&[&fixed[..], more, trees].concat())
        };
        let text = |more: &[&str]| String::from_utf8(diff(more).stdout).expect("UTF-8");
        assert_eq!(text(&[]), "", "as ostree diff does it");
        assert_eq!(text(&["--name-only"]), "");
        assert_eq!(diff(&["--exit-code"]).status.code(), Some(3));
        assert_eq!(text(&["--files"]), "M    /  mode 0755 -> 0700\n");
        assert!(text(&["--stat"]).starts_with("Modified:  1 (0 in content"));
        let json: serde_json::Value = serde_json::from_str(&text(&["--json"])).expect("JSON");
        let change = &json["changes"][0];
        assert_eq!(
            (&change["path"], &change["aspects"]),
            (&"/".into(), &serde_json::json!(["mode"]))
        );
        assert_eq!(
            diff(&["--exit-code", "--subpath=/same"]).status.code(),
            Some(0)
        );
    }
}

#[test]
fn patches_make_the_new_text_files_out_of_the_old_ones() {
    let env = Env::new();
    for (name, text) in [
        ("old/etc/changed.conf", lines(30, 99)),
        ("new/etc/changed.conf", lines(30, 12)),
        ("old/etc/removed", "gone\n".into()),
        ("new/etc/deep/added", "no line end".into()),
        ("old/etc/moved.conf", lines(300, 999)),
        ("new/etc/renamed.conf", lines(300, 1)),
        ("old/etc/mode", "same".into()),
        ("new/etc/mode", "same".into()),
        ("old/usr/text", "a\n".into()),
        ("new/usr/text", "b\n".into()),
    ] {
        env.file(name, &text, 0o644);
    }
    write(&env, "old/etc/binary", b"a\0b");
    write(&env, "new/etc/binary", b"a\0c");
    symlink("here", env.path("old/etc/link")).expect("a link");
    symlink("there", env.path("new/etc/link")).expect("a link");
    commit_both(&env);
    let patch = env.ok(&["diff", "--patch", "--subpath=/etc", "t"]);
    snapshot!(patch);
    assert!(env.ok(&["diff", "--patch", "t"]).contains("+++ b/usr/text"));
    if !have("patch") {
        return;
    }
    fs::write(env.path("changes"), patch).expect("a file");
    let mut command = Command::new("patch");
    command
        .args(["-p1", "-d", "old", "-i", "../changes"])
        .current_dir(env.path(""));
    let output = command.output().expect("patch runs");
    for file in ["changed.conf", "deep/added"] {
        let [old, new] = ["old", "new"].map(|tree| env.path(tree).join("etc").join(file));
        assert_eq!(fs::read(old).ok(), fs::read(new).ok(), "{output:?}");
    }
    assert!(!env.path("old/etc/removed").exists());
}

#[test]
fn libraries_are_compared_as_linkers_see_them() {
    if !have("gcc") {
        return;
    }
    let env = Env::new();
    let build = |out: &str, soname: &str, code: &str, id: &str| {
        env.file(out, "", 0o755);
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-nostdlib", "-x", "c", "-", "-o", out]);
        gcc.args([
            format!("-Wl,-soname,{soname}"),
            format!("-Wl,--build-id=0x{id}"),
        ]);
        gcc.current_dir(env.path("")).stdin(Stdio::piped());
        let mut child = gcc.spawn().expect("gcc starts");
        let mut input = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, code.as_bytes()).expect("the source");
        drop(input);
        assert!(child.wait().expect("gcc ends").success());
    };
    build(
        "old/lib/liba.so",
        "liba.so.1",
        "int kept(void){return 1;} int gone(void){return 2;}",
        "aa",
    );
    build(
        "new/lib/liba.so",
        "liba.so.2",
        "int kept(void){return 1;} int came(void){return 2;}",
        "bb",
    );
    build(
        "old/lib/lib-x.so",
        "libb.so.1",
        "int b(void){return 1;}",
        "cc",
    );
    build(
        "new/lib/yy.so",
        "libb.so.1",
        "int b(void){return 1;} int b2(void){return 2;}",
        "cc",
    );
    write(
        &env,
        "new/lib/cut.so",
        b"\x7fELF\x02\x01\x01 and nothing that makes sense behind it, but long enough",
    );
    commit_both(&env);
    snapshot!(env.runs(&[&["diff", "--elf", "t"], &["diff", "--elf", "t", "t^"]]));
    let json: serde_json::Value =
        serde_json::from_str(&env.ok(&["diff", "--elf", "--json", "t"])).expect("JSON");
    assert_eq!(json["elf"][0]["symbols_added"], serde_json::json!(["came"]));
}

fn package(env: &Env, release: &str, name: &str, version: &str, files: &[(&str, &str)]) {
    let dir = env.path(release);
    fs::create_dir_all(&dir).expect("a directory");
    let mut spec = PackageSpec::new(name, version, "1", "noarch", 1_700_000_000);
    for (path, text) in files {
        spec.file(*path, 0o644, *text);
    }
    spec.write(&dir).expect("a package");
}

fn two_releases(env: &Env) {
    package(
        env,
        "r1",
        "up",
        "1.9",
        &[("/usr/up/a", "1"), ("/usr/up/b", "2"), ("/etc/up", "x")],
    );
    package(
        env,
        "r2",
        "up",
        "1.10",
        &[("/usr/up/a", "12345"), ("/etc/up", "y"), ("/usr/up/c", "3")],
    );
    package(env, "r1", "down", "2", &[("/usr/down", "1")]);
    package(env, "r2", "down", "1~rc1", &[("/usr/down", "2")]);
    package(env, "r1", "gone", "1", &[("/usr/gone", "gone")]);
    package(env, "r2", "new", "1", &[("/usr/new", "new")]);
    for release in ["r1", "r2"] {
        package(env, release, "stays", "7", &[("/usr/stays", "s")]);
    }
}

#[test]
fn changes_are_given_to_the_packages_that_were_imported() {
    let env = Env::new();
    two_releases(&env);
    env.file("r3/usr/local", "of nobody", 0o644);
    env.file("r3/usr/stays", "changed", 0o644);
    for args in [
        &["--tree=rpms=r1"][..],
        &["--tree=rpms=r2", "--tree=dir=r3"],
    ] {
        let commit = ["commit", "-b", "p", "--timestamp=@1", "--unified-layout"];
        env.ok(&[&commit[..], &FIXED, args].concat());
    }
    snapshot!(env.runs(&[
        &["diff", "--packages", "p"],
        &["diff", "--packages", "--subpath=/usr/etc", "--json", "p"],
        &["diff", "--packages", "./one", "./two"],
    ]));
}

#[test]
fn the_databases_of_rpm_and_dpkg_say_whose_a_path_is() {
    let env = Env::new();
    let status = |version: &str| {
        format!(
            "Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n\
             Package: old\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
        )
    };
    for (tree, version, text) in [("old", "1:1-1", "1"), ("new", "1:1-1+b1", "2")] {
        env.file(
            &format!("{tree}/var/lib/dpkg/status"),
            &status(version),
            0o644,
        );
        env.file(
            &format!("{tree}/var/lib/dpkg/info/tool.list"),
            "/.\n/lib/tool\n",
            0o644,
        );
        env.file(&format!("{tree}/usr/lib/tool"), text, 0o644);
    }
    commit_both(&env);
    let expected = "Upgraded:\n  tool 1:1-1 -> 1:1-1+b1  (1 modified; +0 B)\n\
        In no package:\n   (1 modified; +3 B)\n";
    assert_eq!(env.ok(&["diff", "--packages", "t"]), expected);
    assert_eq!(env.ok(&["diff", "--packages", "./old", "./new"]), expected);
    if !have("rpm") {
        return;
    }
    two_releases(&env);
    for (release, tree) in [("r1", "rpm1"), ("r2", "rpm2")] {
        let database = format!("{tree}/usr/share/rpm");
        fs::create_dir_all(env.path(&database)).expect("a directory");
        let mut rpm = Command::new("sh");
        rpm.args(["-c", &format!("rpm -i --justdb --nodeps --dbpath=$PWD/{database} --define '_db_backend sqlite' {release}/*.rpm && rm -f {database}/*-wal {database}/*-shm {database}/.rpm.lock")]);
        let output = rpm.current_dir(env.path("")).output().expect("rpm runs");
        assert!(output.status.success(), "{output:?}");
        env.ok(&[&["commit", "-b", "rpm", "--timestamp=@1", tree][..], &FIXED].concat());
    }
    let found = env.ok(&["diff", "--packages", "rpm"]);
    for line in [
        "Upgraded:\n  up 1.9-1 -> 1.10-1",
        "Removed:\n  gone-1-1.noarch",
        "Added:\n  new-1-1.noarch",
    ] {
        assert!(found.contains(line), "{found}");
    }
    fs::write(
        env.path("rpm1/usr/share/rpm/rpmdb.sqlite"),
        b"SQLite format 3\0 no more",
    )
    .expect("a file");
    let output = env.output(&["diff", "--packages", "./rpm1", "./rpm2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("package database"));
}

#[test]
fn names_and_text_give_no_commands_to_a_terminal_and_are_whole_in_a_pipe() {
    if !have("script") {
        return;
    }
    let env = Env::new();
    env.file("old/kept", "one\n", 0o644);
    env.file("new/kept", "two\x1b[8m\n", 0o644);
    env.file("new/a\x1b[8mb", "", 0o644);
    symlink("to\x1b[8m", env.path("new/link")).expect("a link");
    commit_both(&env);
    let subject = "--subject=now\x1b[8m hidden";
    let version = "--add-metadata-string=version=1\x1b[8m";
    let commit = ["commit", "-b", "said", subject, version, "--tree=dir=new"];
    env.ok(&[&commit[..], &FIXED].concat());
    for args in [
        &["diff", "t"][..],
        &["diff", "--name-only", "t"],
        &["diff", "--patch", "t"],
        &["ls", "t"],
        &["log", "said"],
        &["show", "said"],
        &["ls", "t", "/none\x1b[8m"],
    ] {
        let output = env.output(args);
        let in_pipe = [output.stdout, output.stderr].concat();
        let in_pipe = String::from_utf8(in_pipe).expect("UTF-8");
        assert!(in_pipe.contains("\x1b[8m"), "{args:?}: {in_pipe}");
        for no_colour in ["", "1"] {
            let mut command = env.on_terminal(args);
            command.env("GROVE_PAGER", "").env("NO_COLOR", no_colour);
            let output = command.output().expect("script runs");
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(
                shown.contains("\\x1b[8m") && !shown.contains("\x1b[8m"),
                "{args:?}: {shown:?}"
            );
        }
    }
}

#[test]
fn a_terminal_gets_colours_and_a_pager_and_nobody_else() {
    if !have("script") {
        return;
    }
    let env = Env::with_commits();
    let on_terminal = |arguments: &[&str], no_colour: &str| {
        let mut command = env.on_terminal(&[&["diff", "os/main"], arguments].concat());
        command.env("PAGER", "tee paged").env("NO_COLOR", no_colour);
        let output = command.output().expect("script runs");
        let paged = fs::read_to_string(env.path("paged")).unwrap_or_default();
        let _ = fs::remove_file(env.path("paged"));
        (
            String::from_utf8_lossy(&output.stdout).replace('\r', ""),
            paged,
        )
    };
    let (shown, paged) = on_terminal(&[], "");
    assert!(
        paged.starts_with("\x1b[33mM\x1b[0m    /empty\n"),
        "{paged:?}"
    );
    assert_eq!(shown, paged);
    let (_, paged) = on_terminal(&[], "1");
    assert_eq!(paged, env.ok(&["diff", "os/main"]));
    let (shown, paged) = on_terminal(&["--no-pager"], "");
    assert!(
        paged.is_empty() && shown.contains("\x1b[32mA\x1b[0m    /new\n"),
        "{shown:?}"
    );
}
