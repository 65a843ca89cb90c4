//! Bodies of the fuzz targets: take any bytes, panic if the engine breaks a promise.
//!
//! Parsers must not panic, and what they accept is written back byte for byte. The same functions
//! run in the engine's ordinary tests over mutated good inputs.

use grove_engine::Repository;
use grove_engine::object::{Commit, DirMeta, Dirtree, FileHeader, Variant};

/// Commits with their metadata.
pub fn commit(data: &[u8]) {
    let Ok(commit) = Commit::parse(data) else {
        return;
    };
    assert_eq!(commit.to_bytes(), data);
    for (_, value) in commit.metadata.iter() {
        assert_eq!(Variant::from_value(&value.value()).as_ref(), Ok(value));
        value.print_as_ostree();
    }
}

/// Listings.
pub fn dirtree(data: &[u8]) {
    let Ok(tree) = Dirtree::parse(data) else {
        return;
    };
    assert_eq!(tree.to_bytes(), data);
    assert!(
        tree.files
            .iter()
            .all(|(name, id)| tree.file(name) == Some(id))
    );
    assert!(tree.dirs.iter().all(|dir| tree.dir(&dir.name) == Some(dir)));
}

/// Metadata of directories.
pub fn dirmeta(data: &[u8]) {
    let Ok(meta) = DirMeta::parse(data) else {
        return;
    };
    assert_eq!(meta.to_bytes(), data);
}

/// Metadata of files.
pub fn file_header(data: &[u8]) {
    let Ok(header) = FileHeader::parse(data) else {
        return;
    };
    assert_eq!(header.to_bytes(), data);
    let id = header.object_id(b"payload");
    assert!(
        header
            .is_named(&id, b"payload".as_slice())
            .is_ok_and(|named| named)
    );
    assert!(header.with_sorted_xattrs().xattrs.is_sorted());
}

/// Values given as text.
pub fn variant_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(value) = Variant::from_text(text) else {
        return;
    };
    assert_eq!(
        Variant::from_parts(value.signature(), value.bytes()).as_ref(),
        Ok(&value)
    );
    assert_eq!(Variant::from_text(&value.print()), Ok(value));
}

/// Packs.
pub fn pack(data: &[u8]) {
    grove_engine::fuzz::pack(data);
}

/// Merged indexes.
pub fn index(data: &[u8]) {
    grove_engine::fuzz::index(data);
}

/// Refs, doomed packs, stat caches.
pub fn small_files(data: &[u8]) {
    grove_engine::fuzz::small_files(data);
}

/// File records and import records.
pub fn records(data: &[u8]) {
    grove_engine::fuzz::records(data);
}

/// Compressed payloads and their recipes.
pub fn recoding(data: &[u8]) {
    grove_engine::fuzz::recoding(data);
}

/// Deltas of our own.
pub fn own_delta(data: &[u8]) {
    grove_engine::fuzz::own_delta(data);
}

/// Superblocks of static deltas.
pub fn static_superblock(data: &[u8]) {
    grove_engine::fuzz::static_superblock(data);
}

/// Parts of static deltas that take bytes from a repository.
pub fn static_part(repo: &Repository, data: &[u8]) {
    grove_engine::fuzz::static_part(repo, data);
}

/// Objects of archives and key files of OSTree repositories.
pub fn foreign_files(data: &[u8]) {
    grove_engine::fuzz::foreign_files(data);
}
