//! The index of a repository with very many objects: made, opened, asked, added to.
//!
//! Each step is a process of its own, so that its memory can be told from that of the others.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grove_engine::probe::{self, Database, Probe};
use grove_engine::{Repository, Silent};
use grove_fixtures::rng::Rng;

use super::Bench;
use crate::error::{At, Error, Result};
use crate::measure::Invocation;
use crate::record::{FIGURE, GOAL};
use crate::walk;

/// First argument that makes `scenario` do one of the steps.
pub const INDEX: &str = "__index";
/// Objects of a pack: a usual pack of metadata has so many.
const PACK_OBJECTS: u64 = 20_000;
/// A commit that is merged, and one that goes into the database.
const COMMITS: [u64; 2] = [20_001, 500];
const LOOKUPS: usize = 200_000;
const COLD_LOOKUPS: usize = 2000;
/// What building the index may hold in memory, and how long it may take for ten million objects.
const REBUILD_BYTES: u64 = 512 << 20;
const REBUILD_SECONDS: f64 = 60.0;
const OPEN_SECONDS: f64 = 1.0;

impl Bench<'_> {
    /// The scenario.
    pub(super) fn index(&mut self) -> Result<()> {
        let rows = self.options.rows;
        let repo = self.work.join("grove");
        fs::create_dir_all(&repo).at(&repo)?;
        self.index_step("write packs", "flat", "packs", &repo, &[rows])?;
        let (made, _) = self.index_step("open without an index", "flat", "open", &repo, &[])?;
        self.weigh(made, &repo.join("index"))?;
        let (rebuilt, _) = self.index_step("rebuild", "flat", "rebuild", &repo, &[])?;
        self.weigh(rebuilt, &repo.join("index"))?;
        let (opened, _) = self.index_step("open", "flat", "open", &repo, &[])?;
        self.index_step("look up", "flat", "ask", &repo, &[rows])?;
        let mut next = rows;
        for (number, count) in COMMITS.into_iter().cycle().take(6).enumerate() {
            let step = format!("commit {}: {count} objects", number + 1);
            let (row, _) = self.index_step(&step, "flat", "commit", &repo, &[next, count])?;
            self.weigh(row, &repo.join("index"))?;
            next += count;
        }
        self.index_step("look up after commits", "flat", "ask", &repo, &[rows])?;
        self.judge_index(&[made, rebuilt], opened);
        self.database()
    }

    /// The embedded database with as many rows, alone.
    fn database(&mut self) -> Result<()> {
        let rows = self.options.database_rows;
        if rows == 0 {
            return Ok(());
        }
        let path = self.work.join("sled");
        let (row, _) = self.index_step("insert", "sled", "db-insert", &path, &[rows])?;
        self.weigh(row, &path)?;
        self.index_step("open", "sled", "db-open", &path, &[])?;
        self.index_step("look up", "sled", "db-ask", &path, &[rows])?;
        Ok(())
    }

    fn index_step(
        &mut self,
        step: &str,
        tool: &str,
        what: &str,
        path: &Path,
        numbers: &[u64],
    ) -> Result<(usize, String)> {
        let this = std::env::current_exe().at("/proc/self/exe")?;
        let call = Invocation::new(this).arg(INDEX).arg(what).arg(path);
        let call = call.args(numbers.iter().map(u64::to_string));
        let (row, said) = self.step(step, tool, &call)?;
        if !said.is_empty() {
            self.verdict(FIGURE, &format!("{tool}, {step}: {said}"));
        }
        Ok((row, said))
    }

    fn judge_index(&mut self, made: &[usize], opened: usize) {
        // For fewer objects, less time.
        let share = self.options.rows as f64 / 1e7;
        for row in made {
            let row = self.row(*row).clone();
            let seconds = REBUILD_SECONDS * share;
            self.index_goal(&row.step, row.wall_seconds <= seconds, seconds);
            let holds = row.peak_rss_bytes <= REBUILD_BYTES;
            let mib = row.peak_rss_bytes >> 20;
            let text = format!("{}: {mib} MiB, at most {}", row.step, REBUILD_BYTES >> 20);
            self.verdict(GOAL, &format!("{}: {text}", met(holds)));
        }
        let row = self.row(opened).clone();
        self.index_goal(&row.step, row.wall_seconds <= OPEN_SECONDS, OPEN_SECONDS);
    }

    fn index_goal(&mut self, step: &str, holds: bool, seconds: f64) {
        let text = format!("{}: {step}: at most {seconds} s", met(holds));
        self.verdict(GOAL, &text);
    }
}

const fn met(holds: bool) -> &'static str {
    if holds { "met" } else { "MISSED" }
}

/// One step, in a process of its own. Gives figures to be written down.
pub fn child(args: &[OsString]) -> Result<String> {
    let [what, path, numbers @ ..] = args else {
        return Ok(String::new());
    };
    let path = PathBuf::from(path);
    let numbers: Vec<u64> = numbers
        .iter()
        .filter_map(|number| number.to_str()?.parse().ok())
        .collect();
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let failed = |source| Error::Index {
        path: path.clone(),
        source,
    };
    match what.to_str().unwrap_or_default() {
        "packs" => write_packs(&path, number(0)),
        "open" => open(&path),
        "rebuild" => rebuild(&path),
        "ask" => ask(&path, number(0)),
        "commit" => commit(&path, number(0), number(1)),
        "db-insert" => insert(&path, number(0)),
        "db-open" => Database::open(&path).map(|_| String::new()),
        "db-ask" => ask_database(&path, number(0)),
        _ => Ok(String::new()),
    }
    .map_err(failed)
}

type Done = grove_engine::Result<String>;

fn packs(rows: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let starts = (0..rows).step_by(PACK_OBJECTS as usize);
    starts.map(move |start| start..rows.min(start + PACK_OBJECTS))
}

fn write_packs(path: &Path, rows: u64) -> Done {
    let repo = Repository::init(path)?;
    packs(rows).try_for_each(|range| probe::add_pack(&repo, range))?;
    Ok(String::new())
}

fn open(path: &Path) -> Done {
    let start = Instant::now();
    let repo = Repository::open(path)?;
    let took = start.elapsed();
    let (_, rows) = repo.stored()?;
    Ok(format!(
        "{rows} rows, {:.3} ms in the process",
        took.as_secs_f64() * 1e3
    ))
}

fn rebuild(path: &Path) -> Done {
    let report = Repository::open(path)?.reindex(&Silent)?;
    Ok(format!("{} rows of {} packs", report.entries, report.packs))
}

fn commit(path: &Path, start: u64, count: u64) -> Done {
    let repo = Repository::open(path)?;
    let before = written();
    let begin = Instant::now();
    probe::commit_pack(&repo, start..start + count)?;
    let took = begin.elapsed();
    let mib = written().saturating_sub(before) as f64 / f64::from(1 << 20);
    Ok(format!(
        "{:.1} ms, {mib:.1} MiB written",
        took.as_secs_f64() * 1e3
    ))
}

/// What this process has written so far, by the system's count.
fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn insert(path: &Path, rows: u64) -> Done {
    let database = Database::open(path)?;
    packs(rows).try_for_each(|range| database.insert(range))?;
    Ok(String::new())
}

fn ask_database(path: &Path, rows: u64) -> Done {
    let database = Database::open(path)?;
    lookups(rows, LOOKUPS, |probe| database.has(probe))
}

fn ask(path: &Path, rows: u64) -> Done {
    let forgotten = forget(&path.join("index"));
    let repo = Repository::open(path)?;
    let mut said = String::new();
    if forgotten {
        let cold = lookups(rows, COLD_LOOKUPS, |probe| probe::has(&repo, probe))?;
        write!(said, "cold: {cold}; warm: ").expect("because a string takes every write");
    }
    // The first round brings the file into memory.
    lookups(rows, LOOKUPS, |probe| probe::has(&repo, probe))?;
    Ok(said + &lookups(rows, LOOKUPS, |probe| probe::has(&repo, probe))?)
}

/// Asks the system to drop what it has cached of the files in a directory.
fn forget(dir: &Path) -> bool {
    let mut all = true;
    let done = walk::walk(dir, &mut |path, meta| {
        if meta.is_file() {
            let file = File::open(&path).at(&path)?;
            let advice = rustix::fs::Advice::DontNeed;
            all &= rustix::fs::fadvise(&file, 0, None, advice).is_ok();
        }
        Ok(())
    });
    all && done.is_ok()
}

/// Random look-ups of what is there and of what is not, one at a time.
fn lookups(
    rows: u64,
    count: usize,
    mut has: impl FnMut(&Probe) -> grove_engine::Result<bool>,
) -> Done {
    let mut rng = Rng::new(count as u64);
    let mut said = Vec::new();
    for (what, first) in [("hits", 0), ("misses", 1 << 40)] {
        let probes: Vec<Probe> = (0..count)
            .map(|_| probe::probe(first + rng.below(rows as usize) as u64))
            .collect();
        let mut times = Vec::with_capacity(count);
        let mut found = 0;
        for probe in &probes {
            let start = Instant::now();
            found += usize::from(has(probe)?);
            times.push(start.elapsed());
        }
        let wanted = if first == 0 { count } else { 0 };
        assert_eq!(found, wanted, "{what} of {count}");
        times.sort_unstable();
        let at = |permille: usize| micros(times[(times.len() - 1) * permille / 1000]);
        said.push(format!("{what} p50 {} us, p99 {} us", at(500), at(990)));
    }
    Ok(said.join(", "))
}

fn micros(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_works_on_a_small_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        fs::create_dir(&path).unwrap();
        let call = |what: &str, numbers: &[u64]| {
            let mut args = vec![OsString::from(what), path.clone().into()];
            args.extend(numbers.iter().map(|n| n.to_string().into()));
            child(&args).unwrap()
        };
        call("packs", &[45_000]);
        assert!(call("open", &[]).starts_with("45000 rows, "));
        assert_eq!(call("rebuild", &[]), "45000 rows of 3 packs");
        for count in [25_000, 500] {
            call("commit", &[45_000, count]);
        }
        assert!(call("ask", &[70_000]).contains("warm: hits p50 "));
    }
}
