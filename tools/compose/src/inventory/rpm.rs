//! Packages of an RPM database.

use super::sqlite::{Column, Database, SqliteError};
use super::{Installed, Inventory, InventoryError};
use crate::package::{PackageError, RawHeader};

/// Where images keep the database.
pub(super) const PLACES: [&str; 3] = [
    "/usr/share/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/rpmdb.sqlite",
];

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;

/// Adds the packages of a database.
pub(super) fn read(bytes: &[u8], into: &mut Inventory) -> Result<(), InventoryError> {
    let mut failed = None;
    let mut add = |row: &[Column<'_>]| -> Result<(), SqliteError> {
        if let [_, Column::Bytes(blob), ..] = row
            && let Err(error) = package(blob, into)
        {
            failed.get_or_insert(error);
        }
        Ok(())
    };
    Database::new(bytes)?.table("Packages", &mut add)?;
    match failed {
        Some(error) => Err(InventoryError::Header(error)),
        None => Ok(()),
    }
}

fn package(blob: &[u8], into: &mut Inventory) -> Result<(), PackageError> {
    let header = RawHeader::of_database(blob)?;
    let text = |tag| {
        let first = header
            .strings(tag)
            .first()
            .map(|text| String::from_utf8_lossy(text));
        first.unwrap_or_default().into_owned()
    };
    let name = text(NAME);
    // The keys that packages are signed with are not packages.
    if name.is_empty() || name == "gpg-pubkey" {
        return Ok(());
    }
    let epoch = header
        .numbers(EPOCH)
        .first()
        .filter(|epoch| **epoch > 0)
        .map(|e| format!("{e}:"));
    let number = into.add(Installed {
        name,
        version: format!(
            "{}{}-{}",
            epoch.unwrap_or_default(),
            text(VERSION),
            text(RELEASE)
        ),
        arch: text(ARCH),
    });
    let dirs = header.strings(DIR_NAMES);
    let indexes = header.numbers(DIR_INDEXES);
    for (base, index) in header.strings(BASE_NAMES).iter().zip(indexes) {
        if let Some(dir) = dirs.get(index as usize)
            && let (Ok(dir), Ok(base)) = (std::str::from_utf8(dir), std::str::from_utf8(base))
        {
            into.own(&format!("{dir}{base}"), number);
        }
    }
    Ok(())
}
