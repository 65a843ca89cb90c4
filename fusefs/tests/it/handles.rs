//! File handles: what a file server gives its clients in place of paths. They lead to their files
//! also when the kernel has forgotten these.

use std::fs;
use std::path::Path;
use std::process::Command;

use grove_fusefs::{Mounted, What};
use rustix::mount::{MountFlags, mount_remount};

use crate::need_mounts;
use crate::support::Fixture;

/// Makes handles of paths, or opens handles on a mount and prints what is there.
const SCRIPT: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
for arg in sys.argv[2:]:
    if sys.argv[1] == "make":
        handle = ctypes.create_string_buffer(b"\x80\0\0\0", 136)
        check(libc.name_to_handle_at(-100, os.fsencode(arg), handle, ctypes.byref(ctypes.c_int()), 0))
        print(handle.raw.hex())
    else:
        mount = os.open(sys.argv[1], os.O_RDONLY)
        handle = ctypes.create_string_buffer(bytes.fromhex(arg), 136)
        fd = check(libc.open_by_handle_at(mount, handle, os.O_RDONLY))
        try:
            print("file", os.read(fd, 100).decode())
        except IsADirectoryError:
            print("dir", *sorted(os.listdir(fd)))
"#;

fn python(args: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("python3")
        .args(["-c", SCRIPT])
        .args(args)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: no python3");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

/// Has the kernel drop everything that nobody uses of a file system.
fn forget(at: &Path) {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(at, flags, "").unwrap();
}

/// Opens handles on a mount.
fn open(root: &Path, handles: &[String]) -> Vec<String> {
    let at = root.display().to_string();
    let args = [at.as_str()].into_iter();
    let args: Vec<&str> = args.chain(handles.iter().map(String::as_str)).collect();
    python(&args).unwrap()
}

/// What the handles below lead to.
fn expected() -> [String; 4] {
    [
        "file deep".to_owned(),
        "dir f".to_owned(),
        format!("file {}", "x".repeat(100)),
        "dir a usr var".to_owned(),
    ]
}

/// The handles, unless there is no way to make them.
fn handles_lead_to_files(mounted: &Mounted, root: &Path) -> Option<Vec<String>> {
    let paths = ["a/b/c/d/e/f/g/deep", "a/b/c/d/e", "usr/lib/twin-1", "."];
    let paths: Vec<String> = paths
        .iter()
        .map(|path| root.join(path).display().to_string())
        .collect();
    let args: Vec<&str> = ["make"]
        .into_iter()
        .chain(paths.iter().map(String::as_str))
        .collect();
    let handles = python(&args)?;
    assert_eq!(open(root, &handles), expected());
    forget(mounted.path());
    let before = mounted.stats().lookup;
    assert_eq!(open(root, &handles), expected());
    assert!(
        mounted.stats().lookup >= before + 3,
        "the kernel had forgotten them"
    );
    Some(handles)
}

#[test]
fn handles_lead_to_files_that_the_kernel_has_forgotten() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill();
    let id = fixture.commit("main");
    let mounted = fixture.mount(What::Commit(id));
    let handles = handles_lead_to_files(&mounted, &fixture.mnt());
    drop(mounted);
    let mounted = fixture.mount(What::Commit(id));
    if let Some(handles) = handles {
        assert_eq!(open(&fixture.mnt(), &handles), expected(), "mounted again");
    }
    drop(mounted);
    let mounted = fixture.mount(What::All);
    let root = fixture.mnt().join("commits").join(id.to_string());
    handles_lead_to_files(&mounted, &root);
    assert_eq!(fs::read(root.join("a/b/c/d/e/f/g/deep")).unwrap(), b"deep");
}
