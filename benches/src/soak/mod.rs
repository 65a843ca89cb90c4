//! Mounts under load for a long time: readers of every kind beside commits, prunes and repacks.
//!
//! Three releases stay mounted, and their trees stay on disk to compare with. `readers` compare,
//! `writer` changes the repository, `faults` kills servers, unmounts what is in use and damages a
//! copy, `watch` looks at memory and at who makes no progress. What is read wrong is never excused;
//! an error is, while a server is being killed.

mod faults;
mod input;
mod readers;
mod shared;
mod watch;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};
use crate::machine;
use crate::processes::Servers;
use crate::record::{FAILS, FIGURE, HOLDS, Record};
use crate::tools::Tools;

use self::input::Kept;
use self::shared::Shared;
pub use self::watch::{Sample, samples_csv};

/// Readers at a time.
const READERS: u64 = 4;
/// Growth of anonymous memory, over the second half of the time, that is still no leak.
const GROWTH: u64 = 16 << 20;
/// Anonymous memory that a server may have.
const MEMORY: u64 = 128 << 20;
/// From here on the trees are large, and memory has to have come to rest.
const LONG: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long.
    pub duration: Duration,
    /// The program.
    pub grove: Option<PathBuf>,
    /// Where to work; a new directory there, removed in the end.
    pub work: Option<PathBuf>,
    /// The command line, to be written down.
    pub command: String,
}

/// What is known about a soak while it goes on.
#[derive(Debug)]
struct Soak {
    grove: crate::tools::Tool,
    work: PathBuf,
    repo: PathBuf,
    kept: Vec<Kept>,
    start: Instant,
    duration: Duration,
    shared: Shared,
}

/// Soaks. Gives verdicts and the course of memory over time.
///
/// If something hangs, threads are left behind that nothing can end: the process has to.
pub fn run(options: &Options, say: &dyn Fn(&str)) -> Result<(Record, Vec<Sample>)> {
    let tools = Tools::find(options.grove.as_deref())?;
    let base = options.work.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("grove-soak-")
        .tempdir_in(&base)
        .at(&base)?;
    let work_path = fs::canonicalize(work.path()).at(work.path())?;
    let mut record = Record::default();
    record.fact("command", options.command.clone());
    record.fact("date", machine::now());
    record.fact("project commit", machine::commit(&tools.grove.program));
    record.fact("machine", machine::describe());
    record.fact("load average before", machine::load());
    record.fact("grove", tools.grove.version.clone());
    say("building trees and committing them");
    let soak = Arc::new(Soak {
        repo: work_path.join("repo"),
        kept: input::build(&tools.grove, &work_path, options.duration >= LONG)?,
        grove: tools.grove,
        work: work_path,
        start: Instant::now(),
        duration: options.duration,
        shared: Shared::default(),
    });
    soak.mount_all()?;
    let guard = Unmount(&soak);
    say("soaking");
    let threads = start(&soak);
    let samples = watch::watch(&soak, say);
    soak.shared.stop();
    let hangs = watch::wait(&soak, &threads);
    if hangs.is_empty() {
        for thread in threads {
            if thread.join().is_err() {
                soak.shared.error("a thread panicked");
            }
        }
        end(&soak)?;
    } else {
        // What hangs may hold the mounts: nothing is removed, so that it can be looked at.
        let _ = work.keep();
    }
    drop(guard);
    verdict(&soak, &hangs, &samples, &mut record);
    record.fact("load average after", machine::load());
    Ok((record, samples))
}

fn start(soak: &Arc<Soak>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    let mut spawn = |name: String, work: Box<dyn FnOnce(&Soak) + Send>| {
        let soak = Arc::clone(soak);
        let thread = std::thread::Builder::new().name(name);
        threads.push(thread.spawn(move || work(&soak)));
    };
    for number in 0..READERS {
        spawn(
            format!("reader {number}"),
            Box::new(move |soak| readers::read(soak, number)),
        );
    }
    spawn("writer".to_owned(), Box::new(writer::write));
    spawn("faults".to_owned(), Box::new(faults::disturb));
    threads
        .into_iter()
        .filter_map(std::result::Result::ok)
        .collect()
}

impl Soak {
    fn mount_all(&self) -> Result<()> {
        self.kept
            .iter()
            .try_for_each(|kept| self.mount(&kept.rev, &kept.mount))
    }

    fn mount(&self, rev: &str, dir: &Path) -> Result<()> {
        self.grove(&self.repo)
            .args(["mount", rev])
            .arg(dir)
            .output()
            .map(drop)
    }

    fn umount(&self, dir: &Path) -> Result<()> {
        self.grove(&self.repo)
            .arg("umount")
            .arg(dir)
            .output()
            .map(drop)
    }

    fn grove(&self, repo: &Path) -> crate::measure::Invocation {
        self.grove.call().option("--repo", repo)
    }

    fn servers(&self) -> Servers {
        Servers::find(&self.grove.program, &[&self.repo])
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Takes the mounts away whatever happens.
struct Unmount<'s>(&'s Soak);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        for kept in &self.0.kept {
            let _ = rustix::mount::unmount(&kept.mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Everything has to be as it was in the beginning.
fn end(soak: &Soak) -> Result<()> {
    let servers = soak.servers();
    for kept in &soak.kept {
        readers::whole(soak, kept);
        soak.umount(&kept.mount)?;
    }
    if !servers.wait() {
        soak.shared.error("a server goes on after its last mount");
    }
    let fsck = soak.grove(&soak.repo).args(["fsck", "--deep"]).output();
    match fsck {
        Err(error @ Error::Command { .. }) => {
            soak.shared
                .error(&format!("the repository is damaged: {error}"));
            Ok(())
        }
        other => other.map(drop),
    }
}

fn verdict(soak: &Soak, hangs: &[String], samples: &[Sample], record: &mut Record) {
    let shared = &soak.shared;
    for (what, count) in shared.tallies() {
        record.fact(FIGURE, format!("{what}: {count}"));
    }
    for (what, found) in [
        ("wrong bytes or names", shared.wrong()),
        ("errors that no fault explains", shared.errors()),
        ("hangs", hangs.to_vec()),
    ] {
        let key = if found.is_empty() { HOLDS } else { FAILS };
        record.fact(key, format!("{what}: {}", found.len()));
        for line in found {
            record.fact(FAILS, line);
        }
    }
    // A soak that was cut short may have ended before memory came to rest.
    let whole = soak.duration >= LONG && hangs.is_empty();
    memory_verdict(whole, samples, record);
}

fn memory_verdict(whole: bool, samples: &[Sample], record: &mut Record) {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let most = samples.iter().map(|sample| sample.largest_bytes).max();
    let most = most.unwrap_or(0);
    let key = if most <= MEMORY { HOLDS } else { FAILS };
    record.fact(
        key,
        format!(
            "most anonymous memory of one server: {:.1} MiB, at most {} MiB",
            mib(most as f64),
            MEMORY >> 20
        ),
    );
    let (growth, from, to) = watch::growth(samples);
    let what = format!(
        "growth of the servers' anonymous memory, fitted from second {from:.0} to {to:.0}: {:.1} MiB",
        mib(growth)
    );
    // Caches are still being filled in the first minutes.
    if !whole {
        record.fact(FIGURE, what);
    } else {
        let key = if growth <= GROWTH as f64 {
            HOLDS
        } else {
            FAILS
        };
        record.fact(key, format!("{what}, at most {} MiB", GROWTH >> 20));
    }
}
