//! Options of mounts, as `-o` takes them.

use std::ffi::OsString;
use std::path::PathBuf;

use grove_fusefs::{MountAttrs, Numbering};

use crate::exit::{Error, Result};

/// How a mount shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// All commits.
    pub all: bool,
    /// Said to be read-only, as all is but an overlay.
    pub read_only: bool,
    /// A process of its own.
    pub private: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Show extended attributes.
    pub xattrs: bool,
    /// An inode number of its own for each path.
    pub unique_inodes: bool,
    /// What files may do.
    pub attrs: MountAttrs,
    /// Where the changes of a writable view are kept.
    pub overlay: Option<PathBuf>,
    /// Where to write in which order files are read.
    pub record: Option<PathBuf>,
    /// What to read ahead.
    pub prefetch: Option<PathBuf>,
    /// Plain copies of large files.
    pub materialise: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            all: false,
            read_only: false,
            private: false,
            allow_other: false,
            xattrs: true,
            unique_inodes: false,
            attrs: MountAttrs::default(),
            overlay: None,
            record: None,
            prefetch: None,
            materialise: false,
        }
    }
}

/// What /etc/fstab says to others than the file system, and what is so anyway.
const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "nodiratime",
    "diratime",
    "sync",
    "async",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "dirsync",
    "silent",
    "loud",
    "nomand",
    "iversion",
    "noiversion",
    "default_permissions",
];

impl Options {
    /// Adds options that are separated by commas.
    pub fn add(&mut self, text: &str) -> Result<()> {
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            match (name, value) {
                // mount(8) takes `suid` and `dev` for the default and does not pass them on.
                ("suid" | "allow_suid", None) => self.attrs.suid = true,
                ("nosuid", None) => self.attrs.suid = false,
                ("dev" | "allow_dev", None) => self.attrs.dev = true,
                ("nodev", None) => self.attrs.dev = false,
                ("exec", None) => self.attrs.exec = true,
                ("noexec", None) => self.attrs.exec = false,
                ("ro", None) => self.read_only = true,
                ("rw", None) => self.read_only = false,
                ("all", None) => self.all = true,
                ("private", None) => self.private = true,
                ("allow_other", None) => self.allow_other = true,
                ("noxattrs", None) => self.xattrs = false,
                ("unique_inodes", None) => self.unique_inodes = true,
                ("overlay", Some(dir)) if !dir.is_empty() => self.overlay = Some(dir.into()),
                ("record", Some(file)) if !file.is_empty() => self.record = Some(file.into()),
                ("prefetch", Some(file)) if !file.is_empty() => self.prefetch = Some(file.into()),
                ("materialise", None) => self.materialise = true,
                ("comment", _) | ("user", Some(_)) => {}
                ("remount", None) => {
                    let text =
                        "what is mounted is changed by the kernel alone: mount -i -o remount";
                    return Err(Error::Usage(text.to_owned()));
                }
                (name, None) if IGNORED.contains(&name) => {}
                (name, _) if name.starts_with("x-") || name.starts_with("X-") => {}
                _ => return Err(Error::Usage(format!("unknown mount option {option:?}"))),
            }
        }
        Ok(())
    }

    /// Refuses what cannot be had together.
    pub fn check(&self) -> Result<()> {
        let text = match self.overlay {
            Some(_) if self.all => "an overlay needs one commit below it",
            Some(_) if self.read_only => "an overlay is there to be written to: not with ro",
            _ => return Ok(()),
        };
        Err(Error::Usage(text.to_owned()))
    }

    /// Which inode numbers files have.
    pub fn numbering(&self) -> Numbering {
        match self.unique_inodes {
            true => Numbering::Unique,
            false => Numbering::Shared,
        }
    }

    /// Whether the mount is of a kind that shares its process with no other.
    pub fn needs_own_process(&self) -> bool {
        self.private || self.materialise || self.record.is_some() || self.prefetch.is_some()
    }

    /// The same as options of the command line, for a process that serves this mount alone. The
    /// overlay is not its business.
    pub fn to_args(&self) -> impl Iterator<Item = OsString> + use<> {
        let flags = [
            (self.all, "--all"),
            (self.allow_other, "--allow-other"),
            (!self.xattrs, "--no-xattrs"),
            (self.unique_inodes, "--unique-inodes"),
            (self.attrs.suid, "--suid"),
            (self.attrs.dev, "--dev"),
            (!self.attrs.exec, "--no-exec"),
            (self.materialise, "--materialise"),
        ];
        let set = flags.into_iter().filter(|(on, _)| *on);
        let files = [("--record", &self.record), ("--prefetch", &self.prefetch)];
        let files = files.map(|(flag, file)| Some([flag.into(), file.clone()?.into_os_string()]));
        set.map(|(_, flag)| flag.into())
            .chain(files.into_iter().flatten().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_fstab_are_understood() {
        let mut options = Options::default();
        options
            .add("defaults,ro,rw,nofail,x-systemd.automount,comment=x,user=me,strictatime,silent")
            .unwrap();
        assert_eq!(options, Options::default());
        options
            .add("allow_suid,dev,noexec,private,noxattrs,overlay=/u,prefetch=/p")
            .unwrap();
        options.add("nodev,,allow_other,unique_inodes").unwrap();
        let expected = Options {
            all: false,
            private: true,
            allow_other: true,
            xattrs: false,
            unique_inodes: true,
            attrs: options.attrs,
            overlay: Some("/u".into()),
            prefetch: Some("/p".into()),
            ..Options::default()
        };
        assert_eq!(options, expected);
        let attrs = options.attrs;
        assert_eq!((attrs.suid, attrs.dev, attrs.exec), (true, false, false));
        let args: Vec<_> = options.to_args().collect();
        let expected = [
            "--allow-other",
            "--no-xattrs",
            "--unique-inodes",
            "--suid",
            "--no-exec",
            "--prefetch",
            "/p",
        ];
        assert_eq!(args, expected);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for text in [
            "nonsense", "suid=1", "overlay", "overlay=", "remount", "record=",
        ] {
            assert!(Options::default().add(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_overlay_is_writable_and_of_one_commit() {
        for (text, good) in [
            ("overlay=/u", true),
            ("overlay=/u,ro,rw", true),
            ("overlay=/u,ro", false),
            ("overlay=/u,all", false),
            ("ro,all", true),
        ] {
            let mut options = Options::default();
            options.add(text).unwrap();
            assert_eq!(options.check().is_ok(), good, "{text}");
        }
    }
}
