//! Plots as SVG: what repositories hold after each release, what servers hold over time.

use std::fmt::Write as _;

use crate::record::{RELEASE, Record};
use crate::render::medians;
use crate::soak::Sample;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Space left of, above, right of and below the lines.
const MARGINS: [f64; 4] = [70.0, 40.0, 120.0, 50.0];
/// Distinguishable also by who does not see red and green.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#555555",
];
const MIB: f64 = 1_048_576.0;

/// Stored bytes by release, one line for each program; `None` if a record has no two releases.
pub fn stored(record: &Record, title: &str) -> Option<String> {
    let rows = medians(record, "store");
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.first.note == RELEASE)
        .collect();
    let (mut steps, mut lines): (Vec<&str>, Vec<Line<'_>>) = (Vec::new(), Vec::new());
    for row in rows {
        let (step, tool) = (row.first.step.as_str(), row.first.tool.as_str());
        let at = steps.iter().position(|known| *known == step);
        let at = at.unwrap_or_else(|| {
            steps.push(step);
            steps.len() - 1
        });
        let point = (at, row.figures.stored_bytes? as f64 / MIB);
        match lines.iter_mut().find(|line| line.tool == tool) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                tool,
                points: vec![point],
            }),
        }
    }
    // The order of the legend is that of the last values.
    lines.sort_by(|a, b| b.last().total_cmp(&a.last()).then(a.tool.cmp(b.tool)));
    (steps.len() > 1).then(|| draw(&steps, &lines, &format!("Stored MiB by release: {title}")))
}

/// Memory of servers over time; `None` without two samples.
pub fn memory(samples: &[Sample], title: &str) -> Option<String> {
    let steps: Vec<String> = samples
        .iter()
        .map(|sample| format!("{:.0} s", sample.seconds))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let line = |tool, bytes: fn(&Sample) -> u64| Line {
        tool,
        points: samples
            .iter()
            .map(|sample| bytes(sample) as f64 / MIB)
            .enumerate()
            .collect(),
    };
    let lines = [
        line("resident", |sample| sample.resident_bytes),
        line("anonymous", |sample| sample.anonymous_bytes),
    ];
    (steps.len() > 1).then(|| draw(&steps, &lines, &format!("MiB of the servers: {title}")))
}

#[derive(Debug)]
struct Line<'r> {
    tool: &'r str,
    points: Vec<(usize, f64)>,
}

impl Line<'_> {
    fn last(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, value)| *value)
    }
}

/// A round distance between lines of the grid, for at most six of them.
fn grid_step(top: f64) -> f64 {
    let rough = (top / 6.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let fits = steps.into_iter().find(|step| step * power >= rough);
    fits.unwrap_or(10.0) * power
}

fn draw(steps: &[&str], lines: &[Line<'_>], title: &str) -> String {
    let [left, above, right, below] = MARGINS;
    let (inner, tall) = (WIDTH - left - right, HEIGHT - above - below);
    let top = lines.iter().flat_map(|line| &line.points);
    let top = top.fold(0.0, |top: f64, (_, value)| top.max(*value)) * 1.05;
    let x = |at: usize| left + inner * at as f64 / (steps.len() - 1) as f64;
    let y = |value: f64| above + tall * (1.0 - value / top);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, left, 22.0, "start", title);
    let step = grid_step(top);
    let mut value = 0.0;
    while value <= top {
        let at = y(value);
        put(
            &mut out,
            format_args!(
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
                left + inner
            ),
        );
        text(&mut out, left - 6.0, at + 4.0, "end", &format!("{value}"));
        value += step;
    }
    // Names of many releases would lie over each other.
    let every = steps.len().div_ceil(8);
    for (at, step) in steps.iter().enumerate().step_by(every) {
        text(&mut out, x(at), HEIGHT - below + 20.0, "middle", step);
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = line.points.iter();
        let points: Vec<String> = points
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        put(
            &mut out,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            ),
        );
        let at = above + 16.0 * number as f64;
        let from = left + inner + 12.0;
        put(
            &mut out,
            format_args!(
                "<rect x=\"{from}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
                at - 9.0
            ),
        );
        let label = format!("{} {:.0}", line.tool, line.last());
        text(&mut out, from + 15.0, at, "start", &label);
    }
    out + "</svg>\n"
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    put(
        out,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"),
    );
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("because a string takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Row;

    fn record(releases: u64) -> Record {
        let mut record = Record::default();
        for release in 0..releases {
            for (tool, bytes) in [("grove", 10 + release), ("ostree", 20 + 10 * release)] {
                record.rows.push(Row {
                    scenario: "store".into(),
                    step: format!("month {release}"),
                    tool: tool.into(),
                    run: 1,
                    stored_bytes: Some(bytes << 20),
                    note: RELEASE.into(),
                    ..Row::default()
                });
            }
        }
        record.rows.push(Row {
            scenario: "store".into(),
            step: "repack".into(),
            tool: "grove".into(),
            ..Row::default()
        });
        record
    }

    #[test]
    fn a_plot_has_a_line_for_each_program_and_a_point_for_each_release() {
        let svg = stored(&record(3), "a & b").unwrap();
        let lines: Vec<&str> = svg.lines().filter(|l| l.starts_with("<polyline")).collect();
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert_eq!(line.matches(',').count(), 3, "{line}");
        }
        for wanted in ["ostree 40<", "grove 12<", "a &amp; b", ">month 2<"] {
            assert!(svg.contains(wanted), "{wanted} in {svg}");
        }
    }

    #[test]
    fn memory_has_a_line_for_all_of_it_and_one_for_what_no_file_is_behind() {
        let sample = |second: u64| Sample {
            seconds: second as f64,
            anonymous_bytes: second << 20,
            resident_bytes: (2 * second) << 20,
            ..Sample::default()
        };
        let svg = memory(&[sample(0), sample(1), sample(2)], "a soak").unwrap();
        for wanted in [
            "resident 4<",
            "anonymous 2<",
            ">2 s<",
            "MiB of the servers: a soak",
        ] {
            assert!(svg.contains(wanted), "{wanted} in {svg}");
        }
        assert_eq!(memory(&[sample(0)], ""), None);
    }

    #[test]
    fn one_release_is_no_line() {
        assert_eq!(stored(&record(1), "one"), None);
    }

    #[test]
    fn the_grid_has_round_steps() {
        for (top, step) in [(6.0, 1.0), (7.0, 2.0), (1000.0, 200.0), (0.5, 0.1)] {
            assert!((grid_step(top) - step).abs() < 1e-9, "{top}");
        }
    }
}
