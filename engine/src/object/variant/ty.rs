//! Types of GVariant values.

use std::fmt;

/// Values may be nested this deep, counting arrays, tuples, dictionary entries and variants.
pub(super) const MAX_DEPTH: usize = 64;

/// A definite GVariant type with its memory layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub(super) kind: Kind,
    /// Alignment in bytes: 1, 2, 4 or 8.
    pub(super) align: usize,
    /// Size in bytes if all values have the same.
    pub(super) size: Option<usize>,
}

/// What a type is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `b y n q i u x t d h s o g`.
    Basic(u8),
    /// `v`.
    Variant,
    /// `a` and the type of the elements.
    Array(Box<Type>),
    /// `m` and the type of the value.
    Maybe(Box<Type>),
    /// `(...)`.
    Tuple(Vec<Type>),
    /// `{KV}`.
    Entry(Box<[Type; 2]>),
}

impl Type {
    /// Parses a type string that holds exactly one definite type.
    pub(super) fn parse(signature: &str) -> Option<Self> {
        let (ty, rest) = Self::parse_prefix(signature.as_bytes(), 0)?;
        rest.is_empty().then_some(ty)
    }

    /// Parses the type at the beginning of `text`, gives the rest.
    pub(super) fn parse_prefix(text: &[u8], depth: usize) -> Option<(Self, &[u8])> {
        let (first, rest) = text.split_first()?;
        if depth >= MAX_DEPTH {
            return None;
        }
        match first {
            b'a' => {
                let (element, rest) = Self::parse_prefix(rest, depth + 1)?;
                Some((Self::array(element), rest))
            }
            b'm' => {
                let (value, rest) = Self::parse_prefix(rest, depth + 1)?;
                Some((Self::maybe(value), rest))
            }
            b'(' => {
                let mut rest = rest;
                let mut members = Vec::new();
                while *rest.first()? != b')' {
                    let (member, after) = Self::parse_prefix(rest, depth + 1)?;
                    members.push(member);
                    rest = after;
                }
                Some((Self::tuple(members), rest.get(1..)?))
            }
            b'{' => {
                let (key, rest) = Self::parse_prefix(rest, depth + 1)?;
                let (value, rest) = Self::parse_prefix(rest, depth + 1)?;
                let rest = rest.strip_prefix(b"}")?;
                key.is_basic().then(|| (Self::entry(key, value), rest))
            }
            b'v' => Some((Self::variant(), rest)),
            basic => Some((Self::basic(*basic)?, rest)),
        }
    }

    /// A type named by one letter, except `v`.
    fn basic(letter: u8) -> Option<Self> {
        b"bynqiuhxtdsog"
            .contains(&letter)
            .then(|| Self::letter(letter))
    }

    /// A type whose letter is known to be one of `b y n q i u x t h d s o g`.
    pub(super) fn letter(letter: u8) -> Self {
        let (align, size) = match letter {
            b'b' | b'y' => (1, Some(1)),
            b'n' | b'q' => (2, Some(2)),
            b'i' | b'u' | b'h' => (4, Some(4)),
            b'x' | b't' | b'd' => (8, Some(8)),
            _ => (1, None),
        };
        Self {
            kind: Kind::Basic(letter),
            align,
            size,
        }
    }

    pub(super) fn variant() -> Self {
        Self {
            kind: Kind::Variant,
            align: 8,
            size: None,
        }
    }

    pub(super) fn array(element: Self) -> Self {
        Self {
            align: element.align,
            size: None,
            kind: Kind::Array(Box::new(element)),
        }
    }

    pub(super) fn maybe(value: Self) -> Self {
        Self {
            align: value.align,
            size: None,
            kind: Kind::Maybe(Box::new(value)),
        }
    }

    pub(super) fn entry(key: Self, value: Self) -> Self {
        let (align, size) = Self::product([&key, &value]);
        Self {
            align,
            size,
            kind: Kind::Entry(Box::new([key, value])),
        }
    }

    pub(super) fn tuple(members: Vec<Self>) -> Self {
        let (align, size) = Self::product(&members);
        Self {
            align,
            size,
            kind: Kind::Tuple(members),
        }
    }

    /// Alignment and size of members in a row.
    fn product<'a>(members: impl IntoIterator<Item = &'a Self>) -> (usize, Option<usize>) {
        let (mut align, mut size) = (1, Some(0usize));
        for member in members {
            align = align.max(member.align);
            size =
                size.and_then(|sum| sum.next_multiple_of(member.align).checked_add(member.size?));
        }
        // The empty tuple takes one byte.
        (align, size.map(|sum| sum.max(1).next_multiple_of(align)))
    }

    pub(super) fn is_basic(&self) -> bool {
        matches!(self.kind, Kind::Basic(_))
    }

    pub(super) fn is_entry(&self) -> bool {
        matches!(self.kind, Kind::Entry(_))
    }

    pub(super) fn is_byte(&self) -> bool {
        self.kind == Kind::Basic(b'y')
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Basic(letter) => write!(f, "{}", char::from(*letter)),
            Kind::Variant => f.write_str("v"),
            Kind::Array(element) => write!(f, "a{element}"),
            Kind::Maybe(value) => write!(f, "m{value}"),
            Kind::Tuple(members) => {
                f.write_str("(")?;
                members
                    .iter()
                    .try_for_each(|member| write!(f, "{member}"))?;
                f.write_str(")")
            }
            Kind::Entry(pair) => write!(f, "{{{}{}}}", pair[0], pair[1]),
        }
    }
}
