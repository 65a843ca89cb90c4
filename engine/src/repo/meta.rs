//! `meta.json`: the format version and feature flags of a repository, and the checks on opening.
//!
//! The compatibility model is that of ext4 and EROFS: unknown compatible features are ignored,
//! unknown read-only-compatible ones forbid writing, unknown incompatible ones forbid opening.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoResultExt, Result};
use crate::fs::{Storage, replace_file};

/// The format version that this program reads and writes.
pub const VERSION: u32 = 1;

/// Delta records and recipes may occur.
const DERIVED: &str = "derived";
/// The compatible feature that says that writers make a parity file for each pack.
const PARITY: &str = "parity";

/// Names of all features that this program knows.
pub const FEATURES: &[&str] = &[DERIVED, PARITY];

/// Contents of `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) version: u32,
    pub(crate) features: Features,
}

/// Names of features in use, by what an older program may still do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Features {
    pub(crate) compatible: Vec<String>,
    pub(crate) read_only_compatible: Vec<String>,
    pub(crate) incompatible: Vec<String>,
}

fn file(repo: &Path) -> PathBuf {
    repo.join("meta.json")
}

impl Meta {
    /// Writes the file of a new repository; also one in place of a damaged file.
    pub(crate) fn init(repo: &Path, storage: &dyn Storage) -> Result<()> {
        let meta = Self {
            version: VERSION,
            features: Features {
                incompatible: vec![DERIVED.to_owned()],
                ..Features::default()
            },
        };
        meta.write(repo, storage)
    }

    fn write(&self, repo: &Path, storage: &dyn Storage) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).expect("because it is plain data");
        text.push(b'\n');
        replace_file(storage, &file(repo), &text)
    }

    /// Whether packs get a parity file when they are published.
    pub(crate) fn has_parity(&self) -> bool {
        self.features.compatible.iter().any(|name| name == PARITY)
    }

    /// Switches parity files for future packs on or off, durably.
    pub(crate) fn set_parity(
        &mut self,
        repo: &Path,
        storage: &dyn Storage,
        parity: bool,
    ) -> Result<()> {
        if self.has_parity() == parity {
            return Ok(());
        }
        self.features.compatible.retain(|name| name != PARITY);
        if parity {
            self.features.compatible.push(PARITY.to_owned());
        }
        self.write(repo, storage)
    }

    /// Reads and checks the file: a missing one means that this is no repository.
    pub(crate) fn load(repo: &Path) -> Result<Self> {
        let path = file(repo);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.raw_os_error(), Some(2 | 20)) => {
                return Err(Error::NotARepository {
                    path: repo.to_owned(),
                });
            }
            Err(e) => return Err(e).at(&path),
        };
        let unsupported = |detail: String| Error::UnsupportedFormat {
            path: path.clone(),
            detail,
        };
        let corrupt = |e: serde_json::Error| Error::Corrupt {
            path: path.clone(),
            detail: e.to_string(),
        };
        // The version is looked at first: a newer format may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(corrupt)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(unsupported(format!(
                    "version {version}, this program knows {VERSION}"
                )));
            }
            None => {
                return Err(Error::Corrupt {
                    path,
                    detail: "no version".to_owned(),
                });
            }
        }
        let meta: Self = serde_json::from_value(value).map_err(corrupt)?;
        let unknown = meta
            .features
            .incompatible
            .iter()
            .find(|name| *name != DERIVED);
        match unknown {
            Some(feature) => Err(unsupported(format!("unknown feature {feature:?}"))),
            None => Ok(meta),
        }
    }

    /// Whether writers may store payloads as deltas and recipes.
    pub(crate) fn allows_derived(&self) -> bool {
        self.features
            .incompatible
            .iter()
            .any(|name| name == DERIVED)
    }

    /// Refuses writing when a feature is in use that writers must know.
    pub(crate) fn check_writable(&self, repo: &Path) -> Result<()> {
        match self.features.read_only_compatible.first() {
            Some(feature) => Err(Error::UnsupportedFormat {
                path: file(repo),
                detail: format!("feature {feature:?} allows this program to read only"),
            }),
            None => Ok(()),
        }
    }
}
