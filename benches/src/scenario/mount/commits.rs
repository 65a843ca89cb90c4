//! Two commits at once: what the second costs when the first has been read.

use super::fs::{FileSystem, Mounted};
use super::images::{self, Images};
use super::lists::List;
use super::{On, step};
use crate::client::Act;
use crate::error::Result;
use crate::record::FIGURE;
use crate::scenario::Bench;

impl Bench<'_> {
    /// The first commit is read, the second mounted beside it and read where they are the same; then,
    /// with the second alone, where they are not.
    pub(super) fn two_commits(&mut self, images: &Images) -> Result<()> {
        if self.inputs.second.is_none() {
            self.leave_out("mount: two commits: takes --second DIR");
            return Ok(());
        }
        images.read(FileSystem::Grove)?;
        let repo = images.path(FileSystem::Grove);
        let mut first = On::new(FileSystem::Grove.name(), images, None);
        first.mounted = Some(self.mounted(images, FileSystem::Grove)?);
        self.client(&first, step::SHARED, Act::Read, Some(List::Shared))?;

        let dir = self.work.join("mnt-2");
        let (mounted, usage, call) =
            Mounted::commit(&self.tools.grove, &repo, images::SECOND, &dir, &[])?;
        self.row_of(step::SECOND_MOUNT, first.name, &usage, &call);
        let mut second = On::new(FileSystem::Grove.name(), images, None);
        let servers = mounted.servers.pids().len();
        second.mounted = Some(mounted);
        // Names are each commit's own: only what follows is about the files.
        self.client(&second, "walk of the second commit, cold", Act::Walk, None)?;
        // The kernel may have taken pages away meanwhile; what it has now, the second finds, too.
        self.client(&first, step::SHARED_TWICE, Act::Read, Some(List::Shared))?;
        self.client(&second, step::SHARED_AGAIN, Act::Read, Some(List::Shared))?;
        self.verdict(
            FIGURE,
            &format!("two commits are served by {servers} processes"),
        );
        if let Some(mounted) = first.mounted.take() {
            mounted.detach()?;
        }
        second.end()?;

        let (mounted, _, _) = Mounted::commit(&self.tools.grove, &repo, images::SECOND, &dir, &[])?;
        second.mounted = Some(mounted);
        self.client(&second, step::CHANGED, Act::Random, Some(List::Changed))?;
        second.end()
    }
}
