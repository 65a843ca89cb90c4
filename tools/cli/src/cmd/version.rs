//! `grove version`.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::Globals;
use crate::exit::Result;
use crate::ui;

/// Print the version; with -v also what it was built with
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_: &Args, globals: &Globals) -> Result<ExitCode> {
    let mut out = ui::stdout();
    writeln!(out, "grove {}", env!("CARGO_PKG_VERSION"))?;
    if globals.verbose {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        writeln!(out, "build: {build}, {}-linux", std::env::consts::ARCH)?;
        writeln!(out, "sha256: {}", sha256_back_end())?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        writeln!(out, "threads: {threads}")?;
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
        if std::arch::is_aarch64_feature_detected!("sha2") { "armv8 sha2" } else { "soft" }
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "soft"
    }
}
