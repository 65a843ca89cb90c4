//! `grove markdown-help`: docs/cli.md, generated so that it cannot go stale.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory};

use crate::cli::{Cli, Globals};
use crate::exit::{Result, TABLE};
use crate::ui;

const INTRODUCTION: &str = "\
# The command line

`grove VERB [OPTIONS] [ARGUMENTS]`. Verbs, options and output are those of `ostree` wherever it has
them. Results go to standard output, everything else to standard error; progress is shown on
terminals only. Times are UTC, sizes are in binary units; `--bytes` prints plain numbers. Colour is
used on terminals only, and never when `NO_COLOR` is set.

This file is written by `grove markdown-help`; a test compares the two.
";

const JSON: &str = "\
## JSON

`--json` prints one document per run. Names of fields and their meaning stay: new fields may come,
none is renamed, removed or given another type. Checksums are lower-case hexadecimal texts,
`size`, `..._size` and `..._bytes` are numbers of bytes, times are seconds since 1970 (`timestamp`)
or ISO 8601 (all others), values of metadata and extended attributes are in GVariant text format. With `--json` an
error is still a text on standard error, and the exit code is the same as without.
";

/// Print this documentation in Markdown
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_: &Args, _: &Globals) -> Result<ExitCode> {
    let mut out = ui::stdout();
    out.write_all(document().as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn document() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in TABLE {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text.push_str(
        "\nTreat a code that is not in this table as a failure. Errors are printed as `error: ...`,\n\
         then the causes as `caused by: ...`, then, where there is something to do, `hint: ...`.\n\n",
    );
    text.push_str(JSON);
    text.push_str("\n## Options of every verb\n\n");
    let globals: Vec<&Arg> = cli
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .collect();
    globals.iter().for_each(|arg| option(&mut text, arg));
    if let Some(after) = cli.get_after_help() {
        let _ = writeln!(text, "\n{after}");
    }
    for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if verb.get_name() != "help" {
            section(&mut text, "grove", 2, verb);
        }
    }
    text
}

fn section(text: &mut String, before: &str, level: usize, verb: &Command) {
    let name = format!("{before} {}", verb.get_name());
    let about = verb
        .get_long_about()
        .or(verb.get_about())
        .map(ToString::to_string);
    let _ = writeln!(
        text,
        "\n{} {name}\n\n{}",
        "#".repeat(level),
        sentence(&about.unwrap_or_default())
    );
    let usage = verb.clone().render_usage().to_string();
    let _ = writeln!(text, "\n```\n{}\n```", usage.trim_start_matches("Usage: "));
    let shown = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help";
    let args: Vec<&Arg> = verb.get_arguments().filter(shown).collect();
    if !args.is_empty() {
        text.push('\n');
        args.iter()
            .filter(|arg| arg.is_positional())
            .for_each(|arg| option(text, arg));
        args.iter()
            .filter(|arg| !arg.is_positional())
            .for_each(|arg| option(text, arg));
    }
    if let Some(after) = verb.get_after_help() {
        let after = after.to_string();
        let (title, examples) = after.split_once('\n').unwrap_or(("", &after));
        let examples: Vec<&str> = examples.lines().map(str::trim_start).collect();
        let _ = writeln!(text, "\n{title}\n\n```sh\n{}\n```", examples.join("\n"));
    }
    for verb in verb
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        section(text, &name, level + 1, verb);
    }
}

/// A description; its first paragraph, the title, gets a full stop.
fn sentence(about: &str) -> String {
    match about.split_once("\n\n") {
        Some((title, rest)) => format!("{title}.\n\n{rest}"),
        None => format!("{about}."),
    }
}

fn option(text: &mut String, arg: &Arg) {
    let mut names = Vec::new();
    if arg.is_positional() {
        names.push(arg.to_string());
    } else {
        names.extend(arg.get_short().map(|short| format!("-{short}")));
        names.extend(arg.get_long().map(|long| format!("--{long}")));
    }
    let mut heading = names.join(", ");
    if !arg.is_positional() && arg.get_action().takes_values() {
        let values = arg.get_value_names().unwrap_or_default();
        let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
        let _ = write!(heading, " {}", values.join(" "));
    }
    let help = match (arg.get_long_help(), arg.get_help()) {
        (Some(long), _) => sentence(&long.to_string()),
        (None, short) => short.map(ToString::to_string).unwrap_or_default(),
    };
    let help = help.replace("\n\n", " ").replace('\n', " ");
    let _ = writeln!(text, "* `{heading}`: {help}{}", remarks(arg));
}

/// Other names, values and defaults, as `--help` has them.
fn remarks(arg: &Arg) -> String {
    let mut text = String::new();
    let mut add = |what: &str, values: Vec<String>| {
        if !values.is_empty() {
            let _ = write!(text, " [{what}: {}]", values.join(", "));
        }
    };
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    let aliases = aliases.iter().map(|name| format!("`--{name}`"));
    add("also", aliases.collect());
    if arg.get_action().takes_values() {
        let quoted = |value: &str| format!("`{value}`");
        let values = arg.get_possible_values();
        let shown = values.iter().filter(|value| !value.is_hide_set());
        add(
            "values",
            shown.map(|value| quoted(value.get_name())).collect(),
        );
        let defaults = arg.get_default_values().iter();
        if !arg.is_hide_default_value_set() {
            add(
                "default",
                defaults
                    .map(|value| quoted(&value.to_string_lossy()))
                    .collect(),
            );
        }
    }
    text
}
