//! Standard output of verbs that print much: through a pager when it is a terminal.

use std::env;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::ui;

/// The switch, for the verbs that print much.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PagerSwitch {
    /// Do not show the output in a pager (GROVE_PAGER, PAGER, or else less) on a terminal
    #[arg(long)]
    no_pager: bool,
}

/// Standard output, or a pager that writes there. Finish it before the command returns.
#[derive(Debug)]
pub enum Output {
    /// Directly.
    Plain(BufWriter<StdoutLock<'static>>),
    /// Through a pager.
    Paged(Pager),
}

/// A pager that is running. Dropped, it is waited for: it has the terminal until then.
#[derive(Debug)]
pub struct Pager {
    child: Child,
    /// None once everything is written.
    input: Option<BufWriter<ChildStdin>>,
}

impl PagerSwitch {
    /// Opens the output; a pager that cannot be started is done without.
    pub fn output(self) -> Output {
        if self.no_pager || !io::stdout().is_terminal() {
            return Output::Plain(ui::stdout());
        }
        start().map_or_else(|| Output::Plain(ui::stdout()), Output::Paged)
    }
}

fn start() -> Option<Pager> {
    let chosen = ["GROVE_PAGER", "PAGER"].iter().find_map(env::var_os);
    let mut command = match chosen {
        Some(name) if name.is_empty() || name == "cat" => return None,
        Some(line) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(line);
            shell
        }
        None => Command::new("less"),
    };
    if env::var_os("LESS").is_none() {
        // Leave at once if it fits on the screen, pass colours, keep the screen.
        command.env("LESS", "FRX");
    }
    let mut child = command.stdin(Stdio::piped()).spawn().ok()?;
    let input = child.stdin.take().map(BufWriter::new);
    Some(Pager { child, input })
}

impl Output {
    /// Writes what is left, and waits until the pager is left.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Paged(Pager {
                input: Some(out), ..
            }) => out.write(bytes),
            Self::Paged(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Paged(Pager {
                input: Some(out), ..
            }) => out.flush(),
            Self::Paged(_) => Ok(()),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // What it did not take, nobody wants to see.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
