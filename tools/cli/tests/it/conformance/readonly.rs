//! Every system call that would change something, on a mount and on the kernel's own read-only copy.
//!
//! The calls are those of the Linux Test Project's tests that ask for a read-only file system, and what
//! was added to the kernel since. What the copy answers is what a mount has to answer.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{View, can_mount_all};
use crate::env::Env;

type Outcome = Result<(), Errno>;

const TIME: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
const TIMES: Timestamps = Timestamps {
    last_access: TIME,
    last_modification: TIME,
};

/// Paths in a view.
struct At {
    root: PathBuf,
}

impl At {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn open(&self, name: &str, flags: OFlags) -> Outcome {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::open(self.path(name), flags, mode).map(drop)
    }

    fn file(&self) -> File {
        File::open(self.path("dir/file")).expect("a file")
    }

    /// System calls that only take numbers and paths, for which there is no safe function.
    fn perl(&self, script: &str) -> Outcome {
        let output = Command::new("perl")
            .arg("-e")
            .arg(format!("{script} ? print 0 : print $!+0"))
            .arg(self.path("dir/file"))
            .output()
            .expect("perl");
        let number: i32 = String::from_utf8_lossy(&output.stdout)
            .parse()
            .expect("a number");
        if number == 0 {
            Ok(())
        } else {
            Err(Errno::from_raw_os_error(number))
        }
    }
}

fn io<T>(result: std::io::Result<T>) -> Outcome {
    let number = |error: std::io::Error| Errno::from_io_error(&error).expect("a number");
    result.map(drop).map_err(number)
}

type Call = fn(&At) -> Outcome;

fn raw(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no nul in a name")
}

/// What must be refused because nothing can be changed.
fn refused() -> Vec<(&'static str, Call)> {
    let mut all = names();
    all.extend(attributes());
    all.extend(opens());
    all
}

fn names() -> Vec<(&'static str, Call)> {
    vec![
        ("mkdir", |at| rustix::fs::mkdir(at.path("new"), Mode::RWXU)),
        ("mkdirat", |at| {
            let dir = File::open(at.path("dir")).expect("a directory");
            rustix::fs::mkdirat(dir, "new", Mode::RWXU)
        }),
        ("mknod of a pipe", |at| {
            rustix::fs::mknodat(CWD, at.path("new"), FileType::Fifo, Mode::RWXU, 0)
        }),
        ("mknod of a file", |at| {
            rustix::fs::mknodat(CWD, at.path("new"), FileType::RegularFile, Mode::RWXU, 0)
        }),
        ("mknod of a device", |at| {
            rustix::fs::mknodat(
                CWD,
                at.path("new"),
                FileType::CharacterDevice,
                Mode::RWXU,
                0x103,
            )
        }),
        ("bind of a socket", |at| {
            io(std::os::unix::net::UnixListener::bind(at.path("new")))
        }),
        ("unlink", |at| rustix::fs::unlink(at.path("dir/file"))),
        ("unlinkat of a link", |at| {
            rustix::fs::unlinkat(CWD, at.path("link"), AtFlags::empty())
        }),
        ("rmdir", |at| rustix::fs::rmdir(at.path("void"))),
        ("rename of a file", |at| {
            rustix::fs::rename(at.path("dir/file"), at.path("new"))
        }),
        ("rename over a file", |at| {
            rustix::fs::rename(at.path("dir/file"), at.path("dir/other"))
        }),
        ("rename of a directory", |at| {
            rustix::fs::rename(at.path("void"), at.path("new"))
        }),
        ("renameat2 that exchanges", |at| {
            let (one, other) = (at.path("dir/file"), at.path("dir/other"));
            rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        }),
        ("renameat2 that leaves a whiteout", |at| {
            let (one, other) = (at.path("dir/file"), at.path("new"));
            rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::WHITEOUT)
        }),
        ("link", |at| {
            rustix::fs::link(at.path("dir/file"), at.path("new"))
        }),
        ("linkat of a symbolic link", |at| {
            rustix::fs::linkat(CWD, at.path("link"), CWD, at.path("new"), AtFlags::empty())
        }),
        ("symlink", |at| io(symlink("target", at.path("new")))),
    ]
}

fn attributes() -> Vec<(&'static str, Call)> {
    const NONE: AtFlags = AtFlags::empty();
    vec![
        ("chmod", |at| {
            rustix::fs::chmod(at.path("dir/file"), Mode::RWXU)
        }),
        ("chmod of a directory", |at| {
            rustix::fs::chmod(at.path("dir"), Mode::RWXU)
        }),
        ("fchmod", |at| rustix::fs::fchmod(at.file(), Mode::RWXU)),
        ("chown", |at| {
            let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(1));
            rustix::fs::chownat(CWD, at.path("dir/file"), Some(uid), Some(gid), NONE)
        }),
        ("chown to the same owner", |at| {
            rustix::fs::chownat(CWD, at.path("dir/file"), Some(Uid::ROOT), None, NONE)
        }),
        ("lchown", |at| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(CWD, at.path("link"), Some(Uid::from_raw(1)), None, flags)
        }),
        ("fchown", |at| {
            rustix::fs::fchown(at.file(), Some(Uid::from_raw(1)), None)
        }),
        ("utimensat", |at| {
            rustix::fs::utimensat(CWD, at.path("dir/file"), &TIMES, NONE)
        }),
        ("utimensat of a link", |at| {
            rustix::fs::utimensat(CWD, at.path("link"), &TIMES, AtFlags::SYMLINK_NOFOLLOW)
        }),
        ("futimens", |at| rustix::fs::futimens(at.file(), &TIMES)),
        ("utimes", |at| at.perl("utime(1, 1, $ARGV[0])")),
        ("setxattr", |at| {
            rustix::fs::setxattr(at.path("dir/file"), "user.new", b"x", XattrFlags::empty())
        }),
        ("setxattr of a directory", |at| {
            rustix::fs::setxattr(at.path("dir"), "trusted.new", b"x", XattrFlags::empty())
        }),
        ("lsetxattr", |at| {
            rustix::fs::lsetxattr(at.path("link"), "trusted.new", b"x", XattrFlags::empty())
        }),
        ("fsetxattr", |at| {
            rustix::fs::fsetxattr(at.file(), "user.new", b"x", XattrFlags::empty())
        }),
        ("removexattr", |at| {
            rustix::fs::removexattr(at.path("dir/file"), "user.there")
        }),
        ("lremovexattr", |at| {
            rustix::fs::lremovexattr(at.path("link"), "trusted.absent")
        }),
        ("fremovexattr", |at| {
            rustix::fs::fremovexattr(at.file(), "user.there")
        }),
        ("access for writing", |at| {
            rustix::fs::access(at.path("dir/file"), rustix::fs::Access::WRITE_OK)
        }),
        ("access for writing to a directory", |at| {
            rustix::fs::access(at.path("dir"), rustix::fs::Access::WRITE_OK)
        }),
    ]
}

fn opens() -> Vec<(&'static str, Call)> {
    vec![
        ("open for writing", |at| at.open("dir/file", OFlags::WRONLY)),
        ("open for both", |at| at.open("dir/file", OFlags::RDWR)),
        ("open and append", |at| {
            at.open("dir/file", OFlags::WRONLY | OFlags::APPEND)
        }),
        ("open and truncate", |at| {
            at.open("dir/file", OFlags::RDONLY | OFlags::TRUNC)
        }),
        ("creat", |at| {
            at.open("new", OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
        }),
        ("open and create to read", |at| {
            at.open("new", OFlags::RDONLY | OFlags::CREATE)
        }),
        ("temporary file", |at| {
            at.open("dir", OFlags::WRONLY | OFlags::TMPFILE)
        }),
        ("truncate", |at| at.perl("truncate($ARGV[0], 0)")),
        ("truncate to more", |at| {
            at.perl("truncate($ARGV[0], 1 << 20)")
        }),
        ("open through a link for writing", |at| {
            at.open("link", OFlags::WRONLY)
        }),
    ]
}

/// What fails for another reason first, or does not fail at all.
fn others() -> Vec<(&'static str, Call)> {
    vec![
        ("mkdir of what is there", |at| {
            rustix::fs::mkdir(at.path("dir"), Mode::RWXU)
        }),
        ("mkdir below a file", |at| {
            rustix::fs::mkdir(at.path("dir/file/new"), Mode::RWXU)
        }),
        ("mkdir below nothing", |at| {
            rustix::fs::mkdir(at.path("no/new"), Mode::RWXU)
        }),
        ("unlink of nothing", |at| rustix::fs::unlink(at.path("no"))),
        ("unlink of a directory", |at| {
            rustix::fs::unlink(at.path("dir"))
        }),
        ("rmdir of a file", |at| {
            rustix::fs::rmdir(at.path("dir/file"))
        }),
        ("rmdir of a full directory", |at| {
            rustix::fs::rmdir(at.path("dir"))
        }),
        ("rename of nothing", |at| {
            rustix::fs::rename(at.path("no"), at.path("new"))
        }),
        ("rename to itself", |at| {
            rustix::fs::rename(at.path("dir"), at.path("dir"))
        }),
        ("link to what is there", |at| {
            rustix::fs::link(at.path("dir/file"), at.path("dir/other"))
        }),
        ("symlink over what is there", |at| {
            io(symlink("x", at.path("link")))
        }),
        ("create of what is there", |at| {
            at.open("dir/file", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
        }),
        ("create of what is there, to read", |at| {
            at.open("dir/file", OFlags::RDONLY | OFlags::CREATE)
        }),
        ("create without its directory", |at| {
            at.open("no/new", OFlags::WRONLY | OFlags::CREATE)
        }),
        ("open of a directory for writing", |at| {
            at.open("dir", OFlags::WRONLY)
        }),
        ("open of a file as a directory", |at| {
            at.open("dir/file", OFlags::RDONLY | OFlags::DIRECTORY)
        }),
        ("open of a link itself", |at| {
            at.open("link", OFlags::RDONLY | OFlags::NOFOLLOW)
        }),
        ("open of a loop", |at| at.open("loop", OFlags::RDONLY)),
        ("open below a file", |at| {
            at.open("dir/file/x", OFlags::RDONLY)
        }),
        ("open of a name that is too long", |at| {
            at.open(&"n".repeat(256), OFlags::RDONLY)
        }),
        ("create of a name that is too long", |at| {
            at.open(&"n".repeat(256), OFlags::WRONLY | OFlags::CREATE)
        }),
        ("open of nothing", |at| at.open("no", OFlags::RDONLY)),
        ("chmod of nothing", |at| {
            rustix::fs::chmod(at.path("no"), Mode::RWXU)
        }),
        ("ftruncate of what is open to read", |at| {
            rustix::fs::ftruncate(at.file(), 0)
        }),
        ("write to what is open to read", |at| {
            rustix::io::write(at.file(), b"x").map(drop)
        }),
        ("fallocate of what is open to read", |at| {
            rustix::fs::fallocate(at.file(), rustix::fs::FallocateFlags::empty(), 0, 1)
        }),
        ("fsync", |at| rustix::fs::fsync(at.file())),
        ("fsync of a directory", |at| {
            rustix::fs::fsync(File::open(at.path("dir")).expect("a directory"))
        }),
        ("syncfs", |at| rustix::fs::syncfs(at.file())),
        ("lock", |at| {
            rustix::fs::flock(at.file().as_fd(), rustix::fs::FlockOperation::LockExclusive)
        }),
        ("readlink of a file", |at| {
            rustix::fs::readlink(raw(&at.path("dir/file")), Vec::new()).map(drop)
        }),
        ("chdir to a file", |at| {
            // Not by this process: others run beside.
            let done = Command::new("true")
                .current_dir(at.path("dir/file"))
                .status();
            io(done)
        }),
        ("execution of what is not executable", |at| {
            io(Command::new(at.path("dir/file")).status())
        }),
        ("access to execute", |at| {
            rustix::fs::access(at.path("dir/file"), rustix::fs::Access::EXEC_OK)
        }),
        ("access to what is there", |at| {
            rustix::fs::access(at.path("dir/file"), rustix::fs::Access::READ_OK)
        }),
        ("an attribute that is not there", |at| {
            let mut value = [0u8; 16];
            rustix::fs::getxattr(at.path("dir/file"), "user.absent", &mut value).map(drop)
        }),
        ("an attribute that does not fit", |at| {
            let mut value = [0u8; 1];
            rustix::fs::getxattr(at.path("dir/file"), "user.there", &mut value).map(drop)
        }),
    ]
}

#[test]
fn what_changes_something_is_refused_as_by_the_kernels_read_only_file_systems() {
    if !can_mount_all() {
        return;
    }
    let env = Env::new();
    for dir in ["tree/dir", "tree/void"] {
        fs::create_dir_all(env.path(dir)).expect("a directory");
    }
    for file in ["tree/dir/file", "tree/dir/other"] {
        env.file(file, "content\n", 0o644);
    }
    symlink("dir/file", env.path("tree/link")).expect("a link");
    symlink("loop", env.path("tree/loop")).expect("a link");
    let there = rustix::fs::setxattr(
        env.path("tree/dir/file"),
        "user.there",
        b"value",
        XattrFlags::empty(),
    );
    env.ok(&["commit", "-q", "-b", "small", "--tree=dir=tree"]);
    let mount = View::commit(&env, "small", "mnt");
    let copy = View::read_only_copy(&env, &env.path("tree"), "copy");
    let (ours, kernel) = (
        At {
            root: mount.path().to_owned(),
        },
        At {
            root: copy.path().to_owned(),
        },
    );
    for (what, call) in refused() {
        assert_eq!(call(&ours), Err(Errno::ROFS), "{what}");
        assert_eq!(call(&kernel), Err(Errno::ROFS), "{what}, by the kernel");
    }
    for (what, call) in others() {
        assert_eq!(call(&ours), call(&kernel), "{what}");
    }
    assert!(there.is_ok(), "the tree had an attribute");
    let content = fs::read(ours.path("dir/file")).expect("a file");
    assert_eq!(content, b"content\n", "after all of that");
}
