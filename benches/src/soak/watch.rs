//! Looks at the servers' memory over time, and at who makes no progress.

use std::fmt::Write as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Soak;

/// Memory of a process that lies behind no file.
const ANONYMOUS: &str = "RssAnon";
const LINE_EVERY: Duration = Duration::from_secs(60);
/// After the end, whatever is begun may be finished.
const PATIENCE: Duration = Duration::from_secs(600);

/// The servers at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Since the start.
    pub seconds: f64,
    /// How many processes serve.
    pub servers: usize,
    /// Memory behind which there is no file.
    pub anonymous_bytes: u64,
    /// That of the server that has most.
    pub largest_bytes: u64,
    /// All resident memory.
    pub resident_bytes: u64,
    /// Open files.
    pub files: usize,
}

/// As comma-separated values.
pub fn samples_csv(samples: &[Sample]) -> String {
    let mut text =
        "seconds,servers,anonymous_bytes,largest_bytes,resident_bytes,files\n".to_owned();
    for sample in samples {
        let Sample {
            seconds,
            servers,
            anonymous_bytes,
            largest_bytes,
            resident_bytes,
            files,
        } = sample;
        writeln!(
            text,
            "{seconds:.1},{servers},{anonymous_bytes},{largest_bytes},{resident_bytes},{files}"
        )
        .expect("because a string takes every write");
    }
    text
}

/// Samples until the time is over or something hangs.
pub(super) fn watch(soak: &Soak, say: &dyn Fn(&str)) -> Vec<Sample> {
    // Some hundred samples, whatever the time.
    let every = (soak.duration / 600).clamp(Duration::from_millis(200), Duration::from_secs(10));
    let (mut samples, mut told) = (Vec::new(), Instant::now());
    while soak.elapsed() < soak.duration && soak.shared.late().is_empty() {
        let servers = soak.servers();
        let sample = Sample {
            seconds: soak.elapsed().as_secs_f64(),
            servers: servers.pids().len(),
            anonymous_bytes: servers.memory_bytes(ANONYMOUS),
            largest_bytes: servers.largest_bytes(ANONYMOUS),
            resident_bytes: servers.memory_bytes("VmRSS"),
            files: servers.files(),
        };
        samples.push(sample);
        if told.elapsed() > LINE_EVERY {
            told = Instant::now();
            say(&format!(
                "{:.0} s: {} servers, {} MiB anonymous, {} wrong, {} errors",
                sample.seconds,
                sample.servers,
                sample.anonymous_bytes >> 20,
                soak.shared.wrong().len(),
                soak.shared.errors().len()
            ));
        }
        std::thread::sleep(every);
    }
    samples
}

/// Waits for the threads. Gives what hangs.
pub(super) fn wait(soak: &Soak, threads: &[JoinHandle<()>]) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let late = soak.shared.late();
        if !late.is_empty() {
            return late;
        }
        if threads.iter().all(JoinHandle::is_finished) {
            return Vec::new();
        }
        if Instant::now() > end {
            return vec!["threads do not come to their end".to_owned()];
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// By how much anonymous memory grows in the second half of the time, fitted by least squares; and
/// that time.
pub(super) fn growth(samples: &[Sample]) -> (f64, f64, f64) {
    let half = samples.get(samples.len() / 2..).unwrap_or_default();
    let (Some(first), Some(last)) = (half.first(), half.last()) else {
        return (0.0, 0.0, 0.0);
    };
    let count = half.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / count;
    let time = mean(&|sample| sample.seconds);
    let bytes = mean(&|sample| sample.anonymous_bytes as f64);
    let squares = mean(&|sample| (sample.seconds - time).powi(2));
    let products =
        mean(&|sample| (sample.seconds - time) * (sample.anonymous_bytes as f64 - bytes));
    let slope = if squares > 0.0 {
        products / squares
    } else {
        0.0
    };
    (
        slope * (last.seconds - first.seconds),
        first.seconds,
        last.seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(bytes: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second| Sample {
            seconds: second as f64,
            anonymous_bytes: bytes(second),
            ..Sample::default()
        };
        (0..=100).map(sample).collect()
    }

    #[test]
    fn growth_is_that_of_the_second_half() {
        let (found, from, to) = growth(&samples(|second| 1000 * second));
        assert!(
            (found - 50_000.0).abs() < 1.0 && (from, to) == (50.0, 100.0),
            "{found}"
        );
        let (found, ..) = growth(&samples(|second| 1000 * second.min(50)));
        assert!(found.abs() < 1.0, "{found}");
        assert_eq!(growth(&[]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn samples_are_lines() {
        let text = samples_csv(&samples(|_| 7));
        assert_eq!(text.lines().count(), 102);
        assert_eq!(text.lines().nth(2), Some("1.0,0,7,0,0,0"));
    }
}
