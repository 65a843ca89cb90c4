//! When each pack was last found sound: a disposable file, so that checks can be spread over time
//! and go on after an interruption. Layout: docs/format.md, "Scrub dates".

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::Level;
use crate::fs::replace_cache_file;
use crate::id::PackId;

const HEADER: &str = "grove-scrub 1";
const RUN: &str = "run ";
const FOOTER: &str = "sum ";
/// How often the file is written while a check is running.
const INTERVAL: Duration = Duration::from_secs(2);

/// When a pack was found sound, in seconds since 1970; 0 = never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// By a check of its blocks, or a deeper one.
    pub(crate) data: u64,
    /// By a check of everything in it.
    pub(crate) deep: u64,
}

/// A check that did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) begun: u64,
    pub(crate) level: Level,
}

/// The state as in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scrub {
    pub(crate) run: Option<Run>,
    pub(crate) packs: BTreeMap<PackId, Checked>,
}

impl Scrub {
    fn path(repo: &Path) -> PathBuf {
        repo.join("cache/scrub")
    }

    /// Loads the state; a damaged file is as good as none.
    pub(crate) fn load(repo: &Path) -> Self {
        let text = std::fs::read_to_string(Self::path(repo)).unwrap_or_default();
        Self::decode(&text).unwrap_or_default()
    }

    /// Writes the state. It may be lost at any time, so whether that works does not matter.
    pub(crate) fn save(&self, repo: &Path) {
        let text = self.encode();
        drop(replace_cache_file(&Self::path(repo), |file| {
            file.write_all(text.as_bytes())
        }));
    }

    fn encode(&self) -> String {
        let fits = "because writing to a string cannot fail";
        let mut text = format!("{HEADER}\n");
        if let Some(run) = self.run {
            writeln!(text, "{RUN}{} {}", run.begun, run.level.as_str()).expect(fits);
        }
        for (id, checked) in &self.packs {
            writeln!(text, "{id} {} {}", checked.data, checked.deep).expect(fits);
        }
        let sum = xxh3_64(text.as_bytes());
        writeln!(text, "{FOOTER}{sum:016x}").expect(fits);
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let (body, sum) = text.split_at(text.rfind(FOOTER)?);
        if sum != format!("{FOOTER}{:016x}\n", xxh3_64(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines().peekable();
        (lines.next() == Some(HEADER)).then_some(())?;
        let mut scrub = Self::default();
        if let Some(run) = lines.next_if(|line| line.starts_with(RUN)) {
            let (begun, level) = run.strip_prefix(RUN)?.split_once(' ')?;
            let level = [Level::Quick, Level::Data, Level::Deep]
                .into_iter()
                .find(|known| known.as_str() == level)?;
            let begun = begun.parse().ok()?;
            scrub.run = Some(Run { begun, level });
        }
        for line in lines {
            let mut fields = line.split(' ');
            let id = fields.next()?.parse().ok()?;
            let data = fields.next()?.parse().ok()?;
            let deep = fields.next()?.parse().ok()?;
            scrub.packs.insert(id, Checked { data, deep });
        }
        Some(scrub)
    }

    /// When a pack was last found sound by a check at least this deep; 0 = never.
    pub(crate) fn last(&self, pack: &PackId, level: Level) -> u64 {
        let checked = self.packs.get(pack).copied().unwrap_or_default();
        match level {
            Level::Deep => checked.deep,
            _ => checked.data,
        }
    }
}

/// The state while a check is running.
#[derive(Debug)]
pub(crate) struct Keeper {
    repo: PathBuf,
    pub(crate) scrub: Scrub,
    saved: Instant,
}

impl Keeper {
    pub(crate) fn new(repo: &Path, scrub: Scrub) -> Self {
        scrub.save(repo);
        Self {
            repo: repo.to_owned(),
            scrub,
            saved: Instant::now(),
        }
    }

    /// Notes the result of a pack's check.
    pub(crate) fn note(&mut self, pack: PackId, level: Level, now: u64, sound: bool) {
        if sound {
            let checked = self.scrub.packs.entry(pack).or_default();
            checked.data = now;
            if level == Level::Deep {
                checked.deep = now;
            }
        } else {
            self.scrub.packs.remove(&pack);
        }
        if self.saved.elapsed() >= INTERVAL {
            self.save();
        }
    }

    pub(crate) fn save(&mut self) {
        self.scrub.save(&self.repo);
        self.saved = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_round_trips_and_damage_makes_it_worth_nothing() {
        let checked = Checked { data: 9, deep: 4 };
        let scrub = Scrub {
            run: Some(Run {
                begun: 7,
                level: Level::Deep,
            }),
            packs: [(PackId::from_bytes([3; 16]), checked)].into(),
        };
        let text = scrub.encode();
        assert_eq!(Scrub::decode(&text), Some(scrub));
        for cut in 0..text.len() {
            assert_eq!(Scrub::decode(&text[..cut]), None, "{cut}");
            let mut flipped = text.clone().into_bytes();
            flipped[cut] ^= 1;
            let flipped = String::from_utf8(flipped).unwrap();
            assert_eq!(Scrub::decode(&flipped), None, "{cut}");
        }
    }
}
