//! `--json`: one document per run on standard output.
//!
//! Field names are part of the interface: new ones may come, none is renamed or removed.

use std::io::Write;

use serde::Serialize;

use crate::exit::{Error, Result};

/// The switch, for the verbs that report.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct JsonSwitch {
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

/// Prints a report.
pub fn print<T: Serialize>(report: &T) -> Result<()> {
    let mut out = crate::ui::stdout();
    serde_json::to_writer_pretty(&mut out, report).map_err(Error::Json)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
