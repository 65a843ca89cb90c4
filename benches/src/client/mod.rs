//! What a client does to a tree, in a process of its own that measures itself.
//!
//! The clock runs from the first system call on the tree to the last; reading the list of what to do,
//! starting and ending the process are left out. All paths are resolved from an open root, so that a
//! mount point that lies deep costs nothing extra. Never writes to the tree.

mod acts;
mod map;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage as Resources, UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::measure::{Invocation, Usage, seconds};

/// First argument that makes `scenario` a client.
pub const CLIENT: &str = "__client";

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// List every directory and look at every entry (`getdents64`, `fstatat`).
    Walk,
    /// Walk, and read every file where it is met, as `tar` does.
    Everything,
    /// Look at names that are not there: those of the list with something appended.
    Missing,
    /// Open, read to the end and close every file of the list.
    Read,
    /// The same by eight threads, each of which reads all of the list from a place of its own.
    Readers,
    /// Read 4 KiB at each place of the list (`PATH TAB OFFSET`), told not to read ahead.
    Random,
    /// Map every file of the list and touch each of its pages.
    Map,
    /// Execute every program of the list inside the tree up to the point where its `main` would begin.
    Exec,
}

impl Act {
    const ALL: [(Self, &str); 8] = [
        (Self::Walk, "walk"),
        (Self::Everything, "everything"),
        (Self::Missing, "missing"),
        (Self::Read, "read"),
        (Self::Readers, "readers"),
        (Self::Random, "random"),
        (Self::Map, "map"),
        (Self::Exec, "exec"),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(act, _)| *act == self);
        found.map_or("", |(_, name)| name)
    }
}

/// What a client did and what that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Resources, of the measured part alone.
    pub usage: Usage,
    /// Entries, files, names or places that were met.
    pub items: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The middle of the times that single items took, where these are measured.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 were not slower than this.
    pub p99_seconds: Option<f64>,
    /// The time was over before the list was.
    pub stopped: bool,
}

/// A client to be started.
#[derive(Debug, Clone)]
pub struct Client {
    /// What it does.
    pub act: Act,
    /// The tree.
    pub root: PathBuf,
    /// File with a list, where the act takes one.
    pub list: Option<PathBuf>,
    /// When to stop early.
    pub limit: Option<Duration>,
}

impl Client {
    /// The command line.
    pub fn invocation(&self) -> Result<Invocation> {
        let this = std::env::current_exe().at("/proc/self/exe")?;
        let call = Invocation::new(this)
            .arg(CLIENT)
            .arg(self.act.name())
            .arg(&self.root);
        let call = call.args(&self.list);
        Ok(match self.limit {
            Some(limit) => call.arg(format!("--limit={}", limit.as_secs())),
            None => call,
        })
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let call = self.invocation()?;
        let said = call.output()?;
        serde_json::from_str(&said).map_err(|source| Error::NoMeasurement {
            command: call.to_string(),
            source,
        })
    }
}

/// The client's side: does what the arguments say and prints a [`Report`].
pub fn child(args: &[OsString]) -> Result<()> {
    let mut limit = None;
    let mut words: Vec<&OsString> = Vec::new();
    for arg in args {
        match arg.to_str().and_then(|arg| arg.strip_prefix("--limit=")) {
            Some(text) => limit = text.parse().ok().map(Duration::from_secs),
            None => words.push(arg),
        }
    }
    let unknown = || Error::UnknownAct {
        arguments: args.to_vec(),
    };
    let [name, root, list @ ..] = words.as_slice() else {
        return Err(unknown());
    };
    let act = Act::ALL.iter().find(|(_, known)| *name == known);
    let (act, _) = act.ok_or_else(unknown)?;
    let list = match list {
        [] => Vec::new(),
        [path, ..] => lines(Path::new(path))?,
    };
    let job = acts::Job::new(Path::new(root), list, limit)?;
    let report = measured(|| job.run(*act))?;
    let json = serde_json::to_vec(&report).map_err(std::io::Error::from);
    // Standard output still leads where it led before the act changed the root directory.
    std::io::stdout()
        .write_all(&json.at("standard output")?)
        .at("standard output")
}

/// Paths are bytes; no list holds one with a line break.
fn lines(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = fs::read(path).at(path)?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// Times of an act.
fn measured(act: impl FnOnce() -> Result<acts::Done>) -> Result<Report> {
    let before = resources()?;
    let start = Instant::now();
    let done = act()?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let after = resources()?;
    let sum = |pair: &[Resources; 2]| {
        let [one, children] = pair;
        (
            seconds(one.user_time()) + seconds(children.user_time()),
            seconds(one.system_time()) + seconds(children.system_time()),
        )
    };
    let ((user, system), (user_before, system_before)) = (sum(&after), sum(&before));
    let [one, _] = after;
    let mut times = done.times;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied()
    };
    Ok(Report {
        usage: Usage {
            user_seconds: user - user_before,
            system_seconds: system - system_before,
            wall_seconds,
            peak_rss_bytes: u64::try_from(one.max_rss()).unwrap_or(0) << 10,
        },
        items: done.items,
        bytes: done.bytes,
        p50_seconds: at(0.5),
        p99_seconds: at(0.99),
        stopped: done.stopped,
    })
}

fn resources() -> Result<[Resources; 2]> {
    let ask = |who| getrusage(who).at("getrusage");
    Ok([ask(UsageWho::RUSAGE_SELF)?, ask(UsageWho::RUSAGE_CHILDREN)?])
}
