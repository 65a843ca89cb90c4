//! What `grove import` and `grove export` have in common: options, and how they tell what they did.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use grove_engine::ObjectId;
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Options of both.
#[derive(Debug, clap::Args)]
pub struct ExchangeArgs {
    /// N parents of each commit, too; -1 for all that are there
    #[arg(
        long,
        value_name = "N",
        default_value = "-1",
        allow_hyphen_values = true
    )]
    depth: i64,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

impl ExchangeArgs {
    /// How many parents; `None` for all.
    pub fn depth(&self) -> Option<u64> {
        u64::try_from(self.depth).ok()
    }

    /// A size as the user wants it.
    pub fn size(&self, bytes: u64) -> String {
        self.sizes.show(bytes)
    }

    /// Prints a report as JSON, or for people: the refs, and then what `lines` writes.
    pub fn tell<R: Serialize>(
        &self,
        report: &R,
        refs: &BTreeMap<String, ObjectId>,
        lines: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        globals: &Globals,
    ) -> Result<ExitCode> {
        if self.json.json {
            json::print(report)?;
        } else if !globals.quiet {
            let mut out = ui::stdout();
            for (name, id) in refs {
                writeln!(out, "{id} {name}")?;
            }
            lines(&mut out)?;
            out.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refs and checksums as text.
pub fn text_of(refs: &BTreeMap<String, ObjectId>) -> BTreeMap<&str, String> {
    refs.iter()
        .map(|(name, id)| (name.as_str(), id.to_string()))
        .collect()
}
