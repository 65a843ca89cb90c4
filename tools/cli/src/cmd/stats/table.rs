//! The figures as text.

use std::io::{BufWriter, StdoutLock, Write};

use grove_engine::ops::stats::{LargePayload, Savings, StatsReport};

use crate::exit::Result;
use crate::time;
use crate::ui::{self, SizeSwitch};

type Out = BufWriter<StdoutLock<'static>>;

/// Prints everything, and of commits the `last` ones.
pub(super) fn print(found: &StatsReport, sizes: SizeSwitch, last: usize) -> Result<()> {
    let mut out = ui::stdout();
    summary(&mut out, found, sizes)?;
    if found.totals.logical_bytes > 0 {
        savings(&mut out, &found.savings, found.totals.logical_bytes, sizes)?;
    }
    if !found.refs.is_empty() {
        refs(&mut out, found, sizes)?;
    }
    if !found.history.is_empty() {
        history(&mut out, found, sizes, last)?;
    }
    if !found.largest.is_empty() {
        largest(&mut out, &found.largest, sizes)?;
    }
    out.flush()?;
    Ok(())
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn summary(out: &mut Out, found: &StatsReport, sizes: SizeSwitch) -> Result<()> {
    let totals = found.totals;
    writeln!(out, "Commits:   {}", found.commits)?;
    writeln!(
        out,
        "Entries:   {}, {}, {}",
        ui::count(totals.files, "file"),
        ui::count(totals.symlinks, "symbolic link"),
        ui::count(totals.dirs, "directory"),
    )?;
    let part = |bytes: u64| match totals.logical_bytes {
        0 => String::new(),
        logical => format!("  ({} of logical)", percent(bytes, logical)),
    };
    writeln!(out, "Logical:   {}", sizes.show(totals.logical_bytes))?;
    writeln!(
        out,
        "Unique:    {}{}",
        sizes.show(found.unique_bytes),
        part(found.unique_bytes)
    )?;
    writeln!(
        out,
        "Stored:    {}{}",
        sizes.show(found.stored_bytes),
        part(found.stored_bytes)
    )?;
    writeln!(
        out,
        "           of that metadata {}, unreachable {}",
        sizes.show(found.metadata_bytes),
        sizes.show(found.unreachable_bytes),
    )?;
    writeln!(
        out,
        "Objects:   {} ({}, {}, {})",
        found.stored_objects,
        ui::count(found.file_objects, "file"),
        ui::count(found.dirtree_objects, "dirtree"),
        ui::count(found.payloads, "distinct payload"),
    )?;
    Ok(())
}

fn savings(out: &mut Out, saved: &Savings, logical: u64, sizes: SizeSwitch) -> Result<()> {
    writeln!(out, "\n{:>10}  {:>6}  Saved by", "Bytes", "")?;
    let sample = saved.sample.sampled;
    let about = match sample.entries {
        0 => String::new(),
        n => format!(
            " (estimated from {n} contents of {})",
            sizes.show(sample.raw_bytes)
        ),
    };
    let rows = [
        (saved.file_dedup, "equal files, stored once", ""),
        (
            saved.header_split,
            "equal contents under other owners, modes or labels",
            "",
        ),
        (saved.chunking, "equal chunks of contents", ""),
        (saved.compression, "compression", ""),
        (saved.grouping, "grouping small contents", about.as_str()),
        (
            saved.deltas,
            "differences to other contents (estimated)",
            "",
        ),
        (
            saved.recoding,
            "recoding compressed contents (estimated)",
            "",
        ),
    ];
    for (bytes, text, more) in rows.into_iter().filter(|(bytes, ..)| *bytes > 0) {
        writeln!(
            out,
            "{:>10}  {:>6}  {text}{more}",
            sizes.show(bytes),
            percent(bytes, logical)
        )?;
    }
    Ok(())
}

const SIZES: [&str; 4] = ["Logical", "Unique", "Stored", "Exclusive"];

fn heads() -> String {
    SIZES.map(|head| format!("{head:>10}")).join("  ")
}

fn figures(sizes: SizeSwitch, bytes: [u64; 4]) -> String {
    bytes
        .map(|bytes| format!("{:>10}", sizes.show(bytes)))
        .join("  ")
}

fn refs(out: &mut Out, found: &StatsReport, sizes: SizeSwitch) -> Result<()> {
    let names = found.refs.iter().map(|row| row.name.chars().count());
    let width = names.max().unwrap_or(0).max(3);
    writeln!(out, "\n{:width$}  {:>10}  {}", "Ref", "Entries", heads())?;
    for row in &found.refs {
        let totals = row.totals;
        let entries = totals.files + totals.symlinks + totals.dirs;
        let bytes = [
            totals.logical_bytes,
            row.unique_bytes,
            row.stored_bytes,
            row.exclusive_bytes,
        ];
        writeln!(
            out,
            "{:width$}  {entries:>10}  {}",
            row.name,
            figures(sizes, bytes)
        )?;
    }
    Ok(())
}

fn history(out: &mut Out, found: &StatsReport, sizes: SizeSwitch, last: usize) -> Result<()> {
    writeln!(
        out,
        "\n{:12}  {:10}  {:>10}  {}",
        "Commit",
        "Date",
        "Added",
        heads()
    )?;
    for row in found.history.iter().take(last) {
        let commit = row.commit.to_string();
        let short = commit.get(..12).unwrap_or_default();
        let date = time::iso(row.timestamp);
        let date = date.get(..10).unwrap_or_default();
        let bytes = [
            row.totals.logical_bytes,
            row.unique_bytes,
            row.stored_bytes,
            row.exclusive_bytes,
        ];
        let names = [row.refs.join(", "), row.subject.clone()];
        let names: Vec<_> = names.iter().filter(|name| !name.is_empty()).collect();
        let names = names
            .iter()
            .map(|name| ui::printable(name))
            .collect::<Vec<_>>()
            .join(": ");
        let added = sizes.show(row.added_bytes);
        let line = format!(
            "{short}  {date:10}  {added:>10}  {}  {names}",
            figures(sizes, bytes)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if let Some(more) = found
        .history
        .len()
        .checked_sub(last)
        .filter(|more| *more > 0)
    {
        writeln!(out, "and {more} more; --commits lists them all")?;
    }
    Ok(())
}

fn largest(out: &mut Out, rows: &[LargePayload], sizes: SizeSwitch) -> Result<()> {
    writeln!(
        out,
        "\n{:>10}  {:>10}  {:>7}  Largest contents",
        "Size", "Stored", "Commits"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>10}  {:>10}  {:>7}  {}",
            sizes.show(row.size),
            sizes.show(row.stored_bytes),
            row.commits,
            ui::printable(&row.path),
        )?;
    }
    Ok(())
}
