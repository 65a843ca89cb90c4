//! Prints values in GVariant's text format, as GLib does with type annotations.

use std::fmt::{self, Write};

use super::value::Value;

impl Value {
    /// The value in GVariant's text format, with types where they could not be told otherwise.
    pub fn print(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut String, typed: bool) -> fmt::Result {
        let mut keyword = |word: &str| {
            if typed {
                out.push_str(word);
            }
        };
        match self {
            Self::Byte(_) => keyword("byte "),
            Self::I16(_) => keyword("int16 "),
            Self::U16(_) => keyword("uint16 "),
            Self::U32(_) => keyword("uint32 "),
            Self::I64(_) => keyword("int64 "),
            Self::U64(_) => keyword("uint64 "),
            Self::Handle(_) => keyword("handle "),
            Self::ObjectPath(_) => keyword("objectpath "),
            Self::Signature(_) => keyword("signature "),
            Self::Maybe { .. } => keyword(&format!("@{} ", self.ty())),
            Self::Array { items, .. } if items.is_empty() => keyword(&format!("@{} ", self.ty())),
            Self::Bytes(bytes) if bytes.is_empty() => keyword("@ay "),
            _ => {}
        }
        match self {
            Self::Bool(flag) => write!(out, "{flag}"),
            Self::Byte(byte) => write!(out, "0x{byte:02x}"),
            Self::I16(n) => write!(out, "{n}"),
            Self::U16(n) => write!(out, "{n}"),
            Self::I32(n) | Self::Handle(n) => write!(out, "{n}"),
            Self::U32(n) => write!(out, "{n}"),
            Self::I64(n) => write!(out, "{n}"),
            Self::U64(n) => write!(out, "{n}"),
            Self::Double(n) => write_double(out, *n),
            Self::String(text) => write_text(out, text),
            Self::ObjectPath(text) | Self::Signature(text) => write!(out, "'{text}'"),
            Self::Variant(child) => {
                out.push('<');
                child.write(out, true)?;
                out.push('>');
                Ok(())
            }
            Self::Bytes(bytes) => write_bytes(out, bytes, typed),
            Self::Array { element, items } => {
                let (open, close) = if element.is_entry() {
                    ('{', '}')
                } else {
                    ('[', ']')
                };
                out.push(open);
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    item.write_item(out, typed && index == 0)?;
                }
                out.push(close);
                Ok(())
            }
            Self::Maybe { .. } => self.write_maybe(out),
            Self::Tuple(members) => write_tuple(out, members, typed),
            Self::Entry(pair) => {
                out.push('{');
                pair[0].write(out, typed)?;
                out.push_str(", ");
                pair[1].write(out, typed)?;
                out.push('}');
                Ok(())
            }
        }
    }

    /// An element of an array: dictionary entries are written without braces of their own.
    fn write_item(&self, out: &mut String, typed: bool) -> fmt::Result {
        let Self::Entry(pair) = self else {
            return self.write(out, typed);
        };
        pair[0].write(out, typed)?;
        out.push_str(": ");
        pair[1].write(out, typed)
    }

    /// A present value without "just", unless one of the nested ones is absent.
    fn write_maybe(&self, out: &mut String) -> fmt::Result {
        let (mut value, mut depth) = (self, 0usize);
        while let Self::Maybe { value: inner, .. } = value {
            let Some(inner) = inner else {
                out.push_str(&"just ".repeat(depth));
                out.push_str("nothing");
                return Ok(());
            };
            value = inner;
            depth += 1;
        }
        value.write(out, false)
    }
}

fn write_tuple(out: &mut String, members: &[Value], typed: bool) -> fmt::Result {
    out.push('(');
    for (index, member) in members.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        member.write(out, typed)?;
    }
    out.push_str(if members.len() == 1 { ",)" } else { ")" });
    Ok(())
}

/// Bytes that end at their only NUL are written as text.
fn write_bytes(out: &mut String, bytes: &[u8], typed: bool) -> fmt::Result {
    if bytes
        .iter()
        .position(|b| *b == 0)
        .is_some_and(|nul| nul + 1 == bytes.len())
    {
        let quote = if bytes.contains(&b'\'') { '"' } else { '\'' };
        write!(out, "b{quote}")?;
        bytes
            .iter()
            .filter(|b| **b != 0)
            .try_for_each(|b| write_escaped_byte(out, *b))?;
        out.push(quote);
        return Ok(());
    }
    out.push('[');
    for (index, byte) in bytes.iter().enumerate() {
        out.push_str(match index {
            0 if typed => "byte ",
            0 => "",
            _ => ", ",
        });
        write!(out, "0x{byte:02x}")?;
    }
    out.push(']');
    Ok(())
}

fn write_escaped_byte(out: &mut String, byte: u8) -> fmt::Result {
    match byte {
        0x08 => out.push_str("\\b"),
        0x0c => out.push_str("\\f"),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        0x0b => out.push_str("\\v"),
        b'\\' | b'"' => {
            out.push('\\');
            out.push(char::from(byte));
        }
        b' '..=b'~' => out.push(char::from(byte)),
        _ => write!(out, "\\{byte:03o}")?,
    }
    Ok(())
}

fn write_text(out: &mut String, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            _ if is_printable(c) => out.push(c),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\0'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(c))?,
            _ => write!(out, "\\U{:08x}", u32::from(c))?,
        }
    }
    out.push(quote);
    Ok(())
}

/// Whether Unicode gives this character a visible form or a width: all but control, format and
/// unassigned ones.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library has no general categories but shows what it takes for printable. That
    // leaves out private use characters and separators; the letter before keeps it from escaping
    // combining characters.
    let private = matches!(
        c,
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}'
    );
    let shown = || {
        let mut text = String::from("a");
        text.push(c);
        text.escape_debug().eq(text.chars())
    };
    let blank = c.is_whitespace() && c != '\u{85}';
    private || blank || shown()
}

/// As C's `%.17g`, with `.0` where the text would look like an integer.
fn write_double(out: &mut String, number: f64) -> fmt::Result {
    const DIGITS: i32 = 17;
    if !number.is_finite() {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        return write!(out, "{sign}{}", if number.is_nan() { "nan" } else { "inf" });
    }
    let scientific = format!("{number:.16e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..DIGITS).contains(&exponent) {
        let digits = trim_zeros(digits);
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let places = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
    let fixed = format!("{number:.places$}");
    let fixed = trim_zeros(&fixed);
    out.push_str(fixed);
    out.push_str(if fixed.contains('.') { "" } else { ".0" });
    Ok(())
}

/// Drops zeros at the end of the fraction, and the point if nothing remains behind it.
fn trim_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}
