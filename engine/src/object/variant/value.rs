//! Decoded values: a tree of plain Rust values, and back.

use super::check::{fixed_elements, maybe, members_of, unbox};
use super::ty::{Kind, Type};
use crate::object::DecodeError;
use crate::object::gvariant::{Elements, Frame, Part};

/// A decoded GVariant value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// `y`.
    Byte(u8),
    /// `n`.
    I16(i16),
    /// `q`.
    U16(u16),
    /// `i`.
    I32(i32),
    /// `u`.
    U32(u32),
    /// `x`.
    I64(i64),
    /// `t`.
    U64(u64),
    /// `h`.
    Handle(i32),
    /// `d`.
    Double(f64),
    /// `s`.
    String(String),
    /// `o`.
    ObjectPath(String),
    /// `g`.
    Signature(String),
    /// `v`.
    Variant(Box<Self>),
    /// `ay`.
    Bytes(Vec<u8>),
    /// Any other array. A dictionary is an array of [`Value::Entry`].
    Array {
        /// Type of the elements.
        element: Type,
        /// The elements.
        items: Vec<Self>,
    },
    /// `m` and a type.
    Maybe {
        /// Type of the value.
        inner: Type,
        /// The value.
        value: Option<Box<Self>>,
    },
    /// `(...)`.
    Tuple(Vec<Self>),
    /// `{KV}`.
    Entry(Box<[Self; 2]>),
}

impl Value {
    /// The value's type.
    pub fn ty(&self) -> Type {
        let letter = match self {
            Self::Bool(_) => b'b',
            Self::Byte(_) => b'y',
            Self::I16(_) => b'n',
            Self::U16(_) => b'q',
            Self::I32(_) => b'i',
            Self::U32(_) => b'u',
            Self::I64(_) => b'x',
            Self::U64(_) => b't',
            Self::Handle(_) => b'h',
            Self::Double(_) => b'd',
            Self::String(_) => b's',
            Self::ObjectPath(_) => b'o',
            Self::Signature(_) => b'g',
            Self::Variant(_) => return Type::variant(),
            Self::Bytes(_) => return Type::array(Type::letter(b'y')),
            Self::Array { element, .. } => return Type::array(element.clone()),
            Self::Maybe { inner, .. } => return Type::maybe(inner.clone()),
            Self::Tuple(members) => return Type::tuple(members.iter().map(Self::ty).collect()),
            Self::Entry(pair) => return Type::entry(pair[0].ty(), pair[1].ty()),
        };
        Type::letter(letter)
    }

    /// The same value with the bytes of every number in reverse order.
    ///
    /// OSTree's own integers are big-endian although GVariant says otherwise, and `ostree show`
    /// prints all of them, also those that others put into the metadata, as if they were.
    pub fn byte_swapped(self) -> Self {
        match self {
            Self::I16(n) => Self::I16(n.swap_bytes()),
            Self::U16(n) => Self::U16(n.swap_bytes()),
            Self::I32(n) => Self::I32(n.swap_bytes()),
            Self::U32(n) => Self::U32(n.swap_bytes()),
            Self::I64(n) => Self::I64(n.swap_bytes()),
            Self::U64(n) => Self::U64(n.swap_bytes()),
            Self::Handle(n) => Self::Handle(n.swap_bytes()),
            Self::Double(n) => Self::Double(f64::from_bits(n.to_bits().swap_bytes())),
            Self::Variant(child) => Self::Variant(Box::new(child.byte_swapped())),
            Self::Array { element, items } => Self::Array {
                element,
                items: items.into_iter().map(Self::byte_swapped).collect(),
            },
            Self::Maybe { inner, value } => {
                let value = value.map(|value| Box::new(value.byte_swapped()));
                Self::Maybe { inner, value }
            }
            Self::Tuple(members) => {
                Self::Tuple(members.into_iter().map(Self::byte_swapped).collect())
            }
            Self::Entry(pair) => Self::Entry(Box::new(pair.map(Self::byte_swapped))),
            other => other,
        }
    }

    /// Serialises the value.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Bool(flag) => vec![u8::from(*flag)],
            Self::Byte(byte) => vec![*byte],
            Self::I16(n) => n.to_le_bytes().to_vec(),
            Self::U16(n) => n.to_le_bytes().to_vec(),
            Self::I32(n) | Self::Handle(n) => n.to_le_bytes().to_vec(),
            Self::U32(n) => n.to_le_bytes().to_vec(),
            Self::I64(n) => n.to_le_bytes().to_vec(),
            Self::U64(n) => n.to_le_bytes().to_vec(),
            Self::Double(n) => n.to_le_bytes().to_vec(),
            Self::String(text) | Self::ObjectPath(text) | Self::Signature(text) => {
                [text.as_bytes(), &[0]].concat()
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Variant(child) => [
                &child.encode(),
                [0].as_slice(),
                child.ty().to_string().as_bytes(),
            ]
            .concat(),
            Self::Array { element, items } if element.size.is_some() => {
                items.iter().flat_map(Self::encode).collect()
            }
            Self::Array { element, items } => {
                let mut array = Frame::default();
                items
                    .iter()
                    .for_each(|item| array.variable(element.align, &item.encode()));
                array.into_array()
            }
            Self::Maybe { value: None, .. } => Vec::new(),
            Self::Maybe {
                inner,
                value: Some(value),
            } => {
                let mut bytes = value.encode();
                bytes.extend(inner.size.is_none().then_some(0));
                bytes
            }
            Self::Tuple(members) => encode_members(members, &self.ty()),
            Self::Entry(pair) => encode_members(pair.as_slice(), &self.ty()),
        }
    }

    /// Reads a value of type `ty`; the bytes have been checked before.
    pub(super) fn decode(part: Part<'_>, ty: &Type) -> Result<Self, DecodeError> {
        Ok(match &ty.kind {
            Kind::Basic(letter) => decode_basic(part, *letter)?,
            Kind::Variant => {
                let (ty, child) = unbox(part)?;
                Self::Variant(Box::new(Self::decode(child, &ty)?))
            }
            Kind::Array(element) if element.is_byte() => Self::Bytes(part.bytes().to_vec()),
            Kind::Array(element) => {
                let read = |child: Result<_, _>| Self::decode(child?, element);
                let items = match element.size {
                    Some(size) => fixed_elements(part, size)?
                        .map(read)
                        .collect::<Result<_, _>>(),
                    None => Elements::new(part, element.align)?.map(read).collect(),
                };
                Self::Array {
                    element: Type::clone(element),
                    items: items?,
                }
            }
            Kind::Maybe(inner) => {
                let value = match maybe(part, inner)? {
                    Some(child) => Some(Box::new(Self::decode(child, inner)?)),
                    None => None,
                };
                Self::Maybe {
                    inner: Type::clone(inner),
                    value,
                }
            }
            Kind::Tuple(members) => Self::Tuple(decode_members(part, ty, members)?),
            Kind::Entry(pair) => {
                let members = decode_members(part, ty, pair.as_slice())?;
                let pair = members
                    .try_into()
                    .map_err(|_| part.error("not a dictionary entry"))?;
                Self::Entry(Box::new(pair))
            }
        })
    }
}

fn encode_members(members: &[Value], ty: &Type) -> Vec<u8> {
    let types: &[Type] = match &ty.kind {
        Kind::Tuple(types) => types,
        Kind::Entry(pair) => pair.as_slice(),
        _ => &[],
    };
    let mut tuple = Frame::default();
    for (member, ty) in members.iter().zip(types) {
        match ty.size {
            Some(_) => tuple.fixed(ty.align, &member.encode()),
            None => tuple.variable(ty.align, &member.encode()),
        }
    }
    match ty.size {
        Some(_) => tuple.into_fixed_tuple(ty.align),
        None => tuple.into_tuple(),
    }
}

fn decode_members(part: Part<'_>, ty: &Type, types: &[Type]) -> Result<Vec<Value>, DecodeError> {
    let mut members = Vec::with_capacity(types.len());
    members_of(part, ty, types, |child, ty| {
        members.push(Value::decode(child, ty)?);
        Ok(())
    })?;
    Ok(members)
}

fn decode_basic(part: Part<'_>, letter: u8) -> Result<Value, DecodeError> {
    Ok(match letter {
        b'b' => Value::Bool(part.array()? == [1]),
        b'y' => Value::Byte(u8::from_le_bytes(part.array()?)),
        b'n' => Value::I16(i16::from_le_bytes(part.array()?)),
        b'q' => Value::U16(u16::from_le_bytes(part.array()?)),
        b'i' => Value::I32(i32::from_le_bytes(part.array()?)),
        b'u' => Value::U32(u32::from_le_bytes(part.array()?)),
        b'x' => Value::I64(i64::from_le_bytes(part.array()?)),
        b't' => Value::U64(u64::from_le_bytes(part.array()?)),
        b'h' => Value::Handle(i32::from_le_bytes(part.array()?)),
        b'd' => Value::Double(f64::from_le_bytes(part.array()?)),
        b'o' => Value::ObjectPath(part.text()?.to_owned()),
        b'g' => Value::Signature(part.text()?.to_owned()),
        _ => Value::String(part.text()?.to_owned()),
    })
}
