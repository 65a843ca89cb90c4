//! docs/format.md says what the code does: its constants and hexdumps are compared here.

use crate::compress::Codec;
use crate::id::{ObjectId, PackId, PayloadId};
use crate::object::{FileHeader, Xattrs};
use crate::pack::parity;
use crate::pack::parity::Parity;
use crate::pack::{self, BlockClass, BlockHeader, EntryKind, Key, Tail, data_sum, encode_entry};
use crate::refs::{self, Refs};
use crate::repo::encode_record;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md");
    std::fs::read_to_string(path).unwrap()
}

/// The text of the fenced block with this label.
fn fenced(label: &str) -> String {
    let document = document();
    let start = format!("```{label}\n");
    let at = document
        .find(&start)
        .unwrap_or_else(|| panic!("no block {label}"))
        + start.len();
    let len = document[at..].find("```").unwrap();
    document[at..at + len].to_owned()
}

fn assert_hexdump(label: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        fenced(&format!("hexdump {label}")).replace('\n', ""),
        hex,
        "{label}"
    );
}

#[test]
fn sizes_of_archived_files_are_as_documented() {
    assert_hexdump("filez-sizes", &crate::ops::ostree::example());
}

#[test]
fn deltas_are_as_documented() {
    use crate::ops::delta::{content, file, limits, streams};
    let from = ObjectId::from_bytes([0xaa; 32]);
    let to = ObjectId::from_bytes([0xbb; 32]);
    assert_hexdump("own-delta-head", &file::head(Some(&from), &to));
    let document = document();
    let (gib, mib) = (1 << 30, 1 << 20);
    for (row, same) in [
        (
            "| sections; bytes of one | 2^18; 1 GiB |",
            (file::MAX_SECTIONS, file::MAX_SECTION) == (1 << 18, gib),
        ),
        (
            "| streams of contents together; of the tree or the files | 256 MiB; 256 MiB |",
            (limits::MAX_CONTENTS_RAW, limits::MAX_TREE_RAW) == (256 * mib, 256 * mib),
        ),
        (
            "| pieces of a content of way 3; contents that are kept | 100,000; 2^22 |",
            (limits::MAX_PIECES, limits::MAX_KEPT) == (100_000, 1 << 22),
        ),
        (
            "| size of a content of way 0, 1 or 2; of way 4 | 64 MiB; 64 MiB |",
            (limits::MAX_CONTENT, crate::recode::MAX_SIZE) == (64 * mib, 64 * mib),
        ),
        (
            "| sources of a content together | 256 MiB |",
            limits::MAX_SOURCES_BYTES == 256 * mib,
        ),
        (
            "| detached metadata | 128 MiB |",
            crate::repo::state::MAX_DETACHED == 128 * mib,
        ),
        (
            "with which they would exceed 32 MiB",
            limits::MAX_PREFIX == 32 << 20,
        ),
        ("and at most 8.", limits::MAX_SOURCES == 8),
        ("*Contents* has ten streams", content::STREAMS == 10),
        (
            "| 12 | 32 | checksum | SHA-256 of the section |",
            file::ROW_SIZE == 12 + 32,
        ),
        (
            "codec (4), length (4), packed length (4)",
            streams::STREAM_ROW_SIZE == 12,
        ),
    ] {
        assert!(same && document.contains(row), "{row}");
    }
}

#[test]
fn constants_are_as_documented() {
    let document = document();
    for (name, value) in [
        ("PACK_HEADER_SIZE", pack::PACK_HEADER_SIZE as u64),
        ("BLOCK_HEADER_SIZE", pack::BLOCK_HEADER_SIZE as u64),
        ("DELTA_HEAD_SIZE", pack::delta::DELTA_HEAD_SIZE as u64),
        ("ENTRY_SIZE", pack::ENTRY_SIZE as u64),
        ("FOOTER_ROW_SIZE", pack::FOOTER_ROW_SIZE as u64),
        ("TAIL_SIZE", pack::TAIL_SIZE as u64),
        ("PACK_TARGET", pack::PACK_TARGET),
        ("GROUP_TARGET", pack::GROUP_TARGET as u64),
        ("META_TARGET", pack::META_TARGET as u64),
        ("GROUPED_MAX", pack::GROUPED_MAX),
        ("MAX_RAW", pack::MAX_RAW as u64),
        ("MAX_ENTRIES", pack::MAX_ENTRIES as u64),
    ] {
        assert!(
            document.contains(&format!("| `{name}` | {value} |")),
            "{name} is {value}"
        );
    }
    for (up_to, size) in [
        ("up to 4 GiB", 4 << 30),
        ("up to 64 GiB", 64 << 30),
        ("more", 65 << 30),
    ] {
        let row = format!("| {up_to} | {} |", pack::extent_size(size));
        assert!(document.contains(&row), "{row}");
    }
}

#[test]
fn hexdumps_are_what_is_written() {
    assert_hexdump("pack-header", &pack::pack_header());
    assert_hexdump("tail", &Tail::encode(&[], 0, pack::PACK_HEADER_SIZE as u64));
    let key = Key::new(EntryKind::Commit, [0xaa; 32]);
    let mut header = BlockHeader {
        codec: Codec::Raw,
        class: BlockClass::Meta,
        entries: 1,
        raw_len: 5,
        stored_len: 5,
        data_sum: data_sum(b"hello"),
        head_sum: 0,
    };
    let mut block = header.encode(&encode_entry(&key, 5));
    block.extend_from_slice(b"hello");
    assert_hexdump("block", &block);
    let head = pack::delta::DeltaHead {
        base: PayloadId::of(b"hello\n"),
        base_size: 6,
        offset: 0,
        window: 6,
        raw_len: 5,
    };
    assert_hexdump("delta-record", &head.encode(b"frame"));
    let header = FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs: Xattrs::default(),
    };
    assert_hexdump(
        "file-record",
        &encode_record(&header, 6, Some(PayloadId::of(b"hello\n"))),
    );
}

#[test]
fn parity_is_as_documented() {
    let document = document();
    for (name, value) in [
        ("SHARD_UNIT", parity::SHARD_UNIT),
        ("MAX_SHARDS", parity::MAX_SHARDS),
        ("RECOVERY_SHARE", parity::RECOVERY_SHARE),
        ("MIN_RECOVERY", parity::MIN_RECOVERY),
    ] {
        let row = format!("| `{name}` | {value} |");
        assert!(document.contains(&row), "{row}");
    }
    let pack: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
    let file = Parity::of(PackId::from_bytes([0xaa; 16]), pack).encode();
    // Two shards of each sort: the checksums of the recovery shards pin the code.
    let head = parity::HEADER_SIZE + 4 * 8 + 8;
    assert_hexdump("parity-head", &file[..head]);
    assert_eq!(file.len(), 2 * head + 2 * 4096 + parity::END_SIZE);
}

#[test]
fn the_refs_file_is_as_shown() {
    let map = [("os/stable".to_owned(), ObjectId::of(b""))].into();
    assert_eq!(
        fenced("text refs"),
        refs::encode(&Refs { generation: 3, map })
    );
}
