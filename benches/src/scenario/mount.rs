//! A mounted commit: how fast it is there, how fast it is walked and read, and whether it is equal to
//! the tree that was committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Bench;
use crate::compare::compare;
use crate::error::{At, Result};
use crate::machine;
use crate::measure::Invocation;
use crate::record::{FAILS, Row};

/// Argument that makes `scenario` list a tree.
pub const WALK: &str = "__walk";
/// Argument that makes `scenario` read a tree.
pub const READ: &str = "__read";

impl Bench<'_> {
    /// The scenario.
    pub(super) fn mount(&mut self) -> Result<()> {
        let tree = self.tree()?;
        if !Path::new("/dev/fuse").exists() {
            self.leave_out("mount: this machine has no /dev/fuse");
            return Ok(());
        }
        let (repo, id) = self.grove_repo()?;
        let dir = self.work.join("mount");
        fs::create_dir(&dir).at(&dir)?;
        let grove = self.tools.grove.call().option("--repo", &repo);
        let call = grove.clone().args(["mount", &id]).arg(&dir);
        let start = Instant::now();
        self.step("mount until usable", "grove", &call)?;
        let unmount = grove.arg("umount").arg(&dir);
        let mut mounted = Mounted {
            unmount,
            active: true,
        };
        let done = self.look_at(&dir, &tree);
        self.note_server(&dir, start);
        let call = mounted.unmount.clone();
        self.step("umount", "grove", &call)?;
        mounted.active = false;
        done
    }

    fn look_at(&mut self, mount: &Path, tree: &Path) -> Result<()> {
        let kind = machine::file_system(tree);
        let mut listings = Vec::new();
        for (step, what) in [("walk", WALK), ("read all", READ)] {
            let direct = self.own(what, tree)?;
            let through = self.own(what, mount)?;
            let calls = [
                (format!("{step}, first time"), "grove", &through),
                (format!("{step}, again"), "grove", &through),
                (format!("{step}, again"), kind.as_str(), &direct),
            ];
            for (step, tool, call) in calls {
                listings.push(self.step(&step, tool, call)?.1);
            }
        }
        let same = listings.windows(2).all(|pair| pair.first() == pair.last());
        let text = format!(
            "every walk found the same: {}",
            listings.first().map_or("", |l| l)
        );
        self.check(same, &text);
        let found = compare(tree, mount)?;
        self.compared(&found, "tree and mount are equal", FAILS);
        Ok(())
    }

    /// The server is nobody's child; its use of the machine is read from /proc before it ends.
    fn note_server(&mut self, dir: &Path, start: Instant) {
        let Some(server) = Server::find(dir) else {
            return self.leave_out("mount: the server of the mount was not found in /proc");
        };
        let (scenario, run) = (self.scenario.to_owned(), self.run);
        self.record.rows.push(Row {
            scenario,
            step: "all of the above and the comparison".to_owned(),
            tool: "grove server".to_owned(),
            run,
            user_seconds: server.user_seconds,
            system_seconds: server.system_seconds,
            wall_seconds: start.elapsed().as_secs_f64(),
            peak_rss_bytes: server.peak_rss_bytes,
            ..Row::default()
        });
    }
}

/// Takes the mount away even if the scenario fails.
struct Mounted {
    unmount: Invocation,
    active: bool,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.active {
            // Whoever failed has already said why.
            let _ = self.unmount.output();
        }
    }
}

struct Server {
    user_seconds: f64,
    system_seconds: f64,
    peak_rss_bytes: u64,
}

impl Server {
    /// The process that serves a mount names its directory as an argument.
    fn find(dir: &Path) -> Option<Self> {
        let mut processes = fs::read_dir("/proc")
            .ok()?
            .flatten()
            .map(|entry| entry.path());
        let serves = |process: &PathBuf| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let mut args = line.split(|byte| *byte == 0);
            let wanted = dir.as_os_str().as_encoded_bytes();
            args.clone().any(|arg| arg == b"--serve") && args.any(|arg| arg == wanted)
        };
        Self::read(&processes.find(serves)?)
    }

    fn read(process: &Path) -> Option<Self> {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        // The name in parentheses may hold anything; after it come field 3 and the others.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let field = |number: usize| {
            let text = fields.split_whitespace().nth(number - 3)?;
            Some(text.parse::<f64>().ok()? / ticks)
        };
        let status = fs::read_to_string(process.join("status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            user_seconds: field(14)?,
            system_seconds: field(15)?,
            peak_rss_bytes: kib << 10,
        })
    }
}
