//! How one new file gets into a delta: whole, as a patch of an old one, or spliced from old ones.
//!
//! What is smallest wins, going by the size that a fast compression gives; a splice that is about
//! as small as a patch is taken, as it costs clients neither memory nor time.

use super::sources::NewFile;
use crate::bsdiff::{self, Aligner, Stretch};
use crate::compress::{Codec, compress};
use crate::error::{IoResultExt, Result};
use crate::id::ObjectId;
use crate::pack::recipe::Piece;
use crate::repo::Repository;
use crate::sketch::Sketch;

/// Level of the compression that sizes are estimated with.
const LEVEL: i32 = 1;
/// Files and sources together are not compared beyond this size.
const MAX_ALIGNED: u64 = 512 << 20;
/// Bytes that agree in a row and are worth an operation.
const MIN_RUN: usize = 32;
/// What the operations that lead to a run and back take when they are compressed.
const RUN_COST: usize = 8;
/// Dense files above this size are only compared if they share features.
const SKETCHED_MIN: usize = 64 << 10;

/// A run of a spliced file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Run {
    /// The next bytes of its own.
    Fresh { len: u64 },
    /// Bytes of one of its sources.
    Copy {
        source: usize,
        offset: u64,
        len: u64,
    },
}

/// What goes into a delta for a file.
#[derive(Debug)]
pub(in crate::ops) enum Encoded {
    /// Its bytes.
    Whole {
        bytes: Vec<u8>,
        /// Whether compression gains nothing.
        dense: bool,
    },
    /// A patch of a source.
    Patch { source: ObjectId, stream: Vec<u8> },
    /// Runs of sources and of its own.
    Splice {
        sources: Vec<ObjectId>,
        runs: Vec<Run>,
        fresh: Vec<u8>,
    },
}

impl Encoded {
    /// Bytes that it takes before compression.
    pub(in crate::ops) fn len(&self) -> usize {
        match self {
            Self::Whole { bytes, .. } => bytes.len(),
            Self::Patch { stream, .. } => stream.len() + ObjectId::LEN,
            Self::Splice { sources, fresh, .. } => fresh.len() + sources.len() * ObjectId::LEN,
        }
    }
}

/// Encodes files; one for each thread.
#[derive(Debug)]
pub(in crate::ops) struct Encoder<'r> {
    repo: &'r Repository,
    /// Larger files are not patched.
    max_patch: u64,
    aligner: Aligner,
}

impl<'r> Encoder<'r> {
    pub(in crate::ops) fn new(repo: &'r Repository, max_patch: u64) -> Self {
        Self {
            repo,
            max_patch,
            aligner: Aligner::default(),
        }
    }

    pub(in crate::ops) fn encode(&mut self, new: &NewFile) -> Result<Encoded> {
        let Some(payload) = new.file.payload else {
            return Ok(Encoded::Whole {
                bytes: Vec::new(),
                dense: false,
            });
        };
        if let [same] = &*new.sources
            && same.payload.id == payload
        {
            let runs = vec![Run::Copy {
                source: 0,
                offset: 0,
                len: new.file.size,
            }];
            return Ok(Encoded::Splice {
                sources: vec![same.id],
                runs,
                fresh: Vec::new(),
            });
        }
        let bytes = self.read(&Piece {
            id: payload,
            size: new.file.size,
        })?;
        let sizes = new.sources.iter().map(|source| source.payload.size);
        if new.sources.is_empty() || sizes.sum::<u64>() + new.file.size > MAX_ALIGNED {
            let dense = self.plain_cost(&bytes)?.1;
            return Ok(Encoded::Whole { bytes, dense });
        }
        let mut old = Vec::new();
        let mut ends = Vec::new();
        for source in &new.sources {
            old.extend(self.read(&source.payload)?);
            ends.push(old.len());
        }
        self.compare(new, bytes, &old, &ends)
    }

    fn compare(
        &mut self,
        new: &NewFile,
        bytes: Vec<u8>,
        old: &[u8],
        ends: &[usize],
    ) -> Result<Encoded> {
        let mut plain = None;
        if bytes.len() > SKETCHED_MIN {
            // A file that is compressed inside has little in common even with its last version.
            let cost = self.plain_cost(&bytes)?;
            if cost.1 && !share_features(&bytes, old) {
                return Ok(Encoded::Whole { bytes, dense: true });
            }
            plain = Some(cost);
        }
        let stretches = self.aligner.align(old, &bytes);
        let (runs, fresh) = splice(old, &bytes, &stretches, ends);
        let spliced = self.cost(&fresh)? + runs.len() * RUN_COST;
        let patchable = ends.len() == 1 && (bytes.len().max(old.len()) as u64) <= self.max_patch;
        let stream = match patchable && !fresh.is_empty() {
            true => Some(bsdiff::encode(old, &bytes, &stretches)),
            false => None,
        };
        let patched = match &stream {
            Some(stream) => self.cost(stream)?,
            None => usize::MAX,
        };
        let best = spliced.min(patched).saturating_add(ObjectId::LEN);
        // Hardly anything compresses to a twentieth by itself.
        if best > bytes.len() / 20 {
            let (cost, dense) = match plain {
                Some(known) => known,
                None => self.plain_cost(&bytes)?,
            };
            if cost <= best {
                return Ok(Encoded::Whole { bytes, dense });
            }
        }
        Ok(match stream {
            Some(stream) if patched + patched / 20 < spliced => Encoded::Patch {
                source: new.sources[0].id,
                stream,
            },
            _ => Encoded::Splice {
                sources: new.sources.iter().map(|s| s.id).collect(),
                runs,
                fresh,
            },
        })
    }

    fn read(&self, payload: &Piece) -> Result<Vec<u8>> {
        let mut bytes = vec![0; payload.size as usize];
        let mut at = 0;
        while at < bytes.len() {
            let store = self.repo.store();
            let read = store.read_grouped(*payload, at as u64, &mut bytes[at..])?;
            match read.len {
                0 => break,
                n => at += n,
            }
        }
        Ok(bytes)
    }

    fn cost(&self, bytes: &[u8]) -> Result<usize> {
        self.plain_cost(bytes).map(|(cost, _)| cost)
    }

    /// Compressed size, and whether compression gains nothing.
    fn plain_cost(&self, bytes: &[u8]) -> Result<(usize, bool)> {
        let (codec, stored) = compress(bytes, LEVEL).at(self.repo.path())?;
        Ok((stored.len(), codec == Codec::Raw && !bytes.is_empty()))
    }
}

/// Whether contents have anything in common, as far as a glance tells.
pub(in crate::ops) fn share_features(a: &[u8], b: &[u8]) -> bool {
    let (Some(a), Some(b)) = (Sketch::of(a), Sketch::of(b)) else {
        return true;
    };
    a.features()
        .iter()
        .any(|feature| b.features().contains(feature))
}

/// The runs of a file that agree exactly with old ones, and the bytes between them.
fn splice(old: &[u8], new: &[u8], stretches: &[Stretch], ends: &[usize]) -> (Vec<Run>, Vec<u8>) {
    let mut splice = Splice {
        ends,
        runs: Vec::new(),
        fresh: Vec::new(),
    };
    let mut at = 0;
    for stretch in stretches {
        let (resembling, rest) = new[at..].split_at(stretch.alike);
        let source = &old[stretch.from..stretch.from + stretch.alike];
        let mut done = 0;
        let agree = |n: usize| resembling[n] == source[n];
        while done < stretch.alike {
            let run = (done..stretch.alike).take_while(|n| agree(*n)).count();
            if run >= MIN_RUN {
                splice.copy(stretch.from + done, run);
                done += run;
            } else {
                let len = (run + 1).min(stretch.alike - done);
                splice.fresh(&resembling[done..done + len]);
                done += len;
            }
        }
        splice.fresh(&rest[..stretch.fresh]);
        at += stretch.alike + stretch.fresh;
    }
    (splice.runs, splice.fresh)
}

struct Splice<'a> {
    /// Where each source ends in the old bytes.
    ends: &'a [usize],
    runs: Vec<Run>,
    fresh: Vec<u8>,
}

impl Splice<'_> {
    fn fresh(&mut self, bytes: &[u8]) {
        self.fresh.extend_from_slice(bytes);
        match self.runs.last_mut() {
            Some(Run::Fresh { len }) => *len += bytes.len() as u64,
            _ if bytes.is_empty() => {}
            _ => self.runs.push(Run::Fresh {
                len: bytes.len() as u64,
            }),
        }
    }

    /// A run may lead from the end of one source into the next.
    fn copy(&mut self, mut from: usize, mut len: usize) {
        while len > 0 {
            let source = self.ends.partition_point(|end| *end <= from);
            let start = if source == 0 {
                0
            } else {
                self.ends[source - 1]
            };
            let here = len.min(self.ends[source] - from);
            self.runs.push(Run::Copy {
                source,
                offset: (from - start) as u64,
                len: here as u64,
            });
            from += here;
            len -= here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splices_lead_into_the_right_source() {
        let old: Vec<u8> = (0..=255).cycle().take(200).chain([9; 100]).collect();
        let new = [&old[150..280], b"fresh", &old[..100]].concat();
        let stretches = [
            Stretch {
                from: 150,
                alike: 130,
                fresh: 5,
            },
            Stretch {
                from: 0,
                alike: 100,
                fresh: 0,
            },
        ];
        let (runs, fresh) = splice(&old, &new, &stretches, &[200, 300]);
        assert_eq!(fresh, b"fresh");
        let copy = |source, offset, len| Run::Copy {
            source,
            offset,
            len,
        };
        assert_eq!(
            runs,
            [
                copy(0, 150, 50),
                copy(1, 0, 80),
                Run::Fresh { len: 5 },
                copy(0, 0, 100)
            ]
        );
    }
}
