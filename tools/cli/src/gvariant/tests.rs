use super::*;

/// Text forms that `g_variant_print` leaves as they are.
const CANONICAL: &[&str] = &[
    "true",
    "5",
    "-7",
    "uint32 5",
    "byte 0x01",
    "uint64 18446744073709551615",
    "int64 -1",
    "int16 -300",
    "1.5",
    "'text'",
    "\"it's\"",
    "'a\\nb\\\\'",
    "objectpath '/a/b'",
    "@as []",
    "@a{sv} {}",
    "['a', 'b']",
    "[byte 0x01, 0x02]",
    "b'user.a'",
    "b'\\303\\244\\n'",
    "(uint32 5, [byte 0x01, 0x02])",
    "('one',)",
    "<uint32 5>",
    "<<'deep'>>",
    "{'a': <1>, 'b': <'two'>}",
    "{uint32 1: 'x', 2: 'y'}",
    "[('a', uint32 1, 0.5), ('b', 2, 0.25)]",
    "@ms nothing",
    "@mi 5",
    "@a(say) []",
    "()",
];

#[test]
fn text_and_bytes_round_trip() {
    for text in CANONICAL {
        let value = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(value.to_string(), *text);
        let signature = value.type_of().to_string();
        let again = Value::decode(&signature, &bytes::encode(&value), Order::Little);
        assert_eq!(again.as_ref(), Some(&value), "{text} as {signature}");
    }
}

#[test]
fn long_arrays_have_wider_offsets() {
    for count in [100, 300, 40_000] {
        let items: Vec<Value> = (0..count).map(|i| Value::Text(b's', format!("{i}"))).collect();
        let value = Value::Array(Type::Basic(b's'), items);
        assert_eq!(Value::decode("as", &bytes::encode(&value), Order::Little), Some(value));
    }
}

#[test]
fn what_the_engine_calls_valid_metadata_is_accepted() {
    for text in CANONICAL {
        let value = parse(text).expect("it parses");
        let variant = value.to_variant().unwrap_or_else(|| panic!("{text} is refused"));
        assert_eq!(Value::of(&variant, Order::Little), Some(value), "{text}");
    }
}

#[test]
fn wrong_texts_are_refused_where_they_are_wrong() {
    for (text, at) in [
        ("", 0),
        ("[]", 2),
        ("{}", 2),
        ("[1, 'a']", 7),
        ("byte 256", 5),
        ("uint32 -1", 7),
        ("'open", 0),
        ("'\\ud800'", 1),
        ("hello", 0),
        ("1 2", 2),
        ("@zz 1", 3),
        ("nothing", 7),
        ("(1", 2),
    ] {
        match parse(text) {
            Ok(value) => panic!("{text} is taken for {value}"),
            Err(error) => assert!(error.to_string().ends_with(&format!("at byte {at}")), "{text}: {error}"),
        }
    }
    assert!(parse(&"<".repeat(1000)).is_err());
}

#[test]
fn damaged_bytes_are_refused() {
    for (signature, bytes) in [
        ("s", &b"no end"[..]),
        ("u", &[1, 2, 3]),
        ("as", &[1, 2, 3, 200]),
        ("(ss)", &[0, 0, 200]),
        ("v", &[1, 2, 3]),
        ("v", &[0, b'?']),
        ("au", &[0; 5]),
        ("", &[]),
    ] {
        assert_eq!(Value::decode(signature, bytes, Order::Little), None, "{signature}");
    }
}

#[test]
fn ostree_integers_are_read_in_their_own_order() {
    let bytes = [0x84u8, 3, 0, 0];
    assert_eq!(Value::decode("u", &bytes, Order::Little), Some(Value::Number(b'u', 900)));
    assert_eq!(Value::decode("u", &[0, 0, 3, 0x84], Order::Big), Some(Value::Number(b'u', 900)));
}
