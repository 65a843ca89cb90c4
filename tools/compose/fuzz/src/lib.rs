//! Bodies of the fuzz targets: take any bytes, panic if a parser breaks a promise.

use std::io::Read;

use grove_compose::package::{Entry, Package, ReadOptions, Visitor};
use grove_compose::{Error, caps};

/// Reads everything and keeps nothing.
struct Discard;

impl Visitor for Discard {
    type Error = Error;

    fn entry(&mut self, _entry: &Entry) -> Result<(), Error> {
        Ok(())
    }

    fn file(&mut self, names: &[&Entry], content: &mut dyn Read) -> Result<(), Error> {
        assert!(!names.is_empty(), "content has a name");
        drop(std::io::copy(content, &mut std::io::sink()));
        Ok(())
    }
}

/// Packages: structure, header, file list and payload.
pub fn package(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("grove-fuzz-{}.rpm", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file");
    let read = || -> Result<(), Error> {
        let package = Package::open(&path)?;
        package.read(&package.files()?, ReadOptions::default(), &mut Discard)
    };
    drop(read());
}

/// Texts of file capabilities.
pub fn capabilities(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(caps::to_xattr(text));
    }
}
