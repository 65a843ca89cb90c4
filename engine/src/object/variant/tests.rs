//! Values, their text form, and hostile bytes.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn constructors_agree_with_the_text_form() {
    let cases = [
        (Variant::string("it's"), "s", r#""it's""#),
        (Variant::string(""), "s", "''"),
        (Variant::strings([]), "as", "@as []"),
        (Variant::strings(["a", "b"]), "as", "['a', 'b']"),
        (Variant::byte_array(&[1, 2]), "ay", "[byte 0x01, 0x02]"),
        (Variant::byte_array(b"hi\0"), "ay", "b'hi'"),
        (Variant::byte_array(b""), "ay", "@ay []"),
        (Variant::bool(true), "b", "true"),
        (Variant::u32(5), "u", "uint32 5"),
        (Variant::u64(5), "t", "uint64 5"),
        (
            Variant::string_tuples([["a", "b", "c", "d", "e"], ["", "", "", "", "x86_64"]]),
            "a(sssss)",
            "[('a', 'b', 'c', 'd', 'e'), ('', '', '', '', 'x86_64')]",
        ),
    ];
    for (variant, signature, text) in cases {
        assert_eq!(variant.signature(), signature);
        assert_eq!(variant.print(), text);
        assert_eq!(Variant::from_text(text), Ok(variant.clone()));
        assert_eq!(
            Variant::parse(&variant.to_boxed_bytes()),
            Ok(variant.clone())
        );
        assert_eq!(Variant::from_parts(signature, variant.bytes()), Ok(variant));
    }
}

#[test]
fn accessors_answer_for_their_type_only() {
    let text = Variant::string("x");
    assert_eq!(
        (text.as_str(), text.as_bytes(), text.as_u64()),
        (Some("x"), None, None)
    );
    let texts = Variant::strings(["a", "", "c"]);
    assert_eq!(
        (texts.as_strings(), texts.as_str()),
        (Some(vec!["a", "", "c"]), None)
    );
    assert_eq!(Variant::strings([]).as_strings(), Some(vec![]));
    assert_eq!(Variant::byte_array(&[7]).as_bytes(), Some([7].as_slice()));
    assert_eq!(
        (Variant::u64(9).as_u64(), Variant::u32(9).as_u64()),
        (Some(9), None)
    );
}

/// Text in, type and text out, as GLib 2.74 has it.
const TEXTS: &[(&str, &str, &str)] = &[
    ("5", "i", "5"),
    (" -7 ", "i", "-7"),
    ("0x1f", "i", "31"),
    ("017", "i", "15"),
    ("byte 5", "y", "byte 0x05"),
    ("@y 0x05", "y", "byte 0x05"),
    (
        "uint64 18446744073709551615",
        "t",
        "uint64 18446744073709551615",
    ),
    ("int64 -1", "x", "int64 -1"),
    ("handle 3", "h", "handle 3"),
    ("1.5", "d", "1.5"),
    ("1e300", "d", "1.0000000000000001e+300"),
    ("1e17", "d", "1e+17"),
    ("1e16", "d", "10000000000000000.0"),
    ("0.0001", "d", "0.0001"),
    ("1e-5", "d", "1.0000000000000001e-05"),
    ("0.1", "d", "0.10000000000000001"),
    ("double 3", "d", "3.0"),
    ("-inf", "d", "-inf"),
    ("true", "b", "true"),
    ("'a'", "s", "'a'"),
    (r#""a'b""#, "s", r#""a'b""#),
    (r"'a\'b'", "s", r#""a'b""#),
    (r#"'a"b\\'"#, "s", r#"'a"b\\'"#),
    (r"'\u00e9\n\t\U0001f600\x'", "s", "'\u{e9}\\n\\t\u{1f600}x'"),
    ("'\u{7f}\u{200b}\u{a0}'", "s", "'\\u007f\\u200b\u{a0}'"),
    ("objectpath '/a/b'", "o", "objectpath '/a/b'"),
    ("signature 'a{sv}'", "g", "signature 'a{sv}'"),
    ("b'hi'", "ay", "b'hi'"),
    (r#"b"it's\n\377""#, "ay", r#"b"it's\n\377""#),
    ("[byte 1, 2, 0xff]", "ay", "[byte 0x01, 0x02, 0xff]"),
    ("[1, 2]", "ai", "[1, 2]"),
    ("[1, uint16 2]", "aq", "[uint16 1, 2]"),
    ("[1, nothing]", "ami", "[@mi 1, nothing]"),
    ("[[], ['a']]", "aas", "[@as [], ['a']]"),
    ("@as []", "as", "@as []"),
    ("@a{sv} {}", "a{sv}", "@a{sv} {}"),
    ("{'a': <1>, 'b': <'x'>}", "a{sv}", "{'a': <1>, 'b': <'x'>}"),
    ("{1, 'x'}", "{is}", "{1, 'x'}"),
    ("()", "()", "()"),
    ("(1,)", "(i)", "(1,)"),
    ("(1, 'x', uint32 2)", "(isu)", "(1, 'x', uint32 2)"),
    ("<<byte 1>>", "v", "<<byte 0x01>>"),
    ("just 5", "mi", "@mi 5"),
    ("@mmi just nothing", "mmi", "@mmi just nothing"),
    ("@ms nothing", "ms", "@ms nothing"),
];

#[test]
fn texts_are_read_and_printed_as_by_glib() {
    for (text, signature, printed) in TEXTS {
        let variant = Variant::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (variant.signature(), variant.print().as_str()),
            (*signature, *printed),
            "{text}"
        );
        assert_eq!(Variant::from_text(printed), Ok(variant), "{text}");
    }
}

#[test]
fn malformed_texts_are_refused_with_the_place() {
    let cases = [
        ("", "a value is missing", 0),
        ("[]", "the type cannot be told", 0),
        ("{}", "the type cannot be told", 0),
        ("nothing", "the type cannot be told", 0),
        ("[1, 'a']", "the types of elements differ", 4),
        ("[1, 2", "`,` or `]` is missing", 5),
        ("[1,]", "unknown keyword", 3),
        ("(1)", "`,` is missing", 2),
        ("{'a' 1}", "`:` is missing", 5),
        ("{[1]: 1}", "the type cannot be told", 0),
        ("'a", "quote is not closed", 2),
        ("5 6", "unexpected text", 2),
        ("byte 256", "number out of range", 5),
        ("2147483648", "number out of range", 0),
        ("uint32 -1", "number out of range", 7),
        ("09", "invalid number", 0),
        ("1e400", "invalid number", 0),
        ("uint64 'a'", "the value is not of the type given", 7),
        ("@as 5", "the value is not of the type given", 4),
        ("@zz 5", "invalid type", 1),
        ("@a? []", "invalid type", 1),
        ("objectpath 'a'", "the value is not of the type given", 11),
        (r"'\ud800'", "invalid Unicode character", 3),
        (r"'\u0000'", "invalid Unicode character", 3),
        ("yes", "unknown keyword", 0),
    ];
    for (text, what, offset) in cases {
        assert_eq!(
            Variant::from_text(text),
            Err(TextError { what, offset }),
            "{text}"
        );
    }
    assert!(Variant::from_text(&"[".repeat(100_000)).is_err());
    assert!(Variant::from_text(&"<".repeat(100_000)).is_err());
    assert!(Variant::from_text(&"uint64 ".repeat(100_000)).is_err());
}

#[test]
fn numbers_are_shown_as_ostree_shows_them() {
    let cases = [
        ("uint64 5", "uint64 360287970189639680"),
        ("{'k': <int16 5>}", "{'k': <int16 1280>}"),
        ("(1.5, 5)", "(3.1398365858857059e-319, 83886080)"),
        ("[byte 1, 2]", "[byte 0x01, 0x02]"),
        ("'text'", "'text'"),
    ];
    for (text, shown) in cases {
        assert_eq!(Variant::from_text(text).unwrap().print_as_ostree(), shown);
    }
}

#[test]
fn bytes_that_are_not_normal_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("b", &[2]),
        ("b", &[]),
        ("u", &[0; 3]),
        ("s", &[]),
        ("s", b"a"),
        ("s", b"a\0b\0"),
        ("s", b"\xff\0"),
        ("o", b"a\0"),
        ("g", b"z\0"),
        ("au", &[0; 5]),
        // Padding that is not zero, inside and at the end.
        ("(yu)", &[1, 0, 9, 0, 0, 0, 0, 0]),
        ("(uy)", &[0, 0, 0, 0, 1, 0, 0, 9]),
        ("()", &[]),
        ("()", &[1]),
        // Offsets: past the end, going back, not a whole number of them, a gap before them.
        ("as", b"a\0\x09"),
        ("as", b"a\0b\0\x04\x02"),
        ("(ss)", b"a\0b\0\x05"),
        ("(sy)", b"a\0\x01\x01\x02"),
        ("v", b"\0"),
        ("v", b"\x05y"),
        ("v", b"\x05\0yy"),
        ("my", &[1, 0]),
        ("ms", b"a\0\x01"),
        ("", &[]),
        ("ss", b"\0\0"),
        ("a", b""),
        ("{vs}", b""),
        ("(s", b"\0"),
    ];
    for (signature, bytes) in cases {
        assert!(
            Variant::from_parts(signature, bytes).is_err(),
            "{signature} {bytes:?}"
        );
    }
    // 254 bytes with offsets of one byte each would have fitted.
    let mut wide = [[0u8; 249].as_slice(), &[0]].concat();
    wide.extend([250u16.to_le_bytes(); 3].concat());
    assert!(Variant::from_parts("aay", &wide).is_err());
}

#[test]
fn nesting_is_bounded_in_depth_and_number() {
    let boxed = |depth: usize| [b"\x05\0y".as_slice(), &b"\0v".repeat(depth)].concat();
    assert!(Variant::parse(&boxed(60)).is_ok());
    assert!(Variant::parse(&boxed(100)).is_err());
    assert!(Variant::parse(&boxed(1_000_000)).is_err());
    assert!(Variant::from_parts(&"a".repeat(1_000_000), b"").is_err());
    assert!(Variant::from_parts(&"(".repeat(1_000_000), b"").is_err());
    // Each byte would become fifty values.
    let signature = format!("a{}as{}", "(".repeat(50), ")".repeat(50));
    assert!(Variant::from_parts(&signature, &[0; 100]).is_err());
    assert!(Variant::from_parts(&signature, &[0; 10]).is_ok());
}

fn types() -> impl Strategy<Value = Type> {
    let basic = proptest::sample::select(b"bynqiuxthdsog".to_vec()).prop_map(Type::letter);
    let leaf = prop_oneof![4 => basic.clone(), 1 => Just(Type::variant())];
    leaf.prop_recursive(4, 12, 4, move |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::array),
            inner.clone().prop_map(Type::maybe),
            vec(inner.clone(), 0..4).prop_map(Type::tuple),
            (basic.clone(), inner).prop_map(|(key, value)| Type::entry(key, value)),
        ]
    })
}

fn value_of(ty: &Type) -> BoxedStrategy<Value> {
    match &ty.kind {
        ty::Kind::Basic(letter) => basic_value(*letter),
        ty::Kind::Variant => {
            let basic = proptest::sample::select(b"bynqiuxthdsog".to_vec());
            basic
                .prop_flat_map(basic_value)
                .prop_map(|v| Value::Variant(Box::new(v)))
                .boxed()
        }
        ty::Kind::Array(element) if element.is_byte() => {
            vec(any::<u8>(), 0..300).prop_map(Value::Bytes).boxed()
        }
        ty::Kind::Array(element) => {
            let ty = Type::clone(element);
            vec(value_of(element), 0..5)
                .prop_map(move |items| Value::Array {
                    element: ty.clone(),
                    items,
                })
                .boxed()
        }
        ty::Kind::Maybe(inner) => {
            let ty = Type::clone(inner);
            proptest::option::of(value_of(inner))
                .prop_map(move |value| Value::Maybe {
                    inner: ty.clone(),
                    value: value.map(Box::new),
                })
                .boxed()
        }
        ty::Kind::Tuple(members) => {
            let members: Vec<_> = members.iter().map(value_of).collect();
            members.prop_map(Value::Tuple).boxed()
        }
        ty::Kind::Entry(pair) => (value_of(&pair[0]), value_of(&pair[1]))
            .prop_map(|(key, value)| Value::Entry(Box::new([key, value])))
            .boxed(),
    }
}

fn basic_value(letter: u8) -> BoxedStrategy<Value> {
    match letter {
        b'b' => any::<bool>().prop_map(Value::Bool).boxed(),
        b'y' => any::<u8>().prop_map(Value::Byte).boxed(),
        b'n' => any::<i16>().prop_map(Value::I16).boxed(),
        b'q' => any::<u16>().prop_map(Value::U16).boxed(),
        b'i' => any::<i32>().prop_map(Value::I32).boxed(),
        b'u' => any::<u32>().prop_map(Value::U32).boxed(),
        b'x' => any::<i64>().prop_map(Value::I64).boxed(),
        b't' => any::<u64>().prop_map(Value::U64).boxed(),
        b'h' => any::<i32>().prop_map(Value::Handle).boxed(),
        b'd' => any::<f64>().prop_map(Value::Double).boxed(),
        b'o' => "(/[a-zA-Z0-9_]{1,9}){1,3}"
            .prop_map(Value::ObjectPath)
            .boxed(),
        b'g' => "[ybuixt]{0,4}".prop_map(Value::Signature).boxed(),
        _ => "[^\0]{0,40}".prop_map(Value::String).boxed(),
    }
}

proptest! {
    #[test]
    fn values_are_read_back_from_bytes_and_text(
        value in types().prop_flat_map(|ty| value_of(&ty)),
    ) {
        let variant = Variant::from_value(&value).unwrap();
        prop_assert_eq!(variant.value(), value);
        prop_assert_eq!(Variant::parse(&variant.to_boxed_bytes()), Ok(variant.clone()));
        prop_assert_eq!(Variant::from_text(&variant.print()), Ok(variant));
    }

    #[test]
    fn accepted_bytes_are_the_ones_written(
        ty in types(), bytes in vec(prop_oneof![0u8..9, any::<u8>()], 0..40),
    ) {
        if let Ok(variant) = Variant::from_parts(&ty.to_string(), &bytes) {
            prop_assert_eq!(variant.value().encode(), bytes);
        }
    }

    #[test]
    fn any_text_is_read_without_panic(text in "[-+.0-9a-z'\"\\[\\](){}<>@:, \\\\\u{e9}]{0,60}") {
        let _ = Variant::from_text(&text);
    }
}
