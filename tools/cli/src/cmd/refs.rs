//! `grove refs`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::RefUpdate;
use grove_engine::Repository;
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui;

/// List, create or delete refs
///
/// Lists the refs in byte order. With a PREFIX, lists those below it, without the prefix itself
/// unless --list is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove refs\n  grove refs --revision os\n  \
    grove refs --create os/stable os/testing\n  grove refs --delete os/old")]
pub struct Args {
    /// Prefixes to list or delete; with --create, the commit
    prefix: Vec<String>,
    /// Do not remove the prefix from the refs
    #[arg(long)]
    list: bool,
    /// Print the commit of each ref, too
    #[arg(long, short)]
    revision: bool,
    /// Delete the refs that equal a PREFIX or lie below it
    #[arg(long, conflicts_with_all = ["create", "list", "revision"])]
    delete: bool,
    /// Create a ref for an existing commit
    #[arg(long, value_name = "NEWREF", conflicts_with_all = ["list", "revision"])]
    create: Option<String>,
    /// With --create, replace an existing ref
    #[arg(long, requires = "create")]
    force: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    refs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    commit: String,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    if let Some(name) = &args.create {
        create(&repo, name, args)?;
    } else if args.delete {
        delete(&repo, &args.prefix)?;
    } else {
        list(&repo, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is left of a ref's name below a prefix; the whole name where they are equal.
fn below<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let prefix = prefix.trim_end_matches('/');
    if name == prefix {
        return Some(name);
    }
    name.strip_prefix(prefix)?.strip_prefix('/')
}

fn list(repo: &Repository, args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for (name, commit) in repo.refs()?.map {
        let shown = if args.prefix.is_empty() {
            Some(name.as_str())
        } else {
            args.prefix.iter().find_map(|prefix| below(&name, prefix))
        };
        if let Some(shown) = shown {
            let name = if args.list || args.json.json {
                &name
            } else {
                shown
            };
            rows.push(Row {
                name: name.to_owned(),
                commit: commit.to_string(),
            });
        }
    }
    if args.json.json {
        return json::print(&Report { refs: rows });
    }
    let mut out = ui::stdout();
    for row in rows {
        if args.revision {
            writeln!(out, "{}\t{}", row.name, row.commit)?;
        } else {
            writeln!(out, "{}", row.name)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn create(repo: &Repository, name: &str, args: &Args) -> Result<()> {
    let [rev] = args.prefix.as_slice() else {
        return Err(Error::Usage(
            "--create needs exactly one commit to point to".into(),
        ));
    };
    let commit = repo.resolve_rev(rev)?;
    if !args.force && repo.refs()?.map.contains_key(name) {
        return Err(Error::Failed {
            message: format!("ref {name} already exists"),
            hint: Some("--force replaces it"),
        });
    }
    let expected = if args.force { None } else { Some(None) };
    repo.update_refs(&[RefUpdate {
        name: name.to_owned(),
        expected,
        new: Some(commit),
    }])?;
    Ok(())
}

fn delete(repo: &Repository, prefixes: &[String]) -> Result<()> {
    if prefixes.is_empty() {
        return Err(Error::Usage("--delete needs at least one PREFIX".into()));
    }
    let updates: Vec<RefUpdate> = repo
        .refs()?
        .map
        .into_iter()
        .filter(|(name, _)| prefixes.iter().any(|prefix| below(name, prefix).is_some()))
        .map(|(name, commit)| RefUpdate {
            name,
            expected: Some(Some(commit)),
            new: None,
        })
        .collect();
    if !updates.is_empty() {
        repo.update_refs(&updates)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_slashes() {
        assert_eq!(below("os/a/b", "os"), Some("a/b"));
        assert_eq!(below("os/a/b", "os/"), Some("a/b"));
        assert_eq!(below("os/a", "os/a"), Some("os/a"));
        assert_eq!(below("osx/a", "os"), None);
    }
}
