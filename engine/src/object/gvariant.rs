//! GVariant framing: writes and reads the containers OSTree's objects are made of.
//!
//! Knows nothing of types beyond "fixed size or not" and alignment. The readers accept normal form
//! only: zero padding, ordered end offsets of the smallest possible width, nothing left over. So
//! what they accept is written back byte for byte. Nothing here allocates on behalf of lengths
//! found in the input. Rules: the GVariant specification, "Serialisation Format".

use crate::object::DecodeError;

/// Serialised members of a tuple, or elements of an array with elements of varying size.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    last_is_variable: bool,
}

impl Frame {
    /// A frame for about this many bytes and elements.
    pub fn with_capacity(bytes: usize, ends: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(ends),
            last_is_variable: false,
        }
    }

    /// Appends a value of a fixed-size type.
    pub fn fixed(&mut self, align: usize, bytes: &[u8]) {
        self.pad(align);
        self.bytes.extend_from_slice(bytes);
        self.last_is_variable = false;
    }

    /// Appends a value of a type without fixed size.
    pub fn variable(&mut self, align: usize, bytes: &[u8]) {
        self.pad(align);
        self.bytes.extend_from_slice(bytes);
        self.end_variable();
    }

    /// Appends a string with its NUL.
    pub fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.end_variable();
    }

    fn end_variable(&mut self) {
        self.ends.push(self.bytes.len());
        self.last_is_variable = true;
    }

    /// Appends zero bytes up to a multiple of `align`.
    pub fn pad(&mut self, align: usize) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(align), 0);
    }

    /// Ends an array of variable-size elements.
    pub fn into_array(mut self) -> Vec<u8> {
        let width = width_for(self.bytes.len(), self.ends.len());
        for end in &self.ends {
            push_offset(&mut self.bytes, *end, width);
        }
        self.bytes
    }

    /// Ends a tuple or dictionary entry that has no fixed size.
    pub fn into_tuple(mut self) -> Vec<u8> {
        if self.last_is_variable {
            self.ends.pop();
        }
        let width = width_for(self.bytes.len(), self.ends.len());
        for end in self.ends.iter().rev() {
            push_offset(&mut self.bytes, *end, width);
        }
        self.bytes
    }

    /// Ends a tuple of fixed size; an empty one is a zero byte.
    pub fn into_fixed_tuple(mut self, align: usize) -> Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.push(0);
        }
        self.pad(align);
        self.bytes
    }
}

fn push_offset(bytes: &mut Vec<u8>, offset: usize, width: usize) {
    bytes.extend(offset.to_le_bytes().into_iter().chain([0; 8]).take(width));
}

/// Width of the offsets in a container of `len` bytes, offsets included.
fn width_of(len: usize) -> usize {
    match len as u64 {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// The smallest width with which `body` bytes and `count` offsets can be framed.
fn width_for(body: usize, count: usize) -> usize {
    [1, 2, 4]
        .into_iter()
        .find(|w| width_of(count.saturating_mul(*w).saturating_add(body)) <= *w)
        .unwrap_or(8)
}

/// A part of an object, with its offset for error messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Part<'a> {
    /// A whole object.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// An error at the beginning of this part.
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError::Format {
            what,
            offset: self.at,
        }
    }

    fn error_at(&self, pos: usize, what: &'static str) -> DecodeError {
        DecodeError::Format {
            what,
            offset: self.at.saturating_add(pos),
        }
    }

    /// The sub-range from `start` to `end`.
    pub fn slice(&self, start: usize, end: usize) -> Result<Self, DecodeError> {
        let bytes = self.bytes.get(start..end);
        let bytes = bytes.ok_or_else(|| self.error_at(start, "value out of bounds"))?;
        Ok(Self {
            bytes,
            at: self.at.saturating_add(start),
        })
    }

    /// The text of a string: NUL-terminated UTF-8 without other NULs.
    pub fn text(&self) -> Result<&'a str, DecodeError> {
        match self.bytes.split_last() {
            Some((0, text)) if !text.contains(&0) => {
                std::str::from_utf8(text).map_err(|_| self.error("string is not UTF-8"))
            }
            Some((0, _)) => Err(self.error("string contains NUL")),
            _ => Err(self.error("string lacks its NUL")),
        }
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.bytes
            .try_into()
            .map_err(|_| self.error("value has the wrong size"))
    }

    /// Checks the padding from `pos` to the next multiple of `align`, gives its end.
    fn pad(&self, pos: usize, align: usize, limit: usize) -> Result<usize, DecodeError> {
        let end = pos
            .checked_next_multiple_of(align)
            .filter(|end| *end <= limit);
        let end = end.ok_or_else(|| self.error_at(pos, "container is too short"))?;
        match self.bytes.get(pos..end) {
            Some(padding) if padding.iter().all(|b| *b == 0) => Ok(end),
            _ => Err(self.error_at(pos, "padding is not zero")),
        }
    }

    fn offset(&self, pos: usize, width: usize) -> Result<usize, DecodeError> {
        let bytes = pos
            .checked_add(width)
            .and_then(|end| self.bytes.get(pos..end));
        let bytes = bytes.ok_or_else(|| self.error_at(pos, "container is too short"))?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        usize::try_from(value).map_err(|_| self.error_at(pos, "offset out of bounds"))
    }
}

/// Reads the members of a tuple or dictionary entry one after another.
#[derive(Debug)]
pub(crate) struct Tuple<'a> {
    part: Part<'a>,
    pos: usize,
    /// Where the members end and the offsets begin.
    body: usize,
    /// Where the offset read last begins: they are stored in reverse order.
    next_offset: usize,
    width: usize,
}

impl<'a> Tuple<'a> {
    /// A tuple in which `framed` members have an end offset: those of variable size, not counting
    /// the last member.
    pub fn new(part: Part<'a>, framed: usize) -> Result<Self, DecodeError> {
        let len = part.bytes.len();
        let width = width_of(len);
        let body = framed
            .checked_mul(width)
            .and_then(|table| len.checked_sub(table));
        let body = body.ok_or_else(|| part.error("container is too short"))?;
        if framed > 0 && width_for(body, framed) != width {
            return Err(part.error_at(body, "offsets are wider than needed"));
        }
        Ok(Self {
            part,
            pos: 0,
            body,
            next_offset: len,
            width,
        })
    }

    /// The next member, of fixed size.
    pub fn fixed(&mut self, align: usize, size: usize) -> Result<Part<'a>, DecodeError> {
        let start = self.part.pad(self.pos, align, self.body)?;
        let end = start.checked_add(size).filter(|end| *end <= self.body);
        let end = end.ok_or_else(|| self.part.error_at(start, "container is too short"))?;
        self.pos = end;
        self.part.slice(start, end)
    }

    /// The next member: a big-endian `u`, as OSTree stores its integers.
    pub fn u32_be(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.fixed(4, 4)?.array()?))
    }

    /// The next member, without fixed size and not the last.
    pub fn variable(&mut self, align: usize) -> Result<Part<'a>, DecodeError> {
        let start = self.part.pad(self.pos, align, self.body)?;
        let at = self.next_offset.saturating_sub(self.width);
        let end = self.part.offset(at, self.width)?;
        if end < start || end > self.body {
            return Err(self.part.error_at(at, "offset out of bounds"));
        }
        self.next_offset = at;
        self.pos = end;
        self.part.slice(start, end)
    }

    /// The last member, without fixed size.
    pub fn last(mut self, align: usize) -> Result<Part<'a>, DecodeError> {
        let start = self.part.pad(self.pos, align, self.body)?;
        self.pos = self.body;
        self.part.slice(start, self.body)
    }

    /// Ends a tuple whose last member has a fixed size.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.pos == self.body {
            true => Ok(()),
            false => Err(self.part.error_at(self.pos, "container is too long")),
        }
    }

    /// Ends a tuple of fixed size, which is padded to its own alignment.
    pub fn finish_fixed(mut self, align: usize) -> Result<(), DecodeError> {
        if self.pos == 0 {
            self.fixed(1, 1)?
                .bytes
                .first()
                .filter(|b| **b == 0)
                .ok_or_else(|| self.part.error("empty tuple is not zero"))?;
        }
        self.pos = self.part.pad(self.pos, align, self.body)?;
        self.finish()
    }
}

/// The elements of an array whose element type has no fixed size.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    part: Part<'a>,
    align: usize,
    pos: usize,
    /// Where the elements end and the offsets begin.
    body: usize,
    next_offset: usize,
    width: usize,
}

impl<'a> Elements<'a> {
    /// Opens an array.
    pub fn new(part: Part<'a>, align: usize) -> Result<Self, DecodeError> {
        let len = part.bytes.len();
        let width = width_of(len);
        if len == 0 {
            return Ok(Self {
                part,
                align,
                pos: 0,
                body: 0,
                next_offset: 0,
                width,
            });
        }
        // An offset is at most as wide as the array is long, so there is a last one.
        let last = len.saturating_sub(width);
        let body = part.offset(last, width)?;
        if body > last || !(len - body).is_multiple_of(width) {
            return Err(part.error_at(last, "offset out of bounds"));
        }
        if width_for(body, (len - body) / width) != width {
            return Err(part.error_at(body, "offsets are wider than needed"));
        }
        Ok(Self {
            part,
            align,
            pos: 0,
            body,
            next_offset: body,
            width,
        })
    }

    fn read(&mut self) -> Result<Part<'a>, DecodeError> {
        let start = self.part.pad(self.pos, self.align, self.body)?;
        let end = self.part.offset(self.next_offset, self.width)?;
        if end < start || end > self.body {
            return Err(self.part.error_at(self.next_offset, "offset out of bounds"));
        }
        self.next_offset += self.width;
        self.pos = end;
        self.part.slice(start, end)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Part<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next_offset >= self.part.bytes.len() {
            return None;
        }
        let element = self.read();
        if element.is_err() {
            self.next_offset = self.part.bytes.len();
        }
        Some(element)
    }
}
