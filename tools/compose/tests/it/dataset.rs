//! Every package of the shared data set is read, byte-equal to what `rpm2cpio | cpio` unpacks,
//! or refused for a reason that is listed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::support::{Seen, data, explain, have, packages, read};

/// Packages that cannot be read, and a part of the reason given.
const REFUSED: &[(&str, &str)] = &[
    ("hello-2.0-1.x86_64-corrupted.rpm", "payload: it is missing"),
    (
        "non-utf8-1.0-1.el5.centos.x86_64.rpm",
        "filename: the name is not UTF-8",
    ),
];

#[test]
fn every_package_is_read_or_refused_with_the_listed_reason() {
    let Some(dir) = data("rpms") else { return };
    let all = packages(&dir);
    let mut refused = BTreeMap::new();
    for path in &all {
        if let Err(error) = read(path) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            refused.insert(name, explain(&error));
        }
    }
    println!("{} packages, {} refused:", all.len(), refused.len());
    refused
        .iter()
        .for_each(|(name, why)| println!("  {name}: {why}"));
    let listed: BTreeSet<_> = REFUSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(refused.keys().cloned().collect::<BTreeSet<_>>(), listed);
    for (name, why) in REFUSED {
        assert!(refused[*name].contains(why), "{name}: {}", refused[*name]);
    }
}

#[test]
fn what_is_read_equals_what_cpio_unpacks() {
    let Some(dir) = data("rpms") else { return };
    if !have("rpm2archive") || !have("cpio") {
        return;
    }
    let compared: usize = packages(&dir).par_iter().map(|path| compare(path)).sum();
    println!("{compared} entries compared");
}

/// Compares a package's entries with what rpm's tools unpack; returns their number.
fn compare(path: &Path) -> usize {
    let Ok(keep) = read(path) else { return 0 };
    if keep.seen.is_empty() {
        return 0;
    }
    let unpacked = unpack(path);
    let mut found = BTreeMap::new();
    walk(unpacked.path(), "", &mut found);
    // Directories that cpio made on the way are nobody's.
    found.retain(|name, seen| keep.seen.contains_key(name) || !matches!(seen, Seen::Dir { .. }));
    assert!(
        keep.seen.keys().eq(found.keys()),
        "{}: {:?}",
        path.display(),
        found.keys()
    );
    for (name, seen) in &keep.seen {
        assert_eq!(seen, &found[name], "{name} in {}", path.display());
    }
    keep.seen.len()
}

/// Unpacks with rpm's tools; stripped archives are beyond `rpm2cpio`.
fn unpack(package: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    let script = r#"
        if rpm2cpio "$1" >"$2" 2>/dev/null
        then cpio -idm --quiet --no-absolute-filenames <"$2"
        else rpm2archive -n - <"$1" | tar -xpf -
        fi"#;
    let out = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([package, archive.path()])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {said}", package.display());
    dir
}

fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Seen>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let status = entry.metadata().unwrap();
        let mode = status.permissions().mode();
        let kind = entry.file_type().unwrap();
        let seen = if kind.is_dir() {
            walk(&entry.path(), &path, found);
            Seen::Dir { mode }
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            Seen::Symlink {
                target: target.into_os_string().into_string().unwrap(),
            }
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            Seen::File {
                mode,
                size: status.len(),
                sha256: Sha256::digest(&bytes).into(),
            }
        } else {
            Seen::Special { mode }
        };
        found.insert(path, seen);
    }
}
