//! `grove mount`.
//!
//! Serving needs threads, which a fork would lose; so the background server is this program
//! started again with `--serve`. It tells over its standard output that the mount is usable.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use grove_engine::Repository;
use grove_engine::error::IoResultExt;
use grove_fusefs::{MountError, MountOptions, Umount, Unmounter, What, clear_stale, mount};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Globals;
use crate::exit::{self, Error, Result};

/// What the server writes once the mount is usable.
const READY: &[u8] = b"ready\n";
/// Where the background server writes, in the repository's cache directory.
const LOG_NAME: &str = "mount.log";

/// Show a commit, or all of them, as a directory
///
/// Returns when the mount is usable. Nothing is copied: files are read from the repository when
/// they are looked at. With --all, the directory holds commits/CHECKSUM for each commit and
/// refs/NAME as a link to one; there a prune takes commits away, while a commit that is mounted by
/// itself is kept. Errors met later are written to cache/mount.log in the repository.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove mount os/stable /mnt\n  grove mount --all /mnt\n  \
    grove mount -f os/stable /mnt")]
pub struct Args {
    /// Which commit; with --all, where to mount
    #[arg(value_name = "REV")]
    first: String,
    /// Where to mount, a directory
    #[arg(value_name = "DIR", required_unless_present = "all", conflicts_with = "all")]
    second: Option<PathBuf>,
    /// Mount every ref and every commit of the repository
    #[arg(long)]
    all: bool,
    /// Stay in front; Ctrl-C unmounts
    #[arg(long, short)]
    foreground: bool,
    /// Let other users in
    #[arg(long)]
    allow_other: bool,
    /// Honour set-user-ID, set-group-ID and file capabilities
    #[arg(long)]
    suid: bool,
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
    /// Serve in front, and say so when the mount is usable
    #[arg(long, hide = true)]
    serve: bool,
}

impl Args {
    fn dir(&self) -> &Path {
        self.second.as_deref().unwrap_or_else(|| Path::new(&self.first))
    }
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    // Errors about the repository and the rev are told before anything is started.
    let repo = globals.repository()?;
    let what =
        if args.all { What::All } else { What::Commit(repo.resolve_rev(&args.first)?) };
    drop(repo);
    if args.foreground || args.serve {
        // Serving goes on in another working directory.
        let path = globals.repo_path();
        let path = std::fs::canonicalize(&path).at(&path)?;
        serve(Repository::open(&path)?, what, args)
    } else {
        in_background(args, globals)
    }
}

fn in_background(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let program = std::env::current_exe().at("/proc/self/exe")?;
    let mut command = Command::new(&program);
    command.arg("mount").arg("--serve").arg("--repo").arg(globals.repo_path());
    for (flag, name) in
        [(args.all, "--all"), (args.allow_other, "--allow-other"), (args.suid, "--suid"), (args.materialise, "--materialise")]
    {
        command.args(flag.then_some(name));
    }
    for (name, path) in [("--record", &args.record), ("--prefetch", &args.prefetch)] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    command.arg("--").arg(&args.first).args(&args.second);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().at(&program)?;
    if is_ready(&mut child) {
        return Ok(ExitCode::SUCCESS);
    }
    // It has ended, or is about to: its words and its code are ours.
    let mut words = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut words).at(&program)?;
    }
    io::stderr().write_all(&words).at("standard error")?;
    let code = child.wait().at(&program)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(exit::FAILED)))
}

fn is_ready(child: &mut Child) -> bool {
    let mut answer = vec![0; READY.len()];
    let read = child.stdout.take().map(|mut stdout| stdout.read_exact(&mut answer));
    matches!(read, Some(Ok(()))) && answer == READY
}

fn serve(repo: Repository, what: What, args: &Args) -> Result<ExitCode> {
    if args.serve {
        // Out of the reach of the terminal's signals; fails only for a group leader, which a
        // process that was just started is not.
        let _ = rustix::process::setsid();
    }
    let mut options = MountOptions::default();
    options.allow_other |= args.allow_other;
    options.suid = args.suid;
    options.record.clone_from(&args.record);
    options.prefetch.clone_from(&args.prefetch);
    options.materialise = args.materialise;
    options.name = format!("grove:{}", repo.path().display());
    // In the background nobody reads standard error once the mount is there.
    let log = args.serve.then(|| repo.cache_dir().join(LOG_NAME));
    options.on_error = Arc::new(move |text| tell(log.as_deref(), text));
    clear_stale(args.dir())?;
    // Before the mount: who sees it may send a signal at once.
    let signals = listen().at("/")?;
    let mounted = mount(Arc::new(repo), what, args.dir(), &options).map_err(explain)?;
    let unmounter = mounted.unmounter();
    thread::spawn(move || unmount_on_signal(signals, &unmounter));
    std::env::set_current_dir("/").at("/")?;
    if args.serve {
        let mut out = io::stdout();
        out.write_all(READY)?;
        out.flush()?;
    }
    mounted.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// Tells of an error met while serving; there is nowhere to tell of failing to do so.
fn tell(log: Option<&Path>, text: &str) {
    let line = match log {
        Some(_) => format!("{}: process {}: {text}\n", jiff::Timestamp::now(), std::process::id()),
        None => format!("error: {text}\n"),
    };
    let mut out: Box<dyn Write> = match log.map(|path| File::options().append(true).create(true).open(path)) {
        Some(Ok(file)) => Box::new(file),
        _ => Box::new(io::stderr()),
    };
    drop(out.write_all(line.as_bytes()));
}

/// Gets a byte with each SIGINT and SIGTERM; the second one kills.
fn listen() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(receiver)
}

fn unmount_on_signal(mut signals: UnixStream, unmounter: &Unmounter) {
    if signals.read_exact(&mut [0]).is_err() {
        return;
    }
    if let Err(error) = unmounter.unmount(Umount::Unused) {
        // Someone has files open: take the mount out of their way and serve them to the end.
        let _ = writeln!(
            io::stderr(),
            "warning: {error}; detached until the last user is gone"
        );
        let _ = unmounter.unmount(Umount::Lazy);
    }
}

fn explain(error: MountError) -> Error {
    let hint = match error {
        MountError::AlreadyMounted { .. } => "'grove umount DIR' takes it away",
        _ => return error.into(),
    };
    Error::Failed { message: error.to_string(), hint: Some(hint) }
}
