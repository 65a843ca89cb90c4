//! Text for people: standard output, sizes, colour.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock};

/// Buffered standard output. Flush it before the command returns, so that errors are seen.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// How text that others wrote, and paths, get to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it is: to a file or a pipe.
    Raw,
    /// To a terminal, which would take control characters for commands.
    Plain,
    /// The same, in colour.
    Colour,
}

impl Style {
    /// That of standard output; in colour unless NO_COLOR is set and not empty.
    pub fn of_output() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match io::stdout().is_terminal() {
            false => Self::Raw,
            true if refused || env::var_os("TERM").is_some_and(|term| term == "dumb") => {
                Self::Plain
            }
            true => Self::Colour,
        }
    }

    /// That of standard error, which is not coloured.
    pub fn of_errors() -> Self {
        match io::stderr().is_terminal() {
            true => Self::Plain,
            false => Self::Raw,
        }
    }

    /// Text of one line; a tab stays one.
    pub fn line(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Plain | Self::Colour if text.chars().any(char::is_control) => {
                let parts: Vec<String> = text.split('\t').map(printable).collect();
                parts.join("\t").into()
            }
            _ => text.into(),
        }
    }
}

/// How to print sizes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct SizeSwitch {
    /// Print sizes as plain numbers of bytes
    #[arg(long)]
    pub bytes: bool,
}

impl SizeSwitch {
    /// A size as the switch wants it.
    pub fn show(self, bytes: u64) -> String {
        if self.bytes {
            bytes.to_string()
        } else {
            human(bytes)
        }
    }
}

/// A size in binary units with at most four characters of number: `0 B`, `1.5 KiB`, `213 MiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// `1 file`, `2 files`; `1 entry`, `2 entries`.
pub fn count(n: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if n == 1 => format!("1 {noun}"),
        Some(stem) => format!("{n} {stem}ies"),
        None => format!("{n} {noun}s"),
    }
}

/// A name or path for a terminal line: control characters become `\xNN`.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_in_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_348, "99.9 KiB"),
            (102_400, "100 KiB"),
            (1_023_488, "1.0 MiB"),
            (223_739_904, "213 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn nouns_have_plurals() {
        for (n, noun, text) in [
            (1, "entry", "1 entry"),
            (0, "entry", "0 entries"),
            (2, "file", "2 files"),
        ] {
            assert_eq!(count(n, noun), text);
        }
    }

    #[test]
    fn text_reaches_files_as_it_is_and_terminals_without_commands() {
        let text = "a\tb\x1b]0;title\x07";
        assert_eq!(Style::Raw.line(text), text);
        for style in [Style::Plain, Style::Colour] {
            assert_eq!(style.line(text), "a\tb\\x1b]0;title\\x07");
            assert_eq!(style.line("\u{e9} a"), "\u{e9} a");
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[31m\nb \u{e9}"), "a\\x1b[31m\\x0ab \u{e9}");
    }
}
