//! The metadata of a new commit, in the order in which `ostree` writes it.

use grove_engine::object::{Metadata, Variant};
use grove_engine::{ObjectId, Repository};

use crate::exit::{Error, Result};

const REF_BINDING: &str = "ostree.ref-binding";

/// Options about metadata.
#[derive(Debug, clap::Args)]
pub struct MetadataArgs {
    /// Add a string to the metadata
    #[arg(long, value_name = "KEY=VALUE")]
    add_metadata_string: Vec<String>,
    /// Add a value in GVariant text format to the metadata
    #[arg(long, value_name = "KEY=VALUE")]
    add_metadata: Vec<String>,
    /// Take a key and its value over from the parent
    #[arg(long, value_name = "KEY")]
    keep_metadata: Vec<String>,
    /// Do not write the refs that the commit is meant for into it
    #[arg(long, conflicts_with = "bind_ref")]
    no_bindings: bool,
    /// Name another ref that the commit is meant for
    #[arg(long, value_name = "REF")]
    bind_ref: Vec<String>,
}

impl MetadataArgs {
    /// Strings, then other values, then kept ones, then the refs.
    pub fn build(
        &self,
        repo: &Repository,
        parent: Option<ObjectId>,
        branch: Option<&str>,
    ) -> Result<Metadata> {
        let mut metadata = Metadata::default();
        for pair in &self.add_metadata_string {
            let (key, value) = split("--add-metadata-string", pair)?;
            metadata.push(key, Variant::string(value));
        }
        for pair in &self.add_metadata {
            let (key, value) = split("--add-metadata", pair)?;
            let value = Variant::from_text(value)
                .map_err(|error| Error::Usage(format!("--add-metadata: {key}: {error}")))?;
            metadata.push(key, value);
        }
        for key in &self.keep_metadata {
            metadata.push(key.as_str(), kept(repo, parent, key)?);
        }
        if !self.no_bindings {
            let mut refs: Vec<&str> = self.bind_ref.iter().map(String::as_str).collect();
            refs.extend(branch);
            refs.sort_unstable();
            metadata.push(REF_BINDING, Variant::strings(refs));
        }
        Ok(metadata)
    }
}

fn split<'p>(option: &str, pair: &'p str) -> Result<(&'p str, &'p str)> {
    match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(Error::Usage(format!(
            "{option}: not of the form KEY=VALUE: {pair:?}"
        ))),
    }
}

fn kept(repo: &Repository, parent: Option<ObjectId>, key: &str) -> Result<Variant> {
    let parent =
        parent.ok_or_else(|| Error::Usage("--keep-metadata: there is no parent".into()))?;
    let commit = repo.commit(&parent)?;
    commit.metadata.get(key).cloned().ok_or_else(|| {
        Error::failed(format!(
            "--keep-metadata: the parent {parent} has no key {key:?}"
        ))
    })
}
