//! What the verbs that look into a repository print.

use crate::env::{Env, FIXED};

#[test]
fn refs_are_listed_created_moved_and_deleted() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["refs"],
        &["refs", "os"],
        &["refs", "--list", "os"],
        &["refs", "none"],
        &["refs", "--create=os/old", "os/main^"],
        &["refs", "--create=os/old", "os/main"],
        &["refs", "--create=os/old", "--force", "os/main"],
        &["refs", "--create=os", "os/main"],
        &["refs", "--create=bad ref", "os/main"],
        &["refs", "-r"],
        &["reset", "os/old", "os/main^"],
        &["reset", "os/old", "os/main"],
        &["refs", "--json"],
        &["refs", "--delete"],
        &["refs", "--delete", "os/old"],
        &["refs"],
    ]));
}

#[test]
fn revs_are_refs_checksums_abbreviations_and_parents() {
    let env = Env::with_commits();
    let id = env.ok(&["rev-parse", "os/main"]);
    let short = &id[..6];
    assert_eq!(env.ok(&["rev-parse", short]), id);
    snapshot!(env.runs(&[
        &["rev-parse", "os/main", "os/main^", short],
        &["rev-parse", "os/main^^"],
        &["rev-parse", "nothing"],
        &["rev-parse", "-S"],
    ]));
}

#[test]
fn history_is_printed_as_ostree_prints_it() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["log", "os/main"],
        &["log", "-n", "1", "--raw", "os/main"],
        &["log", "--json", "os/main"],
    ]));
}

#[test]
fn objects_of_every_kind_are_shown() {
    let env = Env::with_commits();
    let listing = env.ok(&["ls", "-C", "os/main^"]);
    let checksum = |name: &str| {
        let line = listing
            .lines()
            .find(|line| line.contains(name))
            .expect("a line");
        line.split_whitespace()
            .nth(4)
            .expect("a checksum")
            .to_owned()
    };
    let (file, link, dir) = (checksum("/hello"), checksum("/link"), checksum("/sub"));
    let meta = listing
        .split_whitespace()
        .nth(5)
        .expect("a checksum")
        .to_owned();
    snapshot!(env.runs(&[
        &["show", "os/main"],
        &["show", "--raw", "os/main"],
        &["show", "--list-metadata-keys", "os/main"],
        &["show", "--print-metadata-key=version", "os/main"],
        &["show", "--print-metadata-key=none", "os/main"],
        &["show", &file],
        &["show", &link],
        &["show", "--raw", &dir],
        &["show", "--raw", &meta],
        &["show", "--json", &file],
        &["show", &"0".repeat(64)],
    ]));
}

#[test]
fn trees_are_listed() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["ls", "os/main^"],
        &["ls", "-R", "os/main^"],
        &["ls", "-d", "os/main^", "sub", "/hello"],
        &["ls", "-CX", "os/main^", "/sub/"],
        &["ls", "--json", "os/main^", "/sub/z", "/link"],
        &["ls", "os/main^", "/nothing"],
    ]));
    assert_eq!(
        env.ok(&["ls", "--nul-filenames-only", "os/main", "/sub"]),
        "/sub\0/sub/up\0/sub/z\0"
    );
}

#[test]
fn files_are_printed_and_links_followed_inside_the_commit() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["cat", "os/main", "/hello", "link", "/sub/up"],
        &["cat", "os/main", "/sub"],
        &["cat", "os/main", "/nothing"],
    ]));
}

#[test]
fn links_that_lead_out_or_in_circles_lead_nowhere() {
    let env = Env::new();
    for (name, target) in [("out", "../../../../etc/passwd"), ("a", "b"), ("b", "a")] {
        std::os::unix::fs::symlink(target, env.path("one").join(name)).expect("a link");
    }
    env.ok(&[&["commit", "-b", "x", "one"][..], &FIXED].concat());
    snapshot!(env.runs(&[&["cat", "x", "/out"], &["cat", "x", "/a"]]));
}

#[test]
fn differences_are_named_with_what_changed() {
    let env = Env::with_commits();
    let owners = ["diff", "--no-xattrs", "--owner-uid=0", "--owner-gid=0"];
    snapshot!(env.runs(&[
        &["diff", "os/main"],
        &["diff", "os/main", "os/main"],
        &["diff", "--files", "os/main^", "os/main"],
        &["diff", "--stat", "--bytes", "os/main^", "os/main"],
        &[&owners[..], &["os/main", "./two"]].concat(),
        &[&owners[..], &["--files", "./two", "os/main^"]].concat(),
        &["diff", "--json", "os/main^", "os/main"],
    ]));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = Env::new();
    for i in 0..2000 {
        env.file(&format!("many/{i:0>60}"), "", 0o644);
    }
    env.ok(&[&["commit", "-b", "many", "many"][..], &FIXED].concat());
    for args in [&["ls", "many"][..], &["ls", "--json", "many"]] {
        let mut command = env.command(args);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("grove runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("grove ends");
        assert_eq!(
            (output.status.code(), output.stderr),
            (Some(0), Vec::new()),
            "{args:?}"
        );
    }
}
