//! Parts that OSTree made, and parts that nobody should.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicI64, Ordering};

use super::check::check_part;
use super::part::{Effort, PartBuilder, compress, open_within, store};
use super::superblock::{PartHead, Superblock};
use super::{DeltaAt, DeltaName, Fault, apply_offline};
use crate::Body as Content;
use crate::NewFile;
use crate::bsdiff::{Aligner, encode};
use crate::error::Error;
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::monitor::{Monitor, Silent};
use crate::object::gvariant::Frame;
use crate::object::{Commit, FileHeader, Metadata, Xattrs};
use crate::ops::changes::{Object, Run, put_number};
use crate::repo::Repository;

/// A part that `ostree static-delta generate` made, without its compression.
const GOLDEN: &str = "\
    0000000000000000000081a40000000000000000000089ed00000000000000000000a1ff757365722e61006f6e650775\
    7365722e620074776f070b1600187a003168f4d201f9f3d84807f2231e5855dba6ca96f3637ec7562a3c57d0cfd0fbb2\
    022324656d70747900cc700d46f407c6c5ab2d5dde474366a928b7398277e61162e7f8ec06f469f07e0668656c6c6f00\
    44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b066c696e6b0073baaba0102e9154b852\
    2687d33eedb8ed1bc78eadb82428b2616144ec5029340578617400db4e5b0f033978ab58cbd96b9e42c723fee1972dc3\
    15f45c56f581588cfcf2ab04274e749973756200422b5aa3f923299f95409d019877621dafb62372d87d94146f0c3db3\
    48bd6ad4446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c54882404469d0000000000000000\
    000041ed68656c6c6f0a786361707368656c6c6f53250053e50125530c8a025300000096025300000696025301000\
    19c02530001049d0253020005a10264013e002400";

/// The objects that it makes, in its order.
const GOLDEN_OBJECTS: [(ObjectKind, &str); 8] = [
    (
        ObjectKind::Dirtree,
        "422b5aa3f923299f95409d019877621dafb62372d87d94146f0c3db348bd6ad4",
    ),
    (
        ObjectKind::Dirtree,
        "da9b33da11f0f08aefc9a462d11242ca9401a6bf8213108badc7c93dbf5667e9",
    ),
    (
        ObjectKind::Dirmeta,
        "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488",
    ),
    (
        ObjectKind::File,
        "cc700d46f407c6c5ab2d5dde474366a928b7398277e61162e7f8ec06f469f07e",
    ),
    (
        ObjectKind::File,
        "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b",
    ),
    (
        ObjectKind::File,
        "3168f4d201f9f3d84807f2231e5855dba6ca96f3637ec7562a3c57d0cfd0fbb2",
    ),
    (
        ObjectKind::File,
        "db4e5b0f033978ab58cbd96b9e42c723fee1972dc315f45c56f581588cfcf2ab",
    ),
    (
        ObjectKind::File,
        "73baaba0102e9154b8522687d33eedb8ed1bc78eadb82428b2616144ec502934",
    ),
];

fn golden() -> (Vec<u8>, PartHead) {
    let digits: Vec<u8> = GOLDEN.bytes().collect();
    let pairs = digits.as_chunks::<2>().0.iter();
    let body =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let objects = GOLDEN_OBJECTS
        .iter()
        .map(|(kind, id)| (*kind, id.parse().unwrap()))
        .collect();
    (body.collect(), head(objects, 289))
}

fn head(objects: Vec<Object>, made_size: u64) -> PartHead {
    PartHead {
        checksum: ObjectId::of(b""),
        size: 0,
        made_size,
        objects,
    }
}

fn check(repo: &Repository, head: &PartHead, file: &[u8]) -> Result<(), Fault> {
    check_part(repo, head, file, None, &Silent)
}

fn repository() -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    (dir, repo)
}

fn header(mode: u32) -> FileHeader {
    FileHeader {
        uid: 0,
        gid: 0,
        mode,
        symlink_target: Vec::new(),
        xattrs: Xattrs::default(),
    }
}

/// Stores a file, so that parts can take bytes from it.
fn put(repo: &Repository, bytes: &[u8]) -> ObjectId {
    let mut txn = repo.begin(&Silent).unwrap();
    let body = Content::Bytes(bytes.to_vec());
    let file = NewFile {
        header: header(0o100644),
        hint: Vec::new(),
        body,
    };
    let entries = txn.put_files(vec![file]).unwrap();
    txn.put_listed_file(&entries[0]).unwrap();
    txn.publish(&[]).unwrap();
    entries[0].id
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn a_part_of_ostree_makes_its_objects() {
    let (_dir, repo) = repository();
    let (body, head) = golden();
    for file in [store(&body), compress(&body, Effort::Fast).unwrap()] {
        check(&repo, &head, &file).unwrap();
    }
}

#[test]
fn a_part_with_any_byte_changed_or_cut_off_is_refused() {
    let (_dir, repo) = repository();
    let (body, head) = golden();
    let mut accepted = Vec::new();
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 0x11;
        if check(&repo, &head, &store(&changed)).is_ok() {
            accepted.push(at);
        }
        assert!(
            check(&repo, &head, &store(&body[..at])).is_err(),
            "length {at}"
        );
    }
    // It does not matter where in the blob the empty file begins.
    assert_eq!(accepted, [371]);
}

#[test]
fn a_head_that_announces_less_or_other_objects_is_refused() {
    let (_dir, repo) = repository();
    let (body, good) = golden();
    let file = store(&body);
    let cases = [
        (
            PartHead {
                made_size: 288,
                ..good.clone()
            },
            "larger than its head announces",
        ),
        (
            PartHead {
                objects: good.objects[..7].to_vec(),
                ..good.clone()
            },
            "more objects",
        ),
        (
            PartHead {
                objects: [&good.objects[..], &good.objects[..1]].concat(),
                ..good.clone()
            },
            "before all",
        ),
        (
            PartHead {
                objects: good.objects.iter().rev().copied().collect(),
                ..good
            },
            "",
        ),
    ];
    for (head, message) in cases {
        let error = check(&repo, &head, &file).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// A part with one mode, no attributes, this blob and these operations.
fn part(blob: &[u8], ops: &[u8]) -> Vec<u8> {
    let mut xattrs = Frame::default();
    xattrs.variable(1, &[]);
    let mut tuple = Frame::default();
    let mode = [0, 0, 0o100644u32].map(u32::to_be_bytes).concat();
    tuple.variable(4, &mode);
    tuple.variable(1, &xattrs.into_array());
    tuple.variable(1, blob);
    tuple.variable(1, ops);
    store(&tuple.into_tuple())
}

#[test]
fn operations_that_would_end_a_client_are_errors() {
    let (_dir, repo) = repository();
    let source = put(&repo, b"0123456789");
    let link = ObjectId::of(b"nothing");
    let blob = [source.as_bytes(), link.as_bytes().as_slice(), b"literal"].concat();
    let object = (ObjectKind::File, ObjectId::of(b"made"));
    let cases: [(&[u8], &str); 19] = [
        (b"o\0\0\x07w\x07\x40c", "what it makes is not"),
        (b"o\0\0\x07o\0\0\x07", "within another"),
        (b"o\0\0\x07", "before all of its objects"),
        (b"", "before all of its objects"),
        (b"c", "did not begin"),
        (b"w\x01\0", "to no file"),
        (b"o\0\0\x07w\x03\x40c", "too early"),
        (b"o\0\0\x07w\x08\x3fc", "beyond its size"),
        (b"o\0\0\x07w\x07\x7f", "out of the blob"),
        (b"o\x01\0\x07", "out of a table"),
        (b"o\0\x01\x07", "out of a table"),
        (b"o\0\0\x07B\x40\x07", "without a source"),
        (b"o\0\0\x07r\0B\x40\x07", "ends too early"),
        (b"o\0\0\x07r\x20", "not in the repository"),
        (b"o\0\0\x07r\x60", "out of the blob"),
        (b"o\0\0\x07r\0w\x07\x04", "out of its source"),
        (b"x", "unknown"),
        (b"o\0", "cut short"),
        (
            b"o\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0",
            "malformed number",
        ),
    ];
    for (ops, message) in cases {
        let error = check(&repo, &head(vec![object], 100), &part(&blob, ops)).unwrap_err();
        assert!(matches!(error, Fault::Invalid(_)), "{error}");
        assert!(error.to_string().contains(message), "{ops:?}: {error}");
    }
}

/// Asks to stop when it was asked some times whether to.
#[derive(Debug)]
struct Impatient(AtomicI64);

impl Monitor for Impatient {
    fn is_cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

#[test]
fn a_part_stops_within_an_operation_and_between_those_that_write_nothing() {
    let (_dir, repo) = repository();
    let source = put(&repo, &noise(1, 1 << 20));
    let mut copy = b"o\0\0".to_vec();
    put_number(&mut copy, 1 << 20);
    copy.extend(b"r\0w");
    put_number(&mut copy, 1 << 20);
    copy.extend(b"\0c");
    let object = (ObjectKind::File, ObjectId::of(b"made"));
    let head = head(vec![object], 1 << 20);
    // It makes up its mind when the file has begun and a page was copied; or at the last of many
    // operations.
    for (ops, patience) in [(&copy[..], 5), (&b"R".repeat(5000), 4999)] {
        let monitor = Impatient(patience.into());
        let file = part(source.as_bytes(), ops);
        let stopped = check_part(&repo, &head, &file, None, &monitor);
        assert!(
            matches!(stopped, Err(Fault::Engine(Error::Cancelled))),
            "{stopped:?}"
        );
        // Nothing was asked after that.
        assert_eq!(monitor.0.into_inner(), -1);
    }
}

#[test]
fn a_file_that_the_disk_cannot_hold_is_not_begun() {
    const SIZE: u64 = (1 << 40) - 1;
    let (dir, repo) = repository();
    let room = rustix::fs::statvfs(dir.path()).unwrap();
    if room.f_bavail * room.f_frsize >= SIZE {
        println!("skipped: the disk holds a terabyte");
        return;
    }
    let mut ops = b"o\0\0".to_vec();
    put_number(&mut ops, SIZE);
    let file = part(b"again and again", &ops);
    let commit = Commit {
        metadata: Metadata::default(),
        parent: None,
        subject: String::new(),
        body: String::new(),
        timestamp: 1,
        tree: ObjectId::of(b"tree"),
        meta: ObjectId::of(b"meta"),
    };
    let object = (ObjectKind::File, ObjectId::of(b"made"));
    let superblock = Superblock {
        metadata: Metadata::default(),
        timestamp: 1,
        name: DeltaName {
            from: None,
            to: commit.object_id(),
        },
        commit: commit.to_bytes(),
        parts: vec![PartHead {
            checksum: ObjectId::of(&file),
            size: file.len() as u64,
            ..head(vec![object], SIZE)
        }],
        fallbacks: Vec::new(),
        big_endian: false,
    };
    let delta = dir.path().join("delta");
    fs::create_dir(&delta).unwrap();
    fs::write(delta.join("superblock"), superblock.to_bytes()).unwrap();
    fs::write(delta.join("0"), file).unwrap();
    match apply_offline(&repo, &DeltaAt::Path(&delta), &Silent) {
        Err(Error::Io { path, source }) => {
            assert_eq!(source.kind(), ErrorKind::StorageFull);
            assert!(path.starts_with(repo.path()), "{}", path.display());
        }
        other => panic!("{other:?}"),
    }
    let staging = fs::read_dir(repo.path().join("staging")).unwrap();
    assert_eq!(staging.count(), 0);
}

#[test]
fn what_is_built_is_what_runs() {
    let (_dir, repo) = repository();
    let (first, second) = (noise(1, 50_000), noise(2, 40_000));
    let (a, b) = (put(&repo, &first), put(&repo, &second));
    let mut patched = first.clone();
    patched.iter_mut().step_by(99).for_each(|byte| *byte ^= 5);
    patched.drain(..100);
    let spliced = [&first[100..600], b"own", &second[40..9040], &first[..50]].concat();
    let mut builder = PartBuilder::default();
    let mode = header(0o100755);
    let name = |header: &FileHeader, bytes: &[u8]| header.object_id(bytes);
    let stretches = Aligner::default().align(&first, &patched);
    let stream = encode(&first, &patched, &stretches);
    builder.add_patch(
        name(&mode, &patched),
        &mode,
        patched.len() as u64,
        &a,
        &stream,
    );
    let copy = |source, offset, len| Run::Copy {
        source,
        offset,
        len,
    };
    let runs = [
        copy(0, 100, 500),
        Run::Fresh { len: 3 },
        copy(1, 40, 9000),
        copy(0, 0, 50),
    ];
    builder.add_splice(
        name(&mode, &spliced),
        &mode,
        spliced.len() as u64,
        &[a, b],
        &runs,
        b"own",
    );
    let payload = Some(PayloadId::of(b"whole"));
    builder.add_whole(name(&mode, b"whole"), &mode, payload, b"whole");
    let before = builder.blob_len();
    let other = header(0o100600);
    builder.add_whole(name(&other, b"whole"), &other, payload, b"whole");
    assert_eq!(builder.blob_len(), before);
    let link = FileHeader {
        symlink_target: b"target".to_vec(),
        ..header(0o120777)
    };
    builder.add_whole(name(&link, b""), &link, None, b"");
    let made = builder.finish();
    let allowed = made.made_size + 4096 + 256 * made.objects.len() as u64;
    assert!(made.bytes.len() as u64 <= allowed);
    let head = head(made.objects, made.made_size);
    check(&repo, &head, &store(&made.bytes)).unwrap();
}

#[test]
fn a_part_that_takes_more_than_clients_allow_for_announces_more() {
    let mut builder = PartBuilder::default();
    let stream = vec![0; 100_000];
    let mode = header(0o100644);
    builder.add_patch(ObjectId::of(b"x"), &mode, 10, &ObjectId::of(b"y"), &stream);
    let made = builder.finish();
    assert_eq!(made.made_size, made.bytes.len() as u64 - 4096 - 256);
}

#[test]
fn compressed_bombs_and_unknown_methods_are_refused() {
    let bomb = compress(&vec![0; 1 << 20], Effort::Fast).unwrap();
    assert_eq!(open_within(&bomb, 1 << 20).unwrap().len(), 1 << 20);
    for file in [&bomb[..], b"", b"g", &bomb[..100]] {
        assert!(matches!(
            open_within(file, (1 << 20) - 1),
            Err(Fault::Invalid(_))
        ));
    }
}
