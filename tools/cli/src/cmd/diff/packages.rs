//! Which packages changed, and what changed of their files.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use grove_compose::inventory::compare_versions;
use grove_compose::{Installed, Inventory, InventoryError};
use grove_engine::ops::diff::{DiffReport, Totals};
use serde::Serialize;

use super::Tree;
use super::json::Sums;
use super::text::difference;
use crate::exit::{Error, Result};
use crate::ui::{self, SizeSwitch};

/// What happened to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Upgraded,
    Downgraded,
    Removed,
    Added,
    /// It has the same version and other files.
    Same,
}

/// A package of either tree.
#[derive(Debug)]
struct Package {
    name: String,
    arch: String,
    before: Option<String>,
    after: Option<String>,
    totals: Totals,
}

/// All packages of which anything changed, by fate and name.
#[derive(Debug)]
pub(super) struct Packages {
    rows: Vec<Package>,
    /// Of paths that no package has.
    nobodys: Totals,
}

#[derive(Serialize)]
pub(super) struct Report {
    packages: Vec<Row>,
    no_package: Sums,
}

#[derive(Serialize)]
struct Row {
    change: &'static str,
    name: String,
    arch: String,
    before: Option<String>,
    after: Option<String>,
    files: Sums,
}

impl Package {
    fn fate(&self) -> Fate {
        match (&self.before, &self.after) {
            (None, _) => Fate::Added,
            (_, None) => Fate::Removed,
            (Some(before), Some(after)) => match compare_versions(before, after) {
                Ordering::Less => Fate::Upgraded,
                Ordering::Greater => Fate::Downgraded,
                Ordering::Equal => Fate::Same,
            },
        }
    }
}

/// Compares the packages of two trees and gives each change to its package: the one that has the
/// path now, or had it before.
pub(super) fn find(a: &Tree<'_>, b: &Tree<'_>, report: &DiffReport) -> Result<Packages> {
    let (a, b) = (inventory(a)?, inventory(b)?);
    if a.packages().is_empty() && b.packages().is_empty() {
        return Err(Error::Failed {
            message: "neither tree says which packages it holds".into(),
            hint: Some(
                "it takes a package database in the tree, or a commit made from packages; \
                 --stat sums up by directory",
            ),
        });
    }
    let (mut rows, row_of) = pair(a.packages(), b.packages());
    let mut nobodys = Totals::default();
    for event in report.events() {
        let after = event
            .to
            .and_then(|to| b.owner(&to.path))
            .map(|at| &b.packages()[at]);
        let before = || {
            event
                .from
                .and_then(|from| a.owner(&from.path))
                .map(|at| &a.packages()[at])
        };
        let owner = after
            .map(|owner| (owner, true))
            .or_else(|| Some((before()?, false)));
        let row = owner
            .and_then(|owner| row_of.get(&owner))
            .and_then(|at| rows.get_mut(*at));
        row.map_or(&mut nobodys, |row| &mut row.totals).add(&event);
    }
    rows.retain(|row| row.fate() != Fate::Same || row.totals.events() > 0);
    rows.sort_by(|a, b| (a.fate(), &a.name, &a.arch).cmp(&(b.fate(), &b.name, &b.arch)));
    Ok(Packages { rows, nobodys })
}

fn inventory(tree: &Tree<'_>) -> Result<Inventory> {
    let found = match tree {
        Tree::Commit(repo, commit) => Inventory::of_commit(repo, commit),
        Tree::Dir(path) => Inventory::of_dir(Path::new(path)),
    };
    found.map_err(|error| match error {
        InventoryError::Engine(error) => error.into(),
        other => Error::failed(super::causes(&other)),
    })
}

type RowOf<'p> = HashMap<(&'p Installed, bool), usize>;

/// One row for each package of either tree, and which row a package of the second (true) or first
/// tree has. Of a name with several versions, those that are in one tree only are pairs in order.
fn pair<'p>(a: &'p [Installed], b: &'p [Installed]) -> (Vec<Package>, RowOf<'p>) {
    let mut names: BTreeMap<(&str, &str), [Vec<&Installed>; 2]> = BTreeMap::new();
    for (side, list) in [a, b].into_iter().enumerate() {
        for package in list {
            names.entry((&package.name, &package.arch)).or_default()[side].push(package);
        }
    }
    let (mut rows, mut row_of) = (Vec::new(), HashMap::new());
    for ((name, arch), [before, after]) in names {
        let (common, mut before): (Vec<_>, Vec<_>) = before
            .into_iter()
            .partition(|package| after.contains(package));
        let mut after: Vec<_> = after.into_iter().filter(|p| !common.contains(p)).collect();
        for list in [&mut before, &mut after] {
            list.sort_by(|a, b| compare_versions(&a.version, &b.version));
        }
        let others = (0..before.len().max(after.len()))
            .map(|at| (before.get(at).copied(), after.get(at).copied()));
        for (before, after) in common.iter().map(|p| (Some(*p), Some(*p))).chain(others) {
            let sides = [(before, false), (after, true)];
            let known = sides
                .iter()
                .filter_map(|(package, side)| Some(((*package)?, *side)));
            row_of.extend(known.map(|package| (package, rows.len())));
            rows.push(Package {
                name: name.to_owned(),
                arch: arch.to_owned(),
                before: before.map(|package| package.version.clone()),
                after: after.map(|package| package.version.clone()),
                totals: Totals::default(),
            });
        }
    }
    (rows, row_of)
}

/// Prints a section for each fate, as `rpm-ostree db diff` does.
pub(super) fn print(out: &mut dyn Write, found: &Packages, sizes: SizeSwitch) -> Result<()> {
    for (fate, title) in [
        (Fate::Upgraded, "Upgraded"),
        (Fate::Downgraded, "Downgraded"),
        (Fate::Removed, "Removed"),
        (Fate::Added, "Added"),
        (Fate::Same, "Same version, other files"),
    ] {
        let rows: Vec<&Package> = found.rows.iter().filter(|row| row.fate() == fate).collect();
        if rows.is_empty() {
            continue;
        }
        writeln!(out, "{title}:")?;
        for row in rows {
            let Package {
                name,
                before,
                after,
                arch,
                totals,
            } = row;
            let name = match (before, after) {
                (Some(before), Some(after)) if before != after => {
                    format!("{name} {before} -> {after}")
                }
                (Some(only), _) | (_, Some(only)) => format!("{name}-{only}.{arch}"),
                (None, None) => name.clone(),
            };
            let name = ui::printable(&name);
            writeln!(out, "  {name}{}", files(totals, sizes))?;
        }
    }
    if found.nobodys.events() > 0 {
        writeln!(out, "In no package:\n {}", files(&found.nobodys, sizes))?;
    }
    Ok(())
}

/// `  (2 modified, 1 added; +1.2 KiB)`
fn files(totals: &Totals, sizes: SizeSwitch) -> String {
    let counts = [
        (totals.modified, "modified"),
        (totals.removed, "removed"),
        (totals.added, "added"),
        (totals.moved, "moved"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    let counts: Vec<String> = counts.map(|(n, what)| format!("{n} {what}")).collect();
    if counts.is_empty() {
        return String::new();
    }
    format!("  ({}; {})", counts.join(", "), difference(totals, sizes))
}

/// The JSON form.
pub(super) fn report(found: &Packages) -> Report {
    let row = |package: &Package| Row {
        change: match package.fate() {
            Fate::Upgraded => "upgraded",
            Fate::Downgraded => "downgraded",
            Fate::Removed => "removed",
            Fate::Added => "added",
            Fate::Same => "same",
        },
        name: package.name.clone(),
        arch: package.arch.clone(),
        before: package.before.clone(),
        after: package.after.clone(),
        files: (&package.totals).into(),
    };
    Report {
        packages: found.rows.iter().map(row).collect(),
        no_package: (&found.nobodys).into(),
    }
}
