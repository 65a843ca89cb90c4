//! Names of things: SHA-256 object and payload ids, pack ids, object kinds.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: expected {expected} lower-case hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
    expected: usize,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length of the id in bytes.
            pub const LEN: usize = $len;

            /// Wraps raw id bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes an id from a slice; `None` unless it has exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 2 * $len];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).expect("because these are digits"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
                let mut bytes = [0u8; $len];
                decode_hex(text, &mut bytes).map(|()| Self(bytes)).ok_or_else(|| ParseIdError {
                    what: $what,
                    text: text.to_owned(),
                    expected: 2 * $len,
                })
            }
        }
    };
}

id_type!(
    /// Name of an OSTree object: the SHA-256 of its canonical serialisation (its *checksum*).
    ObjectId, 32, "checksum"
);
id_type!(
    /// Name of a payload: the SHA-256 of the plain bytes of a regular file.
    PayloadId, 32, "payload id"
);
id_type!(
    /// Name of a pack: the first 16 bytes of the SHA-256 of its footer.
    PackId, 16, "pack id"
);

impl ObjectId {
    /// The id of a metadata object with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl PayloadId {
    /// The id of a payload with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Strict decoding: exactly `out.len()` bytes, lower-case digits only.
fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * out.len() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

/// The kinds of object a commit is made of (OSTree's types 1 to 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A regular file or symbolic link with its metadata.
    File,
    /// A directory's listing.
    Dirtree,
    /// A directory's metadata.
    Dirmeta,
    /// A commit.
    Commit,
}

impl ObjectKind {
    /// OSTree's name of the kind, also the extension of loose objects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dirtree => "dirtree",
            Self::Dirmeta => "dirmeta",
            Self::Commit => "commit",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_is_strict() {
        let id = ObjectId::of(b"x");
        assert_eq!(id.to_string().parse(), Ok(id));
        let text = id.to_string();
        for bad in [
            &text[1..],
            &text.to_uppercase(),
            &format!("{text}0"),
            "",
            "zz",
        ] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }
}
