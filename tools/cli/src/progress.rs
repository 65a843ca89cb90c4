//! Progress on a terminal, warnings, and Ctrl-C.
//!
//! A line for each phase that runs: what is done, how far, how fast, and how long it will take.
//! The engine calls from many threads, so its calls only count; one thread draws, ten times a
//! second, beginning 250 ms after the first phase so that short work shows nothing.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use grove_engine::monitor::{Monitor, Phase};
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Globals;
use crate::ui::Style;

const DELAY: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_millis(100);
const DRAWS_PER_SECOND: u8 = 10;

/// What each phase is called and counted in.
const PHASES: &[(Phase, &str, Unit)] = &[
    (Phase::Scan, "Reading", Unit::Entries),
    (Phase::Import, "Importing", Unit::Packages),
    (Phase::Store, "Storing", Unit::Bytes),
    (Phase::Tree, "Writing tree", Unit::Entries),
    (Phase::Publish, "Publishing", Unit::Nothing),
    (Phase::Checkout, "Writing files", Unit::Entries),
    (Phase::Verify, "Verifying", Unit::Bytes),
    (Phase::Compare, "Comparing", Unit::Bytes),
    (Phase::Reindex, "Indexing", Unit::Packs),
    (Phase::Prune, "Pruning", Unit::Packs),
    (Phase::Repack, "Rewriting", Unit::Bytes),
    (Phase::Parity, "Parity files", Unit::Packs),
    (Phase::Delta, "Delta", Unit::Bytes),
    (Phase::Measure, "Measuring", Unit::Steps),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Entries,
    Packages,
    Packs,
    Steps,
    /// There is nothing to count but the time.
    Nothing,
}

/// Counts of one phase; `begun` and `over` tell whether it has a line.
#[derive(Debug, Default)]
struct Counter {
    begun: AtomicBool,
    over: AtomicBool,
    total: AtomicU64,
    done: AtomicU64,
    /// When it began, in milliseconds since the monitor was made.
    begun_at: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    counters: Vec<Counter>,
    made: Instant,
    lines: MultiProgress,
    drawn: AtomicBool,
}

/// The [`Monitor`] of the command line.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    interrupted: Arc<AtomicBool>,
    drawer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
    warnings: bool,
}

impl Progress {
    /// Shows progress when standard error is a terminal and the user did not refuse it. From here
    /// on the first Ctrl-C asks the operation to stop, the second one kills.
    pub fn new(globals: &Globals) -> Self {
        let shared = Arc::new(Shared {
            counters: PHASES.iter().map(|_| Counter::default()).collect(),
            made: Instant::now(),
            lines: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(
                DRAWS_PER_SECOND,
            )),
            drawn: AtomicBool::new(false),
        });
        let show = !globals.quiet && !globals.no_progress && io::stderr().is_terminal();
        Self {
            drawer: Mutex::new(show.then(|| start_drawing(&shared))),
            shared,
            interrupted: interrupt_flag(),
            warnings: !globals.quiet,
        }
    }

    /// Takes the lines off the terminal, so that results can be printed.
    pub fn finish(&self) {
        let drawer = self
            .drawer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((stop, thread)) = drawer {
            drop(stop);
            // The thread only draws; if it panicked there is nothing to clean up.
            let _ = thread.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Monitor for Progress {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        if let Some(counter) = self.shared.counter(phase) {
            counter.total.store(total.unwrap_or(0), Relaxed);
            counter.done.store(0, Relaxed);
            counter.begun_at.store(self.shared.milliseconds(), Relaxed);
            counter.over.store(false, Relaxed);
            counter.begun.store(true, Relaxed);
        }
    }

    fn advance(&self, phase: Phase, amount: u64) {
        if let Some(counter) = self.shared.counter(phase) {
            counter.done.fetch_add(amount, Relaxed);
        }
    }

    fn end(&self, phase: Phase) {
        if let Some(counter) = self.shared.counter(phase) {
            counter.over.store(true, Relaxed);
        }
    }

    fn warn(&self, message: &str) {
        if !self.warnings {
            return;
        }
        let message = Style::of_errors().line(message);
        if self.shared.drawn.load(Relaxed) {
            self.shared
                .lines
                .suspend(|| eprintln!("warning: {message}"));
        } else {
            eprintln!("warning: {message}");
        }
    }

    fn is_cancelled(&self) -> bool {
        self.interrupted.load(Relaxed)
    }
}

impl Shared {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn counter(&self, phase: Phase) -> Option<&Counter> {
        let at = PHASES.iter().position(|(known, _, _)| *known == phase)?;
        self.counters.get(at)
    }
}

/// A flag that SIGINT and SIGTERM raise; raised again, they kill the process.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down, passes by the first action and
        // raises it. Failure leaves the default action, which is to kill: as good as any.
        let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag));
        let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
    }
    flag
}

fn start_drawing(shared: &Arc<Shared>) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel();
    let shared = Arc::clone(shared);
    let thread = thread::spawn(move || {
        let mut bars: Vec<Option<ProgressBar>> = PHASES.iter().map(|_| None).collect();
        let mut wait = DELAY;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            wait = INTERVAL;
            draw(&shared, &mut bars);
        }
        bars.iter()
            .flatten()
            .for_each(ProgressBar::finish_and_clear);
    });
    (stop, thread)
}

fn draw(shared: &Shared, bars: &mut [Option<ProgressBar>]) {
    for ((counter, bar), (_, label, unit)) in shared.counters.iter().zip(bars).zip(PHASES) {
        if !counter.begun.load(Relaxed) {
            continue;
        }
        if counter.over.load(Relaxed) {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            continue;
        }
        let total = counter.total.load(Relaxed);
        let bar = bar.get_or_insert_with(|| {
            shared.drawn.store(true, Relaxed);
            let bar = ProgressBar::new(total).with_prefix(*label);
            shared.lines.add(bar.with_style(style(total > 0)))
        });
        if bar.length().unwrap_or(0) != total {
            bar.set_style(style(total > 0));
            bar.set_length(total);
        }
        let done = counter.done.load(Relaxed);
        let elapsed = shared
            .milliseconds()
            .saturating_sub(counter.begun_at.load(Relaxed));
        bar.set_position(done);
        bar.set_message(pace(*unit, done, total, elapsed));
        bar.tick();
    }
}

/// How far a phase is, its rate since it began and, where the total is known, the time that is left.
/// Of a phase that counts nothing, or nothing yet, the time since it began.
fn pace(unit: Unit, done: u64, total: u64, elapsed: u64) -> String {
    if unit == Unit::Nothing || (done, total) == (0, 0) {
        return clock(elapsed / 1000);
    }
    let amount = |n: u64| match unit {
        Unit::Bytes => crate::ui::human(n),
        _ => HumanCount(n).to_string(),
    };
    let mut text = amount(done);
    if total > 0 {
        text.push_str(&format!("/{}", amount(total)));
    }
    text.push_str(match unit {
        Unit::Packages => " packages",
        Unit::Packs => " packs",
        Unit::Steps => " steps",
        Unit::Bytes | Unit::Entries | Unit::Nothing => "",
    });
    if unit != Unit::Steps {
        let per_second = done.saturating_mul(1000) / elapsed.max(1);
        text.push_str(&format!(" {}/s", amount(per_second)));
    }
    if done > 0 && done <= total {
        let left = u128::from(total - done) * u128::from(elapsed) / u128::from(done) / 1000;
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        text.push_str(&format!(" {} left", clock(left)));
    }
    text
}

/// Seconds as `minutes:seconds` or `hours:minutes:seconds`.
fn clock(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    match minutes / 60 {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{:02}:{seconds:02}", minutes % 60),
    }
}

fn style(total: bool) -> ProgressStyle {
    let template = match total {
        true => "{prefix:14} {wide_bar} {msg}",
        false => "{prefix:14} {msg}",
    };
    ProgressStyle::with_template(template).expect("because the templates above are tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        let _ = (style(true), style(false));
    }

    #[test]
    fn the_pace_is_that_since_the_beginning() {
        for (unit, done, total, elapsed, text) in [
            (Unit::Bytes, 4 << 20, 0, 2000, "4.0 MiB 2.0 MiB/s"),
            (
                Unit::Bytes,
                1 << 30,
                3 << 30,
                4_000_000,
                "1.0 GiB/3.0 GiB 262 KiB/s 2:13:20 left",
            ),
            (
                Unit::Entries,
                5000,
                20_000,
                1000,
                "5,000/20,000 5,000/s 0:03 left",
            ),
            (Unit::Packs, 1, 401, 250, "1/401 packs 4/s 1:40 left"),
            (Unit::Steps, 3, 6, 60_000, "3/6 steps 1:00 left"),
            (Unit::Entries, 0, 10, 0, "0/10 0/s"),
            (Unit::Entries, 11, 10, 1000, "11/10 11/s"),
            (Unit::Entries, 0, 0, 3999, "0:03"),
            (Unit::Nothing, 0, 0, 61_000, "1:01"),
        ] {
            assert_eq!(pace(unit, done, total, elapsed), text);
        }
    }

    #[test]
    fn counts_are_kept_per_phase() {
        let globals = Globals {
            quiet: true,
            ..Globals::default()
        };
        let progress = Progress::new(&globals);
        progress.begin(Phase::Store, Some(10));
        progress.advance(Phase::Store, 4);
        progress.advance(Phase::Store, 3);
        let counter = progress
            .shared
            .counter(Phase::Store)
            .expect("a known phase");
        assert_eq!(counter.done.load(Relaxed), 7);
        assert!(!counter.over.load(Relaxed));
        progress.end(Phase::Store);
        assert!(counter.over.load(Relaxed));
        assert!(!progress.is_cancelled());
    }
}
