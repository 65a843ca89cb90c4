//! The summary of a repository, `(a(s(taya{sv}))a{sv})`: what clients read first.

use std::collections::BTreeMap;

use crate::id::ObjectId;
use crate::object::gvariant::Frame;
use crate::object::{Metadata, Variant};

/// What the summary says of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryRef {
    /// The commit.
    pub commit: ObjectId,
    /// Size of the commit object; clients read no more than that.
    pub size: u64,
    /// The commit's time, in seconds since 1970.
    pub timestamp: u64,
    /// The commit's version, if it has one.
    pub version: Option<String>,
}

/// A summary to be written; the order of its metadata is that of `ostree summary -u`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Refs of the repository itself.
    pub refs: BTreeMap<String, SummaryRef>,
    /// Static deltas by name, each with the SHA-256 of its superblock.
    pub static_deltas: BTreeMap<String, ObjectId>,
    /// The mode of the repository, as its configuration has it.
    pub mode: String,
    /// When the summary was made, in seconds since 1970.
    pub last_modified: u64,
    /// Whether there are index files for static deltas.
    pub indexed_deltas: bool,
    /// The collection that the refs belong to.
    pub collection_id: Option<String>,
    /// Refs of other collections.
    pub collections: BTreeMap<String, BTreeMap<String, SummaryRef>>,
}

impl Summary {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut metadata = Metadata::default();
        if !self.static_deltas.is_empty() {
            let mut deltas = Metadata::default();
            for (name, superblock) in &self.static_deltas {
                deltas.push(name, Variant::byte_array(superblock.as_bytes()));
            }
            metadata.push("ostree.static-deltas", of_type("a{sv}", &deltas.to_bytes()));
        }
        metadata.push("ostree.summary.mode", Variant::string(&self.mode));
        let time = self.last_modified.to_be_bytes();
        metadata.push("ostree.summary.last-modified", of_type("t", &time));
        metadata.push("ostree.summary.tombstone-commits", Variant::bool(false));
        let indexed = Variant::bool(self.indexed_deltas);
        metadata.push("ostree.summary.indexed-deltas", indexed);
        if let Some(id) = &self.collection_id {
            metadata.push("ostree.summary.collection-id", Variant::string(id));
        }
        if !self.collections.is_empty() {
            let mut map = Frame::default();
            for (collection, refs) in &self.collections {
                let mut entry = Frame::default();
                entry.text(collection);
                entry.variable(8, &refs_to_bytes(refs));
                map.variable(8, &entry.into_tuple());
            }
            let map = of_type("a{sa(s(taya{sv}))}", &map.into_array());
            metadata.push("ostree.summary.collection-map", map);
        }
        let mut tuple = Frame::default();
        tuple.variable(8, &refs_to_bytes(&self.refs));
        tuple.variable(8, &metadata.to_bytes());
        tuple.into_tuple()
    }
}

fn refs_to_bytes(refs: &BTreeMap<String, SummaryRef>) -> Vec<u8> {
    let mut array = Frame::default();
    for (name, at) in refs {
        let mut metadata = Metadata::default();
        if let Some(version) = &at.version {
            metadata.push("ostree.commit.version", Variant::string(version));
        }
        let time = at.timestamp.to_be_bytes();
        metadata.push("ostree.commit.timestamp", of_type("t", &time));
        let mut value = Frame::default();
        // The only integer here that is not big-endian.
        value.fixed(8, &at.size.to_le_bytes());
        value.variable(1, at.commit.as_bytes());
        value.variable(8, &metadata.to_bytes());
        let mut entry = Frame::default();
        entry.text(name);
        entry.variable(8, &value.into_tuple());
        array.variable(8, &entry.into_tuple());
    }
    array.into_array()
}

fn of_type(signature: &str, bytes: &[u8]) -> Variant {
    Variant::from_parts(signature, bytes).expect("because it was just written in this form")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ostree summary -u`.
    const GOLDEN: &str = "742f6d61696e00008e00000000000000b3ea09cf618925a867e740159cd5df6ecdd3474d\
        8efd37be3a5370baeb6665c56f73747265652e636f6d6d69742e76657273696f6e000000312e3000007316006f\
        73747265652e636f6d6d69742e74696d657374616d7000000000006553f1000074181f432807776f7374726565\
        2e73756d6d6172792e6d6f64650000000000617263686976652d7a320000731400006f73747265652e73756d6d\
        6172792e6c6173742d6d6f64696669656400000000000000006b03840c00741d00000000006f73747265652e73\
        756d6d6172792e746f6d6273746f6e652d636f6d6d69747300000000000000000000622100000000\
        6f73747265652e73756d6d6172792e696e64657865642d64656c7461730000000100621e265384ac7800";

    #[test]
    fn the_bytes_are_those_of_ostree() {
        let commit = "b3ea09cf618925a867e740159cd5df6ecdd3474d8efd37be3a5370baeb6665c5";
        let at = SummaryRef {
            commit: commit.parse().unwrap(),
            size: 142,
            timestamp: 1_700_000_000,
            version: Some("1.0".to_owned()),
        };
        let summary = Summary {
            refs: [("t/main".to_owned(), at)].into(),
            mode: "archive-z2".to_owned(),
            last_modified: 0x6b03_840c,
            indexed_deltas: true,
            ..Summary::default()
        };
        let hex: String = summary
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN);
    }
}
