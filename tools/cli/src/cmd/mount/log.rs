//! Where errors go that are met while serving: a file in the repository's cache, else the system's
//! log, else standard error. A repository that is damaged or gone fails for every file that is
//! looked at, so what is written is bounded.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In the cache directory.
pub const NAME: &str = "mount.log";
/// Lines that are written in a period; the same one is written once.
const LINES: usize = 100;
const PERIOD: Duration = Duration::from_secs(60);
/// A file larger than this begins anew; the old one is kept beside it.
const SIZE_MAX: u64 = 1 << 20;
const SYSTEM_LOG: &str = "/dev/log";
/// A daemon's error, as syslog(3) numbers it.
const PRIORITY: &str = "<27>";

/// Receives errors as lines of text.
pub struct Log {
    /// `None` for standard error.
    file: Option<PathBuf>,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    lines: HashSet<String>,
    left_out: usize,
}

impl Log {
    /// Writes to a file, or with `None` to standard error.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            recent: Mutex::default(),
        }
    }

    /// Tells of an error; there is nowhere to tell of failing to do so.
    pub fn tell(&self, text: &str) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for line in recent.admit(text, Instant::now()) {
            self.write(&line);
        }
    }

    fn write(&self, text: &str) {
        let Some(path) = &self.file else {
            let _ = writeln!(io::stderr(), "error: {text}");
            return;
        };
        if std::fs::metadata(path).is_ok_and(|meta| meta.len() > SIZE_MAX) {
            let _ = std::fs::rename(path, path.with_extension("log.old"));
        }
        let process = std::process::id();
        let line = format!("{}: process {process}: {text}\n", jiff::Timestamp::now());
        let file = File::options().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        if written.or_else(|_| to_system_log(text)).is_err() {
            let _ = writeln!(io::stderr(), "error: {text}");
        }
    }
}

fn to_system_log(text: &str) -> io::Result<()> {
    let line = format!("{PRIORITY}grove[{}]: {text}", std::process::id());
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(line.as_bytes(), SYSTEM_LOG).map(drop)
}

impl Recent {
    /// The lines to write for one that comes at this time.
    fn admit(&mut self, text: &str, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= PERIOD)
        {
            if self.left_out > 0 {
                lines.push(format!("{} more errors were left out", self.left_out));
            }
            *self = Self {
                since: Some(now),
                ..Self::default()
            };
        }
        if self.lines.len() < LINES && self.lines.insert(text.to_owned()) {
            lines.push(text.to_owned());
        } else {
            self.left_out += 1;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_bounded_and_what_is_left_out_is_counted() {
        let mut recent = Recent::default();
        let start = Instant::now();
        assert_eq!(recent.admit("a", start), ["a"]);
        assert_eq!(recent.admit("a", start), Vec::<String>::new());
        for n in 0..LINES + 10 {
            recent.admit(&n.to_string(), start);
        }
        assert_eq!(recent.lines.len(), LINES);
        let later = recent.admit("a", start + PERIOD);
        assert_eq!(later, ["12 more errors were left out", "a"]);
    }

    #[test]
    fn a_file_that_has_grown_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(NAME);
        std::fs::write(&path, vec![b'x'; SIZE_MAX as usize + 1]).expect("a file");
        Log::new(Some(path.clone())).tell("new");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.ends_with(": new\n") && text.len() < 100, "{text}");
        assert!(path.with_extension("log.old").exists());
    }
}
