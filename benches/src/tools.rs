//! The programs that are measured.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::measure::Invocation;

/// A program and how it calls itself.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its name in tables.
    pub name: &'static str,
    /// Where it is.
    pub program: PathBuf,
    /// Version and build.
    pub version: String,
}

impl Tool {
    /// A call of it.
    pub fn call(&self) -> Invocation {
        Invocation::new(&self.program)
    }
}

/// What there is to measure.
#[derive(Debug, Clone)]
pub struct Tools {
    /// This project.
    pub grove: Tool,
    /// OSTree, if it is installed.
    pub ostree: Option<Tool>,
    /// Borg, if it is installed.
    pub borg: Option<Tool>,
    /// Casync, if it is installed.
    pub casync: Option<Tool>,
    /// Restic, if it is installed.
    pub restic: Option<Tool>,
    /// What had to be left out, one line each.
    pub left_out: Vec<String>,
}

impl Tools {
    /// Looks for `grove` where it is said to be, or beside this program, and for the peers in `PATH`.
    pub fn find(grove: Option<&Path>) -> Result<Self> {
        let mut left_out = Vec::new();
        let mut peer = |name: &'static str, ask: &str| {
            let version = Invocation::new(name).arg(ask).output();
            if version.is_err() {
                left_out.push(format!("{name} is not installed: its rows are left out"));
            }
            Some(Tool {
                name,
                program: name.into(),
                version: version_of(&version.ok()?),
            })
        };
        let (ostree, borg) = (peer("ostree", "--version"), peer("borg", "--version"));
        let (casync, restic) = (peer("casync", "--version"), peer("restic", "version"));
        let tools = Self {
            grove: find_grove(grove)?,
            ostree,
            borg,
            casync,
            restic,
            left_out,
        };
        Ok(tools)
    }

    /// All that are there.
    pub fn all(&self) -> Vec<&Tool> {
        let peers = [&self.ostree, &self.borg, &self.casync, &self.restic];
        let peers = peers.into_iter().flatten();
        std::iter::once(&self.grove).chain(peers).collect()
    }
}

fn find_grove(path: Option<&Path>) -> Result<Tool> {
    let beside = || {
        let this = std::env::current_exe().ok()?;
        Some(this.parent()?.join("grove"))
    };
    let program = match path {
        Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        None => beside().unwrap_or_else(|| "grove".into()),
    };
    let said = Invocation::new(&program).args(["version", "-v"]).output();
    match said {
        Ok(said) => Ok(Tool {
            name: "grove",
            program,
            version: said.lines().collect::<Vec<_>>().join("; "),
        }),
        Err(Error::Io { .. }) => Err(Error::NoProgram {
            program: "grove",
            path: program,
        }),
        Err(error) => Err(error),
    }
}

/// `ostree` answers in YAML, everybody else in a line.
fn version_of(said: &str) -> String {
    let yaml = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version:"));
    let text = yaml.or_else(|| said.lines().next()).unwrap_or_default();
    text.trim().trim_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_what_programs_answer() {
        for (said, version) in [
            (
                "libostree:\n Version: '2022.7'\n Features:\n  - libcurl",
                "2022.7",
            ),
            ("borg 1.2.4\n", "borg 1.2.4"),
            ("", ""),
        ] {
            assert_eq!(version_of(said), version);
        }
    }

    #[test]
    fn a_missing_grove_is_told_with_where_it_was_looked_for() {
        let error = Tools::find(Some(Path::new("/nonexistent/grove"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/grove"), "{error}");
    }
}
