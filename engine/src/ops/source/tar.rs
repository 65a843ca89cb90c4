//! A tar archive as input, plain or compressed with gzip, xz, zstd or bzip2.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};

use tar::{Archive, Entry, EntryType};

use super::{SourceOptions, SourceReport};
use crate::error::{Error, IoResultExt, Result};
use crate::monitor::{Monitor, Phase};
use crate::object::{DirMeta, Xattrs};
use crate::repo::ingest::{Body, IN_MEMORY_MAX, NewFile};
use crate::repo::{Repository, Transaction};
use crate::tree::{FileEntry, MutableTree, check_depth, in_path};

/// Bytes of small files gathered before they are stored.
const BATCH_BYTES: u64 = 16 << 20;
/// Extended attributes in pax headers, as GNU tar and libarchive write them.
const PAX_XATTR: &str = "SCHILY.xattr.";
/// What the kernel allows for one attribute.
const MAX_XATTR: usize = 64 * 1024;

/// Lays an archive over `tree`; `name` is for messages.
///
/// Paths are relative whatever they say (a leading `/` or `./` is dropped); `..` is refused, so
/// nothing can lie outside. Hard links become copies that share their payload.
pub fn add_tar(
    txn: &mut Transaction<'_>,
    tree: &mut MutableTree,
    reader: impl Read,
    name: &str,
    options: &SourceOptions,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let mut archive = Archive::new(decompress(reader).at(name)?);
    let mut import = Import {
        txn,
        tree,
        options,
        batch: Vec::new(),
        batch_bytes: 0,
        done: HashMap::new(),
        report: SourceReport::default(),
    };
    monitor.begin(Phase::Store, None);
    for entry in archive.entries().at(name)? {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        import.entry(entry.at(name)?)?;
    }
    import.flush()?;
    monitor.end(Phase::Store);
    Ok(import.report)
}

struct Import<'a, 'r> {
    txn: &'a mut Transaction<'r>,
    tree: &'a mut MutableTree,
    options: &'a SourceOptions,
    batch: Vec<(String, NewFile)>,
    batch_bytes: u64,
    /// Files stored so far, for hard links to them.
    done: HashMap<String, FileEntry>,
    report: SourceReport,
}

/// Numbers of an entry's header.
struct Numbers {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Import<'_, '_> {
    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<()> {
        let path = match normal_path(&entry.path_bytes()) {
            Ok(path) => path,
            Err((path, reason)) if self.options.skip_special && reason == NOT_UTF8 => {
                return self.skip(&path);
            }
            Err((path, reason)) => return Err(unsupported(&path, reason)),
        };
        let pax = pax_xattrs(&mut entry).map_err(|e| unsupported(&path, &e.to_string()))?;
        let numbers = numbers(&entry).map_err(|e| unsupported(&path, &e.to_string()))?;
        let Numbers { uid, gid, mode } = numbers;
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.directory(&path, self.options.directory(uid, gid, mode, pax))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if target.is_empty() || std::str::from_utf8(&target).is_err() {
                    return Err(unsupported(
                        &path,
                        "the target of the symbolic link is empty or not UTF-8",
                    ));
                }
                let header = self.options.symlink(uid, gid, target, pax);
                let hint = path.clone().into_bytes();
                self.push(
                    path,
                    NewFile {
                        header,
                        hint,
                        body: Body::None,
                    },
                    0,
                )
            }
            EntryType::Link => self.hard_link(&path, &entry.link_name_bytes().unwrap_or_default()),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.regular(path, numbers, pax, entry)
            }
            EntryType::Char | EntryType::Block => {
                self.refuse(&path, "a commit cannot hold a device")
            }
            EntryType::Fifo => self.refuse(&path, "a commit cannot hold a FIFO"),
            EntryType::XGlobalHeader => Ok(()),
            other => self.refuse(
                &path,
                &format!("unknown tar entry type {:?}", other.as_byte() as char),
            ),
        }
    }

    fn skip(&mut self, _path: &str) -> Result<()> {
        self.report.skipped += 1;
        Ok(())
    }

    fn refuse(&mut self, path: &str, reason: &str) -> Result<()> {
        if self.options.skip_special {
            self.skip(path)
        } else {
            Err(unsupported(path, reason))
        }
    }

    fn directory(&mut self, path: &str, meta: DirMeta) -> Result<()> {
        // Files before the directory must not be lost when it turns out to be in their way.
        let dir = self.tree.ensure_dir(self.txn.repository(), path)?;
        dir.meta = Some(meta);
        self.report.dirs += 1;
        Ok(())
    }

    fn regular(
        &mut self,
        path: String,
        Numbers { uid, gid, mode }: Numbers,
        xattrs: Xattrs,
        mut entry: Entry<'_, impl Read>,
    ) -> Result<()> {
        let size = entry.size();
        let header = self.options.regular(uid, gid, mode, xattrs);
        let hint = path.clone().into_bytes();
        if size > IN_MEMORY_MAX {
            self.flush()?;
            let file = NewFile {
                header,
                hint,
                body: Body::None,
            };
            let entries = self.txn.put_stream(file, &mut entry, size)?;
            return self.place(path, entries);
        }
        let mut bytes = Vec::with_capacity(size as usize);
        entry.read_to_end(&mut bytes).at(&path)?;
        if bytes.len() as u64 != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).at(&path);
        }
        self.push(
            path,
            NewFile {
                header,
                hint,
                body: Body::Bytes(bytes),
            },
            size,
        )
    }

    fn hard_link(&mut self, path: &str, target: &[u8]) -> Result<()> {
        let target = normal_path(target).map_err(|(_, reason)| unsupported(path, reason))?;
        self.flush()?;
        match self.done.get(&target).cloned() {
            Some(entry) => self.place(path.to_owned(), entry),
            None => Err(unsupported(
                path,
                &format!("hard link to {target:?}, which is not in the archive"),
            )),
        }
    }

    fn push(&mut self, path: String, file: NewFile, size: u64) -> Result<()> {
        self.batch.push((path, file));
        self.batch_bytes += size;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= 8192 {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let (paths, files): (Vec<String>, Vec<NewFile>) =
            std::mem::take(&mut self.batch).into_iter().unzip();
        let entries = self.txn.put_files(files)?;
        paths
            .into_iter()
            .zip(entries)
            .try_for_each(|(path, entry)| self.place(path, entry))
    }

    fn place(&mut self, path: String, entry: FileEntry) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parents = self
            .options
            .tar_autocreate_parents
            .then(|| self.options.directory(0, 0, 0o755, Xattrs::default()));
        let target = match parents {
            Some(meta) => ensure_described(self.tree, self.txn.repository(), dir, &meta)?,
            None => self.tree.ensure_dir(self.txn.repository(), dir)?,
        };
        target.put_file(name, entry.clone()).map_err(in_path(dir))?;
        self.report.files += 1;
        self.done.insert(path, entry);
        Ok(())
    }
}

/// Like [`MutableTree::ensure_dir`], giving metadata to every directory on the way that has none.
fn ensure_described<'t>(
    tree: &'t mut MutableTree,
    repo: &Repository,
    path: &str,
    meta: &DirMeta,
) -> Result<&'t mut MutableTree> {
    tree.meta.get_or_insert_with(|| meta.clone());
    path.split('/')
        .filter(|part| !part.is_empty())
        .try_fold(tree, |dir, part| {
            let child = dir.ensure_child(repo, part)?;
            child.meta.get_or_insert_with(|| meta.clone());
            Ok(child)
        })
}

fn unsupported(path: &str, reason: &str) -> Error {
    Error::UnsupportedInput {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

const NOT_UTF8: &str = "the name is not UTF-8";

/// The path without leading `/` and without `.`; empty for the root.
fn normal_path(bytes: &[u8]) -> Result<String, (String, &'static str)> {
    let lossy = || String::from_utf8_lossy(bytes).into_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| (lossy(), NOT_UTF8))?;
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err((lossy(), "the path leads out of the archive"));
    }
    if check_depth(text, parts.len()).is_err() {
        return Err((text.chars().take(80).collect(), "nested too deeply"));
    }
    Ok(parts.join("/"))
}

fn numbers(entry: &Entry<'_, impl Read>) -> io::Result<Numbers> {
    let id = |n: u64| u32::try_from(n).map_err(|_| io::Error::other("owner is out of range"));
    let header = entry.header();
    Ok(Numbers {
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mode: header.mode()?,
    })
}

fn pax_xattrs(entry: &mut Entry<'_, impl Read>) -> io::Result<Xattrs> {
    let mut found = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let Some(name) = extension
                .key()
                .ok()
                .and_then(|key| key.strip_prefix(PAX_XATTR))
            else {
                continue;
            };
            if extension.value_bytes().len() > MAX_XATTR {
                return Err(io::Error::other("extended attribute is too large"));
            }
            found.push((name.as_bytes().to_vec(), extension.value_bytes().to_vec()));
        }
    }
    Ok(Xattrs::from_unsorted(found))
}

/// Recognises the compression by its first bytes.
fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let head = reader.fill_buf()?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        _ => Box::new(reader),
    })
}
