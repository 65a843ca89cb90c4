//! RPM files as a source for repairs: the payloads of their files.
//!
//! Owners and labels of the files in a repository are not those of the package, so it gives back
//! contents, not file objects.

use std::io::Read;
use std::path::{Path, PathBuf};

use grove_engine::Error as Engine;
use grove_engine::ops::repair::{Found, Source, Wanted};

use crate::Error;
use crate::package::{Entry, Names, Package, ReadOptions, Visitor};

/// A package whose files a repair may use.
#[derive(Debug)]
pub struct PackageSource {
    path: PathBuf,
}

impl PackageSource {
    /// Uses a package file; it is opened when something is wanted.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }
}

/// What stops the reading of a package.
enum Stop {
    Package(Error),
    Engine(Engine),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Package(error)
    }
}

struct Giver<'a, 'r> {
    wanted: &'a Wanted,
    found: &'a mut Found<'r>,
}

impl Visitor for Giver<'_, '_> {
    type Error = Stop;

    fn entry(&mut self, _entry: &Entry) -> Result<(), Stop> {
        Ok(())
    }

    fn file(&mut self, names: &[&Entry], content: &mut dyn Read) -> Result<(), Stop> {
        self.found.check_cancelled().map_err(Stop::Engine)?;
        let Some(entry) = names
            .first()
            .filter(|entry| self.wanted.may_want(entry.size))
        else {
            return Ok(());
        };
        let hint = entry.path.as_bytes();
        let given = self.found.file(None, hint, entry.size, content);
        given.map(drop).map_err(Stop::Engine)
    }
}

impl Source for PackageSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn supply(&mut self, wanted: &Wanted, found: &mut Found<'_>) -> Result<(), Engine> {
        let failed = |error: Error| match error {
            Error::Engine(error) => error,
            other => Engine::Io {
                path: self.path.clone(),
                source: std::io::Error::other(other),
            },
        };
        let package = Package::open(&self.path).map_err(failed)?;
        // Names do not matter, so none is a reason to leave the package.
        let files = package.files_named(Names::Any).map_err(failed)?;
        let sizes = files.entries().iter().map(|entry| entry.size);
        if !sizes.into_iter().any(|size| wanted.may_want(size)) {
            return Ok(());
        }
        let mut giver = Giver { wanted, found };
        // Everything given is compared with its SHA-256, so the payload's digest adds nothing.
        let read = package.read(&files, ReadOptions::verified(), &mut giver);
        read.map_err(|stop| match stop {
            Stop::Package(error) => failed(error),
            Stop::Engine(error) => error,
        })
    }
}
