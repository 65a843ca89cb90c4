//! Whole commands, step by step, by every program that can do them.
//!
//! A run goes through the scenarios asked for with fresh repositories; `--runs` repeats it. All
//! programs see the same input with a warm page cache, one after the other, in an order that
//! rotates from run to run; before each step everything unwritten is flushed.

mod checkout;
mod commit;
mod delta;
mod diff;
mod exchange;
mod fsck;
pub mod index;
mod mount;
mod pair;
mod patch_from;
mod pull;
mod rpms;
mod small;
mod store;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::compare::Comparison;
use crate::error::{At, Error, Result};
use crate::machine;
use crate::measure::Invocation;
use crate::record::{FAILS, GOAL, HOLDS, INPUT, LEFT_OUT, Record, Row};
use crate::tools::Tools;
use crate::walk;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Commits of directories.
    Commit,
    /// Commits of packages.
    Rpms,
    /// A mounted commit.
    Mount,
    /// Checkouts.
    Checkout,
    /// Checking a repository.
    Fsck,
    /// Commits taken over from OSTree and given back.
    Exchange,
    /// What differs between two commits.
    Diff,
    /// Deltas from one commit to the next.
    Delta,
    /// What a stock client transfers.
    Pull,
    /// One release after the other, and what each adds to the repository.
    Store,
    /// The index of a large repository.
    Index,
}

impl Scenario {
    /// Those that `all` means, in the order in which they use each other's repositories.
    pub const ALL: [Self; 10] = [
        Self::Commit,
        Self::Rpms,
        Self::Mount,
        Self::Checkout,
        Self::Fsck,
        Self::Diff,
        Self::Delta,
        Self::Pull,
        Self::Exchange,
        Self::Store,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rpms => "rpms",
            Self::Mount => "mount",
            Self::Checkout => "checkout",
            Self::Fsck => "fsck",
            Self::Exchange => "exchange",
            Self::Diff => "diff",
            Self::Delta => "delta",
            Self::Pull => "pull",
            Self::Store => "store",
            Self::Index => "index",
        }
    }
}

/// What to measure, and on what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which scenarios.
    pub scenarios: Vec<Scenario>,
    /// Directory to commit.
    pub tree: Option<PathBuf>,
    /// Its next version.
    pub second: Option<PathBuf>,
    /// Directory of packages.
    pub rpms: Option<PathBuf>,
    /// The next release of them.
    pub second_rpms: Option<PathBuf>,
    /// Build small inputs where none is named.
    pub small: bool,
    /// Use this repository instead of committing `tree`.
    pub grove_repo: Option<PathBuf>,
    /// Use this repository instead of committing `tree`.
    pub ostree_repo: Option<PathBuf>,
    /// The commit of `tree` in repositories that are named.
    pub rev: Option<String>,
    /// The commit of `second` there.
    pub second_rev: Option<String>,
    /// Where images of the trees are kept; made anew where this is not given.
    pub keep: Option<PathBuf>,
    /// How many files the commit of very many files has; none for no such commit.
    pub many: u64,
    /// Releases to store one after the other.
    pub releases: Vec<PathBuf>,
    /// How many releases of the small distribution to build instead: all are stored, and the first
    /// two are what is compared otherwise.
    pub months: u32,
    /// Objects of the large repository.
    pub rows: u64,
    /// Rows for the embedded database alone.
    pub database_rows: u64,
    /// The program.
    pub grove: Option<PathBuf>,
    /// Where repositories are made; a new directory there, removed in the end.
    pub work: Option<PathBuf>,
    /// How often.
    pub runs: u32,
    /// The command line, to be written down.
    pub command: String,
}

/// Measures. `say` gets a line about each step when it is done.
pub fn run(options: &Options, say: &dyn Fn(&str)) -> Result<Record> {
    let tools = Tools::find(options.grove.as_deref())?;
    let base = options.work.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("grove-scenario-")
        .tempdir_in(&base)
        .at(&base)?;
    let inputs = Inputs::resolve(options, work.path())?;
    let mut record = Record::default();
    conditions(&mut record, options, &tools, work.path());
    inputs.describe(&mut record)?;
    for run in 1..=options.runs.max(1) {
        let dir = work.path().join(format!("run-{run}"));
        fs::create_dir(&dir).at(&dir)?;
        let mut bench = Bench {
            options,
            tools: &tools,
            inputs: &inputs,
            record: &mut record,
            say,
            work: dir.clone(),
            run,
            scenario: "",
            stored: HashMap::new(),
            first_commit: None,
            next_commits: Vec::new(),
            put_away: Vec::new(),
        };
        bench.run_all()?;
        remove(&dir)?;
    }
    if options.scenarios.contains(&Scenario::Mount) {
        mount::judge(&mut record);
    }
    record.fact("load average after", machine::load());
    Ok(record)
}

fn conditions(record: &mut Record, options: &Options, tools: &Tools, work: &Path) {
    record.fact("command", options.command.clone());
    record.fact("date", machine::now());
    record.fact("project commit", machine::commit(&tools.grove.program));
    record.fact("machine", machine::describe());
    record.fact(
        "file system of the repositories",
        machine::file_system(work),
    );
    let who = if is_root() {
        "root"
    } else {
        "an ordinary user"
    };
    record.fact("run by", who);
    record.fact("placement", machine::placement());
    record.fact("page reclaim", machine::reclaim());
    record.fact("load average before", machine::load());
    for tool in tools.all() {
        record.fact(tool.name, tool.version.clone());
    }
    for line in &tools.left_out {
        record.fact(LEFT_OUT, line.clone());
    }
    let how = "the input is read once before each run, so that all see a warm page cache; \
               'sync' before each step; programs with their default durability";
    record.fact("conditions", how);
    record.fact("runs", options.runs.max(1).to_string());
}

/// Directories to work on.
#[derive(Debug, Default)]
struct Inputs {
    tree: Option<PathBuf>,
    second: Option<PathBuf>,
    rpms: Option<PathBuf>,
    second_rpms: Option<PathBuf>,
    releases: Vec<PathBuf>,
}

impl Inputs {
    fn resolve(options: &Options, work: &Path) -> Result<Self> {
        let full = |dir: &Option<PathBuf>| {
            let resolve = |dir: &PathBuf| fs::canonicalize(dir).at(dir);
            dir.as_ref().map(resolve).transpose()
        };
        let mut inputs = Self {
            tree: full(&options.tree)?,
            second: full(&options.second)?,
            rpms: full(&options.rpms)?,
            second_rpms: full(&options.second_rpms)?,
            releases: Vec::new(),
        };
        for dir in &options.releases {
            inputs.releases.push(fs::canonicalize(dir).at(dir)?);
        }
        if options.small || options.months > 0 {
            small::build(&mut inputs, options, work)?;
        }
        Ok(inputs)
    }

    fn present(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.tree, &self.second, &self.rpms, &self.second_rpms];
        let all = all.into_iter().flatten().chain(&self.releases);
        all.map(PathBuf::as_path)
    }

    fn describe(&self, record: &mut Record) -> Result<()> {
        for dir in self.present() {
            let found = walk::list(dir)?;
            let kind = machine::file_system(dir);
            record.fact(INPUT, format!("{} on {kind}: {found}", dir.display()));
        }
        Ok(())
    }
}

/// One run.
struct Bench<'b> {
    options: &'b Options,
    tools: &'b Tools,
    inputs: &'b Inputs,
    record: &'b mut Record,
    say: &'b dyn Fn(&str),
    work: PathBuf,
    run: u32,
    scenario: &'static str,
    /// Size of each repository when it was last looked at.
    stored: HashMap<PathBuf, u64>,
    /// The commit of `tree`.
    first_commit: Option<String>,
    /// Who has committed `second`, and the commits.
    next_commits: Vec<(commit::Kind, String)>,
    /// Directories that wait to be removed.
    put_away: Vec<PathBuf>,
}

/// For so long ext4 makes no use of the inodes of removed files, and looks at all of them for each
/// file that it makes.
const FORGETTING: Duration = Duration::from_secs(361);
/// From so many entries on, that is waited for.
const MANY_ENTRIES: u64 = 10_000;
/// Room that a step may need, in trees.
const TREES: u64 = 3;

impl Bench<'_> {
    /// One scenario that fails does not keep the others from being measured.
    fn run_all(&mut self) -> Result<()> {
        for dir in self.inputs.present() {
            walk::read(dir)?;
        }
        for scenario in self.options.scenarios.clone() {
            self.scenario = scenario.name();
            let done = match scenario {
                Scenario::Commit => self.commit(),
                Scenario::Rpms => self.rpms(),
                Scenario::Mount => self.mount(),
                Scenario::Checkout => self.checkout(),
                Scenario::Fsck => self.fsck(),
                Scenario::Exchange => self.exchange(),
                Scenario::Diff => self.diff(),
                Scenario::Delta => self.delta(),
                Scenario::Pull => self.pull(),
                Scenario::Store => self.store(),
                Scenario::Index => self.index(),
            };
            match done {
                Err(error @ Error::MissingInput { .. }) if self.options.scenarios.len() > 1 => {
                    self.leave_out(&error.to_string());
                }
                Err(error) if self.options.scenarios.len() > 1 => {
                    self.check(false, &describe(&error));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn tree(&self) -> Result<PathBuf> {
        let tree = self.inputs.tree.clone();
        tree.ok_or_else(|| self.missing("--tree DIR"))
    }

    fn second(&self) -> Result<PathBuf> {
        let second = self.inputs.second.clone();
        second.ok_or_else(|| self.missing("--second DIR"))
    }

    fn missing(&self, option: &'static str) -> Error {
        Error::MissingInput {
            scenario: self.scenario,
            option,
        }
    }

    /// Where commands are shown to work.
    fn shown(&self, text: &str) -> String {
        text.replace(&*self.work.to_string_lossy(), "$WORK")
    }

    /// Runs a command and writes down what it used; gives the row's number and the answer.
    fn step(&mut self, step: &str, tool: &str, call: &Invocation) -> Result<(usize, String)> {
        rustix::fs::sync();
        let done = call.measure()?;
        let usage = done.usage;
        self.record.rows.push(Row {
            scenario: self.scenario.to_owned(),
            step: step.to_owned(),
            tool: tool.to_owned(),
            run: self.run,
            user_seconds: usage.user_seconds,
            system_seconds: usage.system_seconds,
            wall_seconds: usage.wall_seconds,
            peak_rss_bytes: usage.peak_rss_bytes,
            command: self.shown(&call.to_string()),
            ..Row::default()
        });
        (self.say)(&format!(
            "{}: {step}: {tool}: {:.2} s CPU, {:.2} s",
            self.scenario,
            usage.user_seconds + usage.system_seconds,
            usage.wall_seconds
        ));
        Ok((self.record.rows.len() - 1, done.stdout))
    }

    fn row(&mut self, number: usize) -> &mut Row {
        self.record
            .rows
            .get_mut(number)
            .expect("because rows are never removed")
    }

    /// Writes down what a repository occupies after a step.
    fn weigh(&mut self, row: usize, repo: &Path) -> Result<()> {
        let now = walk::occupied(repo)?;
        let before = self.stored.insert(repo.to_owned(), now.apparent_bytes);
        let row = self.row(row);
        row.stored_bytes = Some(now.apparent_bytes);
        row.allocated_bytes = Some(now.allocated_bytes);
        row.added_bytes = Some(now.apparent_bytes as i64 - before.unwrap_or(0) as i64);
        Ok(())
    }

    /// Writes down whether something is as it must be.
    fn check(&mut self, holds: bool, what: &str) {
        self.verdict(if holds { HOLDS } else { FAILS }, what);
    }

    fn verdict(&mut self, key: &str, what: &str) {
        let line = format!("{}, run {}: {}", self.scenario, self.run, self.shown(what));
        (self.say)(&format!("{key}: {line}"));
        self.record.fact(key, line);
    }

    /// Writes down a goal, met or missed.
    fn goal_below(&mut self, what: &str, found: f64, limit: f64) {
        let word = if found <= limit { "met" } else { "MISSED" };
        self.verdict(
            GOAL,
            &format!("{word}: {what}: {found:.3}, at most {limit}"),
        );
    }

    fn goal_above(&mut self, what: &str, found: f64, limit: f64) {
        let word = if found >= limit { "met" } else { "MISSED" };
        self.verdict(
            GOAL,
            &format!("{word}: {what}: {found:.3}, at least {limit}"),
        );
    }

    fn cpu(&mut self, row: usize) -> f64 {
        self.row(row).cpu_seconds().max(1e-9)
    }

    fn check_same_checksum(&mut self, what: &str, one: &str, other: &str) {
        if one == other {
            self.check(true, &format!("{what}: the same checksum, {one}"));
        } else {
            self.check(false, &format!("{what}: two checksums, {one} and {other}"));
        }
    }

    /// Writes down a comparison; `otherwise` is the key where there are differences.
    fn compared(&mut self, found: &Comparison, what: &str, otherwise: &str) {
        let Comparison {
            entries,
            bytes,
            different,
            differences,
        } = found;
        let key = if *different == 0 { HOLDS } else { otherwise };
        let sums = format!("{entries} entries, {bytes} bytes compared, {different} different");
        self.verdict(key, &format!("{what}: {sums}"));
        for line in differences {
            self.verdict(otherwise, &format!("{what}: {line}"));
        }
    }

    fn leave_out(&mut self, what: &str) {
        let what = &*self.shown(what);
        (self.say)(&format!("{LEFT_OUT}: {what}"));
        if !self.record.values(LEFT_OUT).any(|known| known == what) {
            self.record.fact(LEFT_OUT, what);
        }
    }

    /// Puts directories where they disturb no later step: they are removed with everything else in
    /// the end, or where there is no room, now, and whoever makes files next does not pay for it.
    fn put_away(&mut self, dirs: &[PathBuf]) -> Result<()> {
        for dir in dirs {
            let to = self.work.join(format!("old-{}", self.put_away.len()));
            fs::rename(dir, &to).at(dir)?;
            self.put_away.push(to);
        }
        let trees = [&self.inputs.tree, &self.inputs.second];
        let mut room = 0;
        for tree in trees.into_iter().flatten() {
            room = room.max(TREES * walk::list(tree)?.bytes);
        }
        let free = rustix::fs::statvfs(&self.work).at(&self.work)?;
        if free.f_bavail * free.f_frsize >= room {
            return Ok(());
        }
        let mut entries = 0;
        for dir in self.put_away.iter().filter(|dir| dir.exists()) {
            entries += walk::list(dir)?.entries();
            remove(dir)?;
        }
        // Inodes that are not yet on disk are remembered for longer.
        rustix::fs::sync();
        if entries >= MANY_ENTRIES {
            std::thread::sleep(FORGETTING);
        }
        Ok(())
    }

    /// Items in an order that rotates with the runs.
    fn rotated<T>(&self, mut items: Vec<T>) -> Vec<T> {
        let by = (self.run as usize - 1) % items.len().max(1);
        items.rotate_left(by);
        items
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Removes a directory, also where its owner has no permission inside.
fn remove(dir: &Path) -> Result<()> {
    if !is_root() {
        let open = Invocation::new("chmod").args(["-R", "u+rwX"]).arg(dir);
        open.output()?;
    }
    fs::remove_dir_all(dir).at(dir)
}
