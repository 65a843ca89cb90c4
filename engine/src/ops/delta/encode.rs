//! How a new content gets into a delta: as it is, from stretches of its sources, or as a frame with
//! its sources in front.
//!
//! What is smallest wins. Streams of many contents are compressed together, so that what one takes
//! is estimated; a frame takes what it takes.

use std::io;

use super::base::{Base, Source};
use super::content::{self, Group};
use crate::bsdiff::Aligner;
use crate::compress::{Codec, compress, compress_far, compress_with_prefix};
use crate::error::{IoResultExt, Result};
use crate::ops::changes::share_features;

/// Level of the compression that sizes are estimated with.
const LEVEL: i32 = 9;
/// Level of the compression that says whether a frame is worth trying.
const QUICK: i32 = 3;
/// Dense contents above this size are only compared if they share features.
const SKETCHED_MIN: usize = 64 << 10;
/// Smaller contents are not compressed by themselves: with others they take less.
const FRAME_MIN: usize = 64 << 10;
/// Patches that are this much smaller than what they make are not compared with anything.
const SURE: usize = 16;
/// What the head of a frame takes, about.
const HEAD_COST: usize = 8;

/// Encodes contents; one for each thread.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    base: &'a Base<'a>,
    level: i32,
    aligner: Aligner,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(base: &'a Base<'a>, level: i32) -> Self {
        Self {
            base,
            level,
            aligner: Aligner::default(),
        }
    }

    /// Encodes a content.
    pub(super) fn encode(&mut self, bytes: &[u8], sources: &[Source]) -> Result<Group> {
        if sources.is_empty() {
            return Ok(content::whole(bytes));
        }
        let (base, delta) = (self.base, self.base.delta());
        let old = base.read_sources(sources).map_err(|f| base.fault(f))?;
        let dense = || is_dense(bytes).at(delta);
        if bytes.len() > SKETCHED_MIN && dense()? && !share_features(bytes, &old) {
            return Ok(content::whole(bytes));
        }
        let stretches = self.aligner.align(&old, bytes);
        let patch = content::patch(sources, &old, bytes, &stretches);
        let cost = estimate(&patch).at(delta)?;
        if cost * SURE < bytes.len() {
            return Ok(patch);
        }
        let whole = content::whole(bytes);
        let whole_cost = estimate(&whole).at(delta)?;
        let (best, cost) = match whole_cost <= cost {
            true => (whole, whole_cost),
            false => (patch, cost),
        };
        Ok(self.frame(bytes, sources, &old, cost)?.unwrap_or(best))
    }

    /// The content as a frame, if that takes less than `cost`.
    fn frame(
        &self,
        bytes: &[u8],
        sources: &[Source],
        old: &[u8],
        cost: usize,
    ) -> Result<Option<Group>> {
        if bytes.len() < FRAME_MIN {
            return Ok(None);
        }
        let delta = self.base.delta();
        let quick = compress_with_prefix(bytes, old, QUICK).at(delta)?.len();
        // High levels save about a fifth.
        if quick / 4 * 3 >= cost {
            return Ok(None);
        }
        let frame = compress_far(bytes, old, self.level).at(delta)?;
        let pays = frame.len() + HEAD_COST < cost;
        Ok(pays.then(|| content::frame(bytes.len() as u64, sources, &frame)))
    }
}

/// What streams take, about, when they are compressed along with others.
pub(super) fn estimate(group: &Group) -> io::Result<usize> {
    let mut cost = 0;
    for stream in group.0.iter().filter(|stream| !stream.is_empty()) {
        cost += compress(stream, LEVEL)?.1.len();
    }
    // The level of the delta is higher, and neighbours help.
    Ok(cost - cost / 16)
}

/// Whether compression gains nothing.
fn is_dense(bytes: &[u8]) -> io::Result<bool> {
    let (codec, _) = compress(bytes, 1)?;
    Ok(codec == Codec::Raw)
}
