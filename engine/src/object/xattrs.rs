//! Extended attributes, `a(ayay)`.

use std::borrow::Cow;

use crate::object::DecodeError;
use crate::object::gvariant::{Elements, Frame, Part, Tuple};

/// Extended attributes: names without trailing NUL, values verbatim, in stored order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xattrs(Vec<(Vec<u8>, Vec<u8>)>);

impl Xattrs {
    /// Sorts by name and drops empty values, as `ostree commit` does.
    ///
    /// Of several entries with one name the last holds. Names no file system can hold, empty or
    /// with a NUL, are dropped too.
    pub fn from_unsorted(mut entries: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        entries.reverse();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(a, _), (b, _)| a == b);
        entries.retain(|(name, value)| !name.is_empty() && !name.contains(&0) && !value.is_empty());
        Self(entries)
    }

    /// Name and value pairs in stored order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))
    }

    /// The value of one attribute.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the names are in ascending order. Objects written by `ostree` before 2025.2 may be
    /// out of order.
    pub fn is_sorted(&self) -> bool {
        self.0.is_sorted_by(|(a, _), (b, _)| a < b)
    }

    /// The same attributes in ascending order of their names.
    pub fn sorted(&self) -> Cow<'_, Self> {
        if self.is_sorted() {
            return Cow::Borrowed(self);
        }
        let mut entries = self.0.clone();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Cow::Owned(Self(entries))
    }

    /// The same attributes in ascending order, but for the SELinux label, which comes last.
    pub(super) fn with_label_last(&self) -> Self {
        let mut entries = self.sorted().into_owned().0;
        entries.sort_by_key(|(name, _)| name == b"security.selinux");
        Self(entries)
    }

    /// The serialised array, in stored order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut array = Frame::default();
        for (name, value) in &self.0 {
            let mut entry = Frame::with_capacity(name.len() + value.len() + 2, 2);
            entry.variable(1, &[name, [0].as_slice()].concat());
            entry.variable(1, value);
            array.variable(1, &entry.into_tuple());
        }
        array.into_array()
    }

    /// Parses a serialised array: names must be non-empty and unique; order is kept as it is.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form or a rule is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(Part::whole(bytes))
    }

    pub(super) fn read(part: Part<'_>) -> Result<Self, DecodeError> {
        let elements = Elements::new(part, 1)?;
        let mut entries = Vec::new();
        for element in elements {
            let mut entry = Tuple::new(element?, 1)?;
            let name = entry.variable(1)?;
            let value = entry.last(1)?;
            let name = match name.bytes().split_last() {
                Some((0, text)) if !text.contains(&0) => text,
                _ => return Err(name.error("attribute name is not a NUL-terminated string")),
            };
            if name.is_empty() {
                return Err(DecodeError::Rule("an extended attribute has an empty name"));
            }
            entries.push((name.to_vec(), value.bytes().to_vec()));
        }
        let xattrs = Self(entries);
        let sorted = xattrs.sorted();
        if !sorted.is_sorted() {
            return Err(DecodeError::Rule("an extended attribute occurs twice"));
        }
        Ok(xattrs)
    }
}
