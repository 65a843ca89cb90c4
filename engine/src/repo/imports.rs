//! Records of package imports: what a package brought, under a key that the importer chooses.

use super::Repository;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::pack::{EntryKind, Key};
use crate::store::Found;

impl Repository {
    /// The record of an earlier package import, by its key.
    pub fn import(&self, key: &ObjectId) -> Result<Option<Import>> {
        let found = self
            .store
            .get(&Key::new(EntryKind::Import, *key.as_bytes()))?;
        let decode = |found: Found| {
            decode_import(found.bytes()).ok_or_else(|| Error::Corrupt {
                path: self.path.clone(),
                detail: format!("import record {key} is malformed"),
            })
        };
        found.map(decode).transpose()
    }

    /// Keys of all package imports, ascending.
    pub fn imports(&self) -> Result<Vec<ObjectId>> {
        let range = (&[0; ObjectId::LEN], &[u8::MAX; ObjectId::LEN]);
        let found = self.store.ids_between(EntryKind::Import, range)?;
        Ok(found.into_iter().map(ObjectId::from_bytes).collect())
    }
}

/// The record of a package import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The file objects that it names.
    pub files: Vec<ObjectId>,
    /// The importer's own bytes.
    pub bytes: Vec<u8>,
}

/// Encodes an import record: number of files, their ids, the importer's bytes.
pub(crate) fn encode_import(
    files: impl ExactSizeIterator<Item = ObjectId>,
    bytes: &[u8],
) -> Vec<u8> {
    let mut out = (files.len() as u64).to_le_bytes().to_vec();
    out.extend(files.flat_map(|id| *id.as_bytes()));
    out.extend_from_slice(bytes);
    out
}

/// Decodes an import record.
pub(crate) fn decode_import(record: &[u8]) -> Option<Import> {
    let (count, rest) = record.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (files, bytes) = rest.split_at_checked(count.checked_mul(ObjectId::LEN)?)?;
    let files = files.as_chunks::<{ ObjectId::LEN }>().0.iter();
    Some(Import {
        files: files.map(|id| ObjectId::from_bytes(*id)).collect(),
        bytes: bytes.to_vec(),
    })
}
