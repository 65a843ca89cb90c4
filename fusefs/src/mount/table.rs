//! The kernel's table of mounts, `/proc/self/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::{MountError, Result};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Device number of the file system, major and minor.
    pub(crate) device: (u32, u32),
    /// Which directory of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Options of this mount, separated by commas.
    pub(crate) options: String,
    /// Type of file system.
    pub(crate) kind: String,
    /// What is mounted, as its maker named it.
    pub(crate) source: OsString,
    /// Options of the file system, separated by commas.
    pub(crate) data: String,
}

impl Row {
    /// The user who mounted a file system that a process serves.
    pub(crate) fn owner(&self) -> Option<u32> {
        let mut options = self.data.split(',');
        options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
    }
}

/// All mounts, in the order in which they were made.
pub(crate) fn read() -> Result<Vec<Row>> {
    let text = fs::read(MOUNTINFO).map_err(MountError::io("read", MOUNTINFO))?;
    Ok(parse_all(&text))
}

/// The mount that a path leads to: of several on the same point, the last hides the others.
pub(crate) fn at(point: &Path) -> Result<Option<Row>> {
    Ok(read()?.into_iter().rfind(|row| row.point == point))
}

/// The mounts in the text of a `mountinfo`; lines that are none are left out.
pub(crate) fn parse_all(text: &[u8]) -> Vec<Row> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect()
}

/// Parses `36 35 98:0 /root /point options [optional fields] - type source options`.
fn parse(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mut path = || {
        fields
            .next()
            .map(|field| OsString::from_vec(unescape(field)))
    };
    let (root, point) = (path()?, path()?);
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?;
    Some(Row {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: root.into(),
        point: point.into(),
        options,
        kind: String::from_utf8(unescape(kind)).ok()?,
        source: OsString::from_vec(unescape(fields.next()?)),
        data: String::from_utf8_lossy(&unescape(fields.next()?)).into_owned(),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match octal(rest) {
            Some((byte, tail)) => {
                out.push(byte);
                rest = tail;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, tail) = text.strip_prefix(b"\\")?.split_at_checked(3)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 8).ok().map(|byte| (byte, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_parsed() {
        let row = |device, root: &str, point: &str, options: &str, kind: &str, source: &str| {
            let data = "rw".to_owned();
            Some(Row {
                device,
                root: root.into(),
                point: point.into(),
                options: options.to_owned(),
                kind: kind.to_owned(),
                source: source.into(),
                data,
            })
        };
        let table = [
            (
                "36 35 98:0 /m /mnt rw,noatime master:1 - ext3 /dev/root rw",
                row((98, 0), "/m", "/mnt", "rw,noatime", "ext3", "/dev/root"),
            ),
            (
                "40 35 0:44 / /a\\040b\\134c ro - fuse.grove grove:a\\040b rw",
                row((0, 44), "/", "/a b\\c", "ro", "fuse.grove", "grove:a b"),
            ),
            (
                "40 35 0:44 /c\\011 /m ro shared:1 master:2 - fuse.grove - rw",
                row((0, 44), "/c\t", "/m", "ro", "fuse.grove", "-"),
            ),
            ("40 35 0 / /m ro - ext4 x ro", None),
            ("40 35 0:1 / /m ro", None),
            ("40 35 0:1 / /m ro - ext4 x", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn owners_are_known_of_what_processes_serve() {
        for (data, owner) in [
            ("rw,user_id=7,group_id=8", Some(7)),
            ("rw,user_id=x", None),
            ("rw", None),
        ] {
            let line = format!("40 35 0:44 / /m ro - fuse.grove grove:/r {data}");
            assert_eq!(parse(line.as_bytes()).unwrap().owner(), owner, "{data}");
        }
    }

    #[test]
    fn backslashes_that_are_no_escapes_stay() {
        for (text, plain) in [
            ("\\", "\\"),
            ("\\9", "\\9"),
            ("\\777x", "\\777x"),
            ("a\\011", "a\t"),
        ] {
            assert_eq!(unescape(text.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
