//! The command `grove`: builds, looks into, mounts and looks after repositories of OS images.

mod cli;
mod cmd;
mod commit_view;
mod exit;
mod json;
mod pager;
mod progress;
mod time;
mod ui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(arguments) = cmd::mount::helper::arguments() {
        return cmd::mount::helper::run(arguments);
    }
    cli::Cli::parse()
        .run()
        .unwrap_or_else(|error| exit::report(&error))
}
