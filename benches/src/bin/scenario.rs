//! Runs whole commands of `grove` and of its peers side by side and prints what they used.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use grove_benches::error::At;
use grove_benches::record::{FAILS, Record};
use grove_benches::scenario::index::{self, INDEX};
use grove_benches::scenario::{Options, Scenario, run};
use grove_benches::{Result, client, goals, measure, plot, render, soak};

/// Files of a commit with very many.
const MANY: u64 = 1_000_000;
const SMALL_MANY: u64 = 10_000;

/// Run whole commands of grove and of its peers side by side
#[derive(Debug, Parser)]
#[command(name = "scenario", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Commit a directory, the same again, and its next version (--tree, --second)
    Commit(Args),
    /// Commit packages, again with everything imported, and the next release (--rpms, --second-rpms)
    Rpms(Args),
    /// Walk and read a mounted commit beside other file systems with the same tree (--tree, --second)
    Mount(MountArgs),
    /// Check a commit out, and change the checkout to the next (--tree, --second)
    Checkout(Args),
    /// Check repositories (--tree, or --grove-repo and --ostree-repo)
    Fsck(Args),
    /// Say what differs between two commits (--tree, --second)
    Diff(Args),
    /// Make and apply deltas (--tree, --second)
    Delta(Args),
    /// Let a stock client pull from an exported repository, and count (--tree, --second)
    Pull(Args),
    /// Take commits over from OSTree, and give them back (--tree, --second)
    Exchange(Args),
    /// Commit releases one after the other and weigh the repositories (--tree, or --months)
    Store(StoreArgs),
    /// All of these
    All(AllArgs),
    /// Make, open and ask the index of a large repository (--rows)
    Index(IndexArgs),
    /// Read mounts for a long time beside commits, prunes, repacks, kills and damage (--minutes)
    Soak(SoakArgs),
    /// Print docs/benchmarks.md, made of kept runs
    Report(ReportArgs),
}

#[derive(Debug, clap::Args)]
struct Args {
    /// The directory to commit
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Its next version
    #[arg(long, value_name = "DIR")]
    second: Option<PathBuf>,
    /// A directory of packages
    #[arg(long, value_name = "DIR")]
    rpms: Option<PathBuf>,
    /// Their next release
    #[arg(long, value_name = "DIR")]
    second_rpms: Option<PathBuf>,
    /// Build small inputs where none is named
    #[arg(long)]
    small: bool,
    /// Use this repository instead of committing the trees
    #[arg(long, value_name = "DIR")]
    grove_repo: Option<PathBuf>,
    /// Use this repository instead of committing the trees
    #[arg(long, value_name = "DIR")]
    ostree_repo: Option<PathBuf>,
    /// The commit of the tree in these repositories [default: os/june]
    #[arg(long)]
    rev: Option<String>,
    /// The commit of the next version there
    #[arg(long)]
    second_rev: Option<String>,
    /// Where images of the trees for comparisons of mounts are, or are made and kept [default: made anew]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The program to measure [default: grove beside this program]
    #[arg(long, value_name = "FILE")]
    grove: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct AllArgs {
    /// Build this many releases of the small distribution: the first two are compared, all stored
    #[arg(
        long,
        conflicts_with_all = ["tree", "second", "rpms", "second_rpms", "grove_repo", "ostree_repo"],
        value_parser = clap::value_parser!(u32).range(2..)
    )]
    months: Option<u32>,
    #[command(flatten)]
    args: Args,
}

#[derive(Debug, clap::Args)]
struct MountArgs {
    /// The directory to commit
    #[arg(long, value_name = "DIR", required_unless_present = "small")]
    tree: Option<PathBuf>,
    /// Its next version, for what two commits share
    #[arg(long, value_name = "DIR")]
    second: Option<PathBuf>,
    /// Build small trees where none is named
    #[arg(long)]
    small: bool,
    /// Where images and repositories of the trees are, or are made and kept [default: made anew]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Files of a commit with very many; 0 for none [default: a million, of small trees 10,000]
    #[arg(long, value_name = "N")]
    many: Option<u64>,
    /// The program to measure [default: grove beside this program]
    #[arg(long, value_name = "FILE")]
    grove: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// A release, as a directory; may be repeated, the oldest first
    #[arg(long, value_name = "DIR", required_unless_present = "months")]
    tree: Vec<PathBuf>,
    /// Build this many releases of the small distribution
    #[arg(long, conflicts_with = "tree", value_parser = clap::value_parser!(u32).range(1..))]
    months: Option<u32>,
    /// Build them in a smaller size
    #[arg(long, requires = "months")]
    small: bool,
    /// The program to measure [default: grove beside this program]
    #[arg(long, value_name = "FILE")]
    grove: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct IndexArgs {
    /// How many objects
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// How many rows for the embedded database alone [default: as many, at most a million]
    #[arg(long)]
    database_rows: Option<u64>,
    /// The program to measure [default: grove beside this program]
    #[arg(long, value_name = "FILE")]
    grove: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct SoakArgs {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,
    /// The program to soak [default: grove beside this program]
    #[arg(long, value_name = "FILE")]
    grove: Option<PathBuf>,
    /// Where to work, below a new directory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write raw.csv, summary.md, memory.csv and memory.svg to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Where to make repositories, below a new directory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// How often; the medians are printed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Write raw.csv, summary.md and plots to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ReportArgs {
    /// Directories that --out has filled
    #[arg(required = true)]
    run: Vec<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match own_child() {
        Some(done) => done,
        None => dispatch(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            eprintln!("caused by: {cause}");
            source = cause.source();
        }
        ExitCode::FAILURE
    })
}

/// What this program does when it has started itself.
fn own_child() -> Option<Result<ExitCode>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [first, result, program, args @ ..] if first == measure::HELPER => {
            Some(measure::help(Path::new(result), program, args).map(ExitCode::from))
        }
        [first, args @ ..] if first == client::CLIENT => {
            Some(client::child(args).map(|()| ExitCode::SUCCESS))
        }
        [first, args @ ..] if first == INDEX => Some(index::child(args).map(|said| {
            println!("{said}");
            ExitCode::SUCCESS
        })),
        _ => None,
    }
}

fn dispatch() -> Result<ExitCode> {
    let (options, common) = match Cli::parse().command {
        Command::Commit(args) => options(vec![Scenario::Commit], args),
        Command::Rpms(args) => options(vec![Scenario::Rpms], args),
        Command::Mount(args) => mount_options(args),
        Command::Checkout(args) => options(vec![Scenario::Checkout], args),
        Command::Fsck(args) => options(vec![Scenario::Fsck], args),
        Command::Diff(args) => options(vec![Scenario::Diff], args),
        Command::Delta(args) => options(vec![Scenario::Delta], args),
        Command::Pull(args) => options(vec![Scenario::Pull], args),
        Command::Exchange(args) => options(vec![Scenario::Exchange], args),
        Command::Store(args) => store_options(args),
        Command::All(args) => all_options(args),
        Command::Index(args) => index_options(args),
        Command::Soak(args) => return soak(args),
        Command::Report(args) => return report(&args),
    };
    let options = Options {
        work: common.work,
        runs: common.runs,
        command: command_line(),
        ..options
    };
    let record = run(&options, &|line| eprintln!("{line}"))?;
    print!("{}", render::text(&record));
    if let Some(dir) = common.out {
        save(&record, &dir)?;
    }
    let failed = record.values(FAILS).next().is_some();
    Ok(ExitCode::from(u8::from(failed)))
}

fn soak(args: SoakArgs) -> Result<ExitCode> {
    let options = soak::Options {
        duration: Duration::from_secs_f64(args.minutes.clamp(0.0, 1e6) * 60.0),
        grove: args.grove,
        work: args.work,
        command: command_line(),
    };
    let (record, samples) = soak::run(&options, &|line| eprintln!("{line}"))?;
    print!("{}", render::text(&record));
    if let Some(dir) = args.out {
        save(&record, &dir)?;
        let path = dir.join("memory.csv");
        fs::write(&path, soak::samples_csv(&samples)).at(&path)?;
        if let Some(svg) = plot::memory(&samples, &name(&dir)) {
            let path = dir.join("memory.svg");
            fs::write(&path, svg).at(&path)?;
        }
    }
    let failed = record.values(FAILS).next().is_some();
    Ok(ExitCode::from(u8::from(failed)))
}

fn options(scenarios: Vec<Scenario>, args: Args) -> (Options, Common) {
    let options = Options {
        scenarios,
        tree: args.tree,
        second: args.second,
        rpms: args.rpms,
        second_rpms: args.second_rpms,
        small: args.small,
        grove_repo: args.grove_repo,
        ostree_repo: args.ostree_repo,
        rev: args.rev,
        second_rev: args.second_rev,
        keep: args.keep,
        many: if args.small { SMALL_MANY } else { MANY },
        grove: args.grove,
        ..Options::default()
    };
    (options, args.common)
}

fn all_options(args: AllArgs) -> (Options, Common) {
    let (options, common) = options(Scenario::ALL.to_vec(), args.args);
    let months = args.months.unwrap_or(0);
    (Options { months, ..options }, common)
}

fn mount_options(args: MountArgs) -> (Options, Common) {
    let usual = if args.small { SMALL_MANY } else { MANY };
    let options = Options {
        scenarios: vec![Scenario::Mount],
        tree: args.tree,
        second: args.second,
        small: args.small,
        keep: args.keep,
        many: args.many.unwrap_or(usual),
        grove: args.grove,
        ..Options::default()
    };
    (options, args.common)
}

fn store_options(args: StoreArgs) -> (Options, Common) {
    let options = Options {
        scenarios: vec![Scenario::Store],
        releases: args.tree,
        months: args.months.unwrap_or(0),
        small: args.small,
        grove: args.grove,
        ..Options::default()
    };
    (options, args.common)
}

fn index_options(args: IndexArgs) -> (Options, Common) {
    let options = Options {
        scenarios: vec![Scenario::Index],
        rows: args.rows,
        database_rows: args.database_rows.unwrap_or(args.rows.min(1_000_000)),
        grove: args.grove,
        ..Options::default()
    };
    (options, args.common)
}

/// This command line, without what does not matter to the figures.
fn command_line() -> String {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    format!("scenario {}", args.join(" "))
}

fn save(record: &Record, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).at(dir)?;
    record.save(&dir.join("raw.csv"))?;
    if let Some(svg) = plot::stored(record, &name(dir)) {
        let path = dir.join("stored.svg");
        fs::write(&path, svg).at(&path)?;
    }
    let summary = dir.join("summary.md");
    fs::write(&summary, render::markdown(record, &name(dir))).at(&summary)
}

/// A run is named by its directory.
fn name(dir: &Path) -> String {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    full.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

const INTRODUCTION: &str = "\
# Benchmarks

This file is made by `scenario report` from the runs that are kept in `benches/runs/`, with figures as they were
measured. By hand are the names `$TREES`, `$KEEP`, `$REPOS` and `$SCRATCH` in place of directories of the machine, and what
`conditions` and `left out` say of the machine beyond the program's own words. Each run names its command, its inputs,
the machine and the versions of all programs.

`$TREES/june` and `$TREES/july` are installed trees of a Debian 12 desktop, of two consecutive months, `rpms-june` the packages of the
first as RPM files (`grove-fixtures deb2rpm`); any two releases of a system can take their place. The releases of
`--months` are those of `grove-fixtures month`: the mini distribution.

How to read the tables: *CPU* is user and system time of the command and all its children; *CPU / grove* is
how many times that of `grove` in the same step; *peak* is the largest resident memory of any process of
the command (not below about 4 MiB, the size of the measuring program); *server* is the processor time of the
processes that serve a mount and *kernel* that of the kernel's own threads, both part of *CPU*; *least* is the
best of all repetitions; *server reads* are read calls of the serving processes, requests among them; *stored* is the sum of the sizes of
all files of the repository, *on disk* the blocks they occupy, *added* what the step added to *stored*.
With several runs, figures are medians. Wall times depend on what else the machine did: see the load averages.

How to make a run: `cargo build --release`, then `target/release/scenario all --small` for a look,
`target/release/scenario all --months 12 --out benches/runs/NAME` for releases that anybody can build, or
`target/release/scenario all --tree DIR --second DIR --rpms DIR --runs 3 --out benches/runs/NAME`.
";

const GOALS: &str = "
## Goals

Each figure is followed by the run that found it; bold is what missed its goal. Ratios are to the program that is named, in
the same run; below 1, grove takes less. Why goals were missed, and what of them can be had, is in `docs/decisions/`
015 (store), 019 (checkouts and deltas) and 020 (mount).

";

fn report(args: &ReportArgs) -> Result<ExitCode> {
    let load = |dir: &PathBuf| Ok((Record::load(&dir.join("raw.csv"))?, name(dir)));
    let runs = args.run.iter().map(load).collect::<Result<Vec<_>>>()?;
    let mut text = INTRODUCTION.to_owned();
    write!(text, "{GOALS}{}", goals::table(&runs)).expect("because a string takes every write");
    for (record, name) in &runs {
        write!(text, "\n{}", render::markdown(record, name))
            .expect("because a string takes every write");
        let svg = plot::stored(record, name);
        if let (Some(svg), Some(output)) = (svg, &args.output) {
            let plots = output.with_file_name("plots");
            fs::create_dir_all(&plots).at(&plots)?;
            let path = plots.join(format!("{name}.svg"));
            fs::write(&path, svg).at(&path)?;
            write!(text, "\n![Stored bytes by release](plots/{name}.svg)\n")
                .expect("because a string takes every write");
        }
    }
    match &args.output {
        Some(path) => fs::write(path, text).at(path)?,
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}
