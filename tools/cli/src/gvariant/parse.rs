//! Reading the text form. The type of an array is that of its first element.

use super::{MAX_DEPTH, Type, Value};

/// Why a text is no value: what was expected, and the byte where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct ParseError {
    what: &'static str,
    at: usize,
}

type Result<T> = std::result::Result<T, ParseError>;

/// Reads one value in GVariant text format.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value(None)?;
    parser.space();
    if parser.rest().is_empty() { Ok(value) } else { Err(parser.error("unexpected text")) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> ParseError {
        ParseError { what, at: self.at }
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str, what: &'static str) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(self.error(what)) }
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> &'t str {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn value(&mut self, expected: Option<&Type>) -> Result<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("too many containers inside each other"));
        }
        self.space();
        let start = self.at;
        let value = match self.rest().chars().next() {
            None => return Err(self.error("a value is missing")),
            Some('@') => self.annotated()?,
            Some('\'' | '"') => {
                let text = self.quoted()?;
                self.text_of(expected, text)?
            }
            Some('b') if self.rest().starts_with("b'") || self.rest().starts_with("b\"") => {
                self.at += 1;
                let mut bytes = self.quoted_bytes()?;
                bytes.push(0);
                let items = bytes.into_iter().map(|b| Value::Number(b'y', b.into())).collect();
                Value::Array(Type::Basic(b'y'), items)
            }
            Some('<') => {
                self.at += 1;
                let inner = self.value(None)?;
                self.expect(">", "expected '>'")?;
                Value::Variant(inner.into())
            }
            Some('[') => self.array(expected)?,
            Some('(') => self.tuple(expected)?,
            Some('{') => self.dictionary(expected)?,
            Some(c) if c.is_ascii_alphabetic() => self.keyword(expected)?,
            Some(_) => self.number(expected)?,
        };
        self.depth -= 1;
        match expected {
            Some(kind) if value.type_of() != *kind => {
                Err(ParseError { what: "a value of another type is expected", at: start })
            }
            _ => Ok(value),
        }
    }

    fn annotated(&mut self) -> Result<Value> {
        self.at += 1;
        let signature = self.word(|c| c.is_ascii_alphabetic() || "(){}".contains(c));
        let kind = Type::parse(signature).ok_or_else(|| self.error("not a type"))?;
        self.value(Some(&kind))
    }

    fn text_of(&self, expected: Option<&Type>, text: String) -> Result<Value> {
        match expected {
            None => Ok(Value::Text(b's', text)),
            Some(Type::Basic(kind @ (b's' | b'o' | b'g'))) => Ok(Value::Text(*kind, text)),
            Some(_) => Err(self.error("a value of another type is expected")),
        }
    }

    fn keyword(&mut self, expected: Option<&Type>) -> Result<Value> {
        let start = self.at;
        let word = self.word(|c| c.is_ascii_alphanumeric());
        let kind = match word {
            "true" | "false" => return Ok(Value::Bool(word == "true")),
            "nothing" | "just" => return self.maybe(word == "just", expected),
            "inf" | "nan" => {
                self.at = start;
                return self.number(Some(&Type::Basic(b'd')));
            }
            "boolean" => b'b',
            "byte" => b'y',
            "int16" => b'n',
            "uint16" => b'q',
            "int32" => b'i',
            "uint32" => b'u',
            "int64" => b'x',
            "uint64" => b't',
            "handle" => b'h',
            "double" => b'd',
            "string" => b's',
            "objectpath" => b'o',
            "signature" => b'g',
            _ => return Err(ParseError { what: "unknown word", at: start }),
        };
        self.value(Some(&Type::Basic(kind)))
    }

    fn maybe(&mut self, just: bool, expected: Option<&Type>) -> Result<Value> {
        let inner = match expected {
            Some(Type::Maybe(inner)) => Some(inner.as_ref()),
            Some(_) => return Err(self.error("a value of another type is expected")),
            None => None,
        };
        if just {
            let value = self.value(inner)?;
            return Ok(Value::Maybe(value.type_of(), Some(value.into())));
        }
        let kind = inner.ok_or_else(|| self.error("'nothing' needs a type, as in '@ms nothing'"))?;
        Ok(Value::Maybe(kind.clone(), None))
    }

    fn number(&mut self, expected: Option<&Type>) -> Result<Value> {
        let start = self.at;
        let word = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let error = |what| ParseError { what, at: start };
        let hexadecimal = word.trim_start_matches(['+', '-']).starts_with("0x");
        let real = !hexadecimal && word.contains(['.', 'e', 'n']);
        let kind = match expected {
            Some(Type::Basic(kind)) => *kind,
            Some(_) => return Err(error("a value of another type is expected")),
            None if real => b'd',
            None => b'i',
        };
        if kind == b'd' {
            return word.parse().map(Value::Double).map_err(|_| error("not a number"));
        }
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let parsed = match digits.strip_prefix("0x") {
            Some(digits) => i128::from_str_radix(digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let number = parsed.map_err(|_| error("not a number"))?;
        let number = if negative { -number } else { number };
        let range = match kind {
            b'y' => 0..=i128::from(u8::MAX),
            b'n' => i128::from(i16::MIN)..=i128::from(i16::MAX),
            b'q' => 0..=i128::from(u16::MAX),
            b'i' | b'h' => i128::from(i32::MIN)..=i128::from(i32::MAX),
            b'u' => 0..=i128::from(u32::MAX),
            b'x' => i128::from(i64::MIN)..=i128::from(i64::MAX),
            b't' => 0..=i128::from(u64::MAX),
            _ => return Err(error("a value of another type is expected")),
        };
        if !range.contains(&number) {
            return Err(error("the number does not fit its type"));
        }
        Ok(Value::Number(kind, number as u64))
    }

    fn array(&mut self, expected: Option<&Type>) -> Result<Value> {
        self.at += 1;
        let mut kind = match expected {
            Some(Type::Array(inner)) => Some(Type::clone(inner)),
            Some(_) => return Err(self.error("a value of another type is expected")),
            None => None,
        };
        let mut items = Vec::new();
        while !self.take("]") {
            if !items.is_empty() {
                self.expect(",", "expected ',' or ']'")?;
            }
            let item = self.value(kind.as_ref())?;
            kind.get_or_insert_with(|| item.type_of());
            items.push(item);
        }
        let kind = kind.ok_or_else(|| self.error("'[]' needs a type, as in '@as []'"))?;
        Ok(Value::Array(kind, items))
    }

    fn tuple(&mut self, expected: Option<&Type>) -> Result<Value> {
        self.at += 1;
        let kinds = match expected {
            Some(Type::Tuple(members)) => Some(members),
            Some(_) => return Err(self.error("a value of another type is expected")),
            None => None,
        };
        let mut members = Vec::new();
        while !self.take(")") {
            if !members.is_empty() {
                self.expect(",", "expected ',' or ')'")?;
                if members.len() == 1 && self.take(")") {
                    break;
                }
            }
            members.push(self.value(kinds.and_then(|kinds| kinds.get(members.len())))?);
        }
        Ok(Value::Tuple(members))
    }

    fn dictionary(&mut self, expected: Option<&Type>) -> Result<Value> {
        self.at += 1;
        let mut kinds = match expected {
            None => None,
            Some(Type::Array(inner)) => match inner.as_ref() {
                Type::Entry(key, value) => Some((Type::clone(key), Type::clone(value))),
                _ => return Err(self.error("a value of another type is expected")),
            },
            Some(_) => return Err(self.error("a value of another type is expected")),
        };
        let mut items = Vec::new();
        while !self.take("}") {
            if !items.is_empty() {
                self.expect(",", "expected ',' or '}'")?;
            }
            let key = self.value(kinds.as_ref().map(|(key, _)| key))?;
            self.expect(":", "expected ':'")?;
            let value = self.value(kinds.as_ref().map(|(_, value)| value))?;
            kinds.get_or_insert_with(|| (key.type_of(), value.type_of()));
            items.push(Value::Entry(key.into(), value.into()));
        }
        let (key, value) =
            kinds.ok_or_else(|| self.error("'{}' needs a type, as in '@a{sv} {}'"))?;
        Ok(Value::Array(Type::Entry(key.into(), value.into()), items))
    }

    fn quoted(&mut self) -> Result<String> {
        let start = self.at;
        let mark = self.rest().chars().next().unwrap_or('\'');
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        let unfinished = ParseError { what: "the text has no end", at: start };
        while let Some((i, c)) = chars.next() {
            match c {
                _ if c == mark => {
                    self.at += i + c.len_utf8();
                    return Ok(out);
                }
                '\\' => {
                    let (_, c) = chars.next().ok_or(unfinished.clone())?;
                    let digits = match c {
                        'u' => 4,
                        'U' => 8,
                        _ => {
                            out.extend(escaped(c));
                            continue;
                        }
                    };
                    let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    out.push(code.ok_or(ParseError { what: "not a character", at: start + i })?);
                }
                c => out.push(c),
            }
        }
        Err(unfinished)
    }

    fn quoted_bytes(&mut self) -> Result<Vec<u8>> {
        let start = self.at;
        let bytes = self.rest().as_bytes();
        let mark = bytes.first().copied().unwrap_or(b'\'');
        let mut out = Vec::new();
        let mut i = 1;
        while let Some(byte) = bytes.get(i) {
            i += 1;
            match byte {
                _ if *byte == mark => {
                    self.at += i;
                    return Ok(out);
                }
                b'\\' => {
                    let octal = |b: &&u8| (b'0'..=b'7').contains(*b);
                    let digits: Vec<u8> =
                        bytes.iter().skip(i).take(3).take_while(octal).copied().collect();
                    if digits.is_empty() {
                        let c = bytes.get(i).copied().map_or('\\', char::from);
                        out.extend(escaped(c).map(|c| c as u8));
                        i += 1;
                    } else {
                        let value = digits.iter().fold(0u32, |v, d| v * 8 + u32::from(d - b'0'));
                        out.push(value as u8);
                        i += digits.len();
                    }
                }
                other => out.push(*other),
            }
        }
        Err(ParseError { what: "the text has no end", at: start })
    }
}

/// What a backslash makes of a character; a line break disappears.
fn escaped(c: char) -> Option<char> {
    Some(match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\n' => return None,
        other => other,
    })
}
