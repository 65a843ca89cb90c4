//! A comparison as JSON.

use std::collections::BTreeMap;

use grove_engine::ops::diff::{Event, FileKind, Info, LABEL, MovedBy, Totals};
use grove_engine::{Monitor, Repository};
use serde::Serialize;

use super::{Args, Found, elf, packages, patch, text};
use crate::commit_view::xattrs;
use crate::exit::Result;
use crate::json;
use crate::ui::Style;

#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    totals: Sums,
    changes: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directories: Option<BTreeMap<String, Sums>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<packages::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elf: Option<Vec<elf::Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Sums {
    modified: u64,
    modified_content: u64,
    removed: u64,
    added: u64,
    moved: u64,
    moved_content: u64,
    modified_bytes_before: u64,
    modified_bytes_after: u64,
    removed_bytes: u64,
    added_bytes: u64,
    moved_bytes_before: u64,
    moved_bytes_after: u64,
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Self {
        Self {
            modified: totals.modified,
            modified_content: totals.modified_content,
            removed: totals.removed,
            added: totals.added,
            moved: totals.moved,
            moved_content: totals.moved_content,
            modified_bytes_before: totals.modified_before_bytes,
            modified_bytes_after: totals.modified_after_bytes,
            removed_bytes: totals.removed_bytes,
            added_bytes: totals.added_bytes,
            moved_bytes_before: totals.moved_before_bytes,
            moved_bytes_after: totals.moved_after_bytes,
        }
    }
}

#[derive(Serialize)]
struct Row {
    change: &'static str,
    path: String,
    /// Where a moved entry was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<String>,
    /// Why it is taken for the same: content, version, likeness or entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    likeness_percent: Option<u8>,
    /// What changed of a modified or moved path.
    aspects: Vec<&'static str>,
    /// Whether it follows from a change above it.
    implied: bool,
    before: Option<Entry>,
    after: Option<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    symlink_target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    xattrs: String,
}

/// Prints the document.
pub(super) fn print(
    repo: Option<&Repository>,
    from: &str,
    to: &str,
    found: &Found,
    args: &Args,
    monitor: &dyn Monitor,
) -> Result<()> {
    let report = &found.report;
    let patch = || -> Result<String> {
        let mut out = Vec::new();
        patch::print(&mut out, repo, report, Style::Raw, monitor)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    };
    let directories = || {
        let sums = report.by_directory(args.depth);
        sums.iter()
            .map(|(dir, totals)| (dir.clone(), totals.into()))
            .collect()
    };
    json::print(&Report {
        from: from.to_owned(),
        to: to.to_owned(),
        totals: (&report.totals()).into(),
        changes: report.events().iter().map(row).collect(),
        directories: args.stat.then(directories),
        packages: found.packages.as_ref().map(packages::report),
        elf: found
            .elf
            .as_ref()
            .map(|found| found.iter().map(elf::row).collect()),
        patch: args.patch.then(patch).transpose()?,
    })
}

fn row(event: &Event<'_>) -> Row {
    let mut aspects = Vec::new();
    if let Some(found) = event.aspects() {
        let all = [
            (found.kind, "type"),
            (found.content, "content"),
            (found.mode, "mode"),
            (found.owner, "owner"),
            (found.label, "label"),
            (found.xattrs, "xattrs"),
        ];
        aspects.extend(
            all.iter()
                .filter(|(changed, _)| *changed)
                .map(|(_, name)| *name),
        );
    }
    let moved = event.moved.map(|moved| moved.by);
    Row {
        change: match (event.from, event.to) {
            _ if moved.is_some() => "moved",
            (Some(_), Some(_)) => "modified",
            (Some(_), None) => "removed",
            (None, _) => "added",
        },
        path: event.path().to_owned(),
        moved_from: event
            .from
            .filter(|_| moved.is_some())
            .map(|from| from.path.clone()),
        moved_by: moved.map(|by| match by {
            MovedBy::Content => "content",
            MovedBy::Version => "version",
            MovedBy::Likeness { .. } => "likeness",
            MovedBy::Entries => "entries",
        }),
        likeness_percent: moved.and_then(|by| match by {
            MovedBy::Likeness { percent } => Some(percent),
            _ => None,
        }),
        aspects,
        implied: event.to.or(event.from).is_some_and(|change| change.implied),
        before: event.before().map(entry),
        after: event.after().map(entry),
    }
}

fn entry(info: &Info) -> Entry {
    let link = info.kind == FileKind::Symlink;
    Entry {
        kind: text::kind_name(info.kind),
        mode: format!("{:04o}", info.mode & 0o7777),
        uid: info.uid,
        gid: info.gid,
        size: info.size,
        symlink_target: link.then(|| String::from_utf8_lossy(&info.symlink_target).into_owned()),
        label: info.xattrs.get(LABEL).map(|_| text::label(info)),
        xattrs: xattrs(&info.xattrs),
    }
}
