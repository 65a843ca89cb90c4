//! The serialised form.

use super::{MAX_DEPTH, Order, Type, Value};

impl Type {
    fn align(&self) -> usize {
        match self {
            Self::Basic(b'n' | b'q') => 2,
            Self::Basic(b'i' | b'u' | b'h') => 4,
            Self::Basic(b'x' | b't' | b'd') | Self::Variant => 8,
            Self::Basic(_) => 1,
            Self::Maybe(inner) | Self::Array(inner) => inner.align(),
            Self::Tuple(members) => members.iter().map(Self::align).max().unwrap_or(1),
            Self::Entry(key, value) => key.align().max(value.align()),
        }
    }

    fn fixed_size(&self) -> Option<usize> {
        match self {
            Self::Basic(b's' | b'o' | b'g') => None,
            Self::Basic(b'b' | b'y') => Some(1),
            Self::Basic(_) => Some(self.align()),
            Self::Variant | Self::Maybe(_) | Self::Array(_) => None,
            Self::Tuple(members) if members.is_empty() => Some(1),
            Self::Tuple(members) => fixed_tuple(&members.iter().collect::<Vec<_>>()),
            Self::Entry(key, value) => fixed_tuple(&[key, value]),
        }
    }
}

fn fixed_tuple(members: &[&Type]) -> Option<usize> {
    let mut size = 0usize;
    for member in members {
        size = size.next_multiple_of(member.align()).checked_add(member.fixed_size()?)?;
    }
    let align = members.iter().map(|member| member.align()).max()?;
    Some(size.next_multiple_of(align))
}

/// Width of the framing offsets of a container of this many bytes.
fn offset_width(size: usize) -> usize {
    match size {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn read_offset(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(width)?)?;
    let value = part.iter().rev().try_fold(0u64, |v, b| Some(v << 8 | u64::from(*b)))?;
    usize::try_from(value).ok()
}

pub(super) fn decode(kind: &Type, bytes: &[u8], order: Order, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(match kind {
        Type::Basic(b'b') => Value::Bool(*bytes.first()? != 0),
        Type::Basic(c @ (b's' | b'o' | b'g')) => {
            let text = bytes.strip_suffix(&[0])?;
            Value::Text(*c, String::from_utf8(text.to_vec()).ok()?)
        }
        Type::Basic(c) => number(*c, bytes, order)?,
        Type::Variant => {
            let split = bytes.iter().rposition(|b| *b == 0)?;
            let signature = std::str::from_utf8(bytes.get(split + 1..)?).ok()?;
            let inner = Type::parse(signature)?;
            Value::Variant(decode(&inner, bytes.get(..split)?, order, depth + 1)?.into())
        }
        Type::Maybe(inner) => {
            let value = match (bytes, inner.fixed_size()) {
                ([], _) => None,
                (_, Some(_)) => Some(bytes),
                (_, None) => Some(bytes.strip_suffix(&[0])?),
            };
            let value = match value {
                Some(bytes) => Some(decode(inner, bytes, order, depth + 1)?.into()),
                None => None,
            };
            Value::Maybe(Type::clone(inner), value)
        }
        Type::Array(inner) => {
            let parts = array_parts(inner, bytes)?;
            let items = parts.into_iter().map(|part| decode(inner, part, order, depth + 1));
            Value::Array(Type::clone(inner), items.collect::<Option<_>>()?)
        }
        Type::Tuple(members) => {
            Value::Tuple(members_of(&members.iter().collect::<Vec<_>>(), bytes, order, depth)?)
        }
        Type::Entry(key, value) => {
            let members = members_of(&[key, value], bytes, order, depth)?;
            let [key, value]: [Value; 2] = members.try_into().ok()?;
            Value::Entry(key.into(), value.into())
        }
    })
}

fn number(kind: u8, bytes: &[u8], order: Order) -> Option<Value> {
    if Some(bytes.len()) != Type::Basic(kind).fixed_size() {
        return None;
    }
    let push = |v: u64, b: &u8| v << 8 | u64::from(*b);
    let raw = match order {
        Order::Little => bytes.iter().rev().fold(0, push),
        Order::Big => bytes.iter().fold(0, push),
    };
    Some(match kind {
        b'd' => Value::Double(f64::from_bits(raw)),
        b'n' => Value::Number(kind, i64::from(raw as u16 as i16) as u64),
        b'i' | b'h' => Value::Number(kind, i64::from(raw as u32 as i32) as u64),
        _ => Value::Number(kind, raw),
    })
}

fn array_parts<'b>(inner: &Type, bytes: &'b [u8]) -> Option<Vec<&'b [u8]>> {
    if let Some(size) = inner.fixed_size() {
        return (bytes.len() % size == 0).then(|| bytes.chunks_exact(size).collect());
    }
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let width = offset_width(bytes.len());
    let table = read_offset(bytes, bytes.len() - width, width)?;
    let count = bytes.len().checked_sub(table)? / width;
    let mut parts = Vec::with_capacity(count);
    let mut start = 0usize;
    for i in 0..count {
        let end = read_offset(bytes, table + i * width, width)?;
        start = start.next_multiple_of(inner.align());
        parts.push(bytes.get(..table)?.get(start..end)?);
        start = end;
    }
    Some(parts)
}

fn members_of(
    members: &[&Type],
    bytes: &[u8],
    order: Order,
    depth: usize,
) -> Option<Vec<Value>> {
    let width = offset_width(bytes.len());
    let mut values = Vec::with_capacity(members.len());
    let mut at = 0usize;
    let mut table = bytes.len();
    for (i, member) in members.iter().enumerate() {
        at = at.next_multiple_of(member.align());
        let end = match member.fixed_size() {
            Some(size) => at.checked_add(size)?,
            None if i + 1 == members.len() => table,
            None => {
                table = table.checked_sub(width)?;
                read_offset(bytes, table, width)?
            }
        };
        values.push(decode(member, bytes.get(..table)?.get(at..end)?, order, depth + 1)?);
        at = end;
    }
    Some(values)
}

/// The bytes of a value, integers little-endian.
pub(super) fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(flag) => vec![u8::from(*flag)],
        Value::Number(kind, raw) => {
            let size = Type::Basic(*kind).fixed_size().unwrap_or(8);
            raw.to_le_bytes().into_iter().take(size).collect()
        }
        Value::Double(number) => number.to_bits().to_le_bytes().to_vec(),
        Value::Text(_, text) => [text.as_bytes(), &[0]].concat(),
        Value::Variant(inner) => {
            [&encode(inner)[..], &[0], inner.type_of().to_string().as_bytes()].concat()
        }
        Value::Maybe(_, None) => Vec::new(),
        Value::Maybe(kind, Some(inner)) => {
            let mut bytes = encode(inner);
            if kind.fixed_size().is_none() {
                bytes.push(0);
            }
            bytes
        }
        Value::Array(kind, items) => {
            let mut frame = Frame::default();
            for item in items {
                frame.add(kind.align(), &encode(item));
                frame.ends.extend(kind.fixed_size().is_none().then_some(frame.bytes.len()));
            }
            frame.finish()
        }
        Value::Tuple(members) => encode_members(&members.iter().collect::<Vec<_>>()),
        Value::Entry(key, value) => encode_members(&[key, value]),
    }
}

fn encode_members(members: &[&Value]) -> Vec<u8> {
    if members.is_empty() {
        return vec![0];
    }
    let types: Vec<Type> = members.iter().map(|member| member.type_of()).collect();
    let mut frame = Frame::default();
    for (i, (member, kind)) in members.iter().zip(&types).enumerate() {
        frame.add(kind.align(), &encode(member));
        if kind.fixed_size().is_none() && i + 1 < members.len() {
            frame.ends.push(frame.bytes.len());
        }
    }
    if types.iter().all(|kind| kind.fixed_size().is_some()) {
        frame.pad(types.iter().map(Type::align).max().unwrap_or(1));
    }
    frame.ends.reverse();
    frame.finish()
}

/// A container being written.
#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frame {
    fn pad(&mut self, align: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
    }

    fn add(&mut self, align: usize, bytes: &[u8]) {
        self.pad(align);
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        let (body, count) = (self.bytes.len(), self.ends.len());
        let fits = |width: &&usize| offset_width(body + count * **width) <= **width;
        let width = *[1, 2, 4, 8].iter().find(fits).expect("because 8 bytes hold any size");
        for end in &self.ends {
            self.bytes.extend(end.to_le_bytes().into_iter().take(width));
        }
        self.bytes
    }
}
