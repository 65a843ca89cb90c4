//! `grove man`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use grove_engine::error::IoResultExt;

use crate::cli::{Cli, Globals};
use crate::exit::{Result, TABLE};

/// Write the manual pages into a directory: grove(1) and one page for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove man /usr/share/man/man1")]
pub struct Args {
    /// Where; made where it is missing
    dir: PathBuf,
}

/// Runs the verb.
pub fn run(args: &Args, _: &Globals) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.dir).at(&args.dir)?;
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    write(&cli, None, &args.dir)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command, and those of the verbs below it.
fn write(command: &Command, above: Option<&str>, dir: &Path) -> Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("grove ", env!("CARGO_PKG_VERSION")))
        .manual("Grove");
    let name = man.get_filename();
    let path = dir.join(&name);
    let page = page(&man, command, above).at(&path)?;
    std::fs::write(&path, page).at(&path)?;
    let mut below = command.get_subcommands().filter(|verb| is_listed(verb));
    let name = name.trim_end_matches(".1");
    below.try_for_each(|verb| write(verb, Some(name), dir))
}

fn is_listed(verb: &Command) -> bool {
    !verb.is_hide_set() && verb.get_name() != "help"
}

fn page(man: &Man, command: &Command, above: Option<&str>) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(is_listed) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::default();
    if let Some(after) = command.get_after_help() {
        after_help(&mut roff, &after.to_string());
    }
    match above {
        Some(above) => {
            roff.control("SH", ["SEE ALSO"]);
            roff.text([bold(above), roman("(1)")]);
        }
        None => exit_status(&mut roff),
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Examples line by line; other text as it is.
fn after_help(roff: &mut Roff, text: &str) {
    match text.split_once('\n') {
        Some((title, examples)) if title.starts_with("Example") => {
            roff.control("SH", ["EXAMPLES"]);
            roff.control("nf", []);
            examples.lines().for_each(|line| {
                roff.text([roman(line.trim_start())]);
            });
            roff.control("fi", []);
        }
        _ => {
            roff.control("SH", ["NOTES"]);
            roff.text([roman(text)]);
        }
    }
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in TABLE {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(meaning.replace('`', "'"))]);
    }
}
