//! Errors as the user meets them: one text, its causes, a hint, and the exit code.
//!
//! The codes are part of the interface; docs/cli.md lists them.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use grove_engine::Error as Engine;

use crate::ui::Style;

/// Result of commands.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] Engine),
    /// The engine failed, and the verb knows better than the engine what to do about it.
    #[error("{error}")]
    Hinted {
        /// What happened.
        error: Engine,
        /// What to do about it.
        hint: &'static str,
    },
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// Packages could not be used.
    #[error(transparent)]
    Compose(grove_compose::Error),
    /// Mounting or unmounting failed.
    #[error(transparent)]
    Mount(#[from] grove_fusefs::MountError),
    /// Standard output refused a write. A bare [`io::Error`] becomes this; errors about files
    /// get their path with `at`.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    /// Output could not be written as JSON.
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
}

impl Error {
    /// A failure with a text and no hint.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: None,
        }
    }
}

impl From<grove_compose::Error> for Error {
    fn from(error: grove_compose::Error) -> Self {
        match error {
            grove_compose::Error::Engine(error) => Self::Engine(error),
            other => Self::Compose(other),
        }
    }
}

/// Everything went well.
pub const OK: u8 = 0;
/// The command failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The command went to its end and found or met problems.
pub const PROBLEMS: u8 = 3;
/// There is no repository.
pub const NO_REPOSITORY: u8 = 10;
/// The repository is locked by another process.
pub const LOCKED: u8 = 11;
/// The repository has a format that this program does not know.
pub const UNSUPPORTED_FORMAT: u8 = 12;
/// The repository is damaged.
pub const CORRUPT: u8 = 13;
/// Interrupted with Ctrl-C or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// The table of docs/cli.md.
pub const TABLE: &[(u8, &str)] = &[
    (
        OK,
        "success; also when the reader of the output closed the pipe",
    ),
    (FAILED, "the command failed"),
    (USAGE, "the command line is wrong"),
    (
        PROBLEMS,
        "the command went to its end, and problems were found or remain (`fsck`, `repair`, `reindex`), or trees \
         differ (`diff --exit-code`)",
    ),
    (NO_REPOSITORY, "the directory is no repository"),
    (
        LOCKED,
        "another process holds a lock that the command needs",
    ),
    (
        UNSUPPORTED_FORMAT,
        "the repository was written by a newer program",
    ),
    (
        CORRUPT,
        "the repository, or the one imported from, is damaged: objects are missing or wrong",
    ),
    (
        INTERRUPTED,
        "interrupted by Ctrl-C or SIGTERM; the repository is sound",
    ),
];

/// Prints the error to standard error and gives its exit code.
pub fn report(error: &Error) -> ExitCode {
    let code = code(error);
    if code != OK {
        let style = Style::of_errors();
        for line in describe(error).lines() {
            eprintln!("{}", style.line(line));
        }
    }
    ExitCode::from(code)
}

/// The exit code of an error.
pub fn code(error: &Error) -> u8 {
    match error {
        Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => OK,
        Error::Json(e) if e.io_error_kind() == Some(io::ErrorKind::BrokenPipe) => OK,
        Error::Usage(_) => USAGE,
        Error::Mount(grove_fusefs::MountError::Engine(error)) => engine_code(error),
        Error::Engine(error) | Error::Hinted { error, .. } => engine_code(error),
        _ => FAILED,
    }
}

fn engine_code(error: &Engine) -> u8 {
    match error {
        Engine::NotARepository { .. } => NO_REPOSITORY,
        Engine::Locked { .. } => LOCKED,
        Engine::UnsupportedFormat { .. } => UNSUPPORTED_FORMAT,
        Engine::Corrupt { .. }
        | Engine::MalformedObject { .. }
        | Engine::MissingObject { .. }
        | Engine::MissingPayload { .. }
        | Engine::Damaged { .. }
        | Engine::BadObject { .. } => CORRUPT,
        Engine::Cancelled => INTERRUPTED,
        _ => FAILED,
    }
}

/// The text of an error: `error:`, `caused by:` lines, `hint:`.
pub fn describe(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = match error {
        Error::Hinted { error, .. } => error.source(),
        other => other.source(),
    };
    while let Some(e) = cause {
        text.push_str(&format!("caused by: {e}\n"));
        cause = e.source();
    }
    if let Some(hint) = hint(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn hint(error: &Error) -> Option<&'static str> {
    let engine = match error {
        Error::Failed { hint, .. } => return *hint,
        Error::Hinted { hint, .. } => return Some(hint),
        Error::Engine(engine) => engine,
        _ => return None,
    };
    Some(match engine {
        Engine::NotARepository { .. } => {
            "name it with --repo DIR or GROVE_REPO, or make one with 'grove init --repo DIR'"
        }
        Engine::NotEmpty { .. } => "name an empty or a new directory",
        Engine::UnsupportedFormat { .. } => "use a newer version of grove",
        Engine::Locked { .. } => "try again when the other process has finished",
        Engine::Corrupt { .. } | Engine::MalformedObject { .. } | Engine::Damaged { .. } => {
            "'grove fsck' lists everything that is damaged, 'grove repair' mends what can be mended"
        }
        Engine::MissingObject { .. } | Engine::MissingPayload { .. } => {
            "'grove reindex' rebuilds the index from the packs; 'grove fsck' lists what is missing"
        }
        Engine::BadObject { .. } => {
            "'ostree fsck' checks that repository; here, refs and commits are as before"
        }
        Engine::InvalidDelta { .. } => "the repository is as it was; get the delta again",
        Engine::WrongBase { .. } => {
            "bring the repository to that commit first, or get a delta from a commit that it has"
        }
        Engine::PartialBase { .. } => {
            "'grove import' of a repository that has all of that commit completes it"
        }
        Engine::DeltaNotFound { .. } => "'grove static-delta list' lists the deltas",
        Engine::RevNotFound { .. } => "'grove refs' lists the refs",
        Engine::RevAmbiguous { .. } => "give more digits of the checksum",
        Engine::RefConflict { .. } => "no ref can lie below another one",
        Engine::RefChanged { .. } => "another process moved the ref; look at it and run this again",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_is_reached() {
        let path = std::path::PathBuf::from("/r");
        let cases: Vec<(Error, u8)> = vec![
            (Error::failed("x"), FAILED),
            (Error::Usage("x".into()), USAGE),
            (
                Engine::NotARepository { path: path.clone() }.into(),
                NO_REPOSITORY,
            ),
            (
                Engine::Locked {
                    path: path.clone(),
                    holder: "7".into(),
                }
                .into(),
                LOCKED,
            ),
            (
                Engine::UnsupportedFormat {
                    path: path.clone(),
                    detail: "x".into(),
                }
                .into(),
                UNSUPPORTED_FORMAT,
            ),
            (
                Engine::Corrupt {
                    path,
                    detail: "x".into(),
                }
                .into(),
                CORRUPT,
            ),
            (Engine::Cancelled.into(), INTERRUPTED),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), OK),
            (io::Error::from(io::ErrorKind::StorageFull).into(), FAILED),
        ];
        for (error, expected) in cases {
            assert_eq!(code(&error), expected, "{error}");
            assert!(TABLE.iter().any(|(code, _)| *code == expected));
        }
    }

    #[test]
    fn an_error_names_its_causes_and_a_hint() {
        let io = Engine::Io {
            path: "/r/refs".into(),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        assert_eq!(
            describe(&io.into()),
            "error: /r/refs\ncaused by: permission denied\n"
        );
        let none = Engine::RevNotFound { rev: "x".into() };
        assert_eq!(
            describe(&none.into()),
            "error: no such rev \"x\"\nhint: 'grove refs' lists the refs\n"
        );
    }
}
