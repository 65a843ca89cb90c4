//! Copies that share the extents of files in the cache of hard links, on file systems that can do that.
//!
//! Nothing is decoded and nothing written for them. A copy stays a copy: whoever writes to it changes
//! nothing else.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};

use super::copy::Target;
use super::job::Job;
use super::links::Links;
use super::plan::Row;
use super::write;
use crate::error::{IoResultExt, Result};
use crate::monitor::Phase;

impl Job<'_> {
    /// Makes the files that the cache has, if the destination can share extents with it. Gives those
    /// that are left.
    pub(super) fn clone_all(&self, waiting: Vec<Row>) -> Result<Vec<Row>> {
        let Some(links) = Links::existing(self.repo, self.options) else {
            return Ok(waiting);
        };
        let first = waiting
            .iter()
            .find_map(|row| links.source(self.plan.object(*row), self.options));
        if !first.is_some_and(|source| self.can_clone_from(&source)) {
            return Ok(waiting);
        }
        let left = waiting.into_par_iter().map(|row| -> Result<Option<Row>> {
            self.check_cancelled()?;
            match links.source(self.plan.object(row), self.options) {
                Some(source) => self.clone_one(&source, row).map(|()| None),
                None => Ok(Some(row)),
            }
        });
        let left = left.collect::<Result<Vec<_>>>()?;
        Ok(left.into_iter().flatten().collect())
    }

    /// Tries it with a file that nobody sees.
    fn can_clone_from(&self, source: &File) -> bool {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.root.fd(), ".", flags, Mode::RUSR | Mode::WUSR);
        file.is_ok_and(|file| rustix::fs::ioctl_ficlone(file.as_fd(), source).is_ok())
    }

    fn clone_one(&self, source: &File, row: Row) -> Result<()> {
        let Some(mut output) = write::begin(self, row)? else {
            self.monitor.advance(Phase::Checkout, 1);
            return Ok(());
        };
        if output.clone_from(source) {
            self.counters.cloned_files.fetch_add(1, Relaxed);
        } else {
            // Some files cannot be shared even there.
            let at = || self.os_path(&self.plan.path(row));
            output.copy_from(source).at(at())?;
            let size = self.plan.object(row).size;
            self.counters.written_bytes.fetch_add(size, Relaxed);
        }
        self.close(output, row, Target::Tree)?;
        self.monitor.advance(Phase::Checkout, 1);
        Ok(())
    }
}
