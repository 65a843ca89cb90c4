//! `grove version`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::repo::{FEATURES, FORMAT_VERSION};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui;

/// Print the version; with -v also what it was built with
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  grove version\n  grove version -v\n  grove version --json")]
pub struct Args {
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    build: &'static str,
    target: String,
    sha256: &'static str,
    threads: usize,
    repository_format: u32,
    repository_features: &'static [&'static str],
}

impl Report {
    fn new() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            target: format!("{}-linux", std::env::consts::ARCH),
            sha256: sha256_back_end(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            repository_format: FORMAT_VERSION,
            repository_features: FEATURES,
        }
    }
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let report = Report::new();
    if args.json.json {
        json::print(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = ui::stdout();
    writeln!(out, "grove {}", report.version)?;
    if globals.verbose {
        writeln!(out, "build: {}, {}", report.build, report.target)?;
        writeln!(out, "sha256: {}", report.sha256)?;
        writeln!(out, "threads: {}", report.threads)?;
        let features = report.repository_features.join(", ");
        writeln!(
            out,
            "repository format: {}, with {features}",
            report.repository_format
        )?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The implementation that the `sha2` crate chooses on this processor.
fn sha256_back_end() -> &'static str {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        let ni = std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("sse4.1");
        if ni { "sha-ni" } else { "soft" }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("sha2") {
            "armv8 sha2"
        } else {
            "soft"
        }
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "soft"
    }
}
