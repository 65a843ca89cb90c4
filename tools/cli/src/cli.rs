//! The command line as a whole: global options and the list of verbs.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use grove_engine::Repository;

use crate::cmd::{self, Command};
use crate::exit::Result;
use crate::progress::Progress;

/// Stores operating-system images as OSTree commits in a fraction of their size, and shows any of
/// them as a directory at once
#[derive(Debug, Parser)]
#[command(
    name = "grove",
    disable_version_flag = true,
    arg_required_else_help = true,
    propagate_version = false,
    max_term_width = 100,
    after_help = "Without --repo, the repository is the directory that GROVE_REPO names, or else \
                  the current directory."
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// Print the version and exit; with -v also what it was built with
    #[arg(long, short = 'V', help_heading = "Options")]
    pub version: bool,
    /// The verb.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every verb.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The repository [default: GROVE_REPO, else the current directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// Tell more
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Print errors and results only: no progress, no warnings
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
}

impl Cli {
    /// Runs the verb.
    pub fn run(self) -> Result<ExitCode> {
        if self.version {
            return cmd::version::run(&cmd::version::Args {}, &self.globals);
        }
        match self.command {
            Some(command) => command.run(&self.globals),
            None => {
                Self::command().print_help()?;
                Ok(ExitCode::from(crate::exit::USAGE))
            }
        }
    }
}

impl Globals {
    /// Where the repository is.
    pub fn repo_path(&self) -> PathBuf {
        let from_env = || {
            env::var_os("GROVE_REPO")
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from)
        };
        self.repo
            .clone()
            .or_else(from_env)
            .unwrap_or_else(|| PathBuf::from("."))
    }

    /// Opens the repository.
    pub fn repository(&self) -> Result<Repository> {
        Ok(Repository::open(&self.repo_path())?)
    }

    /// The monitor of a long operation.
    pub fn progress(&self) -> Progress {
        Progress::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_and_an_example() {
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            assert!(verb.get_about().is_some(), "{name} has no description");
            let after = verb
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let exempt = matches!(name, "version" | "markdown-help" | "help");
            assert!(
                exempt || after.contains(&format!("grove {name}")),
                "{name} has no example"
            );
        }
    }
}
