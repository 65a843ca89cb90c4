//! Processes that are nobody's children: servers of file systems, and threads of the kernel.
//!
//! What they use is read from /proc and from their clocks; it is told apart by program and arguments
//! only, so that two servers of one program cannot be confused with those that somebody else has started
//! from another place.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

/// How long a server may take to end after its file system was unmounted.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
/// How threads of the kernel are called that work for file systems.
const WORKERS: [&str; 3] = ["kworker", "loop", "erofs"];

/// Processes that serve file systems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers {
    pids: Vec<i32>,
}

impl Servers {
    /// Processes of a program that hold /dev/fuse and have one of `paths` among their arguments.
    pub fn find(program: &Path, paths: &[&Path]) -> Self {
        let program = resolve(program);
        let serves = |pid: &i32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let names = |path: &&Path| {
                let wanted = path.as_os_str().as_encoded_bytes();
                line.windows(wanted.len()).any(|part| part == wanted)
            };
            fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)
                && paths.iter().any(names)
                && holds_fuse(&process)
        };
        Self {
            pids: all().filter(serves).collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Their numbers.
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// Processor time that they have used up to now, in seconds. One that is gone counts nothing.
    pub fn cpu_seconds(&self) -> f64 {
        let of = |pid: &i32| {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(*pid)).ok()?;
            let time = clock.now().ok()?;
            Some(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
        };
        self.pids.iter().filter_map(of).sum()
    }

    /// A field of their `status`, summed up, in bytes.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let of = |pid: &i32| memory_bytes(*pid, field);
        self.pids.iter().filter_map(of).sum()
    }

    /// The same of the one that has most.
    pub fn largest_bytes(&self, field: &str) -> u64 {
        let of = |pid: &i32| memory_bytes(*pid, field);
        self.pids.iter().filter_map(of).max().unwrap_or(0)
    }

    /// How many files they have open.
    pub fn files(&self) -> usize {
        let of = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.pids.iter().map(of).sum()
    }

    /// System calls by which they have read, of any file: not fewer than the requests they got.
    pub fn reads(&self) -> u64 {
        let of = |pid: &i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("syscr:"))?;
            line.trim().parse::<u64>().ok()
        };
        self.pids.iter().filter_map(of).sum()
    }

    /// Waits until all have ended. Gives whether they have.
    pub fn wait(&self) -> bool {
        let end = Instant::now() + PATIENCE;
        let lives = |pid: &i32| {
            Path::new(&format!("/proc/{pid}/fd/0"))
                .symlink_metadata()
                .is_ok()
        };
        while self.pids.iter().any(lives) {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

/// A field of a process's `status` that is given in KiB.
fn memory_bytes(pid: i32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line
        .trim_start_matches(':')
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib << 10)
}

/// Times of the threads of the kernel that work for file systems; everybody's.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    nanoseconds: HashMap<i32, u64>,
}

impl Workers {
    /// As they are now.
    pub fn now() -> Self {
        let of = |pid: i32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let name = fs::read_to_string(process.join("comm")).ok()?;
            if !WORKERS.iter().any(|kind| name.starts_with(kind)) || parent(&process)? != 2 {
                return None;
            }
            let times = fs::read_to_string(process.join("schedstat")).ok()?;
            Some((pid, times.split_whitespace().next()?.parse().ok()?))
        };
        Self {
            nanoseconds: all().filter_map(of).collect(),
        }
    }

    /// Seconds that were used since `before`. What a thread used that has ended is not known.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        let used = self.nanoseconds.iter().map(|(pid, now)| {
            let then = before.nanoseconds.get(pid).copied().unwrap_or(0);
            now.saturating_sub(then)
        });
        used.sum::<u64>() as f64 / 1e9
    }
}

fn parent(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name in parentheses may hold anything; after it come the state and the parent.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds_fuse(process: &Path) -> bool {
    let fds = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| target == Path::new("/dev/fuse"))
}

/// Where a program is that may be named without its directory.
fn resolve(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).map(|dir| dir.join(program));
    let found = std::iter::once(program.to_owned())
        .filter(|path| path.components().count() > 1)
        .chain(candidates)
        .find_map(|path| fs::canonicalize(path).ok());
    found.unwrap_or_else(|| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> Servers {
        Servers {
            pids: vec![i32::try_from(std::process::id()).unwrap()],
        }
    }

    #[test]
    fn the_time_memory_and_reads_of_a_process_are_seen_from_outside() {
        let (before, reads) = (this().cpu_seconds(), this().reads());
        let mut sum = 0u64;
        while this().cpu_seconds() < before + 0.01 {
            sum = std::hint::black_box(sum + 1);
        }
        fs::read("/proc/self/stat").unwrap();
        assert!(this().reads() > reads);
        assert!(this().memory_bytes("VmRSS") > 1 << 16);
        assert!(this().memory_bytes("RssAnon") < this().memory_bytes("VmRSS"));
    }

    #[test]
    fn who_has_no_fuse_serves_nothing() {
        let this = std::env::current_exe().unwrap();
        assert!(Servers::find(&this, &[Path::new("/")]).is_empty());
        assert!(Servers::default().wait());
    }

    #[test]
    fn a_thread_that_came_meanwhile_counts_from_its_start() {
        let workers = |times: &[(i32, u64)]| Workers {
            nanoseconds: times.iter().copied().collect(),
        };
        let before = workers(&[(5, 1_000_000_000), (6, 7)]);
        let after = workers(&[(5, 3_000_000_000), (9, 500_000_000)]);
        assert!((after.seconds_since(&before) - 2.5).abs() < 1e-9);
    }
}
