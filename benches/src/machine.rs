//! Where and when a measurement was made.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::measure::Invocation;

/// The machine, in words: processors, memory, kernel.
pub fn describe() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib.div_ceil(1 << 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cpus} x {model}, {memory} GiB of memory, Linux {}",
        kernel.trim()
    )
}

/// Which processors may be used.
pub fn placement() -> String {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let allowed = field("/proc/self/status", "Cpus_allowed_list").unwrap_or_default();
    let online = online.trim();
    format!("processors {allowed} of {online} allowed; clients and servers are pinned to none")
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Whether the kernel takes pages from caches although there is memory: it does so from the caches of
/// all file systems, and what is warm then is not wholly so.
pub fn reclaim() -> String {
    let mut found = Vec::new();
    if read_word("/sys/module/damon_reclaim/parameters/enabled") == "Y" {
        found.push("DAMON_RECLAIM".to_owned());
    }
    for daemon in numbered("/sys/kernel/mm/damon/admin/kdamonds") {
        if read_word(daemon.join("state")) != "on" {
            continue;
        }
        for context in numbered(daemon.join("contexts")) {
            for scheme in numbered(context.join("schemes")) {
                if read_word(scheme.join("action")) == "pageout" {
                    let bytes = read_word(scheme.join("quotas/bytes"));
                    found.push(format!("a DAMON scheme, at most {bytes} bytes a turn"));
                }
            }
        }
    }
    match found.is_empty() {
        true => "none but when memory is short".into(),
        false => format!("pages that seem unused, by {}", found.join(" and ")),
    }
}

/// The directories that are called by a number in a directory of the kernel's.
fn numbered(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u32>().is_ok())
    };
    entries
        .map(|entry| entry.path())
        .filter(is_number)
        .collect()
}

fn read_word(path: impl AsRef<Path>) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// The time, in UTC.
pub fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M UTC")
        .to_string()
}

/// The commit of the source beside which this program was built, as it stands now, and whether
/// `program` can have been built from it.
pub fn commit(program: &Path) -> String {
    let git = |args: &[&str]| {
        Invocation::new("git")
            .args(args)
            .dir(env!("CARGO_MANIFEST_DIR"))
            .output()
    };
    let Ok(mut text) = git(&["rev-parse", "HEAD"]) else {
        return "unknown".into();
    };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    if !changes.is_ok_and(|changes| changes.is_empty()) {
        text.push_str(" with uncommitted changes");
    }
    let committed = git(&["log", "-1", "--format=%ct"]).ok();
    let committed: Option<i64> = committed.and_then(|seconds| seconds.parse().ok());
    let built = fs::metadata(program).ok().map(|meta| meta.mtime());
    if built < committed {
        text.push_str("; grove was built BEFORE this commit");
    }
    text
}

/// The type of the file system that a directory is on.
pub fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last of the longest is the one on top.
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map_or_else(|| "unknown".into(), |(_, kind)| kind.to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
}
