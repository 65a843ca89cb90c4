//! What a prune would give back, without doing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::judge::{Fate, Judged};
use super::{PruneReport, Work};
use crate::error::{Error, Result};
use crate::id::{ObjectId, PackId};
use crate::ops::reach::{Scales, Shared};

/// A commit that would be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its name.
    pub commit: ObjectId,
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
    /// Its subject.
    pub subject: String,
    /// What its deletion alone gives back: what the entries take that no other commit needs.
    /// `None` if its tree is damaged.
    pub exclusive_bytes: Option<u64>,
}

/// Fills in what a dry run tells.
pub(super) fn estimate(
    work: &mut Work<'_>,
    packs: &BTreeMap<PackId, Judged>,
    report: &mut PruneReport,
) -> Result<()> {
    let going = packs.values().filter(|pack| pack.fate != Fate::Stays);
    report.freed_bytes = going.map(|pack| pack.dead_bytes).sum();
    let mut shared = Shared::default();
    let mut damaged = Vec::new();
    let mut sets = BTreeMap::new();
    for id in work.history.commits.keys() {
        match work.marker.commit(id) {
            Ok(reached) => {
                shared.add(&reached.entries);
                if !work.kept.commits.contains(id) {
                    sets.insert(*id, reached);
                }
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(_) => damaged.push(*id),
        }
    }
    report.commits_walked = work.marker.walked;
    let maps: Vec<_> = packs.values().map(|pack| Arc::clone(&pack.map)).collect();
    let scales = Scales::load(&maps)?;
    for (id, brief) in &work.history.commits {
        if work.kept.commits.contains(id) {
            continue;
        }
        let exclusive = match sets.get(id) {
            Some(reached) if !work.options.commit_only => {
                let alone = shared.exclusive(&reached.entries);
                Some(scales.weigh(&alone))
            }
            _ => None,
        };
        report.gone.push(Gone {
            commit: *id,
            timestamp: brief.timestamp,
            subject: brief.subject.clone(),
            exclusive_bytes: exclusive,
        });
    }
    report
        .gone
        .sort_by_key(|gone| (gone.timestamp, gone.commit));
    let needed_by_any = shared.all().without(&work.live);
    report.gone_bytes = scales.weigh(&needed_by_any);
    Ok(())
}
