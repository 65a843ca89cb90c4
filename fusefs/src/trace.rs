//! Access traces: which parts of which files were read first, in that order.
//!
//! A trace is text: a first line that names the kind of file, then a line for each range,
//! `OFFSET LENGTH PATH`, in bytes and with the path below the root of the commit. In a path, a
//! backslash and a line break stand as `\\` and `\n`. Paths, not objects: so the trace of one release
//! serves the next, and the kernel can be told of the files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const FIRST_LINE: &str = "grove-trace 1";
/// What is read is noted in units of this many bytes: that of extents.
const UNIT: u64 = 256 << 10;
/// No more units are noted: 25 GB of reads.
const MAX_UNITS: usize = 100_000;
/// Lines between those that are written at once.
const FLUSH_EVERY: usize = 64;
/// Longest line that is read: the longest path, with everything escaped, and two numbers.
const MAX_LINE: u64 = 16 << 10;

/// Writes a trace.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Recording>);

#[derive(Debug)]
struct Recording {
    out: BufWriter<File>,
    seen: HashSet<(u64, u64)>,
    lines: usize,
    /// No place for more, or no way to write it.
    over: bool,
}

impl Recorder {
    /// Makes the file anew.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // A new file: the old one may be a trace that is being replayed.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut out = BufWriter::new(File::create_new(path)?);
        writeln!(out, "{FIRST_LINE}")?;
        out.flush()?;
        Ok(Self(Mutex::new(Recording {
            out,
            seen: HashSet::new(),
            lines: 0,
            over: false,
        })))
    }

    /// Notes a read of an inode, whose path is asked for at its first one.
    pub(crate) fn note(&self, number: u64, offset: u64, len: u64, path: impl FnOnce() -> String) {
        let mut recording = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recording.over || len == 0 {
            return;
        }
        let units = offset / UNIT..=(offset + (len - 1)) / UNIT;
        let mut fresh = units.filter(|unit| recording.seen.insert((number, *unit)));
        let Some(first) = fresh.next() else { return };
        let last = fresh.last().unwrap_or(first);
        let (start, end) = (first * UNIT, (last + 1) * UNIT);
        let start = start.max(offset);
        let range = (start, end.min(offset + len).max(start) - start);
        recording.over =
            recording.seen.len() >= MAX_UNITS || recording.write(range, &path()).is_err();
    }
}

impl Recording {
    fn write(&mut self, (offset, len): (u64, u64), path: &str) -> io::Result<()> {
        writeln!(self.out, "{offset} {len} {}", escape(path))?;
        self.lines += 1;
        match self.lines % FLUSH_EVERY {
            0 => self.out.flush(),
            _ => Ok(()),
        }
    }
}

/// A range of a file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Relative, without `..`.
    pub(crate) path: String,
}

/// Reads a trace, line by line.
#[derive(Debug)]
pub(crate) struct Trace<R>(R);

impl<R: BufRead> Trace<R> {
    /// Looks at the first line.
    pub(crate) fn open(mut input: R) -> io::Result<Self> {
        match next_line(&mut input)?.as_deref() {
            Some(FIRST_LINE) => Ok(Self(input)),
            _ => Err(malformed("not a trace of a mount")),
        }
    }
}

impl<R: BufRead> Iterator for Trace<R> {
    type Item = io::Result<Range>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = next_line(&mut self.0).transpose()?;
        Some(
            line.and_then(|line| {
                parse(&line).ok_or_else(|| malformed("malformed line in a trace"))
            }),
        )
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        // What a writer that was killed left of its last line counts for nothing.
        Some(last) if last != b'\n' => match (line.len() as u64) < MAX_LINE - 1 {
            true => Ok(None),
            false => Err(malformed("line in a trace is too long")),
        },
        Some(_) => String::from_utf8(line)
            .map(Some)
            .map_err(|_| malformed("trace is no text")),
    }
}

fn parse(line: &str) -> Option<Range> {
    let (offset, rest) = line.split_once(' ')?;
    let (len, path) = rest.split_once(' ')?;
    let path = unescape(path)?;
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    path.split('/').all(plain).then_some(Range {
        offset: offset.parse().ok()?,
        len: len.parse().ok()?,
        path,
    })
}

fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(text: &str) -> Option<String> {
    let mut path = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        path.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<Range>> {
        Trace::open(bytes)?.collect()
    }

    fn range(offset: u64, len: u64, path: &str) -> Range {
        let path = path.to_owned();
        Range { offset, len, path }
    }

    #[test]
    fn first_touches_are_written_and_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let recorder = Recorder::create(&path).unwrap();
        let odd = "usr/a \\n\\\nb";
        recorder.note(7, 0, 100, || odd.into());
        recorder.note(7, 0, 100, || unreachable!());
        recorder.note(7, 50, 0, || unreachable!());
        recorder.note(9, UNIT, UNIT + 1, || "usr/large".into());
        recorder.note(9, 0, 3 * UNIT, || "usr/large".into());
        drop(recorder);
        let found = read(&std::fs::read(&path).unwrap()).unwrap();
        let expected = [
            range(0, 100, odd),
            range(UNIT, UNIT + 1, "usr/large"),
            range(0, UNIT, "usr/large"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_torn_last_line_counts_for_nothing_and_garbage_is_refused() {
        let good = format!("{FIRST_LINE}\n0 5 usr/a\n");
        assert_eq!(read(good.as_bytes()).unwrap(), [range(0, 5, "usr/a")]);
        let torn = format!("{good}0 5 usr");
        assert_eq!(read(torn.as_bytes()).unwrap(), [range(0, 5, "usr/a")]);
        for bad in [
            "0 5 ../etc/passwd",
            "0 5 /etc/passwd",
            "0 5 a//b",
            "0 5",
            "x 5 a",
            "0 5 a\\q",
            "0 5 a\0b",
        ] {
            assert!(
                read(format!("{good}{bad}\n").as_bytes()).is_err(),
                "{bad:?}"
            );
        }
        assert!(read(format!("{good}0 5 {}\n", "x".repeat(20_000)).as_bytes()).is_err());
        assert!(read(b"").is_err() && read(b"other\n").is_err() && read(b"\xff\n").is_err());
    }
}
