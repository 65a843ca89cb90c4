//! Digests that packages declare, and readers that compute them on the way.
//!
//! Only the SHA-2 family is computed here. Older packages name files by MD5; those digests are
//! not compared.

use std::io::{self, Read};

use rpm::{IndexTag, PackageMetadata};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

use super::PackageError;

/// A digest that some bytes must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub algorithm: Algorithm,
    /// Lower-case hexadecimal.
    pub hex: String,
    /// Of the unpacked archive rather than of the bytes in the file.
    pub unpacked: bool,
}

/// Algorithms that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// By OpenPGP number, as in `FILEDIGESTALGO`.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            8 => Some(Self::Sha256),
            9 => Some(Self::Sha384),
            10 => Some(Self::Sha512),
            11 => Some(Self::Sha224),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
}

impl Expected {
    /// The payload's digest that is cheapest to check; `None` when the package declares none.
    pub fn of_payload(metadata: &PackageMetadata) -> Option<Self> {
        let tags = [
            (IndexTag::RPMTAG_PAYLOADSHA256, Algorithm::Sha256, false),
            (IndexTag::RPMTAG_PAYLOAD_SHA512, Algorithm::Sha512, false),
            (IndexTag::RPMTAG_PAYLOADSHA256ALT, Algorithm::Sha256, true),
            (IndexTag::RPMTAG_PAYLOAD_SHA512_ALT, Algorithm::Sha512, true),
        ];
        tags.into_iter().find_map(|(tag, algorithm, unpacked)| {
            let hex = metadata.header.get_entry_data_as_string(tag).ok()?;
            Some(Self {
                algorithm,
                hex: hex.to_ascii_lowercase(),
                unpacked,
            })
        })
    }
}

#[derive(Debug)]
enum Hasher {
    None,
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

/// A reader that hashes what passes.
#[derive(Debug)]
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    /// Hashes as `expected` needs it; nothing when it is `None` or about the unpacked bytes.
    pub fn new(inner: R, expected: Option<&Expected>) -> Self {
        let hasher = match expected.filter(|e| !e.unpacked).map(|e| e.algorithm) {
            None => Hasher::None,
            Some(Algorithm::Sha224) => Hasher::Sha224(Sha224::new()),
            Some(Algorithm::Sha256) => Hasher::Sha256(Sha256::new()),
            Some(Algorithm::Sha384) => Hasher::Sha384(Sha384::new()),
            Some(Algorithm::Sha512) => Hasher::Sha512(Sha512::new()),
        };
        Self { inner, hasher }
    }

    /// Hashes with SHA-256.
    pub fn sha256(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::Sha256(Sha256::new()),
        }
    }

    /// The SHA-256 of what passed.
    pub fn into_sha256(self) -> Result<[u8; 32], PackageError> {
        match self.hasher {
            Hasher::Sha256(hasher) => Ok(hasher.finalize().into()),
            _ => unreachable!("because only readers made by `sha256` are asked"),
        }
    }

    /// Compares what passed with the digest expected; `what` names the bytes.
    pub fn finish(self, expected: Option<&Expected>, what: &str) -> Result<(), PackageError> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let found = match self.hasher {
            Hasher::None => return Ok(()),
            Hasher::Sha224(hasher) => to_hex(&hasher.finalize()),
            Hasher::Sha256(hasher) => to_hex(&hasher.finalize()),
            Hasher::Sha384(hasher) => to_hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => to_hex(&hasher.finalize()),
        };
        if found == expected.hex {
            return Ok(());
        }
        Err(PackageError::Digest {
            what: what.to_owned(),
            algorithm: expected.algorithm.name(),
            expected: expected.hex.clone(),
            found,
        })
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let passed = buffer.get(..count).unwrap_or_default();
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Sha224(hasher) => hasher.update(passed),
            Hasher::Sha256(hasher) => hasher.update(passed),
            Hasher::Sha384(hasher) => hasher.update(passed),
            Hasher::Sha512(hasher) => hasher.update(passed),
        }
        Ok(count)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
