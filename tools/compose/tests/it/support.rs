//! What several tests need: finding input and tools, and a visitor that keeps everything.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use grove_compose::package::{ReadOptions, Visitor};
use grove_compose::{Entry, EntryKind, Error, Package};
use sha2::{Digest, Sha256};

/// A directory of the shared test data, or `None` with a printed reason.
pub fn data(what: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .ok()?;
    let candidates = root
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("shared/data").join(what));
    let found = candidates.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("skipped: ../shared/data/{what} is not there");
    }
    found
}

/// Whether a tool can be run; prints why the test is skipped if not.
pub fn have(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output();
    let found = found.is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

/// Every package below a directory, sorted.
pub fn packages(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rpm") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A package's entry, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Dir {
        mode: u32,
    },
    File {
        mode: u32,
        size: u64,
        sha256: [u8; 32],
    },
    Symlink {
        target: String,
    },
    Special {
        mode: u32,
    },
}

/// Keeps everything that is read, ghosts apart.
#[derive(Debug, Default)]
pub struct Keep {
    pub seen: BTreeMap<String, Seen>,
    pub ghosts: Vec<String>,
    pub contents: usize,
}

impl Visitor for Keep {
    type Error = Error;

    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.is_ghost() {
            self.ghosts.push(entry.path.clone());
            return Ok(());
        }
        let seen = match entry.kind {
            EntryKind::Dir => Seen::Dir { mode: entry.mode },
            EntryKind::Symlink => Seen::Symlink {
                target: entry.target.clone(),
            },
            _ => Seen::Special { mode: entry.mode },
        };
        assert!(
            self.seen.insert(entry.path.clone(), seen).is_none(),
            "{entry:?} came twice"
        );
        Ok(())
    }

    fn file(&mut self, names: &[&Entry], content: &mut dyn Read) -> Result<(), Error> {
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|source| grove_engine::Error::Io {
                path: PathBuf::from("content"),
                source,
            })?;
        self.contents += 1;
        for entry in names {
            assert_eq!(entry.size, bytes.len() as u64, "{entry:?}");
            let sha256 = Sha256::digest(&bytes).into();
            let seen = Seen::File {
                mode: entry.mode,
                size: entry.size,
                sha256,
            };
            assert!(
                self.seen.insert(entry.path.clone(), seen).is_none(),
                "{entry:?} came twice"
            );
        }
        Ok(())
    }
}

/// Opens and reads a whole package.
pub fn read(path: &Path) -> Result<Keep, Error> {
    let package = Package::open(path)?;
    let files = package.files()?;
    let mut keep = Keep::default();
    package.read(&files, ReadOptions::default(), &mut keep)?;
    Ok(keep)
}

/// An error with its causes, on one line.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
