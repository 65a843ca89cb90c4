//! The verbs, one file each: `Args`, whose comments are the help, and `run`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Globals;
use crate::exit::Result;

mod compare;
mod exchange;

/// Declares the verbs in the order of the help.
macro_rules! verbs {
    ($($(#[$meta:meta])* $variant:ident => $module:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// The verbs.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($(#[$meta])* $variant(Box<$module::Args>),)*
        }

        impl Command {
            /// Runs the verb.
            pub fn run(&self, globals: &Globals) -> Result<ExitCode> {
                match self {
                    $(Self::$variant(args) => $module::run(args, globals),)*
                }
            }
        }
    };
}

verbs! {
    Init => init,
    Commit => commit,
    Refs => refs,
    RevParse => rev_parse,
    Log => log,
    Show => show,
    Ls => ls,
    Cat => cat,
    Reset => reset,
    Mount => mount,
    Umount => umount,
    Checkout => checkout,
    Diff => diff,
    Import => import,
    Export => export,
    Size => size,
    Stats => stats,
    Bench => bench,
    Delta => delta,
    StaticDelta => static_delta,
    Fsck => fsck,
    Repair => repair,
    Prune => prune,
    Repack => repack,
    Reindex => reindex,
    Completion => completion,
    Man => man,
    Version => version,
    #[command(hide = true)]
    MarkdownHelp => markdown_help,
}
