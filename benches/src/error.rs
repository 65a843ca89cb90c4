//! Why a measurement could not be made.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, directory or program could not be used.
    #[error("{}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A measured command failed.
    #[error("{command}: {status}\n{stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A file with results cannot be read or written.
    #[error("{}", path.display())]
    Csv {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: csv::Error,
    },
    /// The helper that measures a command gave no result.
    #[error("no measurement of {command}")]
    NoMeasurement {
        /// The command line.
        command: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Test input could not be built.
    #[error("cannot build the small trees")]
    Fixture(#[from] grove_fixtures::Error),
    /// A step on an index failed.
    #[error("{}", path.display())]
    Index {
        /// The repository or database.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: grove_engine::Error,
    },
    /// A client was started with arguments that mean nothing.
    #[error("no client is called by {arguments:?}")]
    UnknownAct {
        /// The arguments.
        arguments: Vec<std::ffi::OsString>,
    },
    /// A client met what it cannot measure.
    #[error("{what}")]
    Client {
        /// What it met.
        what: &'static str,
    },
    /// Images that were kept are of another tree.
    #[error("{} was made of another tree ({made_of}): remove it, or name another directory with --keep", path.display())]
    OtherTree {
        /// The directory of images.
        path: PathBuf,
        /// What it was made of.
        made_of: String,
    },
    /// Nobody knows whose processor time and memory to measure.
    #[error("the process that serves {} was not found: what it uses cannot be measured", path.display())]
    NoServer {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// A file system is still there after it was unmounted.
    #[error("the server of {} goes on after it was unmounted: what is measured next would not be cold", path.display())]
    StillServed {
        /// Where it was mounted.
        path: PathBuf,
    },
    /// A program that everything needs is missing.
    #[error("no {program} at {}: build it with 'cargo build --release', or name it with --grove", path.display())]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The command line lacks an input.
    #[error("{scenario} needs {option}, or --small")]
    MissingInput {
        /// What was asked for.
        scenario: &'static str,
        /// What would help.
        option: &'static str,
    },
}

/// Puts the path to what the system said.
pub trait At<T> {
    /// Names the file that an operation was about.
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::Io {
            path: path.as_ref().to_owned(),
            source: error.into(),
        })
    }
}
