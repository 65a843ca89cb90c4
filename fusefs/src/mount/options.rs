//! How a mount shall be.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use crate::adapter::ErrorSink;
use crate::view::Numbering;

/// What files of a mount may do beyond being read; each mount of a shared session has its own.
///
/// A commit is data from elsewhere until its owner says otherwise: by default programs run, but
/// none gains rights, and device files lead nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttrs {
    /// Set-user-id, set-group-id and file capabilities are honoured.
    pub suid: bool,
    /// Device files work.
    pub dev: bool,
    /// Programs can be run.
    pub exec: bool,
}

impl Default for MountAttrs {
    fn default() -> Self {
        Self {
            suid: false,
            dev: false,
            exec: true,
        }
    }
}

impl MountAttrs {
    /// As flags of mount(2); every mount is read-only.
    pub(crate) fn flags(self) -> MountFlags {
        let mut flags = MountFlags::RDONLY | MountFlags::NOATIME;
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags
    }

    /// Those of a mount whose options are these.
    pub(crate) fn of(options: &str) -> Self {
        let has = |name| options.split(',').any(|option| option == name);
        Self {
            suid: !has("nosuid"),
            dev: !has("nodev"),
            exec: !has("noexec"),
        }
    }

    /// As options of mount(8), with what differs from the kernel's own defaults.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (!self.suid, "nosuid"),
            (!self.dev, "nodev"),
            (!self.exec, "noexec"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
    }
}

/// How a session of one mount shall be.
#[derive(Clone)]
#[non_exhaustive]
pub struct MountOptions {
    /// Let every user in, not only the one who mounts. Users other than root need
    /// `user_allow_other` in `/etc/fuse.conf` for it.
    pub allow_other: bool,
    /// Have the kernel enforce owners and modes; always so with `allow_other`. Off by default for
    /// users' own mounts: they see what is theirs to read anyway in the repository.
    pub enforce_modes: bool,
    /// What files may do.
    pub attrs: MountAttrs,
    /// Show extended attributes. The kernel does not keep them, so it asks for them often; of a
    /// commit that is known to have none, it is told so in any case.
    pub xattrs: bool,
    /// Which inode numbers files have.
    pub numbering: Numbering,
    /// Read-ahead of the kernel in KiB; raised only where permitted.
    pub read_ahead_kb: u32,
    /// Threads that serve; `None` for as many as processors, from 2 to 8.
    pub threads: Option<NonZeroUsize>,
    /// Give the kernel small files that were decoded together with what it asked for. Only
    /// measurements have a reason not to.
    pub push: bool,
    /// Write the order in which parts of files are read for the first time to this file. Nothing is
    /// pushed meanwhile: what is pushed is not seen to be read.
    pub record: Option<PathBuf>,
    /// Read what such a file tells into the kernel's cache, in the background.
    pub prefetch: Option<PathBuf>,
    /// Let the kernel read large files by itself, from plain copies that are made in the repository's
    /// cache when a file is first opened. Needs root; each open and close then costs a request.
    pub materialise: bool,
    /// Name of what is mounted, for the table of mounts.
    pub name: String,
    /// Receives damage found while serving.
    pub on_error: ErrorSink,
}

/// Read-ahead that lets the largest request through in one piece.
pub(crate) const READ_AHEAD_KB: u32 = 1024;

impl Default for MountOptions {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            allow_other: root,
            enforce_modes: root,
            attrs: MountAttrs::default(),
            xattrs: true,
            numbering: Numbering::Shared,
            read_ahead_kb: READ_AHEAD_KB,
            threads: None,
            push: true,
            record: None,
            prefetch: None,
            materialise: false,
            name: super::SUBTYPE.to_owned(),
            on_error: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions")
            .field("allow_other", &self.allow_other)
            .field("enforce_modes", &self.enforce_modes)
            .field("attrs", &self.attrs)
            .field("xattrs", &self.xattrs)
            .field("numbering", &self.numbering)
            .field("read_ahead_kb", &self.read_ahead_kb)
            .field("threads", &self.threads)
            .field("push", &self.push)
            .field("record", &self.record)
            .field("prefetch", &self.prefetch)
            .field("materialise", &self.materialise)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_programs_run_and_gain_no_rights() {
        let attrs = MountAttrs::default();
        let expected =
            MountFlags::RDONLY | MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(attrs.flags(), expected);
        assert_eq!(attrs.names().collect::<Vec<_>>(), ["nosuid", "nodev"]);
        assert_eq!(MountAttrs::of("ro,nosuid,nodev,noatime"), attrs);
    }
}
