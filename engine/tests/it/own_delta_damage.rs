//! Grove's own deltas where they do not fit, damaged, and made by somebody who lies.

use std::fs;
use std::path::Path;

use grove_engine::ops::delta::{ApplyOptions, apply, show, verify};
use grove_engine::{Error, ObjectId, Repository, Silent};
use sha2::{Digest, Sha256};

use super::own_delta::{Scene, apply_to, commit, make_trees};
use super::support::packs;

const HEAD: usize = 80;
const COUNTS: usize = 32;
const ROW: usize = 44;
const TAIL: usize = 48;

/// Asserts that a file is refused as an invalid delta, and nothing changes.
fn assert_invalid(client: &Repository, delta: &Path, what: &str) {
    let before = packs(client.path());
    for result in [
        apply_to(client, delta).map(drop),
        verify(client, delta, &Silent).map(drop),
    ] {
        match result {
            Err(Error::InvalidDelta { path, .. }) => assert_eq!(path, delta, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(packs(client.path()), before, "{what}");
}

#[test]
fn a_delta_of_another_commit_says_which_one_it_needs() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let stranger = Repository::init(&scene.path("stranger")).unwrap();
    commit(&stranger, &scene.path("b"), None);
    let before = packs(stranger.path());
    for error in [
        apply_to(&stranger, &path).unwrap_err(),
        verify(&stranger, &path, &Silent).unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::WrongBase { from, .. } if *from == scene.old),
            "{error}"
        );
        assert!(error.to_string().contains(&scene.old.to_string()));
    }
    assert_eq!(packs(stranger.path()), before);
    let client = scene.client("partial");
    let state = client.path().join("state");
    fs::create_dir(&state).unwrap();
    let mark = state.join(format!("{}.commitpartial", scene.old));
    fs::write(&mark, "").unwrap();
    let error = apply_to(&client, &path).unwrap_err();
    assert!(
        matches!(&error, Error::PartialBase { from, .. } if *from == scene.old),
        "{error}"
    );
    fs::remove_file(mark).unwrap();
    apply_to(&client, &path).unwrap();
}

#[test]
fn a_ref_that_cannot_be_is_refused_before_anything_is_done() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let client = scene.client("client");
    let mut options = ApplyOptions::default();
    options.refs = vec!["not a ref".to_owned()];
    let refused = apply(&client, &path, &options, &Silent);
    assert!(matches!(refused, Err(Error::InvalidRefName { .. })));
    assert!(client.commit(&scene.new).is_err());
}

/// The sections of a delta: kind, and where they are.
pub fn sections(delta: &[u8]) -> Vec<(u32, std::ops::Range<usize>)> {
    let number = |at: usize| u64::from_le_bytes(delta[at..at + 8].try_into().unwrap()) as usize;
    let table = delta.len() - TAIL - number(delta.len() - TAIL);
    let rows = delta[table + COUNTS..delta.len() - TAIL]
        .as_chunks::<ROW>()
        .0;
    let mut at = HEAD;
    let mut found = Vec::new();
    for row in rows {
        let kind = u32::from_le_bytes(row[..4].try_into().unwrap());
        let size = u64::from_le_bytes(row[4..12].try_into().unwrap()) as usize;
        found.push((kind, at..at + size));
        at += size;
    }
    assert_eq!(at, table);
    found
}

/// A delta of these sections, with checksums that fit.
fn assemble(head: &[u8], counts: &[u8], sections: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut table = counts.to_vec();
    for (kind, bytes) in sections {
        table.extend(kind.to_le_bytes());
        table.extend((bytes.len() as u64).to_le_bytes());
        table.extend(Sha256::digest(bytes));
    }
    let mut out = head.to_vec();
    sections.iter().for_each(|(_, bytes)| out.extend(bytes));
    out.extend(&table);
    out.extend((table.len() as u64).to_le_bytes());
    out.extend(
        Sha256::new()
            .chain_update(head)
            .chain_update(&table)
            .finalize(),
    );
    out.extend(b"GROVEDE1");
    out
}

/// A delta in its parts.
struct Parts {
    head: Vec<u8>,
    counts: Vec<u8>,
    sections: Vec<(u32, Vec<u8>)>,
}

impl Parts {
    fn of(delta: &[u8]) -> Self {
        let found = sections(delta);
        let table = found.last().unwrap().1.end;
        let sections = found.into_iter();
        Self {
            head: delta[..HEAD].to_vec(),
            counts: delta[table..table + COUNTS].to_vec(),
            sections: sections
                .map(|(kind, range)| (kind, delta[range].to_vec()))
                .collect(),
        }
    }

    fn assemble(&self) -> Vec<u8> {
        assemble(&self.head, &self.counts, &self.sections)
    }
}

#[test]
fn a_delta_that_is_cut_anywhere_or_longer_is_refused() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let good = fs::read(path).unwrap();
    let client = scene.client("client");
    let mut cuts: Vec<usize> = vec![0, 1, 8, 12, HEAD - 1, HEAD, HEAD + TAIL];
    for (_, range) in sections(&good) {
        cuts.extend([range.start, range.start + 1, range.end - 1, range.end]);
    }
    cuts.extend((0..good.len()).step_by(good.len() / 50));
    cuts.extend(good.len() - TAIL - 9..good.len());
    let delta = scene.path("cut.delta");
    for cut in cuts {
        fs::write(&delta, &good[..cut]).unwrap();
        assert_invalid(&client, &delta, &format!("{cut} bytes"));
        assert!(show(&delta).is_err());
    }
    fs::write(&delta, [&good[..], b"x"].concat()).unwrap();
    assert_invalid(&client, &delta, "a byte too much");
    fs::write(&delta, &good).unwrap();
    apply_to(&client, &delta).unwrap();
}

#[test]
fn a_flipped_bit_is_found_before_anything_is_used() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let good = fs::read(path).unwrap();
    let client = scene.client("client");
    let table = sections(&good).last().unwrap().1.end;
    let mut places: Vec<usize> = (0..8).chain(12..HEAD).collect();
    places.extend((HEAD..table).step_by(table / 60));
    places.extend(table..good.len());
    let delta = scene.path("flipped.delta");
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&delta, bad).unwrap();
        assert_invalid(&client, &delta, &format!("byte {at}"));
    }
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let mut parts = Parts::of(&fs::read(path).unwrap());
    parts.head[8] = 2;
    let delta = scene.path("newer.delta");
    fs::write(&delta, parts.assemble()).unwrap();
    let client = scene.client("client");
    let error = apply_to(&client, &delta).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedFormat { .. }), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
    assert!(matches!(show(&delta), Err(Error::UnsupportedFormat { .. })));
}

#[test]
fn a_delta_that_lies_with_checksums_that_fit_is_refused() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let good = fs::read(path).unwrap();
    assert!(Parts::of(&good).assemble() == good);
    let client = scene.client("client");
    let delta = scene.path("lie.delta");
    let check = |what: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        fs::write(&delta, parts.assemble()).unwrap();
        assert_invalid(&client, &delta, what);
    };
    let other = ObjectId::of(b"another commit");
    check("another commit", &|parts| {
        parts.head[48..80].copy_from_slice(other.as_bytes());
    });
    for at in 0..4 {
        for (what, value) in [("less", 0xff_u8), ("more", 1)] {
            check(&format!("count {at}, {what}"), &|parts| {
                parts.counts[8 * at] = parts.counts[8 * at].wrapping_add(value);
            });
        }
    }
    for kind in 1..=3 {
        let place = |parts: &Parts| parts.sections.iter().position(|s| s.0 == kind).unwrap();
        check(&format!("no section {kind}"), &|parts| {
            parts.sections.remove(place(parts));
        });
        check(&format!("section {kind} twice"), &|parts| {
            let again = parts.sections[place(parts)].clone();
            parts.sections.push(again);
        });
        check(&format!("section {kind} empty"), &|parts| {
            let at = place(parts);
            parts.sections[at].1.clear();
        });
        check(&format!("section {kind} of an unknown kind"), &|parts| {
            let at = place(parts);
            parts.sections[at].0 = 9;
        });
        check(&format!("section {kind} announces gigabytes"), &|parts| {
            let at = place(parts);
            parts.sections[at].1[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        });
    }
}

/// A section in which one stream is a zstd frame of this many zeros.
fn with_zeros(section: &[u8], streams: usize, number: usize, zeros: u32) -> Vec<u8> {
    let row = |at: usize| &section[at * 12..at * 12 + 12];
    let field = |row: &[u8], at: usize| u32::from_le_bytes(row[at..at + 4].try_into().unwrap());
    let frame = zstd::bulk::compress(&vec![0; zeros as usize], 3).unwrap();
    let (mut rows, mut bodies, mut at) = (Vec::new(), Vec::new(), streams * 12);
    for stream in 0..streams {
        let packed = field(row(stream), 8) as usize;
        if stream == number {
            for field in [1, zeros, frame.len() as u32] {
                rows.extend(field.to_le_bytes());
            }
            bodies.extend(&frame);
        } else {
            rows.extend(row(stream));
            bodies.extend(&section[at..at + packed]);
        }
        at += packed;
    }
    assert_eq!(at, section.len());
    [rows, bodies].concat()
}

#[test]
fn a_small_delta_that_unpacks_to_more_than_any_is_refused() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let good = fs::read(path).unwrap();
    let client = scene.client("client");
    let delta = scene.path("bomb.delta");
    // Tree, files, contents: a quarter of a gigabyte; and what files keep: four million contents.
    let bombs = [
        (1, 2, 1, (256 << 20) + 1, "larger than any"),
        (2, 4, 1, (256 << 20) + 1, "larger than any"),
        (3, 10, 8, (256 << 20) + 1, "larger than any"),
        (2, 4, 3, (1 << 22) + 1, "keeps more contents than any"),
    ];
    for (kind, streams, number, zeros, message) in bombs {
        let mut parts = Parts::of(&good);
        let section = parts.sections.iter_mut().find(|s| s.0 == kind).unwrap();
        section.1 = with_zeros(&section.1, streams, number, zeros);
        let bomb = parts.assemble();
        assert!(bomb.len() < good.len() + (64 << 10), "{}", bomb.len());
        fs::write(&delta, bomb).unwrap();
        assert_invalid(&client, &delta, message);
        let error = verify(&client, &delta, &Silent).unwrap_err().to_string();
        assert!(error.contains(message), "section {kind}: {error}");
    }
}

#[test]
fn whatever_a_liar_writes_is_refused_or_makes_the_commit() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let good = Parts::of(&fs::read(path).unwrap());
    let client = scene.client("client");
    let delta = scene.path("lie.delta");
    let mut state = 1u64;
    let mut next = |limit: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % limit
    };
    let mut refused = 0;
    for _ in 0..150 {
        let mut sections = good.sections.clone();
        let number = next(sections.len());
        let section = &mut sections[number].1;
        for _ in 0..=next(3) {
            // Heads of streams, and the short streams behind them, decide most.
            let limit = match next(3) {
                0 => section.len(),
                _ => section.len().min(400),
            };
            let at = next(limit);
            section[at] = [0, 1, 0x7f, 0x80, 0xff, section[at] ^ 1, section[at] ^ 64][next(7)];
        }
        fs::write(&delta, assemble(&good.head, &good.counts, &sections)).unwrap();
        match verify(&client, &delta, &Silent) {
            Ok(report) => assert_eq!(report.to, scene.new),
            Err(Error::InvalidDelta { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 75, "{refused}");
}
