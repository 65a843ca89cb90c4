//! GVariant values of any type, as `show --raw` prints them and `--add-metadata` reads them.
//!
//! The engine keeps metadata as bytes and knows only the types it needs; this is the general
//! case. Bytes come from objects that the engine has validated, yet every access is checked.

mod bytes;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::fmt;

use grove_engine::object::Variant;

pub use parse::parse;

/// Containers inside containers that are accepted: GVariant's own limit.
const MAX_DEPTH: usize = 64;

/// A GVariant type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `b y n q i u x t h d s o g`.
    Basic(u8),
    /// `v`.
    Variant,
    /// `m` and a type.
    Maybe(Box<Type>),
    /// `a` and a type.
    Array(Box<Type>),
    /// Types in parentheses.
    Tuple(Vec<Type>),
    /// Two types in braces.
    Entry(Box<Type>, Box<Type>),
}

/// A GVariant value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// An integer of one of the types `y n q i u x t h`, sign-extended to 64 bits.
    Number(u8, u64),
    /// `d`.
    Double(f64),
    /// A text of type `s`, `o` or `g`.
    Text(u8, String),
    /// `v`.
    Variant(Box<Value>),
    /// A value or nothing, of this type.
    Maybe(Type, Option<Box<Value>>),
    /// Values of this type.
    Array(Type, Vec<Value>),
    /// Values of any types.
    Tuple(Vec<Value>),
    /// A key and a value.
    Entry(Box<Value>, Box<Value>),
}

/// The byte order of integers: GVariant says little-endian, OSTree stores most of its own
/// swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As GVariant defines it.
    Little,
    /// As OSTree's objects have it.
    Big,
}

impl Type {
    /// Reads a complete type string.
    pub fn parse(text: &str) -> Option<Self> {
        let (found, rest) = Self::parse_prefix(text.as_bytes(), 0)?;
        rest.is_empty().then_some(found)
    }

    fn parse_prefix(text: &[u8], depth: usize) -> Option<(Self, &[u8])> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (first, mut rest) = text.split_first()?;
        let found = match first {
            b'b' | b'y' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'h' | b'd' | b's' | b'o'
            | b'g' => Self::Basic(*first),
            b'v' => Self::Variant,
            b'a' | b'm' => {
                let (inner, after) = Self::parse_prefix(rest, depth + 1)?;
                rest = after;
                if *first == b'a' { Self::Array(inner.into()) } else { Self::Maybe(inner.into()) }
            }
            b'(' | b'{' => {
                let close = if *first == b'(' { b')' } else { b'}' };
                let mut members = Vec::new();
                while rest.first() != Some(&close) {
                    let (member, after) = Self::parse_prefix(rest, depth + 1)?;
                    members.push(member);
                    rest = after;
                }
                rest = rest.get(1..)?;
                if *first == b'(' { Self::Tuple(members) } else { Self::entry(members)? }
            }
            _ => return None,
        };
        Some((found, rest))
    }

    fn entry(members: Vec<Self>) -> Option<Self> {
        let [key, value]: [Self; 2] = members.try_into().ok()?;
        matches!(key, Self::Basic(_)).then(|| Self::Entry(key.into(), value.into()))
    }

    fn is_byte(&self) -> bool {
        *self == Self::Basic(b'y')
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(c) => write!(f, "{}", char::from(*c)),
            Self::Variant => f.write_str("v"),
            Self::Maybe(inner) => write!(f, "m{inner}"),
            Self::Array(inner) => write!(f, "a{inner}"),
            Self::Tuple(members) => {
                f.write_str("(")?;
                members.iter().try_for_each(|member| member.fmt(f))?;
                f.write_str(")")
            }
            Self::Entry(key, value) => write!(f, "{{{key}{value}}}"),
        }
    }
}

impl Value {
    /// The type of the value.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Bool(_) => Type::Basic(b'b'),
            Self::Number(kind, _) | Self::Text(kind, _) => Type::Basic(*kind),
            Self::Double(_) => Type::Basic(b'd'),
            Self::Variant(_) => Type::Variant,
            Self::Maybe(inner, _) => Type::Maybe(inner.clone().into()),
            Self::Array(inner, _) => Type::Array(inner.clone().into()),
            Self::Tuple(members) => Type::Tuple(members.iter().map(Self::type_of).collect()),
            Self::Entry(key, value) => {
                Type::Entry(key.type_of().into(), value.type_of().into())
            }
        }
    }

    /// Decodes bytes of a known type; `None` when they are not a value of it.
    pub fn decode(signature: &str, bytes: &[u8], order: Order) -> Option<Self> {
        bytes::decode(&Type::parse(signature)?, bytes, order, 0)
    }

    /// Decodes a metadata value.
    pub fn of(variant: &Variant, order: Order) -> Option<Self> {
        Self::decode(variant.signature(), variant.bytes(), order)
    }

    /// The value as metadata.
    pub fn to_variant(&self) -> Option<Variant> {
        Variant::from_parts(&self.type_of().to_string(), &bytes::encode(self)).ok()
    }
}
