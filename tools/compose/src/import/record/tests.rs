//! Encoding and decoding of records, well-formed and hostile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8], record: &Record) -> Result<Record, RecordError> {
    Record::decode(bytes, &record.files().collect::<Vec<_>>())
}

fn facts() -> impl Strategy<Value = Facts> {
    (
        ".{0,9}",
        any::<Option<u32>>(),
        ".{0,9}",
        ".{0,9}",
        ".{0,9}",
        any::<(u64, u64)>(),
    )
        .prop_map(
            |(name, epoch, version, release, arch, (installed_size, build_time))| Facts {
                name,
                epoch,
                version,
                release,
                arch,
                installed_size,
                build_time,
            },
        )
}

fn item() -> impl Strategy<Value = Item> {
    let dir = (0..3u32, any::<u32>().prop_map(|gid| gid % 2), 0..=MODE_BITS);
    prop_oneof![
        any::<[u8; 32]>().prop_map(|id| Item::File(ObjectId::from_bytes(id))),
        dir.prop_map(|(uid, gid, mode)| Item::Dir(DirKind { uid, gid, mode })),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let path = "([a-c\u{e4}\u{e5}]{1,4}/){0,4}[a-c\n\u{1f600}]{1,3}";
    let entries = proptest::collection::btree_map(path, item(), 0..40);
    (facts(), any::<[u32; 4]>(), entries).prop_map(|(facts, counts, entries)| {
        let [ghosts, special, dropped, unowned] = counts.map(u64::from);
        let entries: BTreeMap<String, Item> = entries;
        Record {
            facts,
            skipped: Skipped {
                ghosts,
                special,
                dropped,
                unowned,
            },
            entries: entries.into_iter().collect(),
        }
    })
}

proptest! {
    #[test]
    fn records_round_trip(record in record()) {
        prop_assert_eq!(decode(&record.encode(), &record), Ok(record));
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        record in record(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = record.encode();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(decoded) = decode(bytes, &record) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&bytes, &[]);
    }
}

#[test]
fn a_small_record_has_the_documented_bytes() {
    let record = Record {
        facts: Facts {
            name: "ab".into(),
            epoch: Some(0),
            version: "1".into(),
            release: "2".into(),
            arch: "x".into(),
            installed_size: 300,
            build_time: 5,
        },
        skipped: Skipped {
            ghosts: 1,
            ..Skipped::default()
        },
        entries: vec![
            (
                "usr".into(),
                Item::Dir(DirKind {
                    uid: 0,
                    gid: 7,
                    mode: 0o755,
                }),
            ),
            ("usr/f".into(), Item::File(ObjectId::from_bytes([9; 32]))),
        ],
    };
    let head = b"\x01\x02ab\x01\x011\x012\x01x\xac\x02\x05\x01\0\0\0\x01\0\x07\xed\x03";
    let entries = b"\x02\0\x03usr\x01\x03\x02/f\0";
    assert_eq!(record.encode(), [&head[..], entries].concat());
    assert_eq!(decode(&record.encode(), &record), Ok(record));
}

#[test]
fn hostile_records_are_refused() {
    let with_entry = |shared: u8, rest: &[u8], kind: u8| {
        let head = b"\x01\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02\0\x01b\x01".to_vec();
        [
            head,
            vec![shared, rest.len() as u8],
            rest.to_vec(),
            vec![kind],
        ]
        .concat()
    };
    assert!(Record::decode(&with_entry(0, b"c", 1), &[]).is_ok());
    for (bytes, what) in [
        (with_entry(0, b"a", 1), "out of order"),
        (with_entry(1, b"", 1), "out of order"),
        (with_entry(2, b"c", 1), "shares too much"),
        (with_entry(0, b"c/..", 1), "not plain"),
        (with_entry(0, b"c//d", 1), "not plain"),
        (with_entry(0, b"c", 2), "unknown directory kind"),
        (with_entry(0, b"c", 0), "fewer file objects"),
        (with_entry(0, b"\xff", 1), "UTF-8"),
        (b"\x02".to_vec(), "version"),
        (b"\x81\0".to_vec(), "too long"),
        (vec![0x80; 20], "too long"),
        (b"\x01\xff\xff\xff\xff\x0f".to_vec(), "cut short"),
        (Vec::new(), "cut short"),
    ] {
        let error = Record::decode(&bytes, &[]).unwrap_err().to_string();
        assert!(error.contains(what), "{error} is not about {what:?}");
    }
}

#[test]
fn file_objects_must_be_as_many_as_files() {
    let bytes = b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01b\0";
    let id = ObjectId::from_bytes([1; 32]);
    let counts = [0, 1, 2].map(|count| Record::decode(bytes, &vec![id; count]).is_ok());
    assert_eq!(counts, [false, true, false]);
}
