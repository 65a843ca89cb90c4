//! New contents that are compressed inside: their plain forms are sent, and how to compress them again.
//!
//! The store has taken many of them apart already; the others are taken apart here.

use std::collections::HashMap;

use rayon::prelude::*;

use super::base::{Base, Origin, Source};
use crate::error::Result;
use crate::id::PayloadId;
use crate::ops::changes::NewFile;
use crate::pack::recipe::Piece;
use crate::recode;
use crate::repo::Repository;
use crate::repo::bases::unnumbered;
use crate::repo::split::members;

/// A content in two parts.
#[derive(Debug)]
pub(super) struct Apart {
    /// What was compressed.
    pub(super) plain: Vec<u8>,
    /// How it was compressed.
    pub(super) recipe: Vec<u8>,
}

/// Whether the store has taken a payload apart.
pub(super) fn is_apart(repo: &Repository, payload: Piece) -> Result<bool> {
    Ok(repo.store().plain_form(payload)?.is_some())
}

/// Takes a content apart, if it can be made again exactly.
pub(super) fn take_apart(
    base: &Base<'_>,
    repo: &Repository,
    payload: Piece,
) -> Result<Option<Apart>> {
    if let Some((plain, recipe)) = repo.store().recipe_of_recoded(payload)?
        && plain.size <= recode::MAX_PLAIN
    {
        let plain = base.read_whole(plain)?;
        return Ok(Some(Apart { plain, recipe }));
    }
    if payload.size > recode::MAX_SIZE {
        return Ok(None);
    }
    let undone = recode::undo(&base.read_whole(payload)?);
    Ok(undone.map(|undone| Apart {
        plain: undone.plain,
        recipe: undone.recipe.encode(),
    }))
}

/// What the likest old file of a new one holds, if that is compressed, too.
pub(super) fn plain_source(base: &Base<'_>, new: &NewFile) -> Result<Option<Source>> {
    let source = new.sources.first();
    let Some(number) = source.and_then(|source| base.number(&source.payload.id)) else {
        return Ok(None);
    };
    let size = base.plain_size(number)?;
    Ok(size.map(|size| Origin::Plain { number, size }.into()))
}

/// Members of an archive in the base commit, to be found by content and by name.
#[derive(Debug, Default)]
pub(super) struct OldMembers {
    by_id: HashMap<PayloadId, Source>,
    by_name: HashMap<Vec<u8>, Source>,
    by_unnumbered: HashMap<u64, Source>,
}

impl OldMembers {
    /// Those of an archive; none if it is none.
    pub(super) fn load(base: &Base<'_>, archive: Source) -> Result<Self> {
        let bytes = base.read_sources(&[archive]).map_err(|f| base.fault(f))?;
        let cuts = members(&bytes).unwrap_or_default();
        let named = cuts.into_par_iter().filter_map(|cut| {
            let id = PayloadId::of(&bytes[cut.range.clone()]);
            Some((cut.name?, cut.range, id))
        });
        let mut old = Self::default();
        for (name, range, id) in named.collect::<Vec<_>>() {
            let source = Source {
                origin: archive.origin,
                window: Some((range.start as u64, range.len() as u64)),
            };
            old.by_id.insert(id, source);
            let text = String::from_utf8_lossy(&name);
            old.by_unnumbered.insert(unnumbered(&text), source);
            old.by_name.insert(name, source);
        }
        Ok(old)
    }

    /// The member with the same bytes.
    pub(super) fn same(&self, id: &PayloadId) -> Option<Source> {
        self.by_id.get(id).copied()
    }

    /// The member that is most likely an earlier version.
    pub(super) fn earlier(&self, name: &[u8]) -> Option<Source> {
        let by_number = || {
            let text = String::from_utf8_lossy(name);
            self.by_unnumbered.get(&unnumbered(&text))
        };
        self.by_name.get(name).or_else(by_number).copied()
    }
}
