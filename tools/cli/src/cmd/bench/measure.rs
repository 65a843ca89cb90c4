//! What a run takes, and medians of several.

use std::fs;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use grove_engine::error::IoResultExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::failed;
use crate::exit::{Error, Result};

/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Took {
    /// By the clock.
    pub(super) wall: f64,
    /// Of processors, in user and system mode.
    pub(super) cpu: f64,
    /// Bytes of memory that were in use at once, where that was seen.
    pub(super) peak: Option<u64>,
}

/// A step by a program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) step: &'static str,
    pub(super) program: &'static str,
    pub(super) took: Took,
}

/// All runs of all steps.
#[derive(Debug, Default)]
pub(super) struct Rows {
    runs: Vec<Row>,
}

impl Rows {
    pub(super) fn add(&mut self, step: &'static str, program: &'static str, took: Took) {
        self.runs.push(Row {
            step,
            program,
            took,
        });
    }

    /// One row for each step and program, in the order in which they came; of the peaks, the highest.
    pub(super) fn medians(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for run in &self.runs {
            let same = |row: &&Row| row.step == run.step && row.program == run.program;
            if rows.iter().any(|row| same(&row)) {
                continue;
            }
            let all: Vec<_> = self.runs.iter().filter(same).collect();
            let took = Took {
                wall: median(all.iter().map(|row| row.took.wall).collect()),
                cpu: median(all.iter().map(|row| row.took.cpu).collect()),
                peak: all.iter().filter_map(|row| row.took.peak).max(),
            };
            rows.push(Row {
                took,
                ..run.clone()
            });
        }
        rows
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(value)) => *value,
        _ => 0.0,
    }
}

/// Processor time of this process, or of the children that it has waited for.
pub(super) fn cpu(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who)
        .map_err(|error| Error::failed(format!("cannot ask for processor time: {error}")))?;
    let time = |value: TimeVal| {
        let micros = u64::try_from(value.tv_usec()).unwrap_or_default();
        Duration::from_secs(u64::try_from(value.tv_sec()).unwrap_or_default())
            + Duration::from_micros(micros)
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// The most memory that a process has used until now.
pub(super) fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Waits for a process, and looks at its memory until it ends. The kernel tells of children that have
/// ended only the highest peak of all.
fn wait(child: Child) -> (io::Result<Output>, Option<u64>) {
    let process = child.id();
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut highest = peak(process);
            while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                highest = highest.max(peak(process));
            }
            highest
        });
        let output = child.wait_with_output();
        drop(ended);
        (output, watch.join().unwrap_or_default())
    })
}

/// Runs a command that must succeed. What it prints is thrown away, errors are told.
pub(super) fn run_measured(command: &mut Command) -> Result<Took> {
    let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let (output, peak) = wait(child.at(command.get_program())?);
    let output = output.at(command.get_program())?;
    let wall = start.elapsed().as_secs_f64();
    let cpu = cpu(UsageWho::RUSAGE_CHILDREN)?
        .saturating_sub(before)
        .as_secs_f64();
    match output.status.success() {
        true => Ok(Took { wall, cpu, peak }),
        false => Err(failed(command, &output.status.to_string(), &output.stderr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(wall: f64) -> Took {
        Took {
            wall,
            cpu: 2.0 * wall,
            peak: (wall > 1.0).then_some(wall as u64),
        }
    }

    #[test]
    fn medians_are_of_each_step_and_program() {
        let mut rows = Rows::default();
        for wall in [3.0, 1.0, 2.0] {
            rows.add("diff", "grove", took(wall));
            rows.add("diff", "ostree", took(10.0 * wall));
        }
        let rows = rows.medians();
        let found: Vec<_> = rows.iter().map(|row| (row.program, row.took)).collect();
        let of = |wall, peak| Took { peak, ..took(wall) };
        let expected = [("grove", of(2.0, Some(3))), ("ostree", of(20.0, Some(30)))];
        assert_eq!(found, expected);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn a_command_that_fails_is_an_error_with_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = run_measured(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("no such thing") && error.contains('3'),
            "{error}"
        );
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done"]);
        let took = run_measured(&mut command).unwrap();
        assert!(took.cpu > 0.0 && took.wall > 0.0, "{took:?}");
        assert!(took.peak.is_some_and(|peak| peak > 100 << 10), "{took:?}");
    }
}
