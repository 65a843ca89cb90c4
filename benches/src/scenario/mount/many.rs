//! A commit of very many files: how fast it is there, and what its server needs.

use super::fs::{FileSystem, Mounted};
use super::images::{self, Images};
use super::{On, step};
use crate::client::Act;
use crate::error::Result;
use crate::measure::Usage;
use crate::record::FIGURE;
use crate::scenario::Bench;
use crate::walk;

/// Memory of a process that lies behind no file.
const ANONYMOUS: &str = "RssAnon";

impl Bench<'_> {
    pub(super) fn very_many(&mut self, images: &Images) -> Result<()> {
        let dir = self.work.join("mnt-many");
        let mut on = On::new(FileSystem::Grove.name(), images, None);
        let repo = images.many_path();
        // As the images are: what is cold is the mount alone.
        walk::read(&repo)?;
        let (mounted, usage, call) =
            Mounted::commit(&self.tools.grove, &repo, images::MANY, &dir, &[])?;
        self.row_of(step::MOUNT_MANY, on.name, &usage, &call);
        on.mounted = Some(mounted);
        let before = on.servers().memory_bytes(ANONYMOUS);
        let report = self.client(&on, step::WALK_MANY, Act::Walk, None)?;
        let after = Usage {
            peak_rss_bytes: on.servers().memory_bytes(ANONYMOUS),
            ..Usage::default()
        };
        self.row_of(step::ANONYMOUS, on.name, &after, "");
        let items = report.map_or(0, |report| report.items);
        let line = format!(
            "{items} entries: anonymous memory of the server {before} bytes when mounted, {} after a walk",
            after.peak_rss_bytes
        );
        self.verdict(FIGURE, &line);
        on.end()
    }
}
