//! `grove mount`.
//!
//! Serving needs threads, which a fork would lose; so what serves in the background is this
//! program started again, `grove mount --serve`. It tells over its standard output that it is
//! ready. Normally it is the daemon of the repository, which serves all its mounts; otherwise a
//! process for one mount.

mod background;
pub mod helper;
mod list;
mod log;
mod options;
mod serve;
mod stats;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grove_fusefs::daemon::{MountRequest, Place, Shared, mount_shared};
use grove_fusefs::{MountError, Umount, clear_stale, mounts, overlay, umount};

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::JsonSwitch;
use background::Failed;
use options::Options;

/// Set for what systemd starts. It ends the processes of a unit with the unit, so a process that
/// serves other mounts, too, must not begin there.
const UNDER_SYSTEMD: &str = "INVOCATION_ID";

/// Show a commit, or all of them, as a directory; list mounts, or tell what they did
///
/// Returns when the mount is usable. Nothing is copied: files are read from the repository when
/// they are looked at. With --all, the directory holds commits/CHECKSUM for each commit and
/// refs/NAME as a link to one; there a prune takes commits away, while a commit that is mounted by
/// itself is kept. Errors met later are written to cache/mount.log in the repository, or to the
/// system's log if that cannot be written.
///
/// Mounts made by root share one process for each repository, and what the kernel has cached of a
/// file serves all of them. The process starts with the first mount and ends after the last. For
/// users without that right, in another mount namespace than that process, in a systemd unit if no
/// such process runs yet, and with --private, a mount has a process of its own.
///
/// Without arguments, the mounts that can be seen from here are listed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove mount os/stable /mnt\n  grove mount --all /mnt\n  \
    grove mount --overlay /srv/changes os/stable /mnt\n  grove mount\n  grove mount --stats /mnt"
)]
pub struct Args {
    /// Which commit; with --all, where to mount; with --stats, which mount
    #[arg(value_name = "REV")]
    first: Option<String>,
    /// Where to mount, a directory
    #[arg(value_name = "DIR", conflicts_with_all = ["all", "stats", "daemon"])]
    second: Option<PathBuf>,
    /// Mount every ref and every commit of the repository
    #[arg(long)]
    all: bool,
    /// Stay in front, with a process for this mount alone; Ctrl-C unmounts
    #[arg(long, short)]
    foreground: bool,
    /// Have a process for this mount alone
    #[arg(long)]
    private: bool,
    /// Let other users in, as far as owners and modes allow; always so for root
    #[arg(long)]
    allow_other: bool,
    /// Honour set-user-ID, set-group-ID and file capabilities
    #[arg(long, overrides_with = "no_suid")]
    suid: bool,
    /// Ignore them (the default)
    #[arg(long, visible_alias = "nosuid")]
    no_suid: bool,
    /// Let device files work
    #[arg(long, overrides_with = "no_dev")]
    dev: bool,
    /// Have device files lead nowhere (the default)
    #[arg(long, visible_alias = "nodev")]
    no_dev: bool,
    /// Let programs be run (the default)
    #[arg(long, overrides_with = "no_exec")]
    exec: bool,
    /// Let no program be run
    #[arg(long, visible_alias = "noexec")]
    no_exec: bool,
    /// Show no extended attributes: the kernel asks for them again each time, while it keeps the rest
    #[arg(long)]
    no_xattrs: bool,
    /// Give each path an inode number of its own; else identical files share one, and with it what
    /// is cached of them
    #[arg(long)]
    unique_inodes: bool,
    /// Make the directory writable: changes are kept below UPPER, the commit stays as it is
    #[arg(long, value_name = "UPPER", conflicts_with = "all")]
    overlay: Option<PathBuf>,
    /// Options as mount(8) has them, separated by commas: the long options above by name (all,
    /// private, suid or allow_suid, nosuid, dev or allow_dev, nodev, exec, noexec, allow_other,
    /// noxattrs, unique_inodes, overlay=UPPER, record=FILE, prefetch=FILE, materialise); those that
    /// only concern /etc/fstab are ignored
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Write to FILE in which order files are read, for --prefetch
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Read what FILE, made by --record, tells into memory in the background
    #[arg(long, value_name = "FILE")]
    prefetch: Option<PathBuf>,
    /// Let the kernel read large files from plain copies, kept in the repository's cache (root only)
    ///
    /// Pays for sequential reading and mapping of large files; opening any file gets slower.
    #[arg(long)]
    materialise: bool,
    /// Tell requests and other figures of the session that serves the mount at the directory, and
    /// with it maybe others; or of all of the repository
    ///
    /// Times are bounds that so many percent of the requests stayed below, as powers of two.
    #[arg(long, conflicts_with_all = ["all", "foreground"])]
    stats: bool,
    #[command(flatten)]
    json: JsonSwitch,
    /// Be the process that serves the repository's mounts, in front, until Ctrl-C or SIGTERM; prints
    /// "ready" when it can be used
    #[arg(long, conflicts_with_all = ["first", "all", "foreground"])]
    daemon: bool,
    /// Be that of the background, and say so when ready
    #[arg(long, hide = true)]
    serve: bool,
}

/// What is to be mounted, where and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// `None` for all commits.
    rev: Option<String>,
    dir: PathBuf,
    options: Options,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    if args.stats {
        return stats::run(args.first.as_deref().map(Path::new), args.json, globals);
    }
    if args.daemon {
        return serve::daemon(args.serve, globals);
    }
    let options = args.options()?;
    let Some(first) = &args.first else {
        return match options.all {
            true => Err(Error::Usage("where to mount is not said".to_owned())),
            false => list::run(args.json),
        };
    };
    let (rev, dir) = match (options.all, &args.second) {
        (true, None) => (None, PathBuf::from(first)),
        (false, Some(dir)) => (Some(first.clone()), dir.clone()),
        (true, Some(_)) => return Err(Error::Usage("--all takes a directory only".to_owned())),
        (false, None) => return Err(Error::Usage("where to mount is not said".to_owned())),
    };
    let job = Job { rev, dir, options };
    match args.foreground || args.serve {
        true => serve::private(&job, args.serve, globals),
        false => mount(&job, globals),
    }
}

impl Args {
    fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        for text in &self.options {
            options.add(text)?;
        }
        for (set, on, off) in [
            (&mut options.attrs.suid, self.suid, self.no_suid),
            (&mut options.attrs.dev, self.dev, self.no_dev),
            (&mut options.attrs.exec, self.exec, self.no_exec),
        ] {
            *set = (*set || on) && !off;
        }
        options.all |= self.all;
        options.private |= self.private;
        options.allow_other |= self.allow_other;
        options.xattrs &= !self.no_xattrs;
        options.unique_inodes |= self.unique_inodes;
        options.overlay = self.overlay.clone().or(options.overlay);
        options.record = self.record.clone().or(options.record);
        options.prefetch = self.prefetch.clone().or(options.prefetch);
        options.materialise |= self.materialise;
        options.check()?;
        Ok(options)
    }
}

/// Mounts, and returns when the mount is usable.
pub fn mount(job: &Job, globals: &Globals) -> Result<ExitCode> {
    clear_stale(&job.dir)?;
    match mount_commit(job, globals) {
        Ok(()) => {}
        Err(Failed::Told(code)) => return Ok(code),
        Err(Failed::Here(error)) => return Err(error),
    }
    warn_of_less(job, globals);
    if let Some(upper) = &job.options.overlay
        && let Err(error) = overlay(&job.dir, upper)
    {
        // The first error is the one to tell.
        let _ = umount(&job.dir, Umount::Lazy);
        return Err(error.into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Mounts of users are without set-user-ID bits and device files, whatever they ask for.
fn warn_of_less(job: &Job, globals: &Globals) {
    let attrs = job.options.attrs;
    let asked = [(attrs.suid, "suid"), (attrs.dev, "dev")];
    let mut asked = asked.into_iter().filter(|(on, _)| *on).peekable();
    if globals.quiet || asked.peek().is_none() {
        return;
    }
    // What cannot be found out is no reason to fail: the mount is there.
    let (Ok(point), Ok(mounts)) = (fs::canonicalize(&job.dir), mounts()) else {
        return;
    };
    let Some(mount) = mounts.iter().rfind(|mount| mount.point == point) else {
        return;
    };
    for (_, name) in asked {
        let refused = |option: &str| option.strip_prefix("no") == Some(name);
        if mount.options.split(',').any(refused) {
            eprintln!("warning: the mount is without --{name}, which takes root");
        }
    }
}

fn mount_commit(job: &Job, globals: &Globals) -> Result<(), Failed> {
    if !job.options.needs_own_process() {
        // What is no repository is said by the one who opens it.
        if let Ok(place) = Place::of(&globals.repo_path()) {
            match mount_in(&place, job)? {
                Shared::Mounted(_) => return Ok(()),
                Shared::Not(why) if globals.verbose => {
                    eprintln!("note: a process for this mount alone: {why}");
                }
                Shared::Not(_) => {}
            }
        }
    }
    background::start_private(job, globals)
}

/// Mounts in the session of a repository's daemon.
fn mount_in(place: &Place, job: &Job) -> Result<Shared, Failed> {
    if env::var_os(UNDER_SYSTEMD).is_some() && !place.has_daemon() {
        let why = "it is of a systemd unit, and would end with it";
        return Ok(Shared::Not(why.to_owned()));
    }
    let request = MountRequest {
        rev: job.rev.clone(),
        attrs: job.options.attrs,
        xattrs: job.options.xattrs,
        numbering: job.options.numbering(),
    };
    let start = || background::start_daemon(place.repository());
    mount_shared(place, &request, &job.dir, start)
}

fn explain(error: MountError) -> Error {
    let hint = match error {
        MountError::AlreadyMounted { .. } => "'grove umount DIR' takes it away",
        _ => return error.into(),
    };
    Error::Failed {
        message: error.to_string(),
        hint: Some(hint),
    }
}
