//! Checks that bytes are a GVariant value in normal form, without building it.

use super::ty::{Kind, MAX_DEPTH, Type};
use crate::object::DecodeError;
use crate::object::gvariant::{Elements, Part, Tuple};

/// Bounds the work and the size of the decoded value: a type such as `a((((as))))` makes many
/// values of one byte.
pub(super) struct Budget(usize);

impl Budget {
    /// Generous for every honest value of this size.
    pub fn for_size(bytes: usize) -> Self {
        Self(bytes.saturating_mul(4).saturating_add(4096))
    }

    fn spend(&mut self, values: usize, part: &Part<'_>) -> Result<(), DecodeError> {
        let left = self.0.checked_sub(values);
        self.0 = left.ok_or_else(|| part.error("value is nested too often"))?;
        Ok(())
    }
}

/// Checks one value of type `ty`, `depth` containers below the outermost.
pub(super) fn check(
    part: Part<'_>,
    ty: &Type,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(part.error("value is nested too deep"));
    }
    budget.spend(1, &part)?;
    match &ty.kind {
        Kind::Basic(letter) => check_basic(part, *letter),
        Kind::Variant => {
            let (ty, child) = unbox(part)?;
            check(child, &ty, depth + 1, budget)
        }
        Kind::Array(element) => check_array(part, element, depth, budget),
        Kind::Maybe(value) => match maybe(part, value)? {
            Some(child) => check(child, value, depth + 1, budget),
            None => Ok(()),
        },
        Kind::Tuple(members) => members_of(part, ty, members, |child, ty| {
            check(child, ty, depth + 1, budget)
        }),
        Kind::Entry(pair) => members_of(part, ty, pair.as_slice(), |child, ty| {
            check(child, ty, depth + 1, budget)
        }),
    }
}

fn check_basic(part: Part<'_>, letter: u8) -> Result<(), DecodeError> {
    match letter {
        b'b' => match part.array()? {
            [0 | 1] => Ok(()),
            _ => Err(part.error("boolean is neither 0 nor 1")),
        },
        b'y' => part.array::<1>().map(|_| ()),
        b'n' | b'q' => part.array::<2>().map(|_| ()),
        b'i' | b'u' | b'h' => part.array::<4>().map(|_| ()),
        b'x' | b't' | b'd' => part.array::<8>().map(|_| ()),
        b'o' if !is_object_path(part.text()?) => Err(part.error("not an object path")),
        b'g' if !is_signature(part.text()?) => Err(part.error("not a D-Bus signature")),
        _ => part.text().map(|_| ()),
    }
}

fn check_array(
    part: Part<'_>,
    element: &Type,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), DecodeError> {
    if element.is_byte() {
        return Ok(());
    }
    if let Some(size) = element.size {
        return fixed_elements(part, size)?
            .try_for_each(|child| check(child?, element, depth + 1, budget));
    }
    let elements = Elements::new(part, element.align)?;
    elements
        .into_iter()
        .try_for_each(|child| check(child?, element, depth + 1, budget))
}

/// The elements of an array whose element type has a fixed size.
pub(super) fn fixed_elements<'a>(
    part: Part<'a>,
    size: usize,
) -> Result<impl Iterator<Item = Result<Part<'a>, DecodeError>>, DecodeError> {
    let len = part.bytes().len();
    if size == 0 || !len.is_multiple_of(size) {
        return Err(part.error("array has the wrong size"));
    }
    Ok((0..len / size).map(move |i| part.slice(i * size, (i + 1) * size)))
}

/// The value in a maybe container.
pub(super) fn maybe<'a>(part: Part<'a>, value: &Type) -> Result<Option<Part<'a>>, DecodeError> {
    match part.bytes().split_last() {
        None => Ok(None),
        Some(_) if value.size.is_some() => Ok(Some(part)),
        Some((0, child)) => Ok(Some(part.slice(0, child.len())?)),
        Some(_) => Err(part.error("optional value lacks its NUL")),
    }
}

/// Calls `each` with the members of a tuple or dictionary entry.
pub(super) fn members_of<'a>(
    part: Part<'a>,
    ty: &Type,
    members: &[Type],
    mut each: impl FnMut(Part<'a>, &Type) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let variable = members
        .iter()
        .filter(|member| member.size.is_none())
        .count();
    let last_is_variable = members.last().is_some_and(|last| last.size.is_none());
    let mut tuple = Tuple::new(part, variable - usize::from(last_is_variable))?;
    for (index, member) in members.iter().enumerate() {
        match member.size {
            Some(size) => each(tuple.fixed(member.align, size)?, member)?,
            None if index + 1 == members.len() => return each(tuple.last(member.align)?, member),
            None => each(tuple.variable(member.align)?, member)?,
        }
    }
    match ty.size {
        Some(_) => tuple.finish_fixed(ty.align),
        None => tuple.finish(),
    }
}

/// Splits the serialisation of a `v` into the type and the value inside.
pub(super) fn unbox(part: Part<'_>) -> Result<(Type, Part<'_>), DecodeError> {
    let nul = part.bytes().iter().rposition(|b| *b == 0);
    let nul = nul.ok_or_else(|| part.error("variant lacks its type"))?;
    let signature = part.bytes().get(nul + 1..).unwrap_or_default();
    let ty = std::str::from_utf8(signature).ok().and_then(Type::parse);
    let ty = ty.ok_or_else(|| part.error("variant has an invalid type"))?;
    Ok((ty, part.slice(0, nul)?))
}

/// Whether this is a D-Bus object path.
pub(super) fn is_object_path(text: &str) -> bool {
    let element = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    text == "/"
        || text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(element))
}

/// Whether this is a D-Bus signature: any number of types, none of them a maybe.
pub(super) fn is_signature(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match Type::parse_prefix(rest, 0) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    text.len() <= 255 && !text.contains('m')
}
