//! Entry points for fuzzing the parsers of repository files: any bytes, no panic.
//!
//! Not part of the public interface.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::index::flat::FlatIndex;
use crate::ops;
use crate::pack::reader::PackReader;
use crate::pack::{EntryKind, Key, doomed};
use crate::recode;
use crate::refs;
use crate::repo;

/// A file in memory, and a path that leads to it while it is open.
fn in_memory(data: &[u8]) -> Option<(File, PathBuf)> {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let mut file = File::from(fd);
    file.write_all(data).ok()?;
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    Some((file, path))
}

/// A pack: its footer, a scan without it, and every block that is found.
pub fn pack(data: &[u8]) {
    let Some((_file, path)) = in_memory(data) else {
        return;
    };
    let Ok(pack) = PackReader::open(&path, PackId::from_bytes([0; 16])) else {
        return;
    };
    drop(pack.footer());
    drop(pack.index_rows());
    let Ok((heads, _)) = pack.scan() else { return };
    for head in heads {
        if let Ok(block) = pack.block(head.offset, head.header.block_len() as u32) {
            block
                .entries
                .iter()
                .for_each(|entry| assert_eq!(block.bytes(entry).len(), entry.len as usize));
        }
    }
}

/// A merged index: look-ups, a walk over all rows, and the check of its checksums.
pub fn index(data: &[u8]) {
    let Some((_file, path)) = in_memory(data) else {
        return;
    };
    let Ok(Some(index)) = FlatIndex::open(&path) else {
        return;
    };
    for first in [0, 1, 0x7f, 0xff] {
        drop(index.get(&Key::new(EntryKind::File, [first; 32])));
    }
    drop(index.for_each(&mut |_, _| Ok(())));
    drop(index.verify());
}

/// Refs, doomed packs and stat caches.
pub fn small_files(data: &[u8]) {
    if let Ok(refs) = refs::decode(data) {
        assert_eq!(refs::encode(&refs).as_bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        drop(doomed::decode(text));
    }
    ops::source::decode_stat_cache(data);
}

/// File records and import records.
pub fn records(data: &[u8]) {
    let id = ObjectId::from_bytes([0; 32]);
    if let Ok(file) = repo::decode_record(&id, data) {
        assert_eq!(
            repo::encode_record(&file.header, file.size, file.payload),
            data
        );
    }
    if let Some(import) = repo::decode_import(data) {
        assert_eq!(
            repo::encode_import(import.files.into_iter(), &import.bytes),
            data
        );
    }
}

/// Recipes, and payloads that could be taken apart: a recipe of the length that the first two bytes
/// say, then its plain bytes; and everything as a payload.
pub fn recoding(data: &[u8]) {
    if let Some(undone) = recode::undo(data) {
        let redone = recode::redo(&undone.plain, &undone.recipe, data.len());
        assert_eq!(redone.ok().as_deref(), Some(data));
    }
    let Some((len, rest)) = data.split_first_chunk() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
    let (recipe, plain) = rest.split_at(len);
    if let Ok(known) = recode::Recipe::decode(recipe) {
        assert_eq!(known.encode(), recipe);
        for size in [plain.len(), 1 << 20] {
            if let Ok(made) = recode::redo(plain, &known, size) {
                assert_eq!(made.len(), size);
            }
        }
    }
}

/// An input of [`recoding`] with the recipe of a payload that can be taken apart.
pub fn recoding_seed(payload: &[u8]) -> Option<Vec<u8>> {
    let undone = recode::undo(payload)?;
    let recipe = undone.recipe.encode();
    let len = u16::try_from(recipe.len()).ok()?;
    Some([&len.to_le_bytes()[..], &recipe, &undone.plain].concat())
}

/// Deltas of our own: whole files, whose checksums stop most changes, and sections of contents.
pub fn own_delta(data: &[u8]) {
    if let Some((_file, path)) = in_memory(data) {
        drop(ops::delta::show(&path));
    }
    ops::delta::try_section(data);
}

/// Superblocks of static deltas.
pub fn static_superblock(data: &[u8]) {
    ops::static_delta::try_superblock(data);
}

/// Parts of static deltas that take bytes from a repository.
pub fn static_part(repo: &repo::Repository, data: &[u8]) {
    ops::static_delta::try_part(repo, data);
}

/// Inputs of [`static_part`] with the parts of the delta in a directory.
///
/// # Errors
/// The directory has no sound delta.
pub fn static_part_seeds(delta: &Path) -> Result<Vec<Vec<u8>>> {
    ops::static_delta::part_seeds(delta)
}

/// Files of OSTree repositories: objects of archives, and key files.
pub fn foreign_files(data: &[u8]) {
    ops::ostree::try_filez(data);
    ops::ostree::try_key_file(data);
}
