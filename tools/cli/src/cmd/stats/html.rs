//! The figures as one page that needs nothing else: no network, no other file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use grove_engine::ObjectId;
use grove_engine::error::IoResultExt;
use grove_engine::ops::stats::{StatsReport, TreeRow};
use serde::Serialize;

use super::json;
use crate::exit::{Error, Result};
use crate::{time, ui};

const PAGE: &str = include_str!("page.html");
const PLACE: &str = "@DATA@";

#[derive(Debug, Serialize)]
struct Data<'a> {
    repository: String,
    program: &'static str,
    made: String,
    tree_of: Option<String>,
    stats: json::Report,
    updates: &'a [Vec<u64>],
    tree: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    parent: usize,
    name: &'a str,
    is_dir: bool,
    files: u64,
    logical_bytes: u64,
    stored_bytes: u64,
}

impl<'a> From<&'a TreeRow> for Row<'a> {
    fn from(row: &'a TreeRow) -> Self {
        Self {
            parent: row.parent,
            name: &row.name,
            is_dir: row.is_dir,
            files: row.files,
            logical_bytes: row.logical_bytes,
            stored_bytes: row.stored_bytes,
        }
    }
}

/// Writes the page to a file, or to standard output if that is `-`.
pub(super) fn write(
    to: &Path,
    repository: &Path,
    tree_of: Option<ObjectId>,
    found: &StatsReport,
) -> Result<()> {
    let data = Data {
        repository: repository.display().to_string(),
        program: concat!("grove ", env!("CARGO_PKG_VERSION")),
        made: time::iso(time::now()),
        tree_of: tree_of.map(|id| id.to_string()),
        stats: json::report(found),
        updates: &found.updates,
        tree: found.tree.iter().map(Row::from).collect(),
    };
    let page = page(&data)?;
    if to == Path::new("-") {
        let mut out = ui::stdout();
        out.write_all(page.as_bytes())?;
        out.flush()?;
        return Ok(());
    }
    put(to, page.as_bytes()).at(to)?;
    Ok(())
}

/// Puts the page in the place of the file: whoever looks meanwhile sees the old one or the new one.
/// Devices and pipes are written to.
fn put(to: &Path, page: &[u8]) -> io::Result<()> {
    // Where a link leads, so that the link stays.
    let to = fs::canonicalize(to).unwrap_or_else(|_| to.to_owned());
    let old = fs::metadata(&to).ok();
    let is_special = old.as_ref().is_some_and(|old| !old.is_file());
    let (false, Some(name)) = (is_special, to.file_name()) else {
        return fs::write(to, page);
    };
    let mut name = name.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = to.with_file_name(name);
    let mut file = File::create_new(&temporary)?;
    let done = file
        .write_all(page)
        .and_then(|()| old.map_or(Ok(()), |old| file.set_permissions(old.permissions())))
        .and_then(|()| fs::rename(&temporary, &to));
    done.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn page(data: &Data<'_>) -> Result<String> {
    let json = serde_json::to_string(data).map_err(Error::Json)?;
    // Nothing in a name can end the element that holds it.
    Ok(PAGE.replacen(PLACE, &json.replace('<', "\\u003c"), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_data() {
        let row = TreeRow {
            name: "</script><script>alert(1)</script>".to_owned(),
            ..TreeRow::default()
        };
        let data = Data {
            repository: String::new(),
            program: "grove",
            made: String::new(),
            tree_of: None,
            stats: json::report(&StatsReport::default()),
            updates: &[],
            tree: vec![Row::from(&row)],
        };
        let page = page(&data).unwrap();
        assert_eq!(
            page.matches("</script>").count(),
            PAGE.matches("</script>").count()
        );
        assert!(page.contains("\\u003c/script>"), "the name is there");
        assert!(!page.contains(PLACE));
    }
}
