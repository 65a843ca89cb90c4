//! What a mounted commit is used for: programs run out of it, containers, layers, rights.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::XattrFlags;

use crate::env::{Env, GROVE, have};
use crate::mount::{Mounts, can_share, until};

/// A user who owns nothing.
const NOBODY: &str = "65534";

/// `CAP_NET_RAW`, permitted and effective, as the kernel stores it.
const CAPABILITY: [u8; 20] = {
    let mut bytes = [0; 20];
    (bytes[0], bytes[3], bytes[5]) = (1, 2, 0x20);
    bytes
};
const LABEL: &[u8] = b"system_u:object_r:bin_t:s0\0";

/// Copies programs of this system into a tree, with the libraries that they need.
fn programs(env: &Env, tree: &str, names: &[&str]) {
    for name in names {
        let program = format!("/usr/bin/{name}");
        let output = Command::new("ldd")
            .arg(&program)
            .output()
            .expect("ldd runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([program.as_str()]) {
            let to = env.path(&format!("{tree}{path}"));
            fs::create_dir_all(to.parent().expect("a parent")).expect("directories");
            fs::copy(path, to).expect("a copy");
        }
    }
}

/// A commit `os/system` with some programs and a file, its mount point, and a directory `work`.
fn system() -> Option<Mounts> {
    if !can_share() || !have("ldd") {
        return None;
    }
    let env = Env::new();
    env.file("tree/hello", "hello\n", 0o644);
    programs(&env, "tree", &["cat", "id", "sh"]);
    for dir in ["proc", "dev", "sys", "tmp", "run", "etc"] {
        fs::create_dir_all(env.path("tree").join(dir)).expect("a directory");
    }
    env.file("tree/etc/os-release", "ID=test\n", 0o644);
    // Copies with rights, and one with a label.
    let bin = env.path("tree/usr/bin");
    for (from, to) in [
        ("id", "id-as-root"),
        ("cat", "cat-with-raw"),
        ("cat", "labelled"),
    ] {
        fs::copy(bin.join(from), bin.join(to)).expect("a copy");
    }
    let setuid = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(bin.join("id-as-root"), setuid).expect("a mode");
    set(
        &bin.join("cat-with-raw"),
        "security.capability",
        &CAPABILITY,
    );
    set(&bin.join("labelled"), "security.selinux", LABEL);
    env.ok(&["commit", "-b", "os/system", "--tree=dir=tree"]);
    Some(Mounts::of(env, &["mnt", "work"]))
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
}

fn get(path: &Path, name: &str) -> Vec<u8> {
    let mut value = [0; 256];
    let len = rustix::fs::getxattr(path, name, &mut value[..]).expect("an attribute");
    value[..len].to_vec()
}

fn run(mounts: &Mounts, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(mounts.env.path(""));
    command.output().expect("it runs")
}

fn prints(mounts: &Mounts, program: &str, args: &[&str], expected: &str) {
    let output = run(mounts, program, args);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    assert_eq!(text, expected, "{program} {args:?}: {errors}");
}

#[test]
fn programs_run_out_of_a_commit_in_all_kinds_of_roots() {
    let Some(mounts) = system() else { return };
    mounts.env.ok(&["mount", "os/system", "mnt"]);
    let cat = ["/usr/bin/cat", "/hello"];
    prints(&mounts, "mnt/usr/bin/cat", &["mnt/hello"], "hello\n");
    prints(&mounts, "chroot", &["mnt", cat[0], cat[1]], "hello\n");
    if have("unshare") {
        prints(
            &mounts,
            "unshare",
            &["-m", "--root=mnt", cat[0], cat[1]],
            "hello\n",
        );
    }
    if have("bwrap") {
        let args = ["--ro-bind", "mnt", "/", "--dev", "/dev", "--proc", "/proc"];
        prints(&mounts, "bwrap", &[&args[..], &cat].concat(), "hello\n");
    }
    if have("systemd-nspawn") {
        let args = [
            "--quiet",
            "--pipe",
            "--read-only",
            "--register=no",
            "--keep-unit",
            "-D",
            "mnt",
        ];
        let output = run(&mounts, "systemd-nspawn", &[&args[..], &cat].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => assert_eq!(output.stdout, b"hello\n"),
            false => println!("skipped: systemd-nspawn does not run here: {errors}"),
        }
    }
    mounts.env.ok(&["umount", "mnt"]);
}

#[test]
fn rights_are_honoured_where_that_is_asked_for_only() {
    let Some(mounts) = system() else { return };
    if !have("setpriv") {
        return;
    }
    let env = &mounts.env;
    // Others must be able to come here.
    fs::set_permissions(env.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    let as_nobody = |args: &[&str]| {
        let drop = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        let output = run(&mounts, "setpriv", &[&drop[..], args].concat());
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    };
    let rights = |dir: &str| {
        let user = as_nobody(&[&format!("{dir}/usr/bin/id-as-root"), "-u"]);
        let status = as_nobody(&[&format!("{dir}/usr/bin/cat-with-raw"), "/proc/self/status"]);
        let line = status
            .lines()
            .find(|line| line.starts_with("CapEff:"))
            .expect("a line");
        (user, line.ends_with("2000"))
    };
    env.ok(&["mount", "os/system", "mnt"]);
    env.ok(&["mount", "--suid", "os/system", "work"]);
    assert_eq!(rights("mnt"), (NOBODY.to_owned(), false));
    assert_eq!(rights("work"), ("0".to_owned(), true));
    for dir in ["mnt", "work"] {
        let bin = env.path(dir).join("usr/bin");
        assert_eq!(
            get(&bin.join("cat-with-raw"), "security.capability"),
            CAPABILITY
        );
        assert_eq!(get(&bin.join("labelled"), "security.selinux"), LABEL);
    }
    env.ok(&["umount", "mnt"]);
    env.ok(&["mount", "--no-exec", "os/system", "mnt"]);
    let refused = Command::new(env.path("mnt/usr/bin/cat")).output();
    assert_eq!(refused.expect_err("nothing runs").raw_os_error(), Some(13));
    env.ok(&["umount", "mnt", "work"]);
}

#[test]
fn modes_are_enforced_for_everyone_but_root() {
    let Some(mounts) = system() else { return };
    if !have("setpriv") {
        return;
    }
    let env = &mounts.env;
    fs::set_permissions(env.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    env.file("secret/file", "secret", 0o600);
    env.ok(&["commit", "-b", "os/secret", "--tree=dir=secret"]);
    for args in [
        &["mount", "os/secret", "mnt"][..],
        &["mount", "--private", "os/secret", "mnt"],
    ] {
        env.ok(args);
        assert_eq!(mounts.read("mnt/file"), "secret");
        let drop = [
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "cat",
            "mnt/file",
        ];
        let output = run(&mounts, "setpriv", &drop);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{args:?}"
        );
        env.ok(&["umount", "mnt"]);
    }
}

#[test]
fn a_user_is_told_what_the_kernel_does_not_grant() {
    let Some(mounts) = system() else { return };
    if !have("setpriv") || !have("fusermount3") || !can_everybody_mount() {
        return;
    }
    let env = &mounts.env;
    // Where the program was built, a user may not get to.
    fs::copy(GROVE, env.path("grove")).expect("a copy");
    prints(&mounts, "chown", &["-R", NOBODY, "."], "");
    let mount = |options: &[&str]| {
        let drop = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        let mount = ["./grove", "mount", "--repo=repo", "os/system", "mnt"];
        let output = run(&mounts, "setpriv", &[&drop[..], &mount, options].concat());
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{errors}");
        env.ok(&["umount", "mnt"]);
        errors
    };
    assert_eq!(mount(&["--no-exec"]), "");
    assert_eq!(
        mount(&["--suid", "--dev"]),
        "warning: the mount is without --suid, which takes root\n\
         warning: the mount is without --dev, which takes root\n"
    );
    assert_eq!(mount(&["--suid", "--quiet"]), "");
}

fn can_everybody_mount() -> bool {
    let device = fs::metadata("/dev/fuse").expect("the device");
    let can = device.permissions().mode() & 0o006 == 0o006;
    if !can {
        println!("skipped: not everybody may open /dev/fuse");
    }
    can
}

#[test]
fn a_commit_is_a_lower_layer_of_an_overlay() {
    let Some(mounts) = system() else { return };
    let env = &mounts.env;
    env.ok(&["mount", "os/system", "mnt"]);
    for dir in ["upper", "work", "merged"] {
        fs::create_dir(env.path("work").join(dir)).expect("a directory");
    }
    let path = |name: &str| env.path(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},xino=on",
        path("mnt"),
        path("work/upper"),
        path("work/work")
    );
    let merged = path("work/merged");
    let output = run(
        &mounts,
        "mount",
        &["-t", "overlay", "-o", &options, "layers", &merged],
    );
    if !output.status.success() {
        println!(
            "skipped: no overlayfs here: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    fs::write(env.path("work/merged/hello"), "changed").expect("it is writable");
    prints(
        &mounts,
        "chroot",
        &[&merged, "/usr/bin/cat", "/hello"],
        "changed",
    );
    prints(&mounts, "umount", &[&merged], "");
    env.ok(&["umount", "mnt"]);
    assert_eq!(
        fs::read_to_string(env.path("work/upper/hello")).expect("a file"),
        "changed"
    );
}

#[test]
fn a_container_keeps_its_copy_after_the_mount_is_gone() {
    let Some(mounts) = system() else { return };
    if !have("unshare") {
        return;
    }
    let env = &mounts.env;
    env.ok(&["mount", "os/system", "mnt"]);
    let container = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            "read go; cat mnt/hello",
        ])
        .current_dir(env.path(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut container = container.expect("unshare runs");
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let ours = namespace(std::process::id());
    until("the container", || namespace(container.id()) != ours);
    env.ok(&["umount", "mnt"]);
    assert!(!env.path("mnt/hello").exists());
    // New mounts have a new process meanwhile.
    env.ok(&["mount", "os/system", "mnt"]);
    drop(container.stdin.take());
    let output = container.wait_with_output().expect("it ends");
    assert_eq!(
        output.stdout, b"hello\n",
        "read for the first time, from the old process"
    );
    env.ok(&["umount", "mnt"]);
}

/// The commands of docs/mount.md that need no other program than those that tests may need.
#[test]
fn the_commands_of_the_documentation_run() {
    let Some(mounts) = system() else { return };
    let text = include_str!("../../../../docs/mount.md");
    let mut blocks = text.split("```sh\n").skip(1);
    let mut script = String::from("set -e\n");
    let with_bwrap = have("bwrap");
    for block in &mut blocks {
        let block = block.split("```").next().expect("a block");
        for line in block
            .lines()
            .filter(|line| with_bwrap || !line.starts_with("bwrap"))
        {
            script.push_str(&format!("{}\n", line.replace("os/stable", "os/system")));
        }
    }
    assert!(script.lines().count() >= 7, "{script}");
    let grove = Path::new(crate::env::GROVE).parent().expect("a directory");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", grove.display());
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .current_dir(mounts.env.path(""));
    let output = command
        .env("PATH", path)
        .env("GROVE_REPO", "repo")
        .output()
        .expect("sh runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{errors}");
}
