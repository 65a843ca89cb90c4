//! Static deltas between `ostree` and `grove`, both ways.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::env::{Env, have};

const OLD: &str = "--timestamp=@1700000000";
const NEW: &str = "--timestamp=@1700000001";

/// Two trees, in an archive repository of `ostree` and in one of `grove`.
struct Scene {
    env: Env,
    old: String,
    new: String,
}

/// Bytes that look like a program: repetitive, but not the same all over.
fn program(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        state >> 33
    };
    let words: Vec<[u8; 8]> = (0..256)
        .map(|_| (next() << 20 | next()).to_le_bytes())
        .collect();
    let chosen = (0..len.div_ceil(8)).map(|_| words[next() as usize % 256]);
    let mut bytes: Vec<u8> = chosen.flatten().collect();
    bytes.truncate(len);
    bytes
}

/// The same with code inserted and the addresses behind it changed.
fn relinked(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes.splice(middle..middle, program(seed, 777));
    bytes
        .iter_mut()
        .step_by(61)
        .for_each(|byte| *byte = byte.wrapping_add(3));
    bytes
}

fn make_trees(env: &Env) {
    let write = |path: &str, bytes: &[u8], mode: u32| {
        let path = env.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let library = program(1, 400_000);
    let (first, second) = (program(2, 90_000), program(3, 80_000));
    for tree in ["a", "b"] {
        write(&format!("{tree}/usr/same"), b"the same", 0o644);
        write(
            &format!("{tree}/usr/secret"),
            format!("{tree} secret\n").repeat(500).as_bytes(),
            0o600,
        );
        let lines: String = (0..9000).map(|n| format!("line {n}\n")).collect();
        let lines = if tree == "b" {
            lines.replace("77", "changed")
        } else {
            lines
        };
        write(&format!("{tree}/usr/share/text"), lines.as_bytes(), 0o644);
    }
    write("a/usr/lib/libx.so.1.2", &library, 0o755);
    write(
        "b/usr/lib/libx.so.1.3",
        &relinked(library.clone(), 9),
        0o755,
    );
    write("a/usr/lib/6.1.0-47/mod.ko", &program(4, 70_000), 0o644);
    write(
        "b/usr/lib/6.1.0-50/mod.ko",
        &relinked(program(4, 70_000), 8),
        0o644,
    );
    write("a/usr/bin/first", &first, 0o755);
    write("a/usr/bin/second", &second, 0o755);
    let both = [&first[20_000..], b"joined", &second[..70_000]].concat();
    write("b/usr/bin/together", &both, 0o755);
    write("a/usr/chmod", &program(5, 30_000), 0o644);
    write("b/usr/chmod", &program(5, 30_000), 0o755);
    write("a/usr/moved", &program(6, 30_000), 0o644);
    write("b/opt/elsewhere", &program(6, 30_000), 0o644);
    write("b/usr/new", &program(7, 50_000), 0o4755);
    write("b/usr/twin", &program(7, 50_000), 0o644);
    write("b/usr/empty", b"", 0o644);
    write("b/usr/noise", &noise(150_000), 0o644);
    symlink("same", env.path("a/usr/link")).expect("a link");
    symlink("new", env.path("b/usr/link")).expect("a link");
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 77u64;
    let next = |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

impl Scene {
    fn new() -> Self {
        let env = Env::new();
        make_trees(&env);
        let mut scene = Self {
            env,
            old: String::new(),
            new: String::new(),
        };
        scene.ostree("archive", &["init", "--mode=archive"]);
        for (tree, time) in [("a", OLD), ("b", NEW)] {
            let args = [
                "commit",
                "-b",
                "os",
                time,
                "--owner-uid=0",
                "--owner-gid=0",
                "--no-xattrs",
                tree,
            ];
            let theirs = scene.ostree("archive", &args);
            let ours = scene.env.ok(&args);
            assert_eq!(ours, theirs);
            (scene.old, scene.new) = (scene.new, ours.trim().to_owned());
        }
        scene
    }

    fn try_ostree(&self, repo: &str, args: &[&str]) -> Output {
        let mut command = Command::new("ostree");
        command
            .arg(format!("--repo={repo}"))
            .args(args)
            .current_dir(self.env.path(""));
        command
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("ostree runs")
    }

    fn ostree(&self, repo: &str, args: &[&str]) -> String {
        let output = self.try_ostree(repo, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ostree {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A repository of `ostree` that has the old commit, or nothing.
    fn client(&self, name: &str, with_old: bool) {
        self.ostree(name, &["init", "--mode=bare-user"]);
        if with_old {
            self.ostree(name, &["pull-local", "archive", &self.old]);
        }
    }

    /// A repository of `grove` that has the old commit only.
    fn grove_client(&self, name: &str) {
        self.env.ok(&["init", "--repo", name]);
        let args = [
            "commit",
            "-b",
            "os",
            OLD,
            "--owner-uid=0",
            "--owner-gid=0",
            "--no-xattrs",
            "--repo",
            name,
            "a",
        ];
        assert_eq!(self.env.ok(&args).trim(), self.old);
    }

    /// The directory of the only delta of a repository.
    fn delta_dir(&self, repo: &str) -> PathBuf {
        let only = |dir: PathBuf| {
            let mut found = fs::read_dir(&dir)
                .expect("a directory")
                .map(|e| e.expect("an entry").path());
            (
                found.next().expect("a delta"),
                assert!(found.next().is_none()),
            )
                .0
        };
        only(only(self.env.path(&format!("{repo}/deltas"))))
    }

    fn listing(&self, repo: &str) -> String {
        self.ostree(repo, &["ls", "-RCX", &self.new])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn stock_clients_apply_deltas_of_grove() {
    if !have("ostree") {
        return;
    }
    let scene = Scene::new();
    let cases: [(&str, &[&str]); 6] = [
        ("plain", &[]),
        ("parts", &["--max-chunk-size=0"]),
        ("spliced", &["--disable-bsdiff"]),
        ("big-endian", &["--set-endianness=B"]),
        ("best", &["--best"]),
        ("scratch", &["--empty"]),
    ];
    for (name, options) in cases {
        scene
            .env
            .ok(&[&["static-delta", "generate"], options, &["os"]].concat());
        let dir = scene.delta_dir("repo");
        scene.client(name, name != "scratch");
        scene.ostree(name, &["static-delta", "apply-offline", text(&dir)]);
        assert_eq!(scene.listing(name), scene.listing("archive"), "{name}");
        scene.ostree(name, &["fsck"]);
        let listed = scene.env.ok(&["static-delta", "list"]);
        scene.env.ok(&["static-delta", "verify", listed.trim()]);
        assert_same_description(&scene, name, listed.trim());
        scene.env.ok(&["static-delta", "delete", listed.trim()]);
        assert_eq!(
            scene.env.ok(&["static-delta", "list"]),
            "(No static deltas)\n"
        );
    }
    scene.env.ok(&[
        "static-delta",
        "generate",
        "--inline",
        "--filename=one-file",
        "os",
    ]);
    scene.client("inline", true);
    scene.ostree("inline", &["static-delta", "apply-offline", "one-file"]);
    assert_eq!(scene.listing("inline"), scene.listing("archive"));
    scene.ostree("inline", &["fsck"]);
}

/// `show` says what `ostree` says, but for the units of sizes.
fn assert_same_description(scene: &Scene, client: &str, delta: &str) {
    let copied = Command::new("cp")
        .args(["-r", "repo/deltas", client])
        .current_dir(scene.env.path(""))
        .status();
    assert!(copied.expect("cp runs").success());
    let lines = |text: String| -> Vec<String> {
        text.lines()
            .map(|line| line.split(" (").next().expect("a part").to_owned())
            .collect()
    };
    let theirs = lines(scene.ostree(client, &["static-delta", "show", delta]));
    let ours = lines(scene.env.ok(&["static-delta", "show", delta]));
    assert_eq!(ours, theirs);
}

#[test]
fn a_delta_is_smaller_than_what_changed_and_uses_every_way() {
    if !have("ostree") {
        return;
    }
    let scene = Scene::new();
    scene.env.ok(&["static-delta", "generate", "os"]);
    let shown = scene.env.ok(&[
        "static-delta",
        "show",
        "--json",
        &format!("{}-{}", scene.old, scene.new),
    ]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let operations = |name: &str| -> u64 {
        let parts = shown["parts"].as_array().expect("parts");
        parts
            .iter()
            .map(|part| part["operations"][name].as_u64().expect("a number"))
            .sum()
    };
    assert!(operations("bspatch") >= 2, "{shown}");
    assert!(operations("setread") > operations("bspatch"), "{shown}");
    scene.ostree(
        "archive",
        &["static-delta", "generate", "--min-fallback-size=0", "os"],
    );
    let size = |repo: &str| -> u64 {
        let files = fs::read_dir(scene.delta_dir(repo)).expect("a delta");
        files
            .map(|file| file.expect("a file").metadata().expect("metadata").len())
            .sum()
    };
    let (ours, theirs) = (size("repo"), size("archive"));
    assert!(ours < theirs * 9 / 10, "{ours} {theirs}");
}

#[test]
fn grove_applies_deltas_of_ostree_and_its_own() {
    if !have("ostree") {
        return;
    }
    let scene = Scene::new();
    let generate = |options: &[&str]| {
        let args = [
            &["static-delta", "generate", "--min-fallback-size=0"],
            options,
            &["os"],
        ]
        .concat();
        scene.ostree("archive", &args);
    };
    generate(&[]);
    generate(&["--inline", "--filename=inline"]);
    generate(&["--swap-endianness", "--inline", "--filename=swapped"]);
    scene
        .env
        .ok(&["static-delta", "generate", "--filename=ours", "os"]);
    let theirs = scene.delta_dir("archive");
    for (n, delta) in [text(&theirs), "inline", "swapped", "ours"]
        .into_iter()
        .enumerate()
    {
        let repo = format!("client{n}");
        scene.grove_client(&repo);
        let made = scene
            .env
            .ok(&["static-delta", "apply-offline", "--repo", &repo, delta]);
        assert_eq!(made.trim(), scene.new, "{delta}");
        let listed = scene.env.ok(&["ls", "-RCX", "--repo", &repo, &scene.new]);
        assert_eq!(listed, scene.listing("archive"), "{delta}");
        scene
            .env
            .ok(&["refs", "--create=new", "--repo", &repo, &scene.new]);
        scene.env.ok(&["fsck", "--repo", &repo]);
    }
}

#[test]
fn signatures_go_along_with_deltas_of_either_side() {
    if !have("ostree") {
        return;
    }
    let scene = Scene::new();
    let signed = scene.ostree(
        "archive",
        &[
            "commit",
            "-b",
            "os",
            "--timestamp=@1700000002",
            "--owner-uid=0",
            "--owner-gid=0",
            "--no-xattrs",
            "--add-detached-metadata-string=signed=yes",
            "a",
        ],
    );
    let signed = signed.trim();
    scene.env.ok(&["import", "archive"]);
    let (first, rest) = signed.split_at(2);
    let theirs = |repo: &str| {
        let path = format!("{repo}/objects/{first}/{rest}.commitmeta");
        fs::read(scene.env.path(&path)).expect("detached metadata")
    };
    let wanted = theirs("archive");
    let generate = ["static-delta", "generate", "--empty", "os", "--inline"];
    scene
        .env
        .ok(&[&generate[..], &["--filename=ours"]].concat());
    let whole = ["--min-fallback-size=0", "--filename=theirs"];
    scene.ostree("archive", &[&generate[..], &whole].concat());
    scene.client("client", false);
    scene.ostree("client", &["static-delta", "apply-offline", "ours"]);
    assert_eq!(theirs("client"), wanted);
    for delta in ["ours", "theirs"] {
        let repo = format!("takes-{delta}");
        scene.env.ok(&["init", "--repo", &repo]);
        scene
            .env
            .ok(&["static-delta", "verify", "--repo", &repo, delta]);
        scene
            .env
            .ok(&["static-delta", "apply-offline", "--repo", &repo, delta]);
        let stored = fs::read(scene.env.path(&format!("{repo}/state/{signed}.commitmeta")));
        assert_eq!(stored.expect("detached metadata"), wanted, "{delta}");
    }
}

#[test]
fn wrong_deltas_leave_the_repository_as_it_was() {
    let env = Env::new();
    make_trees(&env);
    let commit = |repo: &str, tree: &str, time: &str| {
        env.ok(&[
            "commit",
            "-b",
            "os",
            time,
            "--owner-uid=0",
            "--owner-gid=0",
            "--repo",
            repo,
            tree,
        ])
    };
    commit("repo", "a", OLD);
    let new = commit("repo", "b", NEW);
    env.ok(&["init", "--repo=other"]);
    commit("other", "a", OLD);
    env.ok(&["init", "--repo=stranger"]);
    commit("stranger", "b", OLD);
    env.ok(&[
        "static-delta",
        "generate",
        "--inline",
        "--filename=good",
        "os",
    ]);
    env.ok(&[
        "static-delta",
        "generate",
        "--filename=dir/superblock",
        "os",
    ]
    .map(|arg| {
        fs::create_dir_all(env.path("dir")).expect("a directory");
        arg
    }));
    env.ok(&[
        "static-delta",
        "generate",
        "--inline",
        "--min-fallback-size=1",
        "--filename=less",
        "os",
    ]);
    let good = fs::read(env.path("good")).expect("a delta");
    fs::write(env.path("cut"), &good[..good.len() / 2]).expect("a file");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(env.path("flipped"), flipped).expect("a file");
    let part = env.path("dir/0");
    let bytes = fs::read(&part).expect("a part");
    fs::write(&part, &bytes[..bytes.len() - 1]).expect("a file");
    let before = packs(&env, "other");
    for (repo, delta, message) in [
        ("stranger", "good", "which is not in the repository"),
        ("other", "cut", "invalid delta"),
        ("other", "flipped", "invalid delta"),
        ("other", "dir", "the part has"),
        ("other", "nothing", "nothing"),
    ] {
        let output = env.output(&["static-delta", "apply-offline", "--repo", repo, delta]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{delta}: {errors}");
        assert!(errors.contains(message), "{delta}: {errors}");
    }
    assert_eq!(packs(&env, "other"), before);
    env.ok(&["fsck", "--repo=other"]);
    assert!(
        !env.output(&["show", "--repo=other", new.trim()])
            .status
            .success()
    );
    // What was refused before is fine after all, and needs no second time.
    for was_there in [false, true] {
        let apply = ["static-delta", "apply-offline", "--repo=other", "--json"];
        let told = env.ok(&[&apply[..], &["good"]].concat());
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["was_there"].as_bool(), Some(was_there), "{told}");
        assert_eq!(
            told["stored_bytes"].as_u64() == Some(0),
            was_there,
            "{told}"
        );
    }
    env.ok(&["show", "--repo=other", new.trim()]);
}

fn packs(env: &Env, repo: &str) -> Vec<PathBuf> {
    let packs = fs::read_dir(env.path(&format!("{repo}/packs"))).expect("packs");
    let mut packs: Vec<PathBuf> = packs.map(|pack| pack.expect("an entry").path()).collect();
    packs.sort();
    packs
}
