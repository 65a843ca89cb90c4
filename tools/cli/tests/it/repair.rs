//! Damage as the user meets it: what is said, where it is said to hit, and how it is mended.

use std::fs;
use std::path::PathBuf;

use grove_fixtures::raw::{Packing, RawEntry, package};

use crate::env::Env;

/// A repository with one large file, whose pack is damaged in the middle.
fn damaged(parity: bool) -> (Env, PathBuf) {
    let env = Env::new();
    let noise: String = (0..400_000u64)
        .map(|n| char::from(32 + (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8 % 90))
        .collect();
    env.file("one/sub/large", &noise, 0o644);
    if parity {
        env.ok(&["repair", "--parity"]);
    }
    env.ok(&["commit", "-b", "os/main", "--tree=dir=one"]);
    let packs = fs::read_dir(env.path("repo/packs")).expect("packs");
    let packs = packs.map(|entry| entry.expect("an entry").path());
    let packs = packs.filter(|path| path.extension().is_some_and(|e| e == "pack"));
    let largest = packs.max_by_key(|path| fs::metadata(path).expect("a pack").len());
    let largest = largest.expect("a pack");
    let mut bytes = fs::read(&largest).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("a pack");
    (env, largest)
}

#[test]
fn damage_is_told_with_object_and_path() {
    let (env, _) = damaged(false);
    let runs: [&[&str]; 3] = [
        &["cat", "os/main", "/sub/large"],
        &["checkout", "-U", "os/main", "out"],
        &["checkout", "-U", "--subpath=/sub/large", "os/main", "out2"],
    ];
    for args in runs {
        let output = env.output(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(13), "{args:?}: {errors}");
        let first = errors.lines().next().unwrap_or_default();
        assert!(first.contains("/large: file object "), "{args:?}: {errors}");
        assert!(errors.contains("block checksum mismatch"), "{errors}");
    }
    assert!(
        !env.path("out/sub/large").exists()
            || fs::metadata(env.path("out/sub/large"))
                .expect("a file")
                .len()
                < 400_000
    );
    let fsck = env.output(&["fsck"]);
    let text = String::from_utf8_lossy(&fsck.stdout);
    assert_eq!(fsck.status.code(), Some(3));
    assert!(text.contains("\n  hits: os/main /sub/large\n"), "{text}");
    let json = env.output(&["fsck", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let problem = &json["problems"][0];
    assert_eq!(problem["kind"], "block");
    assert_eq!(problem["paths"][0]["path"], "/sub/large");
    assert!(problem["offset"].is_u64() && problem["pack"].is_string());
    assert!(
        problem["object"]
            .as_str()
            .is_some_and(|name| name.starts_with("payload "))
    );
}

#[test]
fn a_repair_takes_what_is_missing_from_a_package_and_says_what_is_lost() {
    let (env, _) = damaged(false);
    let content = fs::read(env.path("one/sub/large")).expect("a file");
    let entries = [
        RawEntry::file("/usr/other", b"something else"),
        RawEntry::file("/usr/large", &content),
    ];
    let made = package("large", Packing::Gzip, &entries);
    fs::write(env.path("large.rpm"), made).expect("a package");
    let lost = env.output(&["repair"]);
    let text = String::from_utf8_lossy(&lost.stdout);
    assert_eq!(lost.status.code(), Some(3), "{text}");
    assert!(
        text.contains("lost: payload ") && text.contains("hits: os/main /sub/large"),
        "{text}"
    );
    let dry = env.output(&["repair", "--dry-run", "--from=large.rpm"]);
    assert_eq!(
        dry.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&dry.stdout)
    );
    assert_eq!(
        env.output(&["fsck"]).status.code(),
        Some(3),
        "nothing was changed"
    );
    let text = env.ok(&["repair", "--from=large.rpm"]);
    assert!(text.contains("everything is restored"), "{text}");
    env.ok(&["fsck", "--deep"]);
    assert_eq!(
        env.ok(&["cat", "os/main", "/sub/large"]).as_bytes(),
        content
    );
    assert_eq!(
        env.output(&["repair", "--from=nothing"]).status.code(),
        Some(1)
    );
}

#[test]
fn parity_mends_without_any_source() {
    let (env, pack) = damaged(true);
    let text = env.ok(&["repair"]);
    assert!(text.contains("mended from parity"), "{text}");
    assert!(pack.exists() && !env.path("repo/quarantine").exists());
    env.ok(&["fsck", "--deep"]);
    assert_eq!(env.ok(&["repair"]), "no damage found\n");
}
