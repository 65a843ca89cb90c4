//! `grove bench`.
//!
//! Every step is a run of a program: this one, or `ostree` where it is installed. What a mount's
//! server uses is told with the step that made it work.

mod measure;
mod mounted;
mod peer;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use grove_engine::error::IoResultExt;
use grove_engine::monitor::Phase;
use grove_engine::{Error as Engine, Monitor, ObjectId, Repository};

use self::measure::{Rows, Took, run_measured};
use self::mounted::Mounted;
use self::peer::Peer;
use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::JsonSwitch;
use crate::progress::Progress;

/// Measure checkouts, a mount, a commit and a comparison on this machine
///
/// The commit is checked out, mounted and walked, read through the mount, committed again from a
/// checkout, and compared with its parent; a checkout of the parent is changed into one of it, and the
/// new commit is checked out as hard links: `first` makes the files to link to. Where `ostree` is
/// installed, it does the same with an archive that is exported for it, but for updates, which it does
/// not have; its hard links are to a bare repository, and take root. What is written goes to a new directory below --work and is
/// removed in the end, as some file systems make files slowly for minutes after many were removed;
/// what takes more than half of the free space is removed before.
/// Wall times are those of a machine that may have other work; processor time includes that of the mount's server.
/// Peaks of memory are those of the program, or of the mount's server, file pages that it maps included;
/// what ends at once has none.
/// `first` steps of a mount are the first after it was made: what the kernel has cached of the
/// repository's own files stays.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove bench os/stable\n  grove bench --runs=5 --json os/stable\n  \
    grove bench --from=os/stable^^ --work=/srv/scratch os/stable"
)]
pub struct Args {
    /// Which commit
    rev: String,
    /// What to compare it with, if not with its parent
    #[arg(long, value_name = "REV")]
    from: Option<String>,
    /// How often; the medians are printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Where to write, if not to the system's temporary directory
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Leave `ostree` out
    #[arg(long)]
    no_ostree: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

/// The branch of commits that are made here.
const BRANCH: &str = "bench";
/// The step that makes hard links to files that are there.
const LINKS: &str = "checkout -H";

/// What is measured, and where.
#[derive(Debug)]
struct Bench<'p> {
    progress: &'p Progress,
    program: PathBuf,
    repo: PathBuf,
    work: PathBuf,
    /// Free space of the file system before anything was written.
    free_bytes: u64,
    commit: ObjectId,
    from: Option<ObjectId>,
    peer: Option<Peer>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let work = WorkDir::new(args.work.as_deref())?;
    let progress = globals.progress();
    let done = measure_all(args, &repo, &work.path, &progress);
    progress.finish();
    // A step that was interrupted along with this program fails in ways of its own.
    let (bench, rows) = done.map_err(|error| match progress.is_cancelled() {
        true => Engine::Cancelled.into(),
        false => error,
    })?;
    let rows = rows.medians();
    if args.json.json {
        crate::json::print(&table::report(&bench, args.runs, &rows))?;
    } else {
        table::print(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure_all<'p>(
    args: &Args,
    repo: &Repository,
    work: &Path,
    progress: &'p Progress,
) -> Result<(Bench<'p>, Rows)> {
    let bench = Bench::new(args, repo, work, progress)?;
    let mut rows = Rows::default();
    for _ in 0..args.runs {
        bench.run(&mut rows)?;
    }
    progress.end(Phase::Measure);
    Ok((bench, rows))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl<'p> Bench<'p> {
    fn new(args: &Args, repo: &Repository, work: &Path, progress: &'p Progress) -> Result<Self> {
        let commit = repo.resolve_rev(&args.rev)?;
        let from = match &args.from {
            Some(rev) => Some(repo.resolve_rev(rev)?),
            // The parent may have been pruned.
            None => repo
                .commit(&commit)?
                .parent
                .filter(|id| repo.commit(id).is_ok()),
        };
        let program = std::env::current_exe().at("this program")?;
        let mut bench = Self {
            progress,
            program,
            repo: fs::canonicalize(repo.path()).at(repo.path())?,
            work: work.to_owned(),
            free_bytes: free_bytes(work)?,
            commit,
            from,
            peer: None,
        };
        let with_peer = !args.no_ostree && Peer::is_installed();
        progress.begin(Phase::Measure, Some(bench.steps(args.runs, with_peer)));
        if with_peer {
            bench.peer = Some(Peer::new(&bench)?);
            progress.advance(Phase::Measure, 1);
        }
        Ok(bench)
    }

    /// How many steps there are to take: the export for the peer, and for each run checkouts, two
    /// commits, a checkout of hard links and a comparison by each program, another one of hard links, an
    /// update, and five of a mount.
    fn steps(&self, runs: u32, with_peer: bool) -> u64 {
        let (is_root, has_from) = (u64::from(is_root()), u64::from(self.from.is_some()));
        let ours = (3 + is_root + has_from) + (2 + has_from + 5);
        let theirs = 3 + 2 * is_root + has_from;
        let peer = u64::from(with_peer);
        peer + u64::from(runs) * (ours + peer * theirs)
    }

    /// Takes a step that is a run of a program.
    fn step(
        &self,
        rows: &mut Rows,
        (step, program): (&'static str, &'static str),
        command: &mut Command,
    ) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Engine::Cancelled.into());
        }
        self.note(rows, (step, program), run_measured(command)?);
        Ok(())
    }

    fn note(&self, rows: &mut Rows, (step, program): (&'static str, &'static str), took: Took) {
        rows.add(step, program, took);
        self.progress.advance(Phase::Measure, 1);
    }

    fn grove(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--repo")
            .arg(&self.repo)
            .arg(verb)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, rows: &mut Rows) -> Result<()> {
        let tree = self.work.join("tree");
        for (step, mode) in [("checkout -U", &["-U"][..]), ("checkout", &[])] {
            if mode.is_empty() && !is_root() {
                continue;
            }
            self.put_away(&tree)?;
            let mut command = self.grove("checkout");
            command.args(mode).arg(self.commit.to_string()).arg(&tree);
            self.step(rows, (step, "grove"), &mut command)?;
            if let Some(peer) = &self.peer {
                let other = self.work.join("tree-of-ostree");
                self.step(rows, (step, "ostree"), &mut peer.checkout(mode, &other))?;
                self.put_away(&other)?;
            }
        }
        self.update(rows, &tree)?;
        self.commit(rows, &tree)?;
        self.put_away(&tree)?;
        self.mount(rows)?;
        self.diff(rows)
    }

    /// Changes a checkout of the commit into one of what it is compared with, and back.
    fn update(&self, rows: &mut Rows, tree: &Path) -> Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        let to = |commit: &ObjectId| {
            let mut command = self.grove("checkout");
            command.arg("--update").arg(commit.to_string()).arg(tree);
            command
        };
        run_measured(&mut to(from))?;
        self.step(rows, ("checkout --update", "grove"), &mut to(&self.commit))
    }

    /// Checks out hard links, from a repository of its own: these fill its cache.
    fn links(&self, rows: &mut Rows, repo: &Path) -> Result<()> {
        let links = self.work.join("links");
        for step in ["checkout -H, first", LINKS] {
            let mut command = Command::new(&self.program);
            command.arg("--repo").arg(repo).args(["checkout", "-H"]);
            if !is_root() {
                command.arg("-U");
            }
            command.arg(BRANCH).arg(&links).stdin(Stdio::null());
            self.step(rows, (step, "grove"), &mut command)?;
            self.put_away(&links)?;
        }
        Ok(())
    }

    /// Commits a checkout, into a new repository each.
    fn commit(&self, rows: &mut Rows, tree: &Path) -> Result<()> {
        let repo = self.work.join("repo");
        let mut init = Command::new(&self.program);
        init.arg("--repo")
            .arg(&repo)
            .arg("init")
            .stdin(Stdio::null());
        run_measured(&mut init)?;
        for step in ["commit", "commit again"] {
            let mut command = Command::new(&self.program);
            command
                .arg("--repo")
                .arg(&repo)
                .args(["commit", "--quiet", "-b", BRANCH]);
            command.arg(tree).stdin(Stdio::null());
            self.step(rows, (step, "grove"), &mut command)?;
        }
        self.links(rows, &repo)?;
        self.put_away(&repo)?;
        let Some(peer) = &self.peer else {
            return Ok(());
        };
        let repo = peer.empty_archive(&self.work.join("archive-of-tree"))?;
        for step in ["commit", "commit again"] {
            self.step(rows, (step, "ostree"), &mut peer.commit(&repo, tree))?;
        }
        self.put_away(&repo)?;
        if !is_root() {
            return Ok(());
        }
        let repo = peer.bare_of(&self.work.join("bare"), tree)?;
        let links = self.work.join("links-of-ostree");
        self.step(rows, (LINKS, "ostree"), &mut peer.links(&repo, &links))?;
        self.put_away(&links)?;
        self.put_away(&repo)
    }

    /// Puts a directory where it disturbs no later step. For six minutes ext4 makes no use of the
    /// inodes of removed files, and looks at all of them for each file that it makes.
    fn put_away(&self, dir: &Path) -> Result<()> {
        let old = self.work.join("old");
        fs::create_dir_all(&old).at(&old)?;
        if free_bytes(&self.work)? < self.free_bytes / 2 {
            remove(&old)?;
            return remove(dir);
        }
        let number = fs::read_dir(&old).at(&old)?.count();
        match fs::rename(dir, old.join(number.to_string())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(dir)?,
            _ => Ok(()),
        }
    }

    fn mount(&self, rows: &mut Rows) -> Result<()> {
        let dir = self.work.join("mnt");
        fs::create_dir_all(&dir).at(&dir)?;
        let mut command = self.grove("mount");
        command
            .arg("--private")
            .arg(self.commit.to_string())
            .arg(&dir);
        self.step(rows, ("mount", "grove"), &mut command)?;
        mounted::unmount(&dir)?;

        let mut command = self.grove("mount");
        command
            .arg("--foreground")
            .arg(self.commit.to_string())
            .arg(&dir);
        let mounted = Mounted::start(&mut command, &dir)?;
        for (first, again, read) in [
            ("walk, first", "walk, again", false),
            ("read, first", "read, again", true),
        ] {
            for step in [first, again] {
                self.note(rows, (step, "grove"), mounted.walk(read)?);
            }
        }
        mounted.end()
    }

    fn diff(&self, rows: &mut Rows) -> Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        let mut command = self.grove("diff");
        command.arg(from.to_string()).arg(self.commit.to_string());
        self.step(rows, ("diff", "grove"), &mut command)?;
        if let Some(peer) = &self.peer {
            self.step(rows, ("diff", "ostree"), &mut peer.diff(from, &self.commit))?;
        }
        Ok(())
    }
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(dir).at(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A new directory that is removed in the end.
#[derive(Debug)]
struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    fn new(base: Option<&Path>) -> Result<Self> {
        let base = base.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = base.join(format!("grove-bench-{}", std::process::id()));
        fs::create_dir(&path).at(&path)?;
        let path = fs::canonicalize(&path).at(&path)?;
        Ok(Self { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(dir)?,
        _ => Ok(()),
    }
}

fn failed(command: &Command, how: &str, stderr: &[u8]) -> Error {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let args: Vec<_> = command
        .get_args()
        .map(|arg| arg.to_string_lossy())
        .collect();
    let said = String::from_utf8_lossy(stderr);
    Error::failed(format!(
        "{} {}: {how}\n{}",
        program.display(),
        args.join(" "),
        said.trim()
    ))
}
