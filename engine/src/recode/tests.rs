use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use super::*;

/// Text that compresses about as well as a manual page.
pub(super) fn text(words: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut out = Vec::new();
    for _ in 0..words {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let word = (state >> 50) % 900;
        write!(out, "{word:x}{} ", if word < 90 { "ing" } else { "" }).unwrap();
    }
    out
}

fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn assert_comes_back(payload: &[u8], plain: &[u8]) {
    let undone = undo(payload).expect("it is taken apart");
    assert!(undone.plain == plain, "other plain bytes");
    // Who has no recipe must come to the same.
    let found = plain_form(payload, plain.len() as u64).expect("it has a plain form");
    assert!(found == plain, "another plain form");
    assert!(plain_form(payload, plain.len() as u64 - 1).is_none());
    let recipe = Recipe::decode(&undone.recipe.encode()).unwrap();
    assert_eq!(recipe, undone.recipe);
    let redone = redo(&undone.plain, &recipe, payload.len()).unwrap();
    assert!(redone == payload, "other payload bytes");
    for size in [0, payload.len() - 1, payload.len() + 1] {
        assert!(redo(&undone.plain, &recipe, size).is_err(), "{size}");
    }
    let cut = &undone.plain[..undone.plain.len() - 1];
    assert!(redo(cut, &recipe, payload.len()).is_err());
}

#[test]
fn gzip_files_of_each_level_and_of_several_members_come_back() {
    let plain = text(30_000);
    for level in [1, 6, 9] {
        assert_comes_back(&gzip(&plain, level), &plain);
    }
    let (one, two) = plain.split_at(50_000);
    assert_comes_back(&[gzip(one, 6), gzip(two, 9)].concat(), &plain);
    assert_comes_back(&[gzip(&plain, 6), vec![0; 512]].concat(), &plain);
}

#[test]
fn damaged_and_foreign_payloads_are_left_alone() {
    let whole = gzip(&text(3_000), 6);
    let mut wrong_crc = whole.clone();
    let end = wrong_crc.len() - 6;
    wrong_crc[end] ^= 1;
    let cases: [(&str, &[u8]); 5] = [
        ("nothing", b""),
        ("text", &text(1_000)),
        ("small", &gzip(b"small", 6)),
        ("cut short", &whole[..whole.len() - 100]),
        ("wrong checksum", &wrong_crc),
    ];
    for (name, payload) in cases {
        assert!(undo(payload).is_none(), "{name}");
    }
}

fn zstd_with(plain: &[u8], level: i32, checksum: bool, jobs: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(checksum).unwrap();
    encoder
        .set_pledged_src_size(Some(plain.len() as u64))
        .unwrap();
    if jobs {
        encoder.multithread(2).unwrap();
    }
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn zstd_frames_of_our_own_encoder_need_no_corrections() {
    let plain = text(200_000);
    for (level, checksum, jobs) in [(1, true, false), (3, false, true), (9, true, true)] {
        let frame = zstd_with(&plain, level, checksum, jobs);
        assert_comes_back(&frame, &plain);
        let recipe = undo(&frame).unwrap().recipe.encode();
        assert!(recipe.len() < 16, "level {level}: {}", recipe.len());
    }
    let whole = zstd::bulk::compress(&plain, 5).unwrap();
    assert_comes_back(&whole, &plain);
    let (one, two) = plain.split_at(50_000);
    let frames = [
        zstd_with(one, 3, true, false),
        zstd_with(two, 3, true, false),
        vec![0; 512],
    ];
    assert_comes_back(&frames.concat(), &plain);
}

#[test]
fn a_plain_archive_may_come_first() {
    let plain = text(20_000);
    let front = [cpio::tests::archive(&[7; 5_000]), vec![0; 700]].concat();
    for packed in [gzip(&plain, 9), zstd_with(&plain, 3, true, false)] {
        let payload = [&front[..], &packed].concat();
        assert_comes_back(&payload, &[&front[..], &plain].concat());
    }
    assert!(undo(&front).is_none());
}

#[test]
fn frames_with_other_choices_than_ours_come_back_with_small_corrections() {
    let plain = text(200_000);
    for (level, parameter) in [
        (1, CParameter::HashLog(12)),
        (3, CParameter::TargetCBlockSize(4096)),
        (9, CParameter::TargetCBlockSize(4096)),
    ] {
        let mut encoder = zstd::bulk::Compressor::new(level).unwrap();
        encoder.set_parameter(parameter).unwrap();
        let frame = encoder.compress(&plain).unwrap();
        assert_comes_back(&frame, &plain);
        let recipe = undo(&frame).unwrap().recipe.encode();
        assert!(recipe.len() > 16, "{parameter:?} changed nothing");
    }
}

/// Recipes of files that GNU gzip 1.12 and zstd 1.5.4 made: what other programs wrote and an
/// earlier build understood, this build must understand, too. If a new version of an encoder fails
/// here, stored payloads could not be read any more: keep the old version, or give the new one
/// another number in the recipe.
#[test]
fn recipes_made_earlier_still_make_the_same_files() {
    let cases: [(usize, &[u8], usize, u64); 5] = [
        (
            3_000,
            include_bytes!("golden/gzip-9"),
            5_570,
            0x6dcf_5b27_7219_cdf9,
        ),
        (
            40_000,
            include_bytes!("golden/zstd-3"),
            73_480,
            0x149e_fab9_12e3_c53a,
        ),
        (
            40_000,
            include_bytes!("golden/zstd-5"),
            68_089,
            0x6800_e10b_c8d5_a8a9,
        ),
        (
            40_000,
            include_bytes!("golden/zstd-9"),
            68_110,
            0x6c75_207f_419b_33e2,
        ),
        (
            40_000,
            include_bytes!("golden/zstd-12"),
            68_161,
            0x925f_15e9_e2b5_df84,
        ),
    ];
    for (words, recipe, size, hash) in cases {
        let recipe = Recipe::decode(recipe).unwrap();
        let redone = redo(&text(words), &recipe, size).unwrap();
        assert_eq!(xxhash_rust::xxh3::xxh3_64(&redone), hash, "{size} bytes");
    }
}

#[test]
fn only_files_that_begin_like_compressed_ones_are_worth_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for (bytes, expected) in [
        (gzip(b"text", 9), true),
        (zstd_with(b"text", 3, true, false), true),
        (cpio::tests::archive(b"data"), true),
        (b"text of some length".to_vec(), false),
        (b"\x1f\x8b".to_vec(), false),
        (Vec::new(), false),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(is_compressed_file(&path).unwrap(), expected, "{bytes:?}");
    }
    assert!(is_compressed_file(&dir.path().join("none")).is_err());
}
