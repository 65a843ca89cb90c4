//! The text form, as `g_variant_print` gives it with type annotations.

use std::fmt::{self, Write as _};

use super::{Type, Value};

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        print(self, true, &mut text);
        f.write_str(&text)
    }
}

/// Words before the numbers and texts whose type the reader could not guess.
fn keyword(kind: u8) -> &'static str {
    match kind {
        b'y' => "byte ",
        b'n' => "int16 ",
        b'q' => "uint16 ",
        b'u' => "uint32 ",
        b'x' => "int64 ",
        b't' => "uint64 ",
        b'h' => "handle ",
        b'o' => "objectpath ",
        b'g' => "signature ",
        _ => "",
    }
}

fn print(value: &Value, annotate: bool, out: &mut String) {
    let word = |kind: u8| if annotate { keyword(kind) } else { "" };
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Number(kind @ b'y', raw) => write!(out, "{}0x{raw:02x}", word(*kind)),
        Value::Number(kind @ (b'n' | b'i' | b'x' | b'h'), raw) => {
            write!(out, "{}{}", word(*kind), *raw as i64)
        }
        Value::Number(kind, raw) => write!(out, "{}{raw}", word(*kind)),
        Value::Double(number) => write!(out, "{number:?}"),
        Value::Text(kind, text) => {
            out.push_str(word(*kind));
            quote(text, out);
            Ok(())
        }
        Value::Variant(inner) => {
            out.push('<');
            print(inner, true, out);
            out.push('>');
            Ok(())
        }
        Value::Maybe(kind, inner) => print_maybe(kind, inner.as_deref(), annotate, out),
        Value::Array(kind, items) => print_array(kind, items, annotate, out),
        Value::Tuple(members) => {
            out.push('(');
            list(members, |_| annotate, out);
            out.push_str(if members.len() == 1 { ",)" } else { ")" });
            Ok(())
        }
        Value::Entry(key, inner) => {
            out.push('{');
            print(key, annotate, out);
            out.push_str(", ");
            print(inner, annotate, out);
            out.push('}');
            Ok(())
        }
    };
}

fn list(items: &[Value], annotate: impl Fn(usize) -> bool, out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        print(item, annotate(i), out);
    }
}

fn print_maybe(kind: &Type, inner: Option<&Value>, annotate: bool, out: &mut String) -> fmt::Result {
    if annotate {
        write!(out, "@m{kind} ")?;
    }
    match inner {
        Some(Value::Maybe(kind, inner)) => {
            out.push_str("just ");
            print_maybe(kind, inner.as_deref(), false, out)?;
        }
        Some(value) => print(value, false, out),
        None => out.push_str("nothing"),
    }
    Ok(())
}

fn print_array(kind: &Type, items: &[Value], annotate: bool, out: &mut String) -> fmt::Result {
    if let Some(text) = bytestring(kind, items) {
        quote_bytes(&text, out);
        return Ok(());
    }
    let dictionary = matches!(kind, Type::Entry(..));
    let (open, close) = if dictionary { ('{', '}') } else { ('[', ']') };
    if items.is_empty() && annotate {
        write!(out, "@a{kind} ")?;
    }
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        // The first element tells the type of the others.
        let annotate = annotate && i == 0;
        if i > 0 {
            out.push_str(", ");
        }
        if let Value::Entry(key, value) = item {
            print(key, annotate, out);
            out.push_str(": ");
            print(value, annotate, out);
        } else {
            print(item, annotate, out);
        }
    }
    out.push(close);
    Ok(())
}

/// The bytes of an `ay` that ends in its only NUL byte.
fn bytestring(kind: &Type, items: &[Value]) -> Option<Vec<u8>> {
    if !kind.is_byte() {
        return None;
    }
    let (last, rest) = items.split_last()?;
    let byte = |item: &Value| match item {
        Value::Number(b'y', raw) => u8::try_from(*raw).ok(),
        _ => None,
    };
    let text = rest.iter().map(|item| byte(item).filter(|b| *b != 0)).collect::<Option<_>>()?;
    (byte(last) == Some(0)).then_some(text)
}

fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            _ if c == mark || c == '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(mark);
}

fn quote_bytes(bytes: &[u8], out: &mut String) {
    let mark = if bytes.contains(&b'\'') { '"' } else { '\'' };
    out.push('b');
    out.push(mark);
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'"' => out.push_str("\\\""),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x0b => out.push_str("\\v"),
            0x20..=0x7e => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out.push(mark);
}
