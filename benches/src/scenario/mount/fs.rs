//! Mounting the file systems that are compared, and their servers.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::mount::{MountFlags, UnmountFlags};

use super::images::{ARCHIVE, Images};
use crate::error::{At, Error, Result};
use crate::measure::{Invocation, Usage};
use crate::processes::Servers;
use crate::tools::Tool;

/// A file system, or a program that serves one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// The kernel's, from an image through a loop device.
    Ext4,
    /// The kernel's, from an image without a loop device.
    Erofs,
    /// The kernel's, from an image through a loop device.
    Squashfs,
    /// Ours.
    Grove,
    /// The same image as `Squashfs`, through FUSE.
    Squashfuse,
    /// An archive through FUSE.
    Borg,
}

impl FileSystem {
    /// Those that do everything in every run.
    pub(super) const ALL: [Self; 4] = [Self::Ext4, Self::Erofs, Self::Squashfs, Self::Grove];
    /// Those that do a part of it once.
    pub(super) const PEERS: [Self; 2] = [Self::Squashfuse, Self::Borg];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "EROFS lz4hc",
            Self::Squashfs => "squashfs zstd",
            Self::Grove => "grove",
            Self::Squashfuse => "squashfuse",
            Self::Borg => "borg mount",
        }
    }
}

/// What is mounted where.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) dir: PathBuf,
    pub(super) servers: Servers,
    unmount: Option<Invocation>,
    active: bool,
}

impl Mounted {
    /// Mounts an image; gives also what that took and how it was done.
    pub(super) fn image(
        images: &Images,
        kind: FileSystem,
        dir: &Path,
    ) -> Result<(Self, Usage, String)> {
        let image = images.path(kind);
        fs::create_dir_all(dir).at(dir)?;
        let mount = Invocation::new("mount").args(["-o", "loop,ro"]);
        let call = match kind {
            FileSystem::Ext4 => mount.args(["-t", "ext4"]).arg(&image).arg(dir),
            FileSystem::Squashfs => mount.args(["-t", "squashfs"]).arg(&image).arg(dir),
            FileSystem::Squashfuse => Invocation::new("squashfuse_ll").arg(&image).arg(dir),
            FileSystem::Borg => {
                let mut archive = image.clone().into_os_string();
                archive.push(format!("::{ARCHIVE}"));
                images.borg().arg("mount").arg(archive).arg(dir)
            }
            FileSystem::Erofs | FileSystem::Grove => return Self::direct(&image, dir),
        };
        let usage = call.measure()?.usage;
        let servers = match kind {
            FileSystem::Squashfuse => Servers::find("squashfuse_ll".as_ref(), &[dir]),
            FileSystem::Borg => Servers::find("/usr/bin/python3".as_ref(), &[dir]),
            _ => Servers::default(),
        };
        Ok((Self::new(dir, servers, None), usage, call.to_string()))
    }

    /// By mount(2) alone: `mount` would put a loop device between.
    fn direct(image: &Path, dir: &Path) -> Result<(Self, Usage, String)> {
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        let start = Instant::now();
        rustix::mount::mount(image, dir, "erofs", flags, None).at(dir)?;
        let usage = Usage {
            wall_seconds: start.elapsed().as_secs_f64(),
            ..Usage::default()
        };
        let call = format!(
            "mount(\"{}\", \"{}\", \"erofs\")",
            image.display(),
            dir.display()
        );
        Ok((Self::new(dir, Servers::default(), None), usage, call))
    }

    /// Mounts a commit.
    pub(super) fn commit(
        grove: &Tool,
        repo: &Path,
        rev: &str,
        dir: &Path,
        options: &[OsString],
    ) -> Result<(Self, Usage, String)> {
        fs::create_dir_all(dir).at(dir)?;
        let base = grove.call().option("--repo", repo);
        let call = base.clone().arg("mount").args(options).arg(rev).arg(dir);
        let usage = call.measure()?.usage;
        // The server of a repository knows it by the path without links.
        let repo = fs::canonicalize(repo).at(repo)?;
        let servers = Servers::find(&grove.program, &[&repo, dir]);
        if servers.is_empty() {
            let path = dir.to_owned();
            return Err(Error::NoServer { path });
        }
        let unmount = base.arg("umount").arg(dir);
        Ok((
            Self::new(dir, servers, Some(unmount)),
            usage,
            call.to_string(),
        ))
    }

    fn new(dir: &Path, servers: Servers, unmount: Option<Invocation>) -> Self {
        Self {
            dir: dir.to_owned(),
            servers,
            unmount,
            active: true,
        }
    }

    /// Takes the mount away and leaves its server, which may have others.
    pub(super) fn detach(mut self) -> Result<()> {
        self.active = false;
        match &self.unmount {
            Some(call) => call.output().map(drop),
            None => rustix::mount::unmount(&self.dir, UnmountFlags::empty()).at(&self.dir),
        }
    }

    /// Takes the mount away; when this returns, nothing of it is cached any more.
    pub(super) fn end(self) -> Result<()> {
        let (servers, path) = (self.servers.clone(), self.dir.clone());
        self.detach()?;
        if servers.wait() {
            Ok(())
        } else {
            Err(Error::StillServed { path })
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.active {
            // Whoever failed has already said why.
            let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        }
    }
}
