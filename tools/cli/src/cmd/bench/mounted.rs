//! A mount whose server is a child of this process, and walks over it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use grove_engine::error::IoResultExt;
use grove_fusefs::{MountError, Umount, umount};
use nix::sys::resource::UsageWho;

use super::failed;
use super::measure::{Took, cpu, peak};
use crate::exit::{Error, Result};

/// Number that statfs(2) gives for FUSE.
const FUSE: i64 = 0x6573_5546;
const POLL: Duration = Duration::from_millis(1);
/// Longer than the image of any commit takes to be made.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a mount may be in use after the last thing that was done there.
const BUSY: Duration = Duration::from_secs(10);
/// Clock ticks of /proc/PID/stat in a second, on every architecture that Linux has today.
const TICKS: f64 = 100.0;

/// A mount and its server.
#[derive(Debug)]
pub(super) struct Mounted {
    dir: PathBuf,
    server: Child,
}

impl Mounted {
    /// Starts a server in the foreground, and waits until its mount is there.
    pub(super) fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        let server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let server = server.at(command.get_program())?;
        let mut mounted = Self {
            dir: dir.to_owned(),
            server,
        };
        let end = Instant::now() + PATIENCE;
        while !mounted.is_there() {
            let ended = mounted.server.try_wait().at(dir)?;
            if ended.is_some() || Instant::now() > end {
                let how = ended.map_or("is not there".to_owned(), |status| status.to_string());
                return Err(failed(command, &how, &mounted.said()));
            }
            thread::sleep(POLL);
        }
        Ok(mounted)
    }

    fn is_there(&self) -> bool {
        rustix::fs::statfs(&self.dir).is_ok_and(|found| found.f_type == FUSE)
    }

    fn said(&mut self) -> Vec<u8> {
        drop(self.server.kill());
        let mut text = Vec::new();
        if let Some(mut stderr) = self.server.stderr.take() {
            drop(stderr.read_to_end(&mut text));
        }
        text
    }

    /// Looks at every entry, or reads every file, too.
    pub(super) fn walk(&self, read: bool) -> Result<Took> {
        let before = cpu(UsageWho::RUSAGE_SELF)?.as_secs_f64() + self.server_cpu()?;
        let start = Instant::now();
        walk(&self.dir, read)?;
        let wall = start.elapsed().as_secs_f64();
        let after = cpu(UsageWho::RUSAGE_SELF)?.as_secs_f64() + self.server_cpu()?;
        Ok(Took {
            wall,
            cpu: (after - before).max(0.0),
            peak: peak(self.server.id()),
        })
    }

    /// Fields 14 and 15 of proc_pid_stat(5); the second field may hold spaces.
    fn server_cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.server.id());
        let text = fs::read_to_string(&path).at(&path)?;
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_ascii_whitespace().skip(11).take(2);
        let ticks: Option<Vec<u64>> = ticks.map(|text| text.parse().ok()).collect();
        match ticks.as_deref() {
            Some([user, system]) => Ok((user + system) as f64 / TICKS),
            _ => Err(Error::failed(format!(
                "{path} says nothing of processor time"
            ))),
        }
    }

    /// Unmounts, and waits for the server.
    pub(super) fn end(mut self) -> Result<()> {
        unmount(&self.dir)?;
        self.server.wait().at("the server of the mount")?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            drop(umount(&self.dir, Umount::Lazy));
            drop(self.server.wait());
        }
    }
}

/// Unmounts. Whoever looks at all mounts of the machine is in this one for a moment, too.
pub(super) fn unmount(dir: &Path) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match umount(dir, Umount::Unused) {
            Err(MountError::Busy { .. }) if Instant::now() < end => thread::sleep(BUSY / 500),
            other => return Ok(other?),
        }
    }
}

fn walk(dir: &Path, read: bool) -> Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            let meta = fs::symlink_metadata(&path).at(&path)?;
            if meta.is_dir() {
                todo.push(path);
            } else if read && meta.is_file() {
                let mut file = File::open(&path).at(&path)?;
                while file.read(&mut buffer).at(&path)? > 0 {}
            }
        }
    }
    Ok(())
}
