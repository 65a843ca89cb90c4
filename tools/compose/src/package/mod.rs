//! One RPM file: facts, file list, and a linear reader of its payload.
//!
//! Owns everything between the bytes of a package file and its entries. Headers are decoded by the
//! `rpm` crate after `structure` has checked their bounds; the payload is read by our own
//! archive reader, in one pass and with bounded memory, because the crate's is quadratic in the
//! number of entries. Knows nothing of repositories.

mod content;
mod cpio;
mod digest;
mod entries;
mod payload;
mod read;
mod structure;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rpm::{IndexSignatureTag, IndexTag, PackageMetadata};

pub use entries::{Entry, EntryKind, FileList, Names};
pub use payload::Compression;
pub use read::{ReadOptions, Visitor};
pub(crate) use structure::RawHeader;

use crate::Error;
use digest::{Expected, Hashing};
use structure::Head;

/// What is wrong with a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The operating system refused to read the file.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// A part of the file is not what it must be.
    #[error("{part}: {detail}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The header's tags are not what they must be.
    #[error("the header is not usable")]
    Header(#[source] rpm::Error),
    /// The payload is packed in a way that is not known.
    #[error("unknown payload compression (the header says {declared:?})")]
    UnknownCompression {
        /// The header's `PAYLOADCOMPRESSOR`.
        declared: String,
    },
    /// The payload could not be unpacked.
    #[error("the payload cannot be unpacked")]
    Decompress {
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// Bytes do not have the digest that the package declares for them.
    #[error("{what}: {algorithm} digest mismatch: expected {expected}, found {found}")]
    Digest {
        /// Header, payload, or the path of a file.
        what: String,
        /// Digest algorithm.
        algorithm: &'static str,
        /// As the package says.
        expected: String,
        /// As computed.
        found: String,
    },
    /// An entry that cannot be accepted.
    #[error("{path}: {reason}")]
    Entry {
        /// Its path, lossily decoded.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl PackageError {
    pub(crate) fn entry(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Entry {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// What identifies a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facts {
    /// Name.
    pub name: String,
    /// Epoch; most packages have none.
    pub epoch: Option<u32>,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// Architecture; `src` for source packages.
    pub arch: String,
    /// Bytes of all its files, as the header says.
    pub installed_size: u64,
    /// Seconds since 1970, UTC, when the package was built; 0 when it does not say.
    pub build_time: u64,
}

impl Facts {
    /// `[epoch:]version-release`.
    pub fn evr(&self) -> String {
        let epoch = self
            .epoch
            .map(|epoch| format!("{epoch}:"))
            .unwrap_or_default();
        format!("{epoch}{}-{}", self.version, self.release)
    }

    /// `name-[epoch:]version-release.arch`.
    pub fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr(), self.arch)
    }
}

/// An open package file whose header was read and verified.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    file: File,
    facts: Facts,
    head: Head,
    metadata: PackageMetadata,
}

impl Package {
    /// Opens a package and verifies the digests of its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_inner(path).map_err(|source| Error::package(path, source))
    }

    fn open_inner(path: &Path) -> Result<Self, PackageError> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(PackageError::Io(io::Error::other("not a regular file")));
        }
        let head = Head::read(&mut io::BufReader::new(FileAt {
            file: &file,
            offset: 0,
        }))?;
        let metadata =
            PackageMetadata::parse(&mut head.bytes.as_slice()).map_err(PackageError::Header)?;
        let report = metadata.check_digests().map_err(PackageError::Header)?;
        report.result().map_err(PackageError::Header)?;
        check_size(
            &metadata,
            status.len() - (head.header_start as u64).min(status.len()),
        )?;
        let facts = read_facts(&metadata).map_err(PackageError::Header)?;
        let format = metadata
            .header
            .get_entry_data_as_string(IndexTag::RPMTAG_PAYLOADFORMAT);
        if let Ok(format) = format
            && format != "cpio"
        {
            let detail = format!("the format is {format:?}, not cpio");
            return Err(PackageError::Malformed {
                part: "payload",
                detail,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            facts,
            head,
            metadata,
        })
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The status of the open file, as it is now.
    pub fn status(&self) -> Result<std::fs::Metadata, Error> {
        self.file
            .metadata()
            .map_err(|source| self.error(source.into()))
    }

    /// What identifies it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether it holds sources, not files to install.
    pub fn is_source(&self) -> bool {
        self.metadata.is_source_package()
    }

    /// The decoded headers, for everything that is not the file list.
    pub fn metadata(&self) -> &PackageMetadata {
        &self.metadata
    }

    /// The file list, checked: every path is plain, and none passes through another's symlink.
    pub fn files(&self) -> Result<FileList, Error> {
        self.files_named(Names::Utf8Only)
    }

    /// Like [`Package::files`], and says what to do with names that are not UTF-8.
    pub fn files_named(&self, names: Names) -> Result<FileList, Error> {
        FileList::read(&self.metadata, self.head.header(), self.is_source(), names)
            .map_err(|source| self.error(source))
    }

    /// Reads the whole file once: verifies the payload's digest and returns the SHA-256 of the
    /// file. A later [`Package::read`] need not verify the payload again.
    pub fn verify(&self) -> Result<[u8; 32], Error> {
        self.verify_inner().map_err(|source| self.error(source))
    }

    fn verify_inner(&self) -> Result<[u8; 32], PackageError> {
        let mut whole = Hashing::sha256(FileAt {
            file: &self.file,
            offset: 0,
        });
        let head = self.head.bytes.len() as u64;
        io::copy(&mut (&mut whole).take(head), &mut io::sink())?;
        let expected = Expected::of_payload(&self.metadata);
        let mut payload = Hashing::new(&mut whole, expected.as_ref());
        copy_all(&mut payload)?;
        payload.finish(expected.as_ref(), "payload")?;
        whole.into_sha256()
    }

    fn payload(&self) -> FileAt<'_> {
        FileAt {
            file: &self.file,
            offset: self.head.bytes.len() as u64,
        }
    }

    fn error(&self, source: PackageError) -> Error {
        Error::package(&self.path, source)
    }
}

/// Reads to the end in large steps.
fn copy_all(input: &mut impl Read) -> Result<(), PackageError> {
    let mut buffer = vec![0u8; 256 << 10];
    while input.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Reads from an open file without moving its shared position.
#[derive(Debug)]
struct FileAt<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for FileAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The signature header knows how many bytes follow it: fewer means that the file was cut.
fn check_size(metadata: &PackageMetadata, found: u64) -> Result<(), PackageError> {
    let signature = &metadata.signature;
    let expected = signature
        .get_entry_data_as_u64(IndexSignatureTag::RPMSIGTAG_LONGSIZE)
        .or_else(|_| {
            signature
                .get_entry_data_as_u32(IndexSignatureTag::RPMSIGTAG_SIZE)
                .map(u64::from)
        });
    match expected {
        Ok(expected) if found < expected => Err(PackageError::Malformed {
            part: "payload",
            detail: format!(
                "the file is truncated: {} bytes are missing",
                expected - found
            ),
        }),
        _ => Ok(()),
    }
}

fn read_facts(metadata: &PackageMetadata) -> Result<Facts, rpm::Error> {
    let arch = if metadata.is_source_package() {
        "src"
    } else {
        metadata.get_arch()?
    };
    Ok(Facts {
        name: metadata.get_name()?.to_owned(),
        epoch: metadata.get_epoch().ok(),
        version: metadata.get_version()?.to_owned(),
        release: metadata.get_release()?.to_owned(),
        arch: arch.to_owned(),
        installed_size: metadata.get_installed_size().unwrap_or(0),
        build_time: metadata.get_build_time().unwrap_or(0),
    })
}
