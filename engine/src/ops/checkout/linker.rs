//! Hard links in place of copies: those files of the cache that are missing are made first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;
use rustix::fs::AtFlags;

use super::copy::Target;
use super::job::Job;
use super::links::{Linked, Links};
use super::plan::Row;
use super::replace::replace;
use super::{Existing, write};
use crate::error::{Error, IoResultExt, Result};
use crate::monitor::Phase;

impl Job<'_> {
    /// Links files, making those that are missing first. Gives those that cannot be linked.
    pub(super) fn link_all(&self, links: &Links, waiting: Vec<Row>) -> Result<Vec<Row>> {
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        self.link_some(links, waiting, &mut missing, &mut refused)?;
        if !missing.is_empty() {
            let mut objects = missing.clone();
            objects.sort_unstable_by_key(|row| self.plan.object(*row).id);
            objects.dedup_by_key(|row| self.plan.object(*row).id);
            self.copy(&objects, Target::Cache)?;
            let again = std::mem::take(&mut missing);
            self.link_some(links, again, &mut missing, &mut refused)?;
            refused.append(&mut missing);
        }
        Ok(refused)
    }

    fn link_some(
        &self,
        links: &Links,
        mut rows: Vec<Row>,
        missing: &mut Vec<Row>,
        refused: &mut Vec<Row>,
    ) -> Result<()> {
        rows.sort_unstable();
        let by_dir: Vec<&[Row]> = rows.chunk_by(|a, b| a.dir == b.dir).collect();
        let outcomes = by_dir.par_iter().map(|rows| -> Result<Vec<(Row, Linked)>> {
            self.check_cancelled()?;
            let path = &self.plan.dirs[rows[0].dir as usize].path;
            let dir = self.root.open_dir(path).at(self.os_path(path))?;
            let outcome = |row: &Row| Ok((*row, self.link(links, dir.as_fd(), *row)?));
            rows.iter().map(outcome).collect()
        });
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        for (row, linked) in outcomes.into_iter().flatten() {
            match linked {
                Linked::NotMade => missing.push(row),
                Linked::TooMany => refused.push(row),
                Linked::Yes | Linked::Exists => {}
            }
        }
        Ok(())
    }

    fn link(&self, links: &Links, dir: BorrowedFd<'_>, row: Row) -> Result<Linked> {
        // There are many links and few errors: their paths are made when they are needed.
        let at = |error: io::Error| Error::Io {
            path: self.os_path(&self.plan.path(row)),
            source: error,
        };
        let name = self.plan.name(row);
        let object = self.plan.object(row);
        let link = |name: &str| links.link(object, dir, name, self.options).map_err(at);
        let remove = |name: &str| {
            let removed = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            removed.map_err(|errno| at(errno.into()))
        };
        let replaces = matches!(self.existing, Existing::Overwrite | Existing::Update);
        let linked = if replaces {
            let temporary = write::temporary(name);
            let mut linked = link(&temporary)?;
            if linked == Linked::Exists {
                remove(&temporary)?;
                linked = link(&temporary)?;
            }
            if linked == Linked::Yes {
                let dirs_give_way = self.existing == Existing::Update;
                replace(dir, &temporary, name, dirs_give_way).map_err(at)?;
                // Where both are names of one file, a rename does nothing.
                let _ = remove(&temporary);
            }
            linked
        } else {
            match link(name)? {
                Linked::Exists if !write::stays(self, row, &self.plan.path(row))? => {
                    remove(name)?;
                    link(name)?
                }
                other => other,
            }
        };
        if linked == Linked::Yes {
            write::sync(self, dir, name).map_err(at)?;
            self.counters.linked_files.fetch_add(1, Relaxed);
        }
        if matches!(linked, Linked::Yes | Linked::Exists) {
            self.monitor.advance(Phase::Checkout, 1);
        }
        Ok(linked)
    }
}
