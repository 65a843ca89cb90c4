//! What a command uses: processor time, wall time, memory.
//!
//! Each command runs as the only child of a helper (this program started again), so that the kernel's
//! sums over waited-for children are those of the command and of what it started in turn. The helper's
//! own memory, about 4 MiB, is the least that can be seen as a peak: a process begins as a copy of its parent.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

/// First argument that makes `scenario` the helper.
pub const HELPER: &str = "__measure";

/// A command line that can be shown as well as run.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    dir: Option<PathBuf>,
}

impl Invocation {
    /// A program without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an option of the form `NAME=PATH`.
    #[must_use]
    pub fn option(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let mut arg = OsString::from(name);
        arg.push("=");
        arg.push(value);
        self.arg(arg)
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The same for [`std::process`].
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        self.furnish(&mut command);
        command
    }

    fn furnish(&self, command: &mut Command) {
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
    }

    /// Runs the command unmeasured; it must succeed. Gives its trimmed standard output.
    pub fn output(&self) -> Result<String> {
        let out = self
            .command()
            .stdin(Stdio::null())
            .output()
            .at(&self.program)?;
        self.check(out.status, &out.stderr)?;
        Ok(text(&out.stdout))
    }

    /// Runs the command in the helper and waits for it; it must succeed.
    pub fn measure(&self) -> Result<Outcome> {
        let helper = std::env::current_exe().at("/proc/self/exe")?;
        let result = tempfile::NamedTempFile::new().at(std::env::temp_dir())?;
        let mut command = Command::new(&helper);
        command.arg(HELPER).arg(result.path()).arg(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        self.furnish(&mut command);
        let out = command.output().at(&helper)?;
        self.check(out.status, &out.stderr)?;
        let bytes = fs::read(result.path()).at(result.path())?;
        let usage = serde_json::from_slice(&bytes).map_err(|source| Error::NoMeasurement {
            command: self.to_string(),
            source,
        })?;
        Ok(Outcome {
            usage,
            stdout: text(&out.stdout),
        })
    }

    fn check(&self, status: ExitStatus, stderr: &[u8]) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        Err(Error::Command {
            command: self.to_string(),
            status: status.to_string(),
            stderr: text(stderr),
        })
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = &self.dir {
            write!(f, "cd {} && ", quoted(dir.as_os_str()))?;
        }
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        f.write_str(&quoted(program))?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// As a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_=/.,:@+%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a command used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds in user mode, of all its processes and threads.
    pub user_seconds: f64,
    /// Seconds in the kernel.
    pub system_seconds: f64,
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Largest resident memory of any of its processes.
    pub peak_rss_bytes: u64,
}

/// A command that succeeded.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What it used.
    pub usage: Usage,
    /// What it said, trimmed.
    pub stdout: String,
}

/// The helper: runs a command and writes what it used to `result`. Gives the command's exit code.
pub fn help(result: &Path, program: &OsStr, args: &[OsString]) -> Result<u8> {
    let start = Instant::now();
    let status = Command::new(program).args(args).status().at(program)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let children = getrusage(UsageWho::RUSAGE_CHILDREN).at(program)?;
    let usage = Usage {
        user_seconds: seconds(children.user_time()),
        system_seconds: seconds(children.system_time()),
        wall_seconds,
        peak_rss_bytes: u64::try_from(children.max_rss()).unwrap_or(0) << 10,
    };
    let json = serde_json::to_vec(&usage).map_err(std::io::Error::from);
    fs::write(result, json.at(result)?).at(result)?;
    // A signal's number is all that there is to tell in an exit code.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(125))
}

/// A time in seconds.
pub(crate) fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_as_a_shell_takes_it() {
        let line = Invocation::new("/opt/bin/grove")
            .arg("commit")
            .option("--tree", "dir=/a b")
            .env("X", "it's")
            .dir("/tmp");
        assert_eq!(
            line.to_string(),
            r"cd /tmp && X='it'\''s' grove commit '--tree=dir=/a b'"
        );
    }

    #[test]
    fn a_command_that_fails_is_told_with_its_words() {
        let error = Invocation::new("sh")
            .args(["-c", "echo no >&2; exit 3"])
            .output()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no"),
            "{text}"
        );
    }

    #[test]
    fn the_helper_counts_what_children_of_the_command_use() {
        let result = tempfile::NamedTempFile::new().unwrap();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let script = OsString::from(format!("sh -c '{busy}'; exit 4"));
        let code = help(result.path(), OsStr::new("sh"), &["-c".into(), script]).unwrap();
        let usage: Usage = serde_json::from_slice(&fs::read(result.path()).unwrap()).unwrap();
        assert_eq!(code, 4);
        assert!(usage.user_seconds > 0.01, "{usage:?}");
        assert!(
            usage.wall_seconds > 0.01 && usage.peak_rss_bytes > 1 << 16,
            "{usage:?}"
        );
    }
}
