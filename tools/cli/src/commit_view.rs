//! A commit as `log` and `show` present it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use grove_engine::ObjectId;
use grove_engine::object::{Commit, Value, Variant, Xattrs};
use serde::Serialize;

use crate::time;
use crate::ui::Style;

/// The type of commit objects.
const SIGNATURE: &str = "(a{sv}aya(say)sstayay)";

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
            metadata: commit
                .metadata
                .iter()
                .map(|(k, v)| (k.to_owned(), v.print()))
                .collect(),
        }
    }
}

fn version(commit: &Commit) -> Option<&str> {
    commit
        .metadata
        .get("version")
        .and_then(|value| value.as_str())
}

/// Prints a commit as `ostree log` does, with an empty line after it.
pub fn print(out: &mut dyn Write, id: &ObjectId, commit: &Commit) -> io::Result<()> {
    let style = Style::of_output();
    writeln!(out, "commit {id}")?;
    if let Some(parent) = &commit.parent {
        writeln!(out, "Parent:  {parent}")?;
    }
    writeln!(out, "ContentChecksum:  {}", commit.content_checksum())?;
    writeln!(out, "Date:  {}", time::show(commit.timestamp))?;
    if let Some(version) = version(commit) {
        writeln!(out, "Version: {}", style.line(version))?;
    }
    if commit.subject.is_empty() {
        writeln!(out, "(no subject)")?;
    } else {
        writeln!(out)?;
        indented(out, &commit.subject, style)?;
    }
    if !commit.body.is_empty() {
        writeln!(out)?;
        indented(out, &commit.body, style)?;
    }
    writeln!(out)
}

fn indented(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    text.strip_suffix('\n')
        .unwrap_or(text)
        .split('\n')
        .try_for_each(|line| writeln!(out, "    {}", style.line(line)))
}

/// Prints a commit's bytes as a GVariant in text format.
pub fn print_raw(
    out: &mut dyn Write,
    id: &ObjectId,
    commit: &Commit,
    swap: bool,
) -> io::Result<()> {
    writeln!(out, "commit {id}")?;
    writeln!(out, "{}", raw(SIGNATURE, &commit.to_bytes(), swap))
}

/// Bytes of an object as text; `swap` reverses the bytes of all numbers, as `ostree` does it.
pub fn raw(signature: &str, bytes: &[u8], swap: bool) -> String {
    match Variant::from_parts(signature, bytes) {
        Ok(variant) if swap => variant.print_as_ostree(),
        Ok(variant) => variant.print(),
        Err(error) => format!("(not of type {signature}: {error})"),
    }
}

/// Extended attributes in GVariant text format.
pub fn xattrs(xattrs: &Xattrs) -> String {
    let pair = |name: &[u8], value: &[u8]| {
        Value::Tuple(vec![
            Value::Bytes([name, &[0]].concat()),
            Value::Bytes(value.to_vec()),
        ])
    };
    let items = xattrs
        .iter()
        .map(|(name, value)| pair(name, value))
        .collect();
    Value::Array {
        element: pair(&[], &[]).ty(),
        items,
    }
    .print()
}
