//! From a rev as a person types it to a commit, in OSTree's order.

use super::Repository;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};

pub(super) fn resolve_rev(repo: &Repository, rev: &str) -> Result<ObjectId> {
    // A person names what is there now, not what was there when the repository was opened.
    repo.store().refresh()?;
    if let Some(child) = rev.strip_suffix('^') {
        let commit = repo.commit(&resolve_rev(repo, child)?)?;
        return commit.parent.ok_or_else(|| Error::RevNotFound {
            rev: rev.to_owned(),
        });
    }
    if let Ok(id) = rev.parse::<ObjectId>() {
        return match repo.contains(ObjectKind::Commit, &id)? {
            true => Ok(id),
            false => Err(Error::RevNotFound {
                rev: rev.to_owned(),
            }),
        };
    }
    // Abbreviations come before refs: a ref named `beef` can be hidden by a commit beef... .
    if is_abbreviation(rev) {
        let all = repo.commits()?;
        let matches: Vec<ObjectId> = all
            .into_iter()
            .filter(|id| id.to_string().starts_with(rev))
            .collect();
        match matches.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            _ => {
                return Err(Error::RevAmbiguous {
                    rev: rev.to_owned(),
                    candidates: matches,
                });
            }
        }
    }
    let refs = repo.refs()?;
    refs.map
        .get(rev)
        .copied()
        .ok_or_else(|| Error::RevNotFound {
            rev: rev.to_owned(),
        })
}

fn is_abbreviation(rev: &str) -> bool {
    !rev.is_empty() && rev.len() < 64 && rev.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
