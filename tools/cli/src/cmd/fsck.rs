//! `grove fsck`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use grove_engine::ObjectId;
use grove_engine::ops::{FsckOptions, FsckReport, HitPath, Level, Problem, fsck};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, PROBLEMS, Result};
use crate::json::{self, JsonSwitch};
use crate::time;
use crate::ui::{self, SizeSwitch, Style};

/// Paths named for a problem unless -v or --json asks for all.
const PATHS: usize = 5;

/// Check the repository
///
/// Checks that every commit is complete and that all stored bytes are as they were written. Prints
/// each problem with the paths that it hits and ends with exit code 3 if there is one; 'grove
/// repair' mends what can be mended. When each pack was found sound is remembered, so that a check
/// can be interrupted and resumed, or spread over many days.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove fsck\n  grove fsck --quick\n  \
    grove fsck --deep --json\n  grove fsck --max-age=30d")]
pub struct Args {
    /// Read no contents of files: only refs, commits, directories and the index
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// Also compare every object and payload with its checksum
    #[arg(long)]
    deep: bool,
    /// Go on where a check that was interrupted stopped
    #[arg(long, conflicts_with = "quick")]
    resume: bool,
    /// Read only packs that were not found sound within AGE, such as 12h, 30d or 4w
    #[arg(long, value_name = "AGE", conflicts_with = "quick")]
    max_age: Option<String>,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commits: u64,
    partial_commits: u64,
    entries: u64,
    packs: u64,
    packs_skipped: u64,
    packs_never_checked: u64,
    packs_without_parity: u64,
    oldest_check: Option<String>,
    read_bytes: u64,
    problems: Vec<JsonProblem>,
}

/// A problem as JSON has it.
#[derive(Serialize)]
pub(super) struct JsonProblem {
    kind: &'static str,
    pack: Option<String>,
    offset: Option<u64>,
    object: Option<String>,
    detail: String,
    paths: Vec<JsonPath>,
    more_paths: u64,
}

#[derive(Serialize)]
struct JsonPath {
    commit: String,
    path: String,
}

impl From<&Problem> for JsonProblem {
    fn from(problem: &Problem) -> Self {
        let path = |hit: &HitPath| JsonPath {
            commit: hit.commit.to_string(),
            path: hit.path.clone(),
        };
        Self {
            kind: problem.kind.as_str(),
            pack: problem.pack.map(|id| id.to_string()),
            offset: problem.offset,
            object: problem.object.clone(),
            detail: problem.detail.clone(),
            paths: problem.paths.iter().map(path).collect(),
            more_paths: problem.more_paths,
        }
    }
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let options = FsckOptions {
        level: match (args.quick, args.deep) {
            (true, _) => Level::Quick,
            (_, true) => Level::Deep,
            _ => Level::Data,
        },
        resume: args.resume,
        max_age: args.max_age.as_deref().map(age).transpose()?,
        paths: paths(globals, args.json),
        now: None,
    };
    let progress = globals.progress();
    let found = fsck(&repo, options, &progress);
    progress.finish();
    let report = found.map_err(|error| explain(error, options.level))?;
    if args.json.json {
        json::print(&json_report(&report))?;
    } else {
        print(
            &report,
            &names(&repo),
            options.level,
            args.sizes,
            globals.quiet,
        )?;
    }
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

/// How many paths are named for each problem.
pub(super) fn paths(globals: &Globals, json: JsonSwitch) -> usize {
    match (json.json, globals.verbose) {
        (true, _) => 1000,
        (_, true) => usize::MAX,
        _ => PATHS,
    }
}

/// Refs by the commit they lead to.
pub(super) fn names(repo: &grove_engine::Repository) -> BTreeMap<ObjectId, String> {
    let refs = repo.refs().unwrap_or_default().map;
    refs.into_iter().map(|(name, id)| (id, name)).collect()
}

fn explain(error: grove_engine::Error, level: Level) -> Error {
    match error {
        grove_engine::Error::Cancelled if level != Level::Quick => Error::Hinted {
            error,
            hint: "'grove fsck --resume' with the same options goes on where this stopped",
        },
        other => other.into(),
    }
}

/// A length of time in seconds: a number and one of `smhdw`.
fn age(text: &str) -> Result<u64> {
    let units = [
        ("s", 1),
        ("m", 60),
        ("h", 3600),
        ("d", 86_400),
        ("w", 604_800),
    ];
    let parse = |(unit, seconds): (&str, u64)| {
        text.strip_suffix(unit)?
            .parse::<u64>()
            .ok()?
            .checked_mul(seconds)
    };
    let age = units.into_iter().find_map(parse);
    age.ok_or_else(|| Error::Usage(format!("--max-age: not a length of time: {text:?}")))
}

fn json_report(report: &FsckReport) -> Report {
    Report {
        commits: report.commits,
        partial_commits: report.partial_commits,
        entries: report.entries,
        packs: report.packs,
        packs_skipped: report.packs_skipped,
        packs_never_checked: report.never_checked,
        packs_without_parity: report.without_parity,
        oldest_check: report.oldest_check.map(time::iso),
        read_bytes: report.bytes,
        problems: report.problems.iter().map(JsonProblem::from).collect(),
    }
}

/// Prints a problem and the paths it hits.
pub(super) fn print_problem(
    out: &mut impl Write,
    label: &str,
    problem: &Problem,
    names: &BTreeMap<ObjectId, String>,
) -> std::io::Result<()> {
    let style = Style::of_output();
    writeln!(out, "{label}: {}", style.line(&problem.to_string()))?;
    for hit in &problem.paths {
        let commit = hit.commit.to_string();
        let commit = names.get(&hit.commit).unwrap_or(&commit);
        match hit.path.as_str() {
            "" => writeln!(out, "  hits: {commit}")?,
            path => writeln!(out, "  hits: {commit} {}", style.line(path))?,
        }
    }
    if problem.more_paths > 0 {
        writeln!(
            out,
            "  hits: {} more",
            ui::count(problem.more_paths, "path")
        )?;
    }
    Ok(())
}

fn print(
    report: &FsckReport,
    names: &BTreeMap<ObjectId, String>,
    level: Level,
    sizes: SizeSwitch,
    quiet: bool,
) -> Result<()> {
    let mut out = ui::stdout();
    for problem in &report.problems {
        print_problem(&mut out, "problem", problem, names)?;
    }
    if !quiet {
        writeln!(
            out,
            "{}, {} entries, {} checked, {} read: {}",
            ui::count(report.commits, "commit"),
            report.entries,
            ui::count(report.packs, "pack"),
            sizes.show(report.bytes),
            match report.problems.len() {
                0 => "no problems found".to_owned(),
                n => format!("{} found", ui::count(n as u64, "problem")),
            },
        )?;
        if report.partial_commits > 0 {
            let commits = ui::count(report.partial_commits, "commit");
            writeln!(out, "not checked, as they came incomplete: {commits}")?;
        }
        print_dates(&mut out, report, level)?;
    }
    out.flush()?;
    Ok(())
}

/// When the blocks of packs were last checked, where this check did not read them all.
fn print_dates(out: &mut impl Write, report: &FsckReport, level: Level) -> std::io::Result<()> {
    if report.packs_skipped > 0 {
        let skipped = ui::count(report.packs_skipped, "pack");
        writeln!(out, "{skipped} not read: found sound before")?;
    }
    let partial = report.packs_skipped > 0 || level == Level::Quick;
    match (report.oldest_check, report.never_checked) {
        _ if report.packs == 0 || !partial => Ok(()),
        (Some(oldest), _) => writeln!(
            out,
            "All contents were checked since {}",
            time::show(oldest)
        ),
        (None, never) => {
            writeln!(
                out,
                "Contents of {} were never checked",
                ui::count(never, "pack")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        let good = [
            ("90s", 90),
            ("5m", 300),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("4w", 2_419_200),
        ];
        for (text, expected) in good {
            assert_eq!(age(text).ok(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "d",
            "30",
            "-1d",
            "1.5h",
            "99999999999999999999d",
            "30 d",
            "20000000000000000d",
        ] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
