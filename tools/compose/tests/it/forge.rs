//! Packages made by hand, so that any part of them can be wrong.

use std::io::Write;
use std::path::PathBuf;

use rpm::{Header, HeaderEntry, IndexData, IndexSignatureTag, IndexTag, Lead, PackageMetadata};
use sha2::{Digest, Sha256};

pub const FILE: u32 = 0o100644;
pub const DIR: u32 = 0o040755;
pub const LINK: u32 = 0o120777;

/// An entry of the header and, unless told otherwise, of the payload.
#[derive(Debug, Clone)]
pub struct Item {
    pub path: Vec<u8>,
    pub mode: u32,
    /// Content of a file, target of a symlink.
    pub content: Vec<u8>,
    pub user: String,
    pub group: String,
    pub caps: String,
    pub flags: u32,
    pub inode: u32,
}

/// One archive entry.
#[derive(Debug, Clone)]
pub struct Rec {
    pub name: Vec<u8>,
    pub mode: u32,
    pub links: u32,
    pub content: Vec<u8>,
    /// Written as stripped entry with this index.
    pub stripped: Option<u32>,
}

/// A package to be.
#[derive(Debug, Clone)]
pub struct Forge {
    pub name: String,
    pub items: Vec<Item>,
    pub records: Vec<Rec>,
    /// Appended after the archive.
    pub tail: Vec<u8>,
    pub trailer: bool,
    pub payload_digest: Option<String>,
    pub file_digests: bool,
}

pub fn item(path: &str, mode: u32, content: &[u8]) -> Item {
    Item {
        path: path.into(),
        mode,
        content: content.to_vec(),
        user: "root".into(),
        group: "root".into(),
        caps: String::new(),
        flags: 0,
        inode: 0,
    }
}

impl Forge {
    /// A package whose payload agrees with its header.
    pub fn new(items: &[Item]) -> Self {
        let mut items = items.to_vec();
        for (at, item) in items.iter_mut().enumerate() {
            if item.inode == 0 {
                item.inode = 1000 + at as u32;
            }
        }
        let records = items
            .iter()
            .filter(|item| item.flags & 64 == 0)
            .map(|item| Rec {
                name: [b".".as_slice(), &item.path].concat(),
                mode: item.mode,
                links: 1,
                content: item.content.clone(),
                stripped: None,
            });
        Self {
            name: "forged".into(),
            records: records.collect(),
            items,
            tail: Vec::new(),
            trailer: true,
            payload_digest: None,
            file_digests: true,
        }
    }

    fn archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, rec) in self.records.iter().enumerate() {
            match rec.stripped {
                Some(index) => out.extend(format!("07070X{index:08x}\0\0").bytes()),
                None => named(
                    &mut out,
                    &rec.name,
                    at as u32,
                    rec.mode,
                    rec.links,
                    &rec.content,
                ),
            }
            out.extend(&rec.content);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        if self.trailer {
            named(&mut out, b"TRAILER!!!", 0, 0, 1, b"");
        }
        out.extend(&self.tail);
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let payload = zstd::encode_all(self.archive().as_slice(), 1).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let sha = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        let digest = self.payload_digest.clone().unwrap_or_else(|| sha(&payload));
        let is_file = |item: &Item| item.mode & 0o170000 == 0o100000;
        let split = |item: &Item| {
            let at = item
                .path
                .iter()
                .rposition(|b| *b == b'/')
                .map_or(0, |at| at + 1);
            (item.path[..at].to_vec(), item.path[at..].to_vec())
        };
        let strings = |f: &dyn Fn(&Item) -> String| {
            IndexData::StringArray(self.items.iter().map(f).collect())
        };
        let numbers =
            |f: &dyn Fn(&Item) -> u32| IndexData::Int32(self.items.iter().map(f).collect());
        // Bytes that need not be UTF-8 are patched in afterwards: the builder only takes strings.
        let lossless = |bytes: Vec<u8>| bytes.iter().map(|b| mask(*b)).collect::<String>();
        let text = |text: &str| IndexData::StringTag(text.into());
        let mut tags = vec![
            (IndexTag::RPMTAG_NAME, text(&self.name)),
            (IndexTag::RPMTAG_VERSION, text("1.0")),
            (IndexTag::RPMTAG_RELEASE, text("1")),
            (IndexTag::RPMTAG_ARCH, text("noarch")),
            (IndexTag::RPMTAG_SOURCERPM, text("forged-1.0-1.src.rpm")),
            (IndexTag::RPMTAG_PAYLOADFORMAT, text("cpio")),
            (IndexTag::RPMTAG_PAYLOADCOMPRESSOR, text("zstd")),
            (
                IndexTag::RPMTAG_PAYLOADSHA256,
                IndexData::StringArray(vec![digest]),
            ),
            (IndexTag::RPMTAG_FILEDIGESTALGO, IndexData::Int32(vec![8])),
        ];
        if !self.items.is_empty() {
            let mode = |item: &Item| item.mode as u16;
            tags.extend([
                (
                    IndexTag::RPMTAG_BASENAMES,
                    strings(&|i| lossless(split(i).1)),
                ),
                (
                    IndexTag::RPMTAG_DIRNAMES,
                    strings(&|i| lossless(split(i).0)),
                ),
                (
                    IndexTag::RPMTAG_DIRINDEXES,
                    IndexData::Int32((0..self.items.len() as u32).collect()),
                ),
                (
                    IndexTag::RPMTAG_FILEMODES,
                    IndexData::Int16(self.items.iter().map(mode).collect()),
                ),
                (IndexTag::RPMTAG_FILEUSERNAME, strings(&|i| i.user.clone())),
                (
                    IndexTag::RPMTAG_FILEGROUPNAME,
                    strings(&|i| i.group.clone()),
                ),
                (IndexTag::RPMTAG_FILECAPS, strings(&|i| i.caps.clone())),
                (
                    IndexTag::RPMTAG_FILESIZES,
                    numbers(&|i| i.content.len() as u32),
                ),
                (IndexTag::RPMTAG_FILEFLAGS, numbers(&|i| i.flags)),
                (IndexTag::RPMTAG_FILEDEVICES, numbers(&|_| 1)),
                (IndexTag::RPMTAG_FILEINODES, numbers(&|i| i.inode)),
                (
                    IndexTag::RPMTAG_FILELINKTOS,
                    strings(&|i| {
                        if i.mode == LINK {
                            lossless(i.content.clone())
                        } else {
                            "".into()
                        }
                    }),
                ),
                (
                    IndexTag::RPMTAG_FILEDIGESTS,
                    strings(&|i| {
                        if is_file(i) && self.file_digests {
                            sha(&i.content)
                        } else {
                            "".into()
                        }
                    }),
                ),
            ]);
        }
        let entries = tags
            .into_iter()
            .map(|(tag, data)| HeaderEntry::new(tag as u32, data));
        let metadata = PackageMetadata {
            lead: Lead::new(&self.name),
            signature: Header::<IndexSignatureTag>::new_empty(),
            header: Header::from_entries(entries, IndexTag::RPMTAG_HEADERIMMUTABLE),
        };
        let mut out = Vec::new();
        metadata.write(&mut out).unwrap();
        unmask(&mut out);
        out.extend(payload);
        out
    }

    /// Writes it into a directory.
    pub fn write(&self, dir: &std::path::Path) -> PathBuf {
        let path = dir.join(format!("{}.rpm", self.name));
        std::fs::File::create(&path)
            .unwrap()
            .write_all(&self.bytes())
            .unwrap();
        path
    }
}

/// A byte that is not ASCII stands as one control character, so that lengths stay.
fn mask(byte: u8) -> char {
    if byte < 0x80 { byte as char } else { '\x01' }
}

fn unmask(bytes: &mut [u8]) {
    // Only names in these tests hold this sequence.
    let marker = b"masked\x01";
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker);
    if let Some(at) = at {
        bytes[at + marker.len() - 1] = 0xe9;
    }
}

fn named(out: &mut Vec<u8>, name: &[u8], ino: u32, mode: u32, links: u32, content: &[u8]) {
    let fields = [
        ino,
        mode,
        0,
        0,
        links,
        0,
        content.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    out.extend(b"070701");
    out.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
    out.extend(name);
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}
