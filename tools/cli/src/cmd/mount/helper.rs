//! `mount.fuse.grove`: the name by which mount(8) starts this program, for /etc/fstab.
//!
//! ```text
//! mount.fuse.grove REPO[#REV] DIR [-sfnv] [-o OPTIONS] [-t TYPE]
//! ```
//!
//! Where that is no link to this program, it starts it with the name as its first argument.
//!
//! Exit codes are those of mount(8).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use grove_fusefs::daemon::Place;
use grove_fusefs::{MountError, clear_stale, mounts};

use super::options::Options;
use super::{Job, mount};
use crate::cli::Globals;
use crate::exit::{self, Error, Result};

/// Ends the name of a program that mount(8) starts for our type.
const NAMES: [&str; 2] = ["mount.fuse.grove", "mount.grove"];
/// mount(8): incorrect invocation.
const USAGE: u8 = 1;
/// mount(8): mount failure.
const FAILED: u8 = 32;

/// Mounts a commit of a Grove repository, for mount(8)
#[derive(Debug, Parser)]
#[command(disable_version_flag = true)]
struct Args {
    /// The repository, and after a # the commit; without, all commits
    #[arg(value_name = "REPO[#REV]")]
    spec: String,
    /// Where to mount
    dir: PathBuf,
    /// Ignore unknown options
    #[arg(short)]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short)]
    fake: bool,
    /// Write no table of mounts (none is written)
    #[arg(short)]
    no_table: bool,
    /// Tell more
    #[arg(short)]
    verbose: bool,
    /// Mount options
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Type of file system
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// The helper's name and arguments, if this program was started as a helper of mount(8).
pub fn arguments() -> Option<Vec<OsString>> {
    helper_arguments(env::args_os())
}

fn helper_arguments(all: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let all: Vec<OsString> = all.collect();
    let is_name = |word: &OsString| {
        let name = Path::new(word).file_name().unwrap_or_default();
        NAMES.iter().any(|known| name == *known)
    };
    let at = all.iter().take(2).position(is_name)?;
    Some(all.into_iter().skip(at).collect())
}

/// Runs as a helper of mount(8).
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // There is nowhere to tell of a failure to print.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { exit::OK });
        }
    };
    match run_with(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            exit::report(&error);
            let usage = exit::code(&error) == exit::USAGE;
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

/// Whether it is mounted; if not, someone has said why.
fn run_with(args: &Args) -> Result<bool> {
    let (repo, rev) = split(&args.spec);
    let mut options = Options::default();
    for text in &args.options {
        match options.add(text) {
            Err(_) if args.sloppy => {}
            other => other?,
        }
    }
    options.all |= rev.is_none();
    if options.all && rev.is_some() {
        return Err(Error::Usage(
            "the option all and a commit exclude each other".to_owned(),
        ));
    }
    options.check()?;
    if args.fake {
        return Ok(true);
    }
    let globals = Globals {
        repo: Some(repo),
        verbose: args.verbose,
        ..Globals::default()
    };
    let job = Job {
        rev,
        dir: args.dir.clone(),
        options,
    };
    // What a dead server left looks like the mount that it was.
    clear_stale(&job.dir)?;
    Ok(is_there(&job, &globals) || mount(&job, &globals)? == ExitCode::SUCCESS)
}

/// `grove:REPO#REV`, as it stands in tables of mounts, without or with its parts.
fn split(spec: &str) -> (PathBuf, Option<String>) {
    let spec = spec.strip_prefix("grove:").unwrap_or(spec);
    match spec.rsplit_once('#') {
        Some((repo, rev)) => (repo.into(), Some(rev.to_owned())),
        None => (spec.into(), None),
    }
}

/// Whether the same is mounted there already: `mount --all` tries again what it does not recognise.
fn is_there(job: &Job, globals: &Globals) -> bool {
    let look = || -> Result<bool> {
        let dir = job.dir.canonicalize().map_err(|_| MountError::NotMounted {
            path: job.dir.clone(),
        })?;
        let Some(there) = mounts()?.into_iter().rfind(|mount| mount.point == dir) else {
            return Ok(false);
        };
        let repo = globals.repository()?;
        let path = Place::of(&globals.repo_path())?;
        let commit = job
            .rev
            .as_deref()
            .map(|rev| repo.resolve_rev(rev))
            .transpose()?;
        Ok(there.repository == path.repository()
            && there.commit == commit
            && there.path.as_os_str().is_empty()
            && there.overlay == job.options.overlay.is_some())
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_called_by_its_name_wherever_that_stands() {
        for (line, helper) in [
            (
                "/sbin/mount.fuse.grove a b",
                Some("/sbin/mount.fuse.grove a b"),
            ),
            ("grove mount.fuse.grove a", Some("mount.fuse.grove a")),
            ("mount.grove", Some("mount.grove")),
            ("grove mount mount.grove", None),
            ("grove", None),
        ] {
            let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            let found = helper_arguments(words(line).into_iter());
            assert_eq!(found, helper.map(words), "{line}");
        }
    }

    #[test]
    fn a_source_names_repository_and_commit() {
        for (spec, repo, rev) in [
            ("/r#os/main", "/r", Some("os/main")),
            ("grove:/a#b#beef", "/a#b", Some("beef")),
            ("r", "r", None),
        ] {
            assert_eq!(split(spec), (repo.into(), rev.map(str::to_owned)), "{spec}");
        }
    }
}
