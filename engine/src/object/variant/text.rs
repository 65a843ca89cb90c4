//! Reads values from GVariant's text format: from text to a syntax tree.
//!
//! Types are inferred afterwards, in [`infer`](super::infer), because an element further right may
//! decide the type of one further left.

use super::infer;
use super::ty::{MAX_DEPTH, Type};
use super::value::Value;

/// Why a text is not a GVariant value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset} of the value's text")]
pub struct TextError {
    /// What is wrong.
    pub what: &'static str,
    /// Offset from the beginning of the text.
    pub offset: usize,
}

/// A piece of syntax with its offset in the text.
#[derive(Debug)]
pub(super) struct Node {
    pub offset: usize,
    pub syntax: Syntax,
}

#[derive(Debug)]
pub(super) enum Syntax {
    Bool(bool),
    /// Sign, digits and so on, not yet understood.
    Number(String),
    Text(String),
    /// With its NUL.
    Bytes(Vec<u8>),
    Array(Vec<Node>),
    Dictionary(Vec<[Node; 2]>),
    Entry(Box<[Node; 2]>),
    Tuple(Vec<Node>),
    Variant(Box<Node>),
    Maybe(Option<Box<Node>>),
    Typed(Type, Box<Node>),
}

impl Node {
    pub fn error(&self, what: &'static str) -> TextError {
        TextError {
            what,
            offset: self.offset,
        }
    }
}

/// Parses one value.
pub(super) fn parse(text: &str) -> Result<Value, TextError> {
    let mut parser = Parser { text, pos: 0 };
    let node = parser.value(0)?;
    parser.skip_blanks();
    if parser.pos < text.len() {
        return Err(parser.error("unexpected text"));
    }
    infer::build(&node, &infer::infer(&node)?)
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> TextError {
        TextError {
            what,
            offset: self.pos,
        }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        let blanks = |c: char| c.is_ascii_whitespace() || c == '\x0b';
        self.pos += rest.len() - rest.trim_start_matches(blanks).len();
    }

    /// The next character after blanks.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest().chars().next()
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: char) -> bool {
        let found = self.peek() == Some(token);
        self.pos += if found { token.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, token: char, what: &'static str) -> Result<(), TextError> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Takes characters while `keep` holds.
    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.pos += len;
        rest.get(..len).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Node, TextError> {
        let first = self.peek();
        if depth >= MAX_DEPTH {
            return Err(self.error("value is nested too deep"));
        }
        let offset = self.pos;
        let syntax = match first {
            None => return Err(self.error("a value is missing")),
            Some('[') => self.array(depth + 1)?,
            Some('{') => self.dictionary(depth + 1)?,
            Some('(') => self.tuple(depth + 1)?,
            Some('<') => {
                self.pos += 1;
                let child = self.value(depth + 1)?;
                self.expect('>', "`>` is missing")?;
                Syntax::Variant(Box::new(child))
            }
            Some('\'' | '"') => Syntax::Text(self.quoted_text()?),
            Some('@') => {
                self.pos += 1;
                let ty = self.ty()?;
                Syntax::Typed(ty, Box::new(self.value(depth + 1)?))
            }
            Some('b') if self.rest().starts_with("b'") || self.rest().starts_with("b\"") => {
                self.pos += 1;
                Syntax::Bytes(self.quoted_bytes()?)
            }
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(),
            Some(_) => self.word(depth)?,
        };
        Ok(Node { offset, syntax })
    }

    fn number(&mut self) -> Syntax {
        Syntax::Number(
            self.take_while(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                .to_owned(),
        )
    }

    fn word(&mut self, depth: usize) -> Result<Syntax, TextError> {
        let start = self.pos;
        let word = self.take_while(|c| c.is_ascii_alphanumeric());
        let letter = match word {
            "true" => return Ok(Syntax::Bool(true)),
            "false" => return Ok(Syntax::Bool(false)),
            "inf" | "nan" => return Ok(Syntax::Number(word.to_owned())),
            "nothing" => return Ok(Syntax::Maybe(None)),
            "just" => return Ok(Syntax::Maybe(Some(Box::new(self.value(depth + 1)?)))),
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
            _ => {
                return Err(TextError {
                    what: "unknown keyword",
                    offset: start,
                });
            }
        };
        Ok(Syntax::Typed(
            Type::letter(letter),
            Box::new(self.value(depth + 1)?),
        ))
    }

    fn ty(&mut self) -> Result<Type, TextError> {
        let (ty, rest) = Type::parse_prefix(self.rest().as_bytes(), 0)
            .ok_or_else(|| self.error("invalid type"))?;
        let after = self.text.len() - rest.len();
        let ends = rest.first().is_none_or(|b| !b.is_ascii_alphanumeric());
        if !ends {
            return Err(self.error("invalid type"));
        }
        self.pos = after;
        Ok(ty)
    }

    fn array(&mut self, depth: usize) -> Result<Syntax, TextError> {
        self.expect('[', "`[` is missing")?;
        let mut items = Vec::new();
        while !self.take(']') {
            if !items.is_empty() {
                self.expect(',', "`,` or `]` is missing")?;
            }
            items.push(self.value(depth)?);
        }
        Ok(Syntax::Array(items))
    }

    fn dictionary(&mut self, depth: usize) -> Result<Syntax, TextError> {
        self.expect('{', "`{` is missing")?;
        let mut entries = Vec::new();
        while !self.take('}') {
            if !entries.is_empty() {
                self.expect(',', "`,` or `}` is missing")?;
            }
            let key = self.value(depth)?;
            if entries.is_empty() && self.take(',') {
                let entry = [key, self.value(depth)?];
                self.expect('}', "`}` is missing")?;
                return Ok(Syntax::Entry(Box::new(entry)));
            }
            self.expect(':', "`:` is missing")?;
            entries.push([key, self.value(depth)?]);
        }
        Ok(Syntax::Dictionary(entries))
    }

    /// A tuple; one with a single member needs a comma behind it.
    fn tuple(&mut self, depth: usize) -> Result<Syntax, TextError> {
        self.expect('(', "`(` is missing")?;
        let mut members = Vec::new();
        while !self.take(')') {
            if members.len() > 1 {
                self.expect(',', "`,` or `)` is missing")?;
            }
            members.push(self.value(depth)?);
            if members.len() == 1 {
                self.expect(',', "`,` is missing")?;
            }
        }
        Ok(Syntax::Tuple(members))
    }

    /// The character after a quotation, backslashes not resolved.
    fn next_char(&mut self) -> Result<char, TextError> {
        let c = self
            .rest()
            .chars()
            .next()
            .ok_or_else(|| self.error("quote is not closed"))?;
        self.pos += c.len_utf8();
        Ok(c)
    }

    fn quoted_text(&mut self) -> Result<String, TextError> {
        let quote = self.next_char()?;
        let mut text = String::new();
        loop {
            match self.next_char()? {
                c if c == quote => return Ok(text),
                '\\' => match self.next_char()? {
                    'u' => text.push(self.unicode(4)?),
                    'U' => text.push(self.unicode(8)?),
                    '\n' => {}
                    c => text.push(control(c).map_or(c, char::from)),
                },
                '\0' => return Err(self.error("text contains NUL")),
                c => text.push(c),
            }
        }
    }

    fn unicode(&mut self, digits: usize) -> Result<char, TextError> {
        let text = self.rest().get(..digits).unwrap_or_default();
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(text, 16)
            .ok()
            .filter(|code| hex && *code != 0);
        let c = code.and_then(char::from_u32);
        let c = c.ok_or_else(|| self.error("invalid Unicode character"))?;
        self.pos += digits;
        Ok(c)
    }

    /// A byte string; it ends at the first NUL, where one is added in any case.
    fn quoted_bytes(&mut self) -> Result<Vec<u8>, TextError> {
        let quote = self.next_char()?;
        let mut bytes = Vec::new();
        loop {
            let mut push = |c: char| bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            match self.next_char()? {
                c if c == quote => break,
                '\\' => match self.next_char()? {
                    c @ '0'..='7' => bytes.push(self.octal(c)),
                    '\n' => {}
                    c => push(control(c).map_or(c, char::from)),
                },
                c => push(c),
            }
        }
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        bytes.truncate(len);
        bytes.push(0);
        Ok(bytes)
    }

    /// Up to three octal digits, of which the first has been read; only the low byte counts.
    fn octal(&mut self, first: char) -> u8 {
        let mut value = first.to_digit(8).unwrap_or(0);
        for _ in 0..2 {
            let Some(digit) = self.rest().chars().next().and_then(|c| c.to_digit(8)) else {
                break;
            };
            value = value << 3 | digit;
            self.pos += 1;
        }
        value.to_le_bytes()[0]
    }
}

/// The control character that a letter behind a backslash means.
fn control(letter: char) -> Option<u8> {
    Some(match letter {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        _ => return None,
    })
}
