//! Metadata of directories.

use crate::id::ObjectId;
use crate::object::gvariant::{Frame, Part, Tuple};
use crate::object::{DecodeError, Xattrs};

/// Metadata of a directory, `(uuua(ayay))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirMeta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Full `st_mode`, type bits included.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl DirMeta {
    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tuple = Frame::with_capacity(16, 1);
        for field in [self.uid, self.gid, self.mode] {
            tuple.fixed(4, &field.to_be_bytes());
        }
        tuple.variable(1, &self.xattrs.to_bytes());
        tuple.into_tuple()
    }

    /// The object's name: the SHA-256 of its bytes.
    pub fn object_id(&self) -> ObjectId {
        ObjectId::of(&self.to_bytes())
    }

    /// Parses a dirmeta object.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form, the mode is not a directory's or an
    /// extended attribute breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 0)?;
        let (uid, gid, mode) = (tuple.u32_be()?, tuple.u32_be()?, tuple.u32_be()?);
        let xattrs = Xattrs::read(tuple.last(1)?)?;
        if mode & !0o7777 != 0o040000 {
            return Err(DecodeError::Rule(
                "the mode of a directory is not a directory's",
            ));
        }
        Ok(Self {
            uid,
            gid,
            mode,
            xattrs,
        })
    }
}
