//! Packages of a Debian package database.

use super::{Installed, Inventory, InventoryError, Tree};

const STATUS: &str = "/var/lib/dpkg/status";
const INFO: &str = "/var/lib/dpkg/info";

/// Adds the packages of a database; says whether there is one.
pub(super) fn read(tree: &dyn Tree, into: &mut Inventory) -> Result<bool, InventoryError> {
    let Some(status) = tree.read(STATUS)? else {
        return Ok(false);
    };
    let status = String::from_utf8_lossy(&status);
    let installed: Vec<Installed> = status.split("\n\n").filter_map(package).collect();
    let lists = tree.read_all(INFO, ".list")?;
    for package in installed {
        let names = [
            package.name.clone(),
            format!("{}:{}", package.name, package.arch),
        ];
        let number = into.add(package);
        for list in names.iter().filter_map(|name| lists.get(name)) {
            for path in String::from_utf8_lossy(list)
                .lines()
                .filter(|path| *path != "/.")
            {
                into.own(path, number);
            }
        }
    }
    Ok(true)
}

/// A paragraph of the status file, if it is about a package that is installed.
fn package(paragraph: &str) -> Option<Installed> {
    let field = |name: &str| {
        let line = paragraph
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let status = field("Status")?;
    status.ends_with(" installed").then_some(())?;
    Some(Installed {
        name: field("Package")?,
        version: field("Version")?,
        arch: field("Architecture")?,
    })
}
