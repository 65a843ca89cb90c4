//! The same commands given to `ostree` and to `grove` must print the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::env::{Env, have};

/// Commands on a repository, in this order; outputs must be equal.
const COMMANDS: &[&[&str]] = &[
    &[
        "commit",
        "-b",
        "t/main",
        "-s",
        "First",
        "-m",
        "Body\nof two lines",
        "--timestamp=@1700000000",
        "--add-metadata=k=(uint32 5, [byte 1, 2])",
        "--add-metadata-string=version=1.0",
        "--tree=dir=one",
    ],
    &[
        "commit",
        "-b",
        "t/main",
        "--timestamp=2024-05-01 10:00:00 +0200",
        "--tree=dir=two",
    ],
    &[
        "commit",
        "-b",
        "t/owned",
        "--timestamp=2024-05-01T10:00:00",
        "--tree=dir=two",
        "--owner-uid=7",
        "--owner-gid=8",
        "--bind-ref=b",
        "--bind-ref=a",
    ],
    &[
        "commit",
        "-b",
        "t/canonical",
        "--timestamp=2024-05-01",
        "--tree=dir=one",
        "--canonical-permissions",
        "--no-bindings",
    ],
    &[
        "commit",
        "-b",
        "t/sum",
        "--timestamp=@5",
        "--tree=dir=two",
        "--tree=ref=t/owned",
        "--add-metadata-string=kept=yes",
    ],
    &[
        "commit",
        "-b",
        "t/sum",
        "--timestamp=@6",
        "--tree=ref=t/sum",
        "--skip-if-unchanged",
    ],
    &[
        "commit",
        "-b",
        "t/sum",
        "--timestamp=@7",
        "--tree=dir=one",
        "--keep-metadata=kept",
        "--add-metadata=z='last'",
    ],
    &[
        "commit",
        "--orphan",
        "--timestamp=@6",
        "--tree=dir=one",
        "--no-xattrs",
    ],
    &[
        "commit",
        "--orphan",
        "-b",
        "x",
        "--timestamp=@6",
        "one",
        "-F",
        "one/hello",
    ],
    &[
        "commit",
        "-b",
        "t/tar",
        "--timestamp=@6",
        "--tree=tar=one.tar",
    ],
    &["log", "t/main"],
    &["log", "--raw", "t/main"],
    &["show", "t/sum"],
    &["show", "--raw", "t/sum"],
    &["show", "--raw", "t/main^"],
    &["show", "--print-metadata-key=k", "t/main^"],
    &["show", "--print-metadata-key=k", "-B", "t/main^"],
    &["ls", "t/main"],
    &["ls", "-R", "-C", "-X", "t/main^"],
    &["ls", "-d", "t/main", "/sub", "hello"],
    &["ls", "-R", "t/main", "/sub"],
    &["ls", "-R", "--nul-filenames-only", "t/main"],
    &["ls", "t/main", "/nothing"],
    &["cat", "t/main", "hello", "/new/n", "/link"],
    &["cat", "t/main", "/nothing"],
    &["cat", "t/main", "/sub"],
    &["rev-parse", "t/main", "t/main^"],
    &["rev-parse", "t/main^^"],
    &["rev-parse", "nothing"],
    &["rev-parse", "-S"],
    &["refs", "t/main"],
    &["diff", "t/main^", "t/main"],
    &["diff", "t/main"],
    &["diff", "t/main", "t/owned"],
    &["refs", "--create=t/new", "t/main"],
    &["refs", "--create=t/new", "t/main"],
    &["refs", "--create=t/main/x", "t/main"],
    &["refs", "--delete", "t/new"],
    &["reset", "t/main", "t/main^"],
    &["rev-parse", "t/main"],
];

struct Both {
    env: Env,
}

impl Both {
    fn new() -> Self {
        let env = Env::new();
        let both = Self { env };
        assert!(both.ostree(&["init", "--mode=archive"]).status.success());
        let mut tar = Command::new("tar");
        tar.args(["-cf", "one.tar", "-C", "one", "."])
            .current_dir(both.env.path(""));
        assert!(tar.status().expect("tar").success());
        both
    }

    fn ostree(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ostree");
        command
            .arg("--repo=ostree")
            .args(args)
            .current_dir(self.env.path(""));
        command
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("ostree runs")
    }
}

#[test]
fn outputs_are_those_of_ostree() {
    if !have("ostree") {
        return;
    }
    let both = Both::new();
    for args in COMMANDS {
        let (theirs, ours) = (both.ostree(args), both.env.output(args));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = format!("{}{}", text(&theirs.stderr), text(&ours.stderr));
        assert_eq!(
            text(&ours.stdout),
            text(&theirs.stdout),
            "{args:?}\n{errors}"
        );
        assert_eq!(
            ours.status.success(),
            theirs.status.success(),
            "{args:?}\n{errors}"
        );
    }
}

/// Everything that a checkout sets, except that `ostree` leaves the times of copied files alone.
fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let stat = fs::symlink_metadata(&full).expect("metadata");
        let content = if stat.is_dir() {
            let entries = fs::read_dir(&full).expect("a directory");
            todo.extend(entries.map(|entry| path.join(entry.expect("an entry").file_name())));
            format!("modified {}", stat.mtime())
        } else if stat.is_symlink() {
            format!("{:?}", fs::read_link(&full).expect("a link"))
        } else {
            format!("{:?}", fs::read(&full).expect("a file"))
        };
        let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
        lines.push(format!("{} {mode:o} {uid} {gid} {content}", path.display()));
    }
    lines.sort();
    lines
}

#[test]
fn checkouts_are_those_of_ostree() {
    if !have("ostree") {
        return;
    }
    let both = Both::new();
    let commit = ["commit", "-b", "x", "--timestamp=@1", "one"];
    assert!(both.ostree(&commit).status.success());
    both.env.ok(&commit);
    let cases: &[&[&str]] = &[
        &[],
        &["-U"],
        &["--subpath=/sub"],
        &["-U", "--subpath=/sub/deep"],
    ];
    for (i, options) in cases.iter().enumerate() {
        let (theirs, ours) = (format!("theirs{i}"), format!("ours{i}"));
        let args = |out| [&["checkout"][..], options, &["x", out]].concat();
        assert!(both.ostree(&args(&theirs)).status.success());
        both.env.ok(&args(&ours));
        let (theirs, ours) = (both.env.path(&theirs), both.env.path(&ours));
        assert_eq!(describe(&ours), describe(&theirs), "{options:?}");
    }
}
