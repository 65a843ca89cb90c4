//! A comparison as text.

use std::io::Write;

use grove_engine::object::Xattrs;
use grove_engine::ops::diff::{
    Change, ChangeKind, DiffReport, Event, FileKind, Info, LABEL, MovedBy, Totals,
};
use grove_engine::{Monitor, Repository};

use super::{Args, Found, elf, packages, patch};
use crate::exit::Result;
use crate::ui::{self, SizeSwitch, Style};

/// Directories that are named in the table of totals.
const DIRECTORIES: usize = 20;

/// Prints everything that was asked for, sections apart.
pub(super) fn print(
    repo: Option<&Repository>,
    found: &Found,
    args: &Args,
    monitor: &dyn Monitor,
) -> Result<()> {
    let style = Style::of_output();
    let mut out = args.pager.output();
    let mut first = true;
    let mut part = |out: &mut dyn Write| -> Result<()> {
        if !std::mem::take(&mut first) {
            writeln!(out)?;
        }
        Ok(())
    };
    if args.lists() {
        part(&mut out)?;
        list(&mut out, &found.report, args, style)?;
    }
    if args.stat {
        part(&mut out)?;
        totals(&mut out, &found.report.totals(), args.sizes)?;
        directories(&mut out, &found.report, args)?;
    }
    if let Some(found) = &found.packages {
        part(&mut out)?;
        packages::print(&mut out, found, args.sizes)?;
    }
    if let Some(found) = &found.elf {
        part(&mut out)?;
        elf::print(&mut out, found)?;
    }
    if args.patch {
        part(&mut out)?;
        patch::print(&mut out, repo, &found.report, style, monitor)?;
    }
    out.finish()?;
    Ok(())
}

fn list(out: &mut dyn Write, report: &DiffReport, args: &Args, style: Style) -> Result<()> {
    let colour = style == Style::Colour;
    if args.files {
        for event in report.events() {
            let letter = letter(kind(&event), colour);
            let from = event.from.filter(|_| event.moved.is_some());
            let from = from.map(|from| format!("{} -> ", ui::printable(&from.path)));
            let path = ui::printable(event.path());
            let details = details(&event, args.sizes);
            writeln!(
                out,
                "{letter}    {}{path}  {details}",
                from.unwrap_or_default()
            )?;
        }
        return Ok(());
    }
    for Change { kind, path, .. } in report.iter().filter(|change| change.is_listed()) {
        let path = style.line(path);
        if args.name_only {
            writeln!(out, "{path}")?;
        } else {
            writeln!(out, "{}    {path}", letter(Some(*kind), colour))?;
        }
    }
    Ok(())
}

/// `None` for moves.
fn kind(event: &Event<'_>) -> Option<ChangeKind> {
    match event.moved {
        Some(_) => None,
        None => event.to.or(event.from).map(|change| change.kind),
    }
}

/// The letter of a change, yellow, red, green or blue where colour is wanted.
fn letter(kind: Option<ChangeKind>, colour: bool) -> &'static str {
    match (kind, colour) {
        (Some(ChangeKind::Modified), false) => "M",
        (Some(ChangeKind::Removed), false) => "D",
        (Some(ChangeKind::Added), false) => "A",
        (None, false) => "R",
        (Some(ChangeKind::Modified), true) => "\x1b[33mM\x1b[0m",
        (Some(ChangeKind::Removed), true) => "\x1b[31mD\x1b[0m",
        (Some(ChangeKind::Added), true) => "\x1b[32mA\x1b[0m",
        (None, true) => "\x1b[34mR\x1b[0m",
    }
}

pub(super) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Symlink => "symlink",
        FileKind::Directory => "directory",
    }
}

fn target(info: &Info) -> String {
    ui::printable(&String::from_utf8_lossy(&info.symlink_target))
}

/// What a path is, of one that only one side has.
fn present(info: &Info, sizes: SizeSwitch) -> String {
    match info.kind {
        FileKind::File => sizes.show(info.size),
        FileKind::Symlink => format!("-> {}", target(info)),
        FileKind::Directory => "directory".into(),
    }
}

fn details(event: &Event<'_>, sizes: SizeSwitch) -> String {
    let (a, b) = match (event.before(), event.after()) {
        (Some(a), Some(b)) => (a, b),
        (Some(only), None) | (None, Some(only)) => return present(only, sizes),
        (None, None) => return String::new(),
    };
    let Some(aspects) = event.aspects() else {
        return String::new();
    };
    let mut parts = Vec::new();
    match event.moved.map(|moved| moved.by) {
        Some(MovedBy::Content) => parts.push("same content".into()),
        Some(MovedBy::Version) => parts.push("other version".into()),
        Some(MovedBy::Likeness { percent }) => parts.push(format!("{percent} % alike")),
        Some(MovedBy::Entries) => parts.push("directory".into()),
        None => {}
    }
    if aspects.kind {
        parts.push(format!("{} -> {}", kind_name(a.kind), kind_name(b.kind)));
    }
    if aspects.content && a.kind == FileKind::Symlink {
        parts.push(format!("target {} -> {}", target(a), target(b)));
    } else if aspects.content && a.size == b.size {
        parts.push(format!("content {}", sizes.show(a.size)));
    } else if aspects.content {
        parts.push(format!(
            "content {} -> {}",
            sizes.show(a.size),
            sizes.show(b.size)
        ));
    }
    if aspects.mode {
        parts.push(format!(
            "mode {:04o} -> {:04o}",
            a.mode & 0o7777,
            b.mode & 0o7777
        ));
    }
    if aspects.owner {
        parts.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if aspects.label {
        parts.push(format!("label {} -> {}", label(a), label(b)));
    }
    if aspects.xattrs {
        parts.push(format!("xattrs{}", xattrs(&a.xattrs, &b.xattrs)));
    }
    parts.join(", ")
}

pub(super) fn label(info: &Info) -> String {
    let label = info.xattrs.get(LABEL).unwrap_or(b"none");
    let label = label.strip_suffix(b"\0").unwrap_or(label);
    ui::printable(&String::from_utf8_lossy(label))
}

/// Names of attributes that came (+), went (-) or changed (*).
fn xattrs(a: &Xattrs, b: &Xattrs) -> String {
    let mut names: Vec<&[u8]> = a.iter().chain(b.iter()).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let changed = names
        .iter()
        .filter(|name| **name != LABEL && a.get(name) != b.get(name));
    let marked = changed.map(|name| {
        let mark = match (a.get(name), b.get(name)) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '*',
        };
        format!(" {mark}{}", ui::printable(&String::from_utf8_lossy(name)))
    });
    let marked: String = marked.collect();
    if marked.is_empty() {
        " in another order".into()
    } else {
        marked
    }
}

fn totals(out: &mut dyn Write, totals: &Totals, sizes: SizeSwitch) -> Result<()> {
    let Totals {
        modified,
        modified_content,
        removed,
        added,
        moved,
        moved_content,
        ..
    } = totals;
    writeln!(
        out,
        "Modified:  {modified} ({modified_content} in content, {} -> {}; {} in metadata only)",
        sizes.show(totals.modified_before_bytes),
        sizes.show(totals.modified_after_bytes),
        modified - modified_content,
    )?;
    writeln!(
        out,
        "Removed:   {removed} ({})",
        sizes.show(totals.removed_bytes)
    )?;
    writeln!(
        out,
        "Added:     {added} ({})",
        sizes.show(totals.added_bytes)
    )?;
    if *moved > 0 {
        writeln!(
            out,
            "Moved:     {moved} ({moved_content} with other content; {} -> {})",
            sizes.show(totals.moved_before_bytes),
            sizes.show(totals.moved_after_bytes),
        )?;
    }
    writeln!(out, "Size:      {}", difference(totals, sizes))?;
    Ok(())
}

/// By how much the tree grew or shrank.
pub(super) fn difference(totals: &Totals, sizes: SizeSwitch) -> String {
    let (before, after) = (totals.before_bytes(), totals.after_bytes());
    let sign = if after < before { '-' } else { '+' };
    format!("{sign}{}", sizes.show(after.abs_diff(before)))
}

fn directories(out: &mut dyn Write, report: &DiffReport, args: &Args) -> Result<()> {
    let mut rows: Vec<_> = report.by_directory(args.depth).into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let weight = |totals: &Totals| totals.before_bytes() + totals.after_bytes();
    rows.sort_by_key(|(_, totals)| std::cmp::Reverse((weight(totals), totals.events())));
    let header = ["modified", "removed", "added", "moved", "before", "after"];
    let [modified, removed, added, moved, before, after] = header;
    writeln!(
        out,
        "\n{modified:>8} {removed:>8} {added:>8} {moved:>8} {before:>10} {after:>10}  directory"
    )?;
    for (dir, totals) in rows.iter().take(DIRECTORIES) {
        let Totals {
            modified,
            removed,
            added,
            moved,
            ..
        } = totals;
        let (before, after) = (totals.before_bytes(), totals.after_bytes());
        let (before, after) = (args.sizes.show(before), args.sizes.show(after));
        let dir = ui::printable(dir);
        writeln!(
            out,
            "{modified:>8} {removed:>8} {added:>8} {moved:>8} {before:>10} {after:>10}  {dir}"
        )?;
    }
    if rows.len() > DIRECTORIES {
        let more = (rows.len() - DIRECTORIES) as u64;
        writeln!(
            out,
            "and {} with fewer changes",
            ui::count(more, "directory")
        )?;
    }
    Ok(())
}
