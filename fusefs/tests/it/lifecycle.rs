//! Mounting, unmounting, and what is left when a server dies.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use grove_engine::Repository;
use grove_fusefs::{MountError, MountOptions, Umount, What, clear_stale, is_stale, mount, umount};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::need_mounts;
use crate::support::{Fixture, assert_equal};

const REPO: &str = "GROVE_TEST_REPO";
const AT: &str = "GROVE_TEST_AT";

#[test]
fn unmounting_ends_the_session_and_leaves_an_empty_directory() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    let mounted = fixture.mounted();
    let unmounter = mounted.unmounter();
    mounted.unmount(Umount::Unused).unwrap();
    mounted.wait().unwrap();
    assert_eq!(fs::read_dir(fixture.mnt()).unwrap().count(), 0);
    // The same once more is no error, and does nothing to a later mount.
    let again = fixture.mounted();
    unmounter.unmount(Umount::Unused).unwrap();
    assert!(fixture.mnt().join("file").exists());
    umount(&fixture.mnt(), Umount::Unused).unwrap();
    again.wait().unwrap();
}

#[test]
fn a_dropped_mount_is_gone() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    drop(fixture.mounted());
    assert!(!fixture.mnt().join("file").exists());
}

#[test]
fn a_mount_in_use_stays_unless_it_is_detached() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"still there");
    let mounted = fixture.mounted();
    let mut file = File::open(fixture.mnt().join("file")).unwrap();
    let busy = mounted.unmount(Umount::Unused).unwrap_err();
    assert!(matches!(busy, MountError::Busy { .. }), "{busy}");
    let (text, pid) = (busy.to_string(), std::process::id());
    assert!(
        text.contains(" is in use by ") && text.contains(&format!("({pid})")),
        "{text}"
    );
    mounted.unmount(Umount::Lazy).unwrap();
    assert!(!fixture.mnt().join("file").exists());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still there");
    let waiter = thread::spawn(move || mounted.wait());
    drop(file);
    waiter.join().unwrap().unwrap();
}

#[test]
fn an_aborted_connection_leaves_no_dead_mount() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    let mounted = fixture.mounted();
    let _file = File::open(fixture.mnt().join("file")).unwrap();
    let busy = rustix::mount::unmount(fixture.mnt(), UnmountFlags::FORCE);
    assert_eq!(busy, Err(rustix::io::Errno::BUSY));
    mounted.wait().unwrap();
    assert_eq!(fs::read_dir(fixture.mnt()).unwrap().count(), 0);
}

#[test]
fn mounting_where_it_cannot_be_says_why() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    let id = fixture.commit("main");
    let try_at = |at: &Path| {
        let options = fixture.options();
        mount(Arc::clone(&fixture.repo), What::Commit(id), at, &options)
            .map(drop)
            .unwrap_err()
    };
    let file = fixture.tree().join("file");
    assert!(matches!(try_at(&file), MountError::NotADirectory { .. }));
    let missing = fixture.tree().join("missing");
    assert!(matches!(try_at(&missing), MountError::Io { .. }));
    assert!(matches!(
        umount(&fixture.mnt(), Umount::Unused),
        Err(MountError::NotMounted { .. })
    ));
    assert!(matches!(
        umount(Path::new("/"), Umount::Unused),
        Err(MountError::NotMounted { .. })
    ));
    let _mounted = fixture.mount(What::Commit(id));
    assert!(matches!(
        try_at(&fixture.mnt()),
        MountError::AlreadyMounted { .. }
    ));
}

#[test]
fn mount_points_may_have_any_name() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    let id = fixture.commit("main");
    let at = fixture.mnt().join("a b\\c,d\n\u{e9}=");
    fs::create_dir(&at).unwrap();
    let mut options = fixture.options();
    options.name = "repo,with=\\odd name".to_owned();
    let repo = Arc::clone(&fixture.repo);
    let mounted = mount(repo, What::Commit(id), &at, &options).unwrap();
    assert!(at.join("file").exists());
    mounted.unmount(Umount::Unused).unwrap();
    mounted.wait().unwrap();
}

#[test]
fn a_dead_server_is_noticed_and_cleared() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill();
    fixture.commit("main");
    let mut server = Server::start(&fixture, "lifecycle::serve_until_killed");
    let file = fixture.mnt().join("usr/bin/tool");
    assert!(file.exists());
    assert!(!is_stale(&fixture.mnt()));
    assert!(!clear_stale(&fixture.mnt()).unwrap());
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(is_stale(&fixture.mnt()));
    assert_eq!(fs::read(&file).unwrap_err().raw_os_error(), Some(107));
    let id = fixture.repo.resolve_rev("main").unwrap();
    let options = fixture.options();
    let repo = || Arc::clone(&fixture.repo);
    let error = mount(repo(), What::Commit(id), &fixture.mnt(), &options).unwrap_err();
    assert!(matches!(error, MountError::Stale { .. }), "{error}");
    assert!(clear_stale(&fixture.mnt()).unwrap());
    assert!(!is_stale(&fixture.mnt()));
    let _mounted = fixture.mount(What::Commit(id));
    assert_equal(&fixture.tree(), &fixture.mnt());
}

#[test]
fn the_dead_mount_of_another_program_is_named_and_left_alone() {
    need_mounts!();
    let fixture = Fixture::new();
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let data = CString::new(data).unwrap();
    let (at, flags) = (fixture.mnt(), MountFlags::RDONLY);
    rustix::mount::mount("other", &at, "fuse.other", flags, data.as_c_str()).unwrap();
    drop(device);
    let error = clear_stale(&at).unwrap_err();
    rustix::mount::unmount(&at, UnmountFlags::DETACH).unwrap();
    let text = format!("{} is a dead mount of type fuse.other", at.display());
    assert!(error.to_string().starts_with(&text), "{error}");
}

/// Another process that serves a mount.
struct Server {
    child: Child,
    at: PathBuf,
}

impl Server {
    /// Starts this program again to run one of its ignored tests, until that says "mounted".
    fn start(fixture: &Fixture, test: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(REPO, fixture.repo_path())
            .env(AT, fixture.mnt())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains("mounted")),
            "the server has failed"
        );
        Self {
            child,
            at: fixture.mnt(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = clear_stale(&self.at);
    }
}

#[test]
#[ignore = "run by another test as a process of its own"]
fn serve_until_killed() {
    let path = |name| PathBuf::from(env::var_os(name).unwrap());
    let repo = Arc::new(Repository::open(&path(REPO)).unwrap());
    let id = repo.resolve_rev("main").unwrap();
    let options = MountOptions::default();
    let mounted = mount(repo, What::Commit(id), &path(AT), &options).unwrap();
    println!("mounted");
    mounted.wait().unwrap();
}

#[test]
fn users_mount_through_fusermount3() {
    need_mounts!();
    if Command::new("fusermount3")
        .arg("-V")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("skipped: no fusermount3");
        return;
    }
    // The test program itself may be where only root can go.
    let dir = tempfile::tempdir().unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), all).unwrap();
    let program = dir.path().join("tests");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args([
            "--exact",
            "lifecycle::mount_as_a_user",
            "--ignored",
            "--nocapture",
        ])
        .current_dir("/")
        .env_remove("TMPDIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "run by another test as another user"]
fn mount_as_a_user() {
    let fixture = Fixture::new();
    fixture.fill();
    let mounted = fixture.mounted();
    assert_equal(&fixture.tree(), &fixture.mnt());
    let file = File::open(fixture.mnt().join("usr/bin/tool")).unwrap();
    assert!(matches!(
        mounted.unmount(Umount::Unused),
        Err(MountError::Busy { .. })
    ));
    drop(file);
    mounted.unmount(Umount::Unused).unwrap();
    mounted.wait().unwrap();
    assert_eq!(fs::read_dir(fixture.mnt()).unwrap().count(), 0);

    let mut options = fixture.options();
    options.name = "odd,name\\=".to_owned();
    let id = fixture.repo.resolve_rev("main").unwrap();
    let repo = || Arc::clone(&fixture.repo);
    let mounted = mount(repo(), What::Commit(id), &fixture.mnt(), &options).unwrap();
    umount(&fixture.mnt(), Umount::Lazy).unwrap();
    mounted.wait().unwrap();
    // Only with `user_allow_other` in /etc/fuse.conf.
    options.allow_other = true;
    match mount(repo(), What::Commit(id), &fixture.mnt(), &options) {
        Ok(mounted) => assert_equal(&fixture.tree(), mounted.path()),
        Err(MountError::Helper { message, .. }) => {
            assert!(message.contains("user_allow_other"), "{message}");
        }
        Err(error) => panic!("{error}"),
    }
}
