//! Starting this program again, to serve in the background.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use grove_engine::error::IoResultExt;
use grove_fusefs::MountError;

use super::{Job, explain};
use crate::cli::Globals;
use crate::exit::{self, Error};

/// What it writes once it is ready.
pub const READY: &[u8] = b"ready\n";

/// How the C library's allocator behaves in a process that serves for days: few arenas, and what is
/// large goes back to the system when it is freed. By default each thread has an arena of its own,
/// and a server that reads beside commits and repacks comes to hold twice as much (mallopt(3)).
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
];

/// Why there is no mount.
pub enum Failed {
    /// The other process has said why; its exit code.
    Told(ExitCode),
    /// Nobody has said it yet.
    Here(Error),
}

impl From<MountError> for Failed {
    fn from(error: MountError) -> Self {
        Self::Here(explain(error))
    }
}

/// Starts the daemon of a repository.
pub fn start_daemon(repository: &Path) -> Result<(), Failed> {
    start(&mut |command| {
        command.arg("--daemon").arg("--repo").arg(repository);
    })
}

/// Starts the process of one mount.
pub fn start_private(job: &Job, globals: &Globals) -> Result<(), Failed> {
    start(&mut |command| {
        command.arg("--repo").arg(globals.repo_path());
        command
            .args(job.options.to_args())
            .arg("--")
            .args(&job.rev)
            .arg(&job.dir);
    })
}

fn start(arguments: &mut dyn FnMut(&mut Command)) -> Result<(), Failed> {
    let fail = |error: grove_engine::Error| Failed::Here(error.into());
    let program = std::env::current_exe().at("/proc/self/exe").map_err(fail)?;
    let mut command = Command::new(&program);
    command.args(["mount", "--serve"]).envs(ALLOCATOR);
    arguments(&mut command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().at(&program).map_err(fail)?;
    if is_ready(&mut child) {
        return Ok(());
    }
    // It has ended, or is about to: its words and its code are ours.
    let mut words = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut words).at(&program).map_err(fail)?;
    }
    io::stderr()
        .write_all(&words)
        .at("standard error")
        .map_err(fail)?;
    let code = child.wait().at(&program).map_err(fail)?.code();
    let code = code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::FAILED);
    Err(Failed::Told(ExitCode::from(code)))
}

fn is_ready(child: &mut Child) -> bool {
    let mut answer = vec![0; READY.len()];
    let read = child
        .stdout
        .take()
        .map(|mut stdout| stdout.read_exact(&mut answer));
    matches!(read, Some(Ok(()))) && answer == READY
}
