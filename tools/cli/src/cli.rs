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
            return cmd::version::run(&cmd::version::Args::default(), &self.globals);
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

    /// What prints neither a report nor a change that one could ask about: data as it is, one
    /// checksum a line, or nothing.
    const SILENT: [&str; 9] = [
        "grove init",
        "grove rev-parse",
        "grove cat",
        "grove reset",
        "grove umount",
        "grove static-delta delete",
        "grove completion",
        "grove man",
        "grove markdown-help",
    ];
    /// What prints sizes for people.
    const SIZES: [&str; 15] = [
        "grove checkout",
        "grove diff",
        "grove import",
        "grove export",
        "grove size",
        "grove stats",
        "grove static-delta generate",
        "grove static-delta verify",
        "grove static-delta apply-offline",
        "grove delta create",
        "grove delta apply",
        "grove delta show",
        "grove fsck",
        "grove prune",
        "grove repack",
    ];

    /// All verbs without verbs below them, by their full names.
    fn leaves(name: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        let mut below = command
            .get_subcommands()
            .filter(|verb| verb.get_name() != "help")
            .peekable();
        if below.peek().is_none() {
            found.push((name.to_owned(), command.clone()));
        }
        for verb in below {
            leaves(&format!("{name} {}", verb.get_name()), verb, found);
        }
    }

    fn all() -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        leaves("grove", &Cli::command(), &mut found);
        assert!(found.len() > 30, "{}", found.len());
        found
    }

    /// The words of a command line, as a shell takes them, up to a redirection.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars().take_while(|c| *c != '>') {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().expect("because there is one").push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_verb_has_help_and_examples_that_it_accepts() {
        for (name, verb) in all() {
            assert!(verb.get_about().is_some(), "{name} has no description");
            if verb.is_hide_set() {
                continue;
            }
            let after = verb.get_after_help().map(ToString::to_string);
            let after = after.unwrap_or_default();
            let mut lines = after.lines();
            let title = lines.next().unwrap_or_default();
            assert!(
                ["Example:", "Examples:"].contains(&title),
                "{name}: {title:?}"
            );
            let examples: Vec<&str> = lines.collect();
            assert_eq!(examples.len() > 1, title == "Examples:", "{name}: {after}");
            for line in examples {
                let example = line.strip_prefix("  ").unwrap_or_default();
                assert!(example.starts_with(&name), "{name}: {line:?}");
                let parsed = Cli::command().try_get_matches_from(words(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn what_reports_does_so_as_json_and_in_bytes() {
        let has = |verb: &clap::Command, option: &str| {
            let mut arguments = verb.get_arguments();
            arguments.any(|argument| argument.get_long() == Some(option))
        };
        let verbs = all();
        for (name, verb) in &verbs {
            let silent = SILENT.contains(&name.as_str());
            assert_eq!(has(verb, "json"), !silent, "{name} --json");
            let sizes = SIZES.contains(&name.as_str());
            assert_eq!(has(verb, "bytes"), sizes, "{name} --bytes");
        }
        for name in SILENT.iter().chain(&SIZES) {
            assert!(
                verbs.iter().any(|(verb, _)| verb == name),
                "{name} is no verb"
            );
        }
    }
}
