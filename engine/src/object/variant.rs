//! Values of commit metadata: GVariants of any type, kept as they were written.

mod check;
mod infer;
mod print;
#[cfg(test)]
mod tests;
mod text;
mod ty;
mod value;

pub use self::text::TextError;
pub use self::ty::Type;
pub use self::value::Value;

use self::check::Budget;
use crate::object::DecodeError;
use crate::object::gvariant::{Elements, Frame, Part};

/// A GVariant value: its type string and its serialised bytes, both verbatim.
///
/// The bytes are always in normal form, of that type, and nested at most 64 deep. Integers are
/// little-endian unless the writer swapped them, which only the meaning of the key tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    signature: String,
    bytes: Vec<u8>,
}

impl Variant {
    /// A string, type `s`. Text from a NUL on is cut off.
    pub fn string(text: &str) -> Self {
        let mut frame = Frame::default();
        frame.text(until_nul(text));
        Self::trusted("s", frame.into_tuple())
    }

    /// An array of strings, type `as`. Texts are cut off at a NUL.
    pub fn strings<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut array = Frame::default();
        items
            .into_iter()
            .for_each(|item| array.text(until_nul(item)));
        Self::trusted("as", array.into_array())
    }

    /// A byte array, type `ay`.
    pub fn byte_array(bytes: &[u8]) -> Self {
        Self::trusted("ay", bytes.to_vec())
    }

    /// A boolean, type `b`.
    pub fn bool(value: bool) -> Self {
        Self::trusted("b", vec![u8::from(value)])
    }

    /// A number, type `u`.
    pub fn u32(value: u32) -> Self {
        Self::trusted("u", value.to_le_bytes().to_vec())
    }

    /// A number, type `t`.
    pub fn u64(value: u64) -> Self {
        Self::trusted("t", value.to_le_bytes().to_vec())
    }

    /// An array of tuples of `N` strings each: for `N` = 5 type `a(sssss)`.
    pub fn string_tuples<'a, const N: usize>(rows: impl IntoIterator<Item = [&'a str; N]>) -> Self {
        let mut array = Frame::default();
        for row in rows {
            let mut tuple = Frame::default();
            row.into_iter().for_each(|text| tuple.text(until_nul(text)));
            array.variable(1, &tuple.into_tuple());
        }
        Self::trusted(&format!("a({})", "s".repeat(N)), array.into_array())
    }

    /// Parses GVariant's text format, for example `uint64 5`, `['a', 'b']` or `{'k': <true>}`.
    ///
    /// # Errors
    /// [`TextError`] if the text is malformed, its type cannot be told, or a value does not fit
    /// its type.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let value = text::parse(text)?;
        Self::from_value(&value).map_err(|_| TextError {
            what: "value is nested too deep",
            offset: 0,
        })
    }

    /// Serialises a value.
    ///
    /// # Errors
    /// [`DecodeError`] if strings contain NUL, elements are not of the type stated or values are
    /// nested too deep.
    pub fn from_value(value: &Value) -> Result<Self, DecodeError> {
        Self::from_parts(&value.ty().to_string(), &value.encode())
    }

    /// The decoded value.
    pub fn value(&self) -> Value {
        Type::parse(&self.signature)
            .and_then(|ty| Value::decode(Part::whole(&self.bytes), &ty).ok())
            .expect("because type and bytes were checked when the variant was made")
    }

    /// The value in GVariant's text format, with types where they could not be told otherwise.
    pub fn print(&self) -> String {
        self.value().print()
    }

    /// The text `ostree show --print-metadata-key` prints: as [`print`](Self::print), with
    /// numbers taken for big-endian.
    pub fn print_as_ostree(&self) -> String {
        self.value().byte_swapped().print()
    }

    fn trusted(signature: &str, bytes: Vec<u8>) -> Self {
        Self {
            signature: signature.to_owned(),
            bytes,
        }
    }

    /// A value of this type from its serialised bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if the type string is not a single definite type or the bytes are not a
    /// value of it in normal form.
    pub fn from_parts(signature: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let ty = Type::parse(signature).ok_or(DecodeError::Rule("not a GVariant type"))?;
        check::check(
            Part::whole(bytes),
            &ty,
            0,
            &mut Budget::for_size(bytes.len()),
        )?;
        Ok(Self::trusted(signature, bytes.to_vec()))
    }

    /// Parses the serialisation of a `v`: value, zero byte, type string.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn parse(boxed: &[u8]) -> Result<Self, DecodeError> {
        Self::read_boxed(Part::whole(boxed))
    }

    pub(super) fn read_boxed(part: Part<'_>) -> Result<Self, DecodeError> {
        let (ty, child) = check::unbox(part)?;
        check::check(child, &ty, 0, &mut Budget::for_size(child.bytes().len()))?;
        Ok(Self {
            signature: ty.to_string(),
            bytes: child.bytes().to_vec(),
        })
    }

    /// The serialisation as a `v`: value, zero byte, type string.
    pub fn to_boxed_bytes(&self) -> Vec<u8> {
        [&self.bytes, [0].as_slice(), self.signature.as_bytes()].concat()
    }

    /// Type string.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Serialised bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn typed(&self, signature: &str) -> Option<&[u8]> {
        (self.signature == signature).then_some(&self.bytes)
    }

    /// The text if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        Part::whole(self.typed("s")?).text().ok()
    }

    /// The texts if this is an array of strings.
    pub fn as_strings(&self) -> Option<Vec<&str>> {
        let elements = Elements::new(Part::whole(self.typed("as")?), 1).ok()?;
        elements.map(|text| text.ok()?.text().ok()).collect()
    }

    /// The bytes if this is a byte array.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.typed("ay")
    }

    /// The number if this is an unsigned one of 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        self.typed("t")?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// Strings of a GVariant end at the first NUL.
fn until_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}
