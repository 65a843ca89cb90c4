//! A mounted commit beside the kernel's own file systems and other programs' mounts of the same tree.
//!
//! A run takes the file systems one after the other, each mounted afresh several times, so `--runs`
//! interleaves them. *Cold* means that nothing of the mount is cached; the images and repositories
//! stay in the page cache, so that processors are measured and not disks.

mod commits;
mod fs;
mod images;
mod judge;
mod lists;
mod many;
mod options;

use std::path::Path;
use std::time::Duration;

pub(super) use judge::judge;

use self::fs::{FileSystem, Mounted};
use self::images::Images;
use self::lists::List;
use super::Bench;
use crate::client::{Act, Client, Report};
use crate::compare::compare;
use crate::error::Result;
use crate::machine;
use crate::measure::{Invocation, Usage};
use crate::processes::{Servers, Workers};
use crate::record::{FAILS, FIGURE, Row};

/// How often in a run what is warm is done: it is quick, and a median needs some.
const WARM: usize = 3;
/// What one step of a peer may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The server may still work for a request that was answered; it has ended when it has used nothing
/// for so long.
const QUIET: Duration = Duration::from_millis(20);
/// At most so often.
const QUIET_TRIES: usize = 100;

/// Names of steps, which goals refer to.
mod step {
    pub(super) const MOUNT: &str = "mount";
    pub(super) const FIRST_MOUNT: &str = "mount, the first by this program";
    pub(super) const COLD_WALK: &str = "walk with stat, cold";
    pub(super) const WALK: &str = "walk with stat, warm";
    pub(super) const FIND: &str = "find -ls, warm";
    pub(super) const MISSING: &str = "stat of names that are not there, again";
    pub(super) const COLD_MISSING: &str = "stat of names that are not there";
    pub(super) const COLD_SMALL: &str = "open and read small files, walked but not read";
    pub(super) const SMALL: &str = "open and read small files, warm";
    pub(super) const EVERYTHING: &str = "walk and read everything, cold";
    pub(super) const TAR: &str = "tar of the tree, warm";
    pub(super) const LARGEST: &str = "largest file, cold";
    pub(super) const WARM_LARGEST: &str = "largest file, warm";
    pub(super) const RANDOM: &str = "4 KiB at random places, cold";
    pub(super) const MAP: &str = "map programs, touch each page, cold";
    pub(super) const EXEC: &str = "execute other programs up to main, cold";
    pub(super) const WARM_EXEC: &str = "execute other programs up to main, warm";
    pub(super) const READERS: &str = "8 readers of all small files, cold";
    pub(super) const SECOND_MOUNT: &str = "mount, beside another";
    pub(super) const SHARED: &str = "files that two commits share, by the first";
    pub(super) const SHARED_TWICE: &str = "files that two commits share, by the first again";
    pub(super) const SHARED_AGAIN: &str = "files that two commits share, by the second";
    pub(super) const CHANGED: &str = "4 KiB at random places in files that changed, cold";
    pub(super) const MOUNT_MANY: &str = "mount of very many files";
    pub(super) const WALK_MANY: &str = "walk of very many files, cold";
    pub(super) const ANONYMOUS: &str = "anonymous memory of the server (peak MiB) after that walk";
}

impl Bench<'_> {
    /// The scenario.
    pub(super) fn mount(&mut self) -> Result<()> {
        self.tree()?;
        if !Path::new("/dev/fuse").exists() || !super::is_root() {
            self.leave_out("mount: takes root and /dev/fuse");
            return Ok(());
        }
        let all = [&FileSystem::ALL[..], &FileSystem::PEERS[..]].concat();
        let (images, available) = self.images(&all)?;
        if self.run == 1 {
            self.first_mounts(&images)?;
        }
        let is_peer = |kind: &FileSystem| FileSystem::PEERS.contains(kind);
        let (peers, kernels): (Vec<_>, Vec<_>) = available.into_iter().partition(is_peer);
        for kind in self.rotated(kernels) {
            match self.whole(&images, kind) {
                Err(error) if kind != FileSystem::Grove => {
                    let why = super::describe(&error);
                    self.leave_out(&format!("mount: {}: {why}", kind.name()));
                }
                other => other?,
            }
        }
        if self.run == 1 {
            for kind in peers {
                if let Err(error) = self.part(&images, kind) {
                    let why = super::describe(&error);
                    self.leave_out(&format!("mount: {}: {why}", kind.name()));
                }
            }
        }
        self.two_commits(&images)?;
        self.options_of_mounts(&images)?;
        if images.many > 0 {
            self.very_many(&images)?;
        }
        let line = format!("load average at the end of the run: {}", machine::load());
        self.verdict(FIGURE, &line);
        Ok(())
    }

    /// What is only made once is made before anything is compared.
    fn first_mounts(&mut self, images: &Images) -> Result<()> {
        let (pair, many) = (images.path(FileSystem::Grove), images.many_path());
        let mut revs = vec![(&pair, images::FIRST)];
        revs.extend(self.inputs.second.as_ref().map(|_| (&pair, images::SECOND)));
        revs.extend((images.many > 0).then_some((&many, images::MANY)));
        let dir = self.work.join("mnt");
        for (repo, rev) in revs {
            let (mounted, usage, call) = Mounted::commit(&self.tools.grove, repo, rev, &dir, &[])?;
            let step = format!("{}: {rev}", step::FIRST_MOUNT);
            self.row_of(&step, FileSystem::Grove.name(), &usage, &call);
            mounted.end()?;
        }
        Ok(())
    }

    fn mounted(&mut self, images: &Images, kind: FileSystem) -> Result<Mounted> {
        rustix::fs::sync();
        let dir = self.work.join("mnt");
        let (mounted, usage, call) = if kind == FileSystem::Grove {
            let repo = images.path(kind);
            Mounted::commit(&self.tools.grove, &repo, images::FIRST, &dir, &[])?
        } else {
            Mounted::image(images, kind, &dir)?
        };
        self.row_of(step::MOUNT, kind.name(), &usage, &call);
        Ok(mounted)
    }

    /// Everything that is compared.
    fn whole(&mut self, images: &Images, kind: FileSystem) -> Result<()> {
        images.read(kind)?;
        let mut on = On::new(kind.name(), images, None);
        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::COLD_WALK, Act::Walk, None)?;
        self.warm(&on, step::WALK, Act::Walk, None)?;
        for _ in 0..WARM {
            self.shell(&on, step::FIND, "find . -ls > /dev/null")?;
        }
        self.client(&on, step::COLD_MISSING, Act::Missing, Some(List::Files))?;
        self.warm(&on, step::MISSING, Act::Missing, Some(List::Files))?;
        self.client(&on, step::COLD_SMALL, Act::Read, Some(List::Small))?;
        self.warm(&on, step::SMALL, Act::Read, Some(List::Small))?;
        on.end()?;

        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::EVERYTHING, Act::Everything, None)?;
        for _ in 0..WARM {
            // GNU tar reads no file when it sees that it writes to /dev/null.
            self.shell(&on, step::TAR, "tar -cf /dev/zero .")?;
        }
        self.warm(&on, step::WARM_LARGEST, Act::Read, Some(List::Largest))?;
        if kind == FileSystem::Grove && self.run == 1 {
            let found = compare(&self.tree()?, on.dir())?;
            self.compared(&found, "tree and mount are equal", FAILS);
        }
        on.end()?;

        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::LARGEST, Act::Read, Some(List::Largest))?;
        self.client(&on, step::RANDOM, Act::Random, Some(List::Places))?;
        self.client(&on, step::MAP, Act::Map, Some(List::Map))?;
        self.client(&on, step::EXEC, Act::Exec, Some(List::Exec))?;
        self.warm(&on, step::WARM_EXEC, Act::Exec, Some(List::Exec))?;
        on.end()?;

        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::READERS, Act::Readers, Some(List::Small))?;
        on.end()
    }

    /// What a slow program can do in a time that makes sense.
    fn part(&mut self, images: &Images, kind: FileSystem) -> Result<()> {
        images.read(kind)?;
        let mut on = On::new(kind.name(), images, Some(LIMIT));
        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::COLD_WALK, Act::Walk, None)?;
        self.client(&on, step::WALK, Act::Walk, None)?;
        self.client(&on, step::COLD_SMALL, Act::Read, Some(List::Small))?;
        self.client(&on, step::LARGEST, Act::Read, Some(List::Largest))?;
        self.client(&on, step::RANDOM, Act::Random, Some(List::Places))?;
        on.end()?;
        on.mounted = Some(self.mounted(images, kind)?);
        self.client(&on, step::EVERYTHING, Act::Everything, None)?;
        on.end()
    }

    fn warm(&mut self, on: &On<'_>, step: &str, act: Act, list: Option<List>) -> Result<()> {
        for _ in 0..WARM {
            self.client(on, step, act, list)?;
        }
        Ok(())
    }

    /// Runs a client and writes down what it used, with its servers.
    fn client(
        &mut self,
        on: &On<'_>,
        step: &str,
        act: Act,
        list: Option<List>,
    ) -> Result<Option<Report>> {
        if let Some(list) = list.filter(|list| on.images.lists.len(*list).is_ok_and(|len| len == 0))
        {
            self.leave_out(&format!(
                "mount: {step}: the tree has nothing for it ({list:?})"
            ));
            return Ok(None);
        }
        let client = Client {
            act,
            root: on.dir().to_owned(),
            list: list.map(|list| on.images.lists.path(list)),
            limit: on.limit,
        };
        let call = client.invocation()?.to_string();
        let load = Load::start(&on.servers());
        let report = client.run()?;
        let row = self.row_of(step, on.name, &report.usage, &call);
        load.end(self.row(row));
        let row = self.row(row);
        (row.p50_seconds, row.p99_seconds) = (report.p50_seconds, report.p99_seconds);
        row.note = format!("{} items, {} bytes", report.items, report.bytes);
        if report.stopped {
            let Report { items, bytes, .. } = report;
            let wall = report.usage.wall_seconds;
            self.record.rows.pop();
            let text = format!(
                "{step}: {}: not finished: {items} items, {bytes} bytes in {wall:.1} s",
                on.name
            );
            self.verdict(FIGURE, &text);
        }
        Ok(Some(report))
    }

    /// Runs a line of shell in the mount.
    fn shell(&mut self, on: &On<'_>, step: &str, line: &str) -> Result<()> {
        let call = Invocation::new("sh").args(["-c", line]).dir(on.dir());
        let load = Load::start(&on.servers());
        let usage = call.measure()?.usage;
        let row = self.row_of(step, on.name, &usage, &call.to_string());
        load.end(self.row(row));
        Ok(())
    }
}

/// What a client works on.
struct On<'i> {
    name: &'static str,
    images: &'i Images,
    limit: Option<Duration>,
    mounted: Option<Mounted>,
}

impl<'i> On<'i> {
    fn new(name: &'static str, images: &'i Images, limit: Option<Duration>) -> Self {
        Self {
            name,
            images,
            limit,
            mounted: None,
        }
    }

    fn dir(&self) -> &Path {
        let mounted = self.mounted.as_ref();
        mounted.map_or(Path::new("/nonexistent"), |mounted| &mounted.dir)
    }

    fn servers(&self) -> Servers {
        let mounted = self.mounted.as_ref();
        mounted.map_or_else(Servers::default, |mounted| mounted.servers.clone())
    }

    fn end(&mut self) -> Result<()> {
        self.mounted.take().map_or(Ok(()), Mounted::end)
    }
}

/// What others than the client use meanwhile.
struct Load {
    servers: Servers,
    server_seconds: f64,
    reads: u64,
    workers: Workers,
}

impl Load {
    fn start(servers: &Servers) -> Self {
        Self {
            servers: servers.clone(),
            server_seconds: servers.cpu_seconds(),
            reads: servers.reads(),
            workers: Workers::now(),
        }
    }

    /// Waits until the servers have come to rest.
    fn end(self, row: &mut Row) {
        let mut used = self.servers.cpu_seconds();
        for _ in 0..QUIET_TRIES {
            if self.servers.is_empty() {
                break;
            }
            std::thread::sleep(QUIET);
            let now = self.servers.cpu_seconds();
            // Threads that only look whether there is work use a little.
            if now - used < QUIET.as_secs_f64() / 20.0 {
                break;
            }
            used = now;
        }
        row.server_seconds = Some(self.servers.cpu_seconds() - self.server_seconds);
        row.kernel_seconds = Some(Workers::now().seconds_since(&self.workers));
        if !self.servers.is_empty() {
            row.server_reads = Some(self.servers.reads() - self.reads);
        }
    }
}

impl Bench<'_> {
    /// Writes down a row, gives its number.
    fn row_of(&mut self, step: &str, tool: &str, usage: &Usage, call: &str) -> usize {
        let row = Row {
            scenario: self.scenario.to_owned(),
            step: step.to_owned(),
            tool: tool.to_owned(),
            run: self.run,
            user_seconds: usage.user_seconds,
            system_seconds: usage.system_seconds,
            wall_seconds: usage.wall_seconds,
            peak_rss_bytes: usage.peak_rss_bytes,
            command: self.shown(call),
            ..Row::default()
        };
        let (cpu, wall) = (row.cpu_seconds(), row.wall_seconds);
        self.record.rows.push(row);
        (self.say)(&format!(
            "{}: {step}: {tool}: {cpu:.2} s CPU, {wall:.2} s",
            self.scenario
        ));
        self.record.rows.len() - 1
    }
}
