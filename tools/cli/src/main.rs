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
    if cmd::mount::helper::is_called_for() {
        return cmd::mount::helper::run();
    }
    cli::Cli::parse()
        .run()
        .unwrap_or_else(|error| exit::report(&error))
}
