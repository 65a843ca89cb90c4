//! Names of static deltas and the paths they lead to, as OSTree has them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::id::{ObjectId, ParseIdError};

/// Digits of OSTree's base64: the usual ones, but `_` in place of `/`, which cannot be in a name.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_";
/// Digits of a checksum, without padding.
const TEXT_LEN: usize = 43;

/// Which commits a delta leads from and to. From none it holds a whole commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaName {
    /// The commit that whoever applies it must have.
    pub from: Option<ObjectId>,
    /// The commit that it makes.
    pub to: ObjectId,
}

impl fmt::Display for DeltaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = self.from {
            write!(f, "{from}-")?;
        }
        self.to.fmt(f)
    }
}

impl FromStr for DeltaName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (from, to) = match text.split_once('-') {
            Some((from, to)) => (Some(from.parse()?), to),
            None => (None, text),
        };
        Ok(Self {
            from,
            to: to.parse()?,
        })
    }
}

impl DeltaName {
    /// Where the delta lies, relative to the repository.
    pub(in crate::ops) fn dir(&self) -> PathBuf {
        let to = encode(&self.to);
        let text = self
            .from
            .map_or(to.clone(), |from| format!("{}-{to}", encode(&from)));
        let (first, rest) = text.split_at(2);
        Path::new("deltas").join(first).join(rest)
    }

    /// The name of the delta at `deltas/FIRST/REST`.
    pub(super) fn parse_dir(first: &str, rest: &str) -> Option<Self> {
        let text = format!("{first}{rest}");
        let (from, to) = match text.split_at_checked(TEXT_LEN) {
            Some((to, "")) => (None, decode(to)?),
            Some((from, to)) => (Some(decode(from)?), decode(to.strip_prefix('-')?)?),
            None => return None,
        };
        let name = Self { from, to };
        (first.len() == 2).then_some(name)
    }
}

fn encode(id: &ObjectId) -> String {
    let mut text = String::with_capacity(TEXT_LEN + 1);
    for group in id.as_bytes().chunks(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let digits = (0..=group.len()).map(|n| bits >> (18 - 6 * n) & 63);
        text.extend(digits.map(|digit| char::from(DIGITS[digit as usize])));
    }
    text
}

/// Only what [`encode`] gives is a checksum.
fn decode(text: &str) -> Option<ObjectId> {
    let mut bytes = [0; ObjectId::LEN];
    let (mut bits, mut count, mut at) = (0u32, 0, 0);
    for digit in text.bytes() {
        let value = DIGITS.iter().position(|other| *other == digit)?;
        bits = (bits << 6 | value as u32) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            *bytes.get_mut(at)? = (bits >> count) as u8;
            at += 1;
        }
    }
    let id = ObjectId::from_bytes(bytes);
    (encode(&id) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_directories_lead_to_each_other() {
        let id = |text: &str| text.parse::<ObjectId>().unwrap();
        let to = id("b3ea09cf618925a867e740159cd5df6ecdd3474d8efd37be3a5370baeb6665c5");
        let from = id("f475f97cf3f1e5877c74d49aa8a9b94c37891fb260f587ddb66719b218239941");
        let scratch = DeltaName { from: None, to };
        let dir = "deltas/s+/oJz2GJJahn50AVnNXfbs3TR02O_Te+OlNwuutmZcU";
        assert_eq!(scratch.dir(), Path::new(dir));
        for name in [
            scratch,
            DeltaName {
                from: Some(from),
                to,
            },
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
            let dir = name.dir().into_os_string().into_string().unwrap();
            let parts: Vec<&str> = dir.split('/').collect();
            assert_eq!(DeltaName::parse_dir(parts[1], parts[2]), Some(name));
            assert_eq!(DeltaName::parse_dir(parts[1], &parts[2][1..]), None);
            assert_eq!(
                DeltaName::parse_dir(parts[1], &format!("{}A", parts[2])),
                None
            );
        }
        assert_eq!(
            DeltaName::parse_dir("s+", "oJz2GJJahn50AVnNXfbs3TR02O_Te+OlNwuutmZcV"),
            None
        );
        assert!("x-y".parse::<DeltaName>().is_err());
    }
}
