//! Static deltas, which lie in a repository of ours as they do in OSTree's, below `deltas/`. Their
//! names are understood here; their contents are copied, never looked at but for their checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::target::Target;
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_";
/// Characters of a checksum in names of deltas.
const NAME_LEN: usize = 43;
pub(in crate::ops::ostree) const SUPERBLOCK: &str = "superblock";

/// One delta of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops::ostree) struct DeltaDir {
    /// The commit that a client must have; `None` = none.
    pub(in crate::ops::ostree) from: Option<ObjectId>,
    pub(in crate::ops::ostree) to: ObjectId,
    pub(in crate::ops::ostree) path: PathBuf,
    /// Below the repository.
    place: String,
}

impl DeltaDir {
    /// Its name in a summary.
    pub(in crate::ops::ostree) fn name(&self) -> String {
        match &self.from {
            Some(from) => format!("{from}-{}", self.to),
            None => self.to.to_string(),
        }
    }

    /// The files of it, with their sizes; the superblock last.
    pub(in crate::ops::ostree) fn files(&self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).at(&self.path)? {
            let entry = entry.at(&self.path)?;
            let meta = entry.metadata().at(entry.path())?;
            let name = entry.file_name().into_string();
            let part = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
            let known = |name: &String| name == SUPERBLOCK || part(name);
            if let Some(name) = name.ok().filter(known).filter(|_| meta.is_file()) {
                files.push((name, meta.len()));
            }
        }
        files.sort_by_key(|(name, _)| (name == SUPERBLOCK, name.len(), name.clone()));
        Ok(files)
    }

    /// The SHA-256 of the superblock.
    pub(in crate::ops::ostree) fn superblock(&self) -> Result<ObjectId> {
        let path = self.path.join(SUPERBLOCK);
        let mut file = File::open(&path).at(&path)?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut hasher)).at(&path)?;
        Ok(ObjectId::from_bytes(hasher.finalize().into()))
    }
}

struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The deltas of a repository, by name.
pub(in crate::ops::ostree) fn list(repo: &Path) -> Result<BTreeMap<String, DeltaDir>> {
    let mut found = BTreeMap::new();
    for (first, dir) in directories(&repo.join("deltas"))? {
        for (rest, path) in directories(&dir)? {
            let Some((from, to)) = parse(&first, &rest) else {
                continue;
            };
            if !path.join(SUPERBLOCK).is_file() {
                continue;
            }
            let place = format!("deltas/{first}/{rest}");
            let delta = DeltaDir {
                from,
                to,
                path,
                place,
            };
            found.insert(delta.name(), delta);
        }
    }
    Ok(found)
}

/// Copies the deltas that lead to one of these commits; gives their number and bytes.
pub(super) fn copy(
    repo: &Path,
    target: &Target,
    wanted: &dyn Fn(&ObjectId) -> bool,
) -> Result<(u64, u64)> {
    let (mut deltas, mut bytes) = (0, 0);
    for delta in list(repo)?.values().filter(|delta| wanted(&delta.to)) {
        deltas += 1;
        for (name, size) in delta.files()? {
            let from = delta.path.join(&name);
            let place = format!("{}/{name}", delta.place);
            bytes += size;
            target.stage_at(place, |path| std::fs::copy(&from, path).map(drop).at(&from))?;
        }
    }
    target.flush()?;
    Ok((deltas, bytes))
}

fn directories(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.at(dir)?;
        let is_dir = entry.file_type().at(entry.path())?.is_dir();
        if let Some(name) = entry.file_name().to_str().filter(|_| is_dir) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// The commits that a delta's directory names: from and to.
fn parse(first: &str, rest: &str) -> Option<(Option<ObjectId>, ObjectId)> {
    let name = format!("{first}{rest}");
    match name.split_once('-') {
        Some((from, to)) => Some((Some(decode(from)?), decode(to)?)),
        None => Some((None, decode(&name)?)),
    }
}

/// Decodes OSTree's form of base64.
fn decode(text: &str) -> Option<ObjectId> {
    if text.len() != NAME_LEN {
        return None;
    }
    let mut out = Vec::with_capacity(ObjectId::LEN + 1);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|c| *c == byte)?;
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // What is left of the last character must be zero.
    (bits == 0).then(|| ObjectId::from_slice(&out)).flatten()
}

/// An unusable delta of a repository of ours.
pub(in crate::ops::ostree) fn malformed(path: &Path, detail: impl Into<String>) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_deltas_are_those_of_ostree() {
        let id = "b3ea09cf618925a867e740159cd5df6ecdd3474d8efd37be3a5370baeb6665c5";
        let text = "s+oJz2GJJahn50AVnNXfbs3TR02O_Te+OlNwuutmZcU";
        assert_eq!(decode(text), id.parse().ok());
        assert_eq!(parse("s+", &text[2..]), Some((None, id.parse().unwrap())));
        for bad in [
            "",
            "s+oJ",
            &text.replace('s', "/"),
            &text.replace("cU", "cV"),
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
