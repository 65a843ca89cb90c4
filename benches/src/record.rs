//! What a run of `scenario` found, and its form in `raw.csv`.
//!
//! The file begins with lines `# KEY: VALUE` about the run as a whole; after them comes one row for each
//! command that was measured.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

/// One measured command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Group of steps, one table.
    pub scenario: String,
    /// What was done.
    pub step: String,
    /// By which program.
    pub tool: String,
    /// Repetition, from 1.
    pub run: u32,
    /// Seconds in user mode.
    pub user_seconds: f64,
    /// Seconds in the kernel.
    pub system_seconds: f64,
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Largest resident memory.
    pub peak_rss_bytes: u64,
    /// Sizes of all files of the repository after the step.
    pub stored_bytes: Option<u64>,
    /// Blocks that they have on disk.
    pub allocated_bytes: Option<u64>,
    /// What the step added to `stored_bytes`.
    pub added_bytes: Option<i64>,
    /// Checksum of the commit that was made.
    pub checksum: Option<String>,
    /// Processor time of the processes that serve the file system.
    #[serde(default)]
    pub server_seconds: Option<f64>,
    /// Processor time of threads of the kernel that work for it: loop devices, decompression.
    #[serde(default)]
    pub kernel_seconds: Option<f64>,
    /// The middle of the times of single reads.
    #[serde(default)]
    pub p50_seconds: Option<f64>,
    /// 99 of 100 single reads were not slower.
    #[serde(default)]
    pub p99_seconds: Option<f64>,
    /// System calls by which the servers read: requests of the kernel, and of their own files.
    #[serde(default)]
    pub server_reads: Option<u64>,
    /// Anything else.
    pub note: String,
    /// The command line.
    pub command: String,
}

impl Row {
    /// Processor time in seconds, of the command and of whoever served it.
    pub fn cpu_seconds(&self) -> f64 {
        let others = [self.server_seconds, self.kernel_seconds];
        self.user_seconds + self.system_seconds + others.into_iter().flatten().sum::<f64>()
    }
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// About the run as a whole, in order; keys may repeat.
    pub facts: Vec<(String, String)>,
    /// What was measured, in order.
    pub rows: Vec<Row>,
}

/// Key of facts about inputs.
pub const INPUT: &str = "input";
/// Key of checks that held.
pub const HOLDS: &str = "holds";
/// Key of checks that failed.
pub const FAILS: &str = "FAILS";
/// Key of differences to a peer that are no failure.
pub const DIFFERS: &str = "differs";
/// Key of goals, met or missed.
pub const GOAL: &str = "goal";
/// Key of figures that are no column of a table.
pub const FIGURE: &str = "figure";
/// Note of rows that store one more release.
pub const RELEASE: &str = "release";
/// Key of what was left out.
pub const LEFT_OUT: &str = "left out";

impl Record {
    /// Adds a fact.
    pub fn fact(&mut self, key: &str, value: impl Into<String>) {
        self.facts.push((key.to_owned(), value.into()));
    }

    /// Values of a key.
    pub fn values<'r>(&'r self, key: &'r str) -> impl Iterator<Item = &'r str> {
        self.facts
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// Writes a `raw.csv`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = Vec::new();
        for (key, value) in &self.facts {
            // A value is one line.
            let value = value.replace(['\n', '\r'], " ");
            text.extend_from_slice(format!("# {key}: {value}\n").as_bytes());
        }
        let mut writer = csv::Writer::from_writer(text);
        let csv = |source| Error::Csv {
            path: path.to_owned(),
            source,
        };
        for row in &self.rows {
            writer.serialize(row).map_err(csv)?;
        }
        let text = writer
            .into_inner()
            .map_err(|error| error.into_error())
            .at(path)?;
        fs::write(path, text).at(path)
    }

    /// Reads a `raw.csv`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).at(path)?;
        let facts = text
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .from_reader(text.as_bytes());
        let rows = reader.deserialize().collect::<std::result::Result<_, _>>();
        Ok(Self {
            facts,
            rows: rows.map_err(|source| Error::Csv {
                path: path.to_owned(),
                source,
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut record = Record::default();
        record.fact("date", "today, or so: who knows");
        record.fact("input", "one\ntwo");
        record.rows.push(Row {
            scenario: "commit".into(),
            command: "sh -c 'a, \"b\"\n# c'".into(),
            user_seconds: 0.25,
            stored_bytes: Some(7),
            added_bytes: Some(-1),
            server_seconds: Some(0.5),
            ..Row::default()
        });
        record.rows.push(Row::default());
        assert_eq!(record.rows[0].cpu_seconds(), 0.75);
        let file = tempfile::NamedTempFile::new().unwrap();
        record.save(file.path()).unwrap();
        record.facts[1].1 = "one two".into();
        assert_eq!(Record::load(file.path()).unwrap(), record);
    }
}
