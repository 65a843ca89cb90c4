//! What changed inside of text files, in the form that patch(1) takes.

use std::io::Write;
use std::time::Duration;

use grove_engine::ops::diff::{Content, DiffReport, Event, FileKind, Info};
use grove_engine::{Error as Engine, Monitor, Repository};
use rayon::prelude::*;
use similar::TextDiff;

use crate::exit::Result;
use crate::ui::{self, Style};

/// Larger files are not compared line by line.
const MAX_TEXT: u64 = 1 << 20;
/// A file with a NUL byte among so many is not text.
const PROBED: usize = 8 << 10;
/// After this time a difference is no longer made as small as possible.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files whose differences are held in memory at once.
const BATCH: usize = 256;

/// What one side of a file is.
enum Side {
    Absent,
    Text(String),
    Binary,
}

/// Prints hunks for every regular file and link whose content changed, in the order of the paths.
pub(super) fn print(
    out: &mut dyn Write,
    repo: Option<&Repository>,
    report: &DiffReport,
    style: Style,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut events = report.events();
    events.retain(|event| {
        event
            .aspects()
            .is_none_or(|found| found.content || found.kind)
    });
    events.sort_by_key(|event| event.path());
    for batch in events.chunks(BATCH) {
        let texts: Vec<Result<String>> = batch
            .par_iter()
            .map(|event| {
                if monitor.is_cancelled() {
                    return Err(Engine::Cancelled.into());
                }
                hunks(repo, event, style)
            })
            .collect();
        for text in texts {
            out.write_all(text?.as_bytes())?;
        }
    }
    Ok(())
}

fn hunks(repo: Option<&Repository>, event: &Event<'_>, style: Style) -> Result<String> {
    let (old, new) = (side(repo, event.before())?, side(repo, event.after())?);
    let name = |side: &Side, letter: char, path: Option<&str>| match (side, path) {
        (Side::Absent, _) | (_, None) => "/dev/null".to_owned(),
        (_, Some(path)) => format!("{letter}{}", ui::printable(path)),
    };
    let old_name = name(&old, 'a', event.from.map(|from| from.path.as_str()));
    let new_name = name(&new, 'b', event.to.map(|to| to.path.as_str()));
    let (old, new) = match (old, new) {
        (Side::Absent, Side::Absent) => return Ok(String::new()),
        (Side::Binary, _) | (_, Side::Binary) => {
            return Ok(format!("Binary files {old_name} and {new_name} differ\n"));
        }
        (old, new) => (old.into_text(), new.into_text()),
    };
    let diff = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(&old, &new);
    let text = diff.unified_diff().header(&old_name, &new_name).to_string();
    Ok(match style {
        Style::Raw => text,
        _ => for_terminal(&text, style),
    })
}

impl Side {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Absent | Self::Binary => String::new(),
        }
    }
}

fn side(repo: Option<&Repository>, info: Option<&Info>) -> Result<Side> {
    let Some(info) = info.filter(|info| info.kind != FileKind::Directory) else {
        return Ok(Side::Absent);
    };
    if info.kind == FileKind::Symlink {
        let target = String::from_utf8_lossy(&info.symlink_target);
        return Ok(Side::Text(format!("{target}\n")));
    }
    if info.size > MAX_TEXT {
        return Ok(Side::Binary);
    }
    let content = Content::open(repo, info)?;
    if content.head(PROBED)?.contains(&0) {
        return Ok(Side::Binary);
    }
    let bytes = content.head(MAX_TEXT as usize)?;
    Ok(String::from_utf8(bytes).map_or(Side::Binary, Side::Text))
}

/// The same for a terminal: nothing in a file can give it commands.
fn for_terminal(text: &str, style: Style) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for line in text.lines() {
        let start = match line.as_bytes() {
            _ if style != Style::Colour => "",
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => "\x1b[1m",
            [b'-', ..] => "\x1b[31m",
            [b'+', ..] => "\x1b[32m",
            [b'@', ..] => "\x1b[36m",
            _ => "",
        };
        out.push_str(start);
        out.push_str(&style.line(line));
        out.push_str(if start.is_empty() { "\n" } else { "\x1b[0m\n" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_no_commands_to_the_terminal() {
        let text = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\tb\n+\x1b]0;title\x07\n";
        let lines = |style| -> Vec<String> {
            let text = for_terminal(text, style);
            text.lines().map(str::to_owned).collect()
        };
        let coloured = lines(Style::Colour);
        assert_eq!(coloured[3], "\x1b[31m-a\tb\x1b[0m");
        assert_eq!(coloured[4], "\x1b[32m+\\x1b]0;title\\x07\x1b[0m");
        assert_eq!(lines(Style::Plain)[3..], ["-a\tb", "+\\x1b]0;title\\x07"]);
    }
}
