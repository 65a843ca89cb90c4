//! A commit as `log` and `show` present it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use grove_engine::ObjectId;
use grove_engine::object::Commit;
use serde::Serialize;

use crate::gvariant::{Order, Value};
use crate::time;

/// The type of commit objects.
pub const SIGNATURE: &str = "(a{sv}aya(say)sstayay)";

/// A commit in JSON.
#[derive(Debug, Serialize)]
pub struct CommitReport {
    commit: String,
    parent: Option<String>,
    content_checksum: String,
    timestamp: u64,
    date: String,
    version: Option<String>,
    subject: String,
    body: String,
    tree: String,
    meta: String,
    /// Values in GVariant text format.
    metadata: BTreeMap<String, String>,
}

impl CommitReport {
    /// The report of a commit.
    pub fn new(id: &ObjectId, commit: &Commit) -> Self {
        let text = |value| Value::of(value, Order::Little).map_or_else(String::new, |v| v.to_string());
        Self {
            commit: id.to_string(),
            parent: commit.parent.map(|parent| parent.to_string()),
            content_checksum: commit.content_checksum().to_string(),
            timestamp: commit.timestamp,
            date: time::iso(commit.timestamp),
            version: version(commit).map(str::to_owned),
            subject: commit.subject.clone(),
            body: commit.body.clone(),
            tree: commit.tree.to_string(),
            meta: commit.meta.to_string(),
            metadata: commit.metadata.iter().map(|(k, v)| (k.to_owned(), text(v))).collect(),
        }
    }
}

fn version(commit: &Commit) -> Option<&str> {
    commit.metadata.get("version").and_then(|value| value.as_str())
}

/// Prints a commit as `ostree log` does, with an empty line after it.
pub fn print(out: &mut dyn Write, id: &ObjectId, commit: &Commit) -> io::Result<()> {
    writeln!(out, "commit {id}")?;
    if let Some(parent) = &commit.parent {
        writeln!(out, "Parent:  {parent}")?;
    }
    writeln!(out, "ContentChecksum:  {}", commit.content_checksum())?;
    writeln!(out, "Date:  {}", time::show(commit.timestamp))?;
    if let Some(version) = version(commit) {
        writeln!(out, "Version: {version}")?;
    }
    if commit.subject.is_empty() {
        writeln!(out, "(no subject)")?;
    } else {
        writeln!(out)?;
        indented(out, &commit.subject)?;
    }
    if !commit.body.is_empty() {
        writeln!(out)?;
        indented(out, &commit.body)?;
    }
    writeln!(out)
}

fn indented(out: &mut dyn Write, text: &str) -> io::Result<()> {
    text.strip_suffix('\n').unwrap_or(text).split('\n').try_for_each(|line| writeln!(out, "    {line}"))
}

/// Prints a commit's bytes as a GVariant in text format.
pub fn print_raw(out: &mut dyn Write, id: &ObjectId, commit: &Commit, order: Order) -> io::Result<()> {
    writeln!(out, "commit {id}")?;
    writeln!(out, "{}", raw(SIGNATURE, &commit.to_bytes(), order))
}

/// Bytes of an object as text.
pub fn raw(signature: &str, bytes: &[u8], order: Order) -> String {
    Value::decode(signature, bytes, order)
        .map_or_else(|| format!("(not of type {signature})"), |value| value.to_string())
}
