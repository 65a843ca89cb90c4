//! Types of values in text form: which type a text means, and the value it is then.
//!
//! Literals leave their type open: `5` is any number, `'a'` any text, and either may stand for a
//! present optional value. What an array holds must agree in one type; what is open in the end
//! becomes `i` or `s`.

use super::check::{is_object_path, is_signature};
use super::text::{Node, Syntax, TextError};
use super::ty::{Kind, Type};
use super::value::Value;

/// What is known of a type.
#[derive(Debug, Clone)]
struct Pattern {
    shape: Shape,
    /// Whether it may also be wrapped in any number of maybes.
    wrappable: bool,
}

#[derive(Debug, Clone)]
enum Shape {
    Any,
    Number,
    Text,
    Exact(Kind),
    Array(Box<Pattern>),
    Maybe(Box<Pattern>),
    Tuple(Vec<Pattern>),
    Entry(Box<[Pattern; 2]>),
}

impl Pattern {
    fn literal(shape: Shape) -> Self {
        Self {
            shape,
            wrappable: true,
        }
    }

    fn any() -> Self {
        Self {
            shape: Shape::Any,
            wrappable: false,
        }
    }

    fn exact(ty: &Type) -> Self {
        let shape = match &ty.kind {
            Kind::Array(element) => Shape::Array(Box::new(Self::exact(element))),
            Kind::Maybe(value) => Shape::Maybe(Box::new(Self::exact(value))),
            Kind::Tuple(members) => Shape::Tuple(members.iter().map(Self::exact).collect()),
            Kind::Entry(pair) => {
                Shape::Entry(Box::new([Self::exact(&pair[0]), Self::exact(&pair[1])]))
            }
            basic => Shape::Exact(basic.clone()),
        };
        Self {
            shape,
            wrappable: false,
        }
    }

    /// The pattern of what both describe.
    fn join(self, other: Self) -> Option<Self> {
        if matches!(self.shape, Shape::Any) {
            return Some(other);
        }
        if matches!(other.shape, Shape::Any) {
            return Some(self);
        }
        let wrappable = self.wrappable && other.wrappable;
        let shape = match (self.shape, other.shape) {
            (Shape::Maybe(a), Shape::Maybe(b)) => Shape::Maybe(Box::new(a.join(*b)?)),
            (Shape::Maybe(a), shape) if other.wrappable => {
                let b = Self {
                    shape,
                    wrappable: true,
                };
                return Some(Self {
                    shape: Shape::Maybe(Box::new(a.join(b)?)),
                    wrappable: self.wrappable,
                });
            }
            (shape, Shape::Maybe(b)) if self.wrappable => {
                let a = Self {
                    shape,
                    wrappable: true,
                };
                return Some(Self {
                    shape: Shape::Maybe(Box::new(a.join(*b)?)),
                    wrappable: other.wrappable,
                });
            }
            (Shape::Number, Shape::Number) => Shape::Number,
            (Shape::Text, Shape::Text) => Shape::Text,
            (Shape::Number, Shape::Exact(kind)) | (Shape::Exact(kind), Shape::Number) => {
                matches!(&kind, Kind::Basic(letter) if b"ynqiuxthd".contains(letter))
                    .then_some(Shape::Exact(kind))?
            }
            (Shape::Text, Shape::Exact(kind)) | (Shape::Exact(kind), Shape::Text) => {
                matches!(&kind, Kind::Basic(letter) if b"sog".contains(letter))
                    .then_some(Shape::Exact(kind))?
            }
            (Shape::Exact(a), Shape::Exact(b)) => (a == b).then_some(Shape::Exact(a))?,
            (Shape::Array(a), Shape::Array(b)) => Shape::Array(Box::new(a.join(*b)?)),
            (Shape::Tuple(a), Shape::Tuple(b)) if a.len() == b.len() => {
                let members = a.into_iter().zip(b).map(|(a, b)| a.join(b));
                Shape::Tuple(members.collect::<Option<_>>()?)
            }
            (Shape::Entry(a), Shape::Entry(b)) => {
                let ([a0, a1], [b0, b1]) = (*a, *b);
                Shape::Entry(Box::new([a0.join(b0)?, a1.join(b1)?]))
            }
            _ => return None,
        };
        Some(Self { shape, wrappable })
    }

    /// The type, with what is open set to the default; `None` if nothing is known of a part.
    fn resolve(&self) -> Option<Type> {
        Some(match &self.shape {
            Shape::Any => return None,
            Shape::Number => Type::letter(b'i'),
            Shape::Text => Type::letter(b's'),
            Shape::Exact(Kind::Basic(letter)) => Type::letter(*letter),
            Shape::Exact(_) => Type::variant(),
            Shape::Array(element) => Type::array(element.resolve()?),
            Shape::Maybe(value) => Type::maybe(value.resolve()?),
            Shape::Tuple(members) => {
                Type::tuple(members.iter().map(Self::resolve).collect::<Option<_>>()?)
            }
            Shape::Entry(pair) => {
                let key = pair[0].resolve().filter(Type::is_basic)?;
                Type::entry(key, pair[1].resolve()?)
            }
        })
    }
}

/// The type of a text's value.
pub(super) fn infer(node: &Node) -> Result<Type, TextError> {
    pattern(node)?
        .resolve()
        .ok_or_else(|| node.error("the type cannot be told"))
}

fn pattern(node: &Node) -> Result<Pattern, TextError> {
    let basic = |letter| Shape::Exact(Kind::Basic(letter));
    Ok(Pattern::literal(match &node.syntax {
        Syntax::Bool(_) => basic(b'b'),
        Syntax::Number(text) if is_double(text) => basic(b'd'),
        Syntax::Number(_) => Shape::Number,
        Syntax::Text(_) => Shape::Text,
        Syntax::Bytes(_) => Shape::Array(Box::new(Pattern::exact(&Type::letter(b'y')))),
        Syntax::Array(items) => Shape::Array(Box::new(common(items)?)),
        Syntax::Dictionary(entries) => {
            let keys = common(entries.iter().map(|[key, _]| key))?;
            // As in GLib, the first value alone decides.
            let values = entries
                .first()
                .map(|[_, value]| pattern(value))
                .transpose()?;
            let values = values.unwrap_or_else(Pattern::any);
            let entry = Shape::Entry(Box::new([unwrapped(keys), values]));
            Shape::Array(Box::new(Pattern {
                shape: entry,
                wrappable: false,
            }))
        }
        Syntax::Entry(pair) => Shape::Entry(Box::new([
            unwrapped(pattern(&pair[0])?),
            pattern(&pair[1])?,
        ])),
        Syntax::Tuple(members) => {
            Shape::Tuple(members.iter().map(pattern).collect::<Result<_, _>>()?)
        }
        Syntax::Variant(_) => Shape::Exact(Kind::Variant),
        Syntax::Maybe(None) => {
            let shape = Shape::Maybe(Box::new(Pattern::any()));
            return Ok(Pattern {
                shape,
                wrappable: false,
            });
        }
        Syntax::Maybe(Some(value)) => {
            let shape = Shape::Maybe(Box::new(pattern(value)?));
            return Ok(Pattern {
                shape,
                wrappable: false,
            });
        }
        Syntax::Typed(ty, _) => return Ok(Pattern::exact(ty)),
    }))
}

/// Keys of dictionaries cannot be optional.
fn unwrapped(pattern: Pattern) -> Pattern {
    Pattern {
        wrappable: false,
        ..pattern
    }
}

fn common<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Result<Pattern, TextError> {
    nodes.into_iter().try_fold(Pattern::any(), |known, node| {
        known
            .join(pattern(node)?)
            .ok_or_else(|| node.error("the types of elements differ"))
    })
}

/// Builds the value of type `ty`.
pub(super) fn build(node: &Node, ty: &Type) -> Result<Value, TextError> {
    if let (Kind::Maybe(inner), false) = (
        &ty.kind,
        matches!(node.syntax, Syntax::Maybe(_) | Syntax::Typed(..)),
    ) {
        return Ok(Value::Maybe {
            inner: Type::clone(inner),
            value: Some(Box::new(build(node, inner)?)),
        });
    }
    Ok(match (&node.syntax, &ty.kind) {
        (Syntax::Typed(own, child), _) if own == ty => build(child, ty)?,
        (Syntax::Bool(flag), Kind::Basic(b'b')) => Value::Bool(*flag),
        (Syntax::Number(text), Kind::Basic(letter)) => number(node, text, *letter)?,
        (Syntax::Text(text), Kind::Basic(b's')) => Value::String(text.clone()),
        (Syntax::Text(text), Kind::Basic(b'o')) if is_object_path(text) => {
            Value::ObjectPath(text.clone())
        }
        (Syntax::Text(text), Kind::Basic(b'g')) if is_signature(text) => {
            Value::Signature(text.clone())
        }
        (Syntax::Bytes(bytes), Kind::Array(element)) if element.is_byte() => {
            Value::Bytes(bytes.clone())
        }
        (Syntax::Variant(child), Kind::Variant) => {
            Value::Variant(Box::new(build(child, &infer(child)?)?))
        }
        (Syntax::Array(items), Kind::Array(element)) => array(items, element)?,
        (Syntax::Dictionary(entries), Kind::Array(element)) => dictionary(node, entries, element)?,
        (Syntax::Entry(pair), Kind::Entry(types)) => entry(pair, types)?,
        (Syntax::Tuple(members), Kind::Tuple(types)) if members.len() == types.len() => {
            let members = members
                .iter()
                .zip(types)
                .map(|(member, ty)| build(member, ty));
            Value::Tuple(members.collect::<Result<_, _>>()?)
        }
        (Syntax::Maybe(value), Kind::Maybe(inner)) => Value::Maybe {
            inner: Type::clone(inner),
            value: match value {
                Some(value) => Some(Box::new(build(value, inner)?)),
                None => None,
            },
        },
        _ => return Err(node.error("the value is not of the type given")),
    })
}

fn array(items: &[Node], element: &Type) -> Result<Value, TextError> {
    let items = items.iter().map(|item| build(item, element));
    if !element.is_byte() {
        let items = items.collect::<Result<_, _>>()?;
        return Ok(Value::Array {
            element: element.clone(),
            items,
        });
    }
    let bytes = items.map(|item| match item? {
        Value::Byte(byte) => Ok(byte),
        // Not reached: a value of type `y` is a byte.
        _ => Ok(0),
    });
    Ok(Value::Bytes(bytes.collect::<Result<_, _>>()?))
}

fn entry(pair: &[Node; 2], types: &[Type; 2]) -> Result<Value, TextError> {
    Ok(Value::Entry(Box::new([
        build(&pair[0], &types[0])?,
        build(&pair[1], &types[1])?,
    ])))
}

fn dictionary(node: &Node, entries: &[[Node; 2]], element: &Type) -> Result<Value, TextError> {
    let Kind::Entry(types) = &element.kind else {
        return Err(node.error("the value is not of the type given"));
    };
    let items = entries
        .iter()
        .map(|pair| entry(pair, types))
        .collect::<Result<_, _>>()?;
    Ok(Value::Array {
        element: element.clone(),
        items,
    })
}

fn is_double(text: &str) -> bool {
    let hex = text.starts_with("0x");
    text.contains('.')
        || (!hex && text.contains('e'))
        || text.contains("inf")
        || text.contains("nan")
}

fn number(node: &Node, text: &str, letter: u8) -> Result<Value, TextError> {
    if letter == b'd' {
        return double(text)
            .map(Value::Double)
            .ok_or_else(|| node.error("invalid number"));
    }
    let number = integer(text).ok_or_else(|| node.error("invalid number"))?;
    let value = match letter {
        b'y' => number.try_into().ok().map(Value::Byte),
        b'n' => number.try_into().ok().map(Value::I16),
        b'q' => number.try_into().ok().map(Value::U16),
        b'i' => number.try_into().ok().map(Value::I32),
        b'u' => number.try_into().ok().map(Value::U32),
        b'x' => number.try_into().ok().map(Value::I64),
        b't' => number.try_into().ok().map(Value::U64),
        b'h' => number.try_into().ok().map(Value::Handle),
        _ => return Err(node.error("the value is not of the type given")),
    };
    value.ok_or_else(|| node.error("number out of range"))
}

/// An integer as in C: `0x` begins a hexadecimal, `0` an octal one.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    // Digits only: the parser would take another sign.
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = i128::from_str_radix(digits, radix).ok().filter(|_| plain)?;
    Some(if negative { -number } else { number })
}

/// A decimal or, without fraction, hexadecimal number; too large a one is refused.
fn double(text: &str) -> Option<f64> {
    let plain = text.trim_start_matches(['+', '-']);
    if plain.starts_with("0x") || plain.starts_with("0X") {
        return integer(text).map(|n| n as f64);
    }
    let number: f64 = text.parse().ok()?;
    (number.is_finite() || plain.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(number)
}
