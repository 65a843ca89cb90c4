//! Digests that packages declare, and readers that compute them on the way.
//!
//! Besides the SHA-2 family this is MD5 and SHA-1, by which older packages name their files: they
//! find damage, not forgery.

use std::io::{self, Read};

use md5::Md5;
use rpm::{IndexTag, PackageMetadata};
use sha1::Sha1;
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
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// By OpenPGP number, as in `FILEDIGESTALGO`.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha1),
            8 => Some(Self::Sha256),
            9 => Some(Self::Sha384),
            10 => Some(Self::Sha512),
            11 => Some(Self::Sha224),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
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
    Md5(Md5),
    Sha1(Sha1),
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
            Some(Algorithm::Md5) => Hasher::Md5(Md5::new()),
            Some(Algorithm::Sha1) => Hasher::Sha1(Sha1::new()),
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
            Hasher::Md5(hasher) => to_hex(&hasher.finalize()),
            Hasher::Sha1(hasher) => to_hex(&hasher.finalize()),
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
            Hasher::Md5(hasher) => hasher.update(passed),
            Hasher::Sha1(hasher) => hasher.update(passed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_knows_its_digest_of_abc_and_refuses_others() {
        for (number, hex) in [
            (1, "900150983cd24fb0d6963f7d28e17f72"),
            (2, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                8,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let expected = Expected {
                algorithm: Algorithm::from_number(number).unwrap(),
                hex: hex.to_owned(),
                unpacked: false,
            };
            let check = |bytes: &[u8]| {
                let mut reader = Hashing::new(bytes, Some(&expected));
                io::copy(&mut reader, &mut io::sink()).unwrap();
                reader.finish(Some(&expected), "bytes")
            };
            check(b"abc").unwrap();
            assert!(check(b"abd").is_err(), "{number}");
        }
    }
}
