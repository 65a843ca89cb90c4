//! Gives what is finished the name that something older has, in one step.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

/// Gives what is called `temporary` in a directory its final name, and removes what has that. A
/// directory is removed only if directories give way, and only if it is empty.
///
/// Names are exchanged first, as a plain rename over an older file makes ext4 write the new one to the
/// disk at once, one by one.
pub(super) fn replace(
    dir: BorrowedFd<'_>,
    temporary: &str,
    name: &str,
    dirs_give_way: bool,
) -> io::Result<()> {
    let exchange = || rustix::fs::renameat_with(dir, temporary, dir, name, RenameFlags::EXCHANGE);
    match exchange() {
        Ok(()) => {}
        // There is nothing of that name, or the file system cannot do it.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            return rename(dir, temporary, name, dirs_give_way);
        }
        Err(errno) => return Err(errno.into()),
    }
    let removed = match rustix::fs::unlinkat(dir, temporary, AtFlags::empty()) {
        Err(Errno::ISDIR) if dirs_give_way => {
            rustix::fs::unlinkat(dir, temporary, AtFlags::REMOVEDIR)
        }
        other => other,
    };
    if removed.is_err() {
        // What could not be removed gets its name back.
        let _ = exchange();
    }
    Ok(removed?)
}

fn rename(dir: BorrowedFd<'_>, temporary: &str, name: &str, dirs_give_way: bool) -> io::Result<()> {
    let rename = || rustix::fs::renameat(dir, temporary, dir, name);
    match rename() {
        Err(Errno::ISDIR) if dirs_give_way => {
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            Ok(rename()?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_there_is_replaced_unless_it_is_a_directory_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let fd = fs::File::open(dir.path()).unwrap();
        for put in [replace, rename] {
            for (dirs_give_way, there, replaced) in [
                (false, "nothing", true),
                (false, "a file", true),
                (false, "a directory", false),
                (true, "a directory", true),
                (true, "a directory with a file", false),
            ] {
                fs::write(at("new"), b"new").unwrap();
                match there {
                    "nothing" => {}
                    "a file" => fs::write(at("name"), b"old").unwrap(),
                    _ => fs::create_dir(at("name")).unwrap(),
                }
                if there.ends_with("with a file") {
                    fs::write(at("name/mine"), b"mine").unwrap();
                }
                let done = put(fd.as_fd(), "new", "name", dirs_give_way);
                assert_eq!(done.is_ok(), replaced, "{there}: {done:?}");
                assert_eq!(at("name").is_file(), replaced, "{there}");
                // What is not in its place is where it was, for its maker to remove.
                assert_eq!(at("new").is_file(), !replaced, "{there}");
                if replaced {
                    assert_eq!(fs::read(at("name")).unwrap(), b"new");
                    fs::remove_file(at("name")).unwrap();
                } else {
                    fs::remove_dir_all(at("name")).unwrap();
                }
            }
        }
    }
}
