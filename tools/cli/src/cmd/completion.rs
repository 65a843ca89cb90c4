//! `grove completion`.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Globals};
use crate::exit::Result;
use crate::ui;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    grove completion bash > /usr/share/bash-completion/completions/grove")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Runs the verb.
pub fn run(args: &Args, _: &Globals) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "grove", &mut script);
    let mut out = ui::stdout();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
