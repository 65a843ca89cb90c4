//! Parity: a side file beside a pack, from which damage to the pack is mended without a second
//! copy. Layout: docs/format.md, "Parity".
//!
//! The pack is cut into shards of equal size; Reed-Solomon recovery shards are computed over them.
//! The side file has checksums of all shards, so damaged ones are known, and as many of them can
//! be mended as there are sound recovery shards. The file is disposable: it is made from the pack.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use xxhash_rust::xxh3::xxh3_64;

use super::{le32, le64};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::{Storage, replace_file};
use crate::id::PackId;

/// First bytes of a parity file.
pub(crate) const MAGIC: [u8; 8] = *b"GROVEPR1";
/// Last bytes of a parity file.
pub(crate) const END_MAGIC: [u8; 8] = *b"GROVEPE1";
/// Size of the fixed part of the head.
pub(crate) const HEADER_SIZE: usize = 48;
/// Size of what follows the second copy of the head.
pub(crate) const END_SIZE: usize = 16;
/// Shards are a multiple of this size: damage comes in pages and sectors.
pub(crate) const SHARD_UNIT: u64 = 4096;
/// A pack is cut into at most this many shards.
pub(crate) const MAX_SHARDS: u64 = 1024;
/// Recovery shards for [`MAX_SHARDS`]: a little less than 3 %.
pub(crate) const RECOVERY_SHARE: u64 = 30;
/// Small packs get this many recovery shards, so that 64 KiB of damage can be mended.
pub(crate) const MIN_RECOVERY: u64 = 17;

/// No parity file is larger than this; those of packs below 4 GiB are far smaller.
const MAX_FILE: u64 = 512 << 20;
/// Bytes of each shard that are worked on at once; the code works on 64 bytes at a time, so how
/// shards are sliced does not change the result.
const SLICE: usize = 4096;

/// Where the parity file of a pack lies.
pub(crate) fn path_of(pack: &Path) -> PathBuf {
    pack.with_extension("par")
}

/// How a pack is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    pack_size: u64,
    shard: usize,
    data: usize,
    recovery: usize,
}

impl Geometry {
    fn of(pack_size: u64) -> Self {
        let shard = pack_size.div_ceil(MAX_SHARDS).max(1);
        let shard = shard.next_multiple_of(SHARD_UNIT);
        let data = pack_size.div_ceil(shard).max(1);
        let least = MIN_RECOVERY.min(data);
        let recovery = (data * RECOVERY_SHARE / MAX_SHARDS).max(least);
        Self {
            pack_size,
            shard: shard as usize,
            data: data as usize,
            recovery: recovery as usize,
        }
    }

    /// Whether sizes read from a file can be worked with.
    fn is_sound(&self) -> bool {
        let (shard, data) = (self.shard as u64, self.data as u64);
        self.shard > 0
            && self.shard.is_multiple_of(64)
            && self.pack_size <= u64::from(u32::MAX)
            && shard.saturating_mul(self.recovery as u64) <= MAX_FILE
            && data == self.pack_size.div_ceil(shard).max(1)
            && ReedSolomonEncoder::supports(self.data, self.recovery)
    }

    fn head_len(&self) -> usize {
        HEADER_SIZE + 8 * (self.data + self.recovery) + 8
    }

    fn slices(&self) -> Vec<Range<usize>> {
        let starts = (0..self.shard).step_by(SLICE);
        starts.map(|at| at..(at + SLICE).min(self.shard)).collect()
    }
}

/// A parity file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parity {
    id: PackId,
    geometry: Geometry,
    /// xxh3 of each shard, those of the pack first.
    sums: Vec<u64>,
    /// All recovery shards after one another.
    recovery: Vec<u8>,
}

impl Parity {
    /// Computes the parity of a pack's bytes.
    pub(crate) fn of(id: PackId, mut pack: Vec<u8>) -> Self {
        let geometry = Geometry::of(pack.len() as u64);
        pack.resize(geometry.data * geometry.shard, 0);
        let recovery = encode(&geometry, &pack);
        let shards = pack.par_chunks(geometry.shard);
        let sums = shards.chain(recovery.par_chunks(geometry.shard));
        let sums = sums.map(xxh3_64).collect();
        Self {
            id,
            geometry,
            sums,
            recovery,
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.geometry.head_len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.geometry.pack_size.to_le_bytes());
        for field in [
            self.geometry.shard,
            self.geometry.data,
            self.geometry.recovery,
            0,
        ] {
            let field = u32::try_from(field).expect("because packs are below 4 GiB");
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend(self.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        let sum = xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The bytes of the file: head, recovery shards, the head again, the end.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = self.head();
        let end = [(head.len() as u64).to_le_bytes(), END_MAGIC].concat();
        [head.as_slice(), &self.recovery, &head, &end].concat()
    }

    /// Reads a file as far as its head can be read; damaged shards are found by their checksums.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, geometry, sums) = decode_head(bytes).or_else(|| {
            let body = bytes.len().checked_sub(END_SIZE)?;
            let head_len = usize::try_from(le64(&bytes[body..], 0)).ok()?;
            decode_head(&bytes[body.checked_sub(head_len)?..body])
        })?;
        let len = geometry.recovery * geometry.shard;
        let recovery = bytes.get(geometry.head_len()..).unwrap_or_default();
        let mut recovery = recovery.get(..len).unwrap_or(recovery).to_vec();
        recovery.resize(len, 0);
        Some(Self {
            id,
            geometry,
            sums,
            recovery,
        })
    }

    /// Numbers of damaged shards: those of the pack, then the recovery shards.
    fn damaged(&self, pack: &[u8]) -> (Vec<usize>, Vec<usize>) {
        let wrong = |bytes: &[u8], sums: &[u64]| -> Vec<usize> {
            let shards = bytes.par_chunks(self.geometry.shard).zip(sums);
            let bad = shards.map(|(shard, sum)| xxh3_64(shard) != *sum);
            let bad: Vec<bool> = bad.collect();
            (0..bad.len()).filter(|n| bad[*n]).collect()
        };
        let (data, recovery) = self.sums.split_at(self.geometry.data);
        (wrong(pack, data), wrong(&self.recovery, recovery))
    }

    /// The pack as it was when the parity was made, if there is enough left of both.
    pub(crate) fn mend(&self, mut pack: Vec<u8>) -> Option<Vec<u8>> {
        pack.truncate(self.geometry.pack_size as usize);
        pack.resize(self.geometry.data * self.geometry.shard, 0);
        let (bad, bad_recovery) = self.damaged(&pack);
        if bad.len() + bad_recovery.len() > self.geometry.recovery {
            return None;
        }
        if !bad.is_empty() {
            self.restore(&mut pack, &bad, &bad_recovery)?;
        }
        let (still, _) = self.damaged(&pack);
        pack.truncate(self.geometry.pack_size as usize);
        still.is_empty().then_some(pack)
    }

    fn restore(&self, pack: &mut [u8], bad: &[usize], bad_recovery: &[usize]) -> Option<()> {
        let shard = self.geometry.shard;
        let slices = self.geometry.slices();
        let source = &*pack;
        let decode = |range: &Range<usize>| -> Option<Vec<Vec<u8>>> {
            let (data, recovery) = (self.geometry.data, self.geometry.recovery);
            let mut decoder = ReedSolomonDecoder::new(data, recovery, range.len()).ok()?;
            for n in (0..data).filter(|n| bad.binary_search(n).is_err()) {
                let slice = &source[n * shard + range.start..n * shard + range.end];
                decoder.add_original_shard(n, slice).ok()?;
            }
            for n in (0..recovery).filter(|n| bad_recovery.binary_search(n).is_err()) {
                let slice = &self.recovery[n * shard + range.start..n * shard + range.end];
                decoder.add_recovery_shard(n, slice).ok()?;
            }
            let decoded = decoder.decode().ok()?;
            bad.iter()
                .map(|n| decoded.restored_original(*n).map(<[u8]>::to_vec))
                .collect()
        };
        let mended: Option<Vec<_>> = slices.par_iter().map(decode).collect();
        for (range, parts) in slices.iter().zip(mended?) {
            for (n, bytes) in bad.iter().zip(parts) {
                pack[n * shard + range.start..n * shard + range.end].copy_from_slice(&bytes);
            }
        }
        Some(())
    }

    /// Whether all recovery shards are as they were written.
    pub(crate) fn is_whole(&self) -> bool {
        let (_, sums) = self.sums.split_at(self.geometry.data);
        let shards = self.recovery.par_chunks(self.geometry.shard).zip(sums);
        shards.all(|(shard, sum)| xxh3_64(shard) == *sum)
    }
}

/// All recovery shards of a padded pack.
fn encode(geometry: &Geometry, pack: &[u8]) -> Vec<u8> {
    let shard = geometry.shard;
    let slices = geometry.slices();
    let encode = |range: &Range<usize>| -> Vec<Vec<u8>> {
        let fits = "because the geometry is supported";
        let (data, recovery) = (geometry.data, geometry.recovery);
        let mut encoder = ReedSolomonEncoder::new(data, recovery, range.len()).expect(fits);
        for shard in pack.chunks(shard) {
            encoder
                .add_original_shard(&shard[range.clone()])
                .expect(fits);
        }
        let encoded = encoder.encode().expect(fits);
        encoded.recovery_iter().map(<[u8]>::to_vec).collect()
    };
    let encoded: Vec<_> = slices.par_iter().map(encode).collect();
    let mut out = vec![0; geometry.recovery * shard];
    for (range, parts) in slices.iter().zip(encoded) {
        for (shard, bytes) in out.chunks_mut(shard).zip(parts) {
            shard[range.clone()].copy_from_slice(&bytes);
        }
    }
    out
}

fn decode_head(bytes: &[u8]) -> Option<(PackId, Geometry, Vec<u64>)> {
    let header = bytes.get(..HEADER_SIZE)?;
    if header[..8] != MAGIC {
        return None;
    }
    let geometry = Geometry {
        pack_size: le64(header, 24),
        shard: le32(header, 32) as usize,
        data: le32(header, 36) as usize,
        recovery: le32(header, 40) as usize,
    };
    if !geometry.is_sound() {
        return None;
    }
    let head = bytes.get(..geometry.head_len())?;
    let (body, sum) = head.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let sums = body[HEADER_SIZE..].as_chunks::<8>().0.iter();
    Some((
        PackId::from_slice(&header[8..24])?,
        geometry,
        sums.map(|sum| u64::from_le_bytes(*sum)).collect(),
    ))
}

/// Makes the parity file of a pack, replacing one that is there. Gives its size in bytes.
pub(crate) fn make(storage: &dyn Storage, pack: &Path, id: PackId) -> Result<u64> {
    let bytes = std::fs::read(pack).at(pack)?;
    let file = Parity::of(id, bytes).encode();
    replace_file(storage, &path_of(pack), &file)?;
    Ok(file.len() as u64)
}

/// Reads the parity file of a pack; `None` when there is none.
///
/// # Errors
/// [`Error::Corrupt`] when nothing can be made of it.
pub(crate) fn load(pack: &Path, id: PackId) -> Result<Option<Parity>> {
    let path = path_of(pack);
    let corrupt = |detail: &str| Error::Corrupt {
        path: path.clone(),
        detail: detail.to_owned(),
    };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > MAX_FILE => return Err(corrupt("too large for a parity file")),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at(&path),
    }
    let bytes = std::fs::read(&path).at(&path)?;
    match Parity::decode(&bytes) {
        None => Err(corrupt("both heads are damaged")),
        Some(parity) if parity.id != id => Err(corrupt("it belongs to another pack")),
        Some(parity) => Ok(Some(parity)),
    }
}

/// Checks a parity file byte for byte; says whether there is one.
pub(crate) fn check(pack: &Path, id: PackId) -> Result<bool> {
    let Some(parity) = load(pack, id)? else {
        return Ok(false);
    };
    let path = path_of(pack);
    let sound = parity.is_whole() && parity.encode() == std::fs::read(&path).at(&path)?;
    let detail = "damaged, though still of some use".to_owned();
    sound.then_some(true).ok_or(Error::Corrupt { path, detail })
}

/// Packs that are gone while their parity file is there.
pub(crate) fn orphans(packs: &Path) -> Result<Vec<PackId>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(packs).at(packs)? {
        let path = entry.at(packs)?.path();
        let is_parity = path.extension().is_some_and(|extension| extension == "par");
        if is_parity && !path.with_extension("pack").exists() {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            found.extend(stem.and_then(|stem| stem.parse::<PackId>().ok()));
        }
    }
    Ok(found)
}

/// Deletes parity files whose pack is gone. The caller keeps others from publishing packs.
pub(crate) fn remove_orphans(storage: &dyn Storage, packs: &Path) -> Result<u64> {
    let orphans = orphans(packs)?;
    for id in &orphans {
        let path = packs.join(format!("{id}.par"));
        storage.remove_file(&path).at(&path)?;
    }
    Ok(orphans.len() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: PackId = PackId::from_bytes([7; 16]);

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn any_mebibyte_of_a_full_pack_can_be_mended_for_less_than_3_percent() {
        let pack = noise(1, (64 << 20) + 123_457);
        let parity = Parity::of(ID, pack.clone());
        let size = parity.encode().len();
        assert!(size * 100 < pack.len() * 3, "{size} bytes");
        for at in [0, 1, 31_415_926, 40_000_001, pack.len() - (1 << 20)] {
            let mut bad = pack.clone();
            bad[at..at + (1 << 20)].copy_from_slice(&noise(at as u64 + 3, 1 << 20));
            assert!(parity.mend(bad) == Some(pack.clone()), "at {at}");
        }
        let mut worse = pack.clone();
        worse[1 << 20..4 << 20].fill(0);
        assert_eq!(parity.mend(worse), None, "too much is told, not guessed");
    }

    #[test]
    fn a_pack_that_was_cut_or_grew_gets_its_size_back() {
        let pack = noise(2, 300_000);
        let parity = Parity::of(ID, pack.clone());
        let longer = [pack.as_slice(), b"more"].concat();
        for bad in [pack[..250_000].to_vec(), longer] {
            assert!(parity.mend(bad) == Some(pack.clone()));
        }
        assert_eq!(parity.mend(pack[..200_000].to_vec()), None);
    }

    #[test]
    fn either_head_is_enough_and_damaged_recovery_shards_are_left_out() {
        let pack = noise(3, 1 << 20);
        let parity = Parity::of(ID, pack.clone());
        let good = parity.encode();
        let head = parity.head().len();
        let mut bad_pack = pack.clone();
        bad_pack[500_000..520_000].fill(9);
        for at in [0, 30, head - 1, head, good.len() / 2, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let read = Parity::decode(&bytes).unwrap();
            assert!(read.mend(bad_pack.clone()) == Some(pack.clone()), "{at}");
        }
        let mut none = good;
        none[0] ^= 1;
        none.pop();
        assert_eq!(Parity::decode(&none), None);
    }

    proptest! {
        #[test]
        fn files_round_trip_and_mend(len in 0usize..200_000, at in any::<usize>(), flip in 1u8..) {
            let pack = noise(4, len);
            let parity = Parity::of(ID, pack.clone());
            prop_assert_eq!(Parity::decode(&parity.encode()), Some(parity.clone()));
            let mut bad = pack.clone();
            if len > 0 {
                bad[at % len] ^= flip;
            }
            prop_assert_eq!(parity.mend(bad), Some(pack));
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Parity::decode(&bytes), None);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(bytes);
            prop_assert_eq!(Parity::decode(&with_magic), None);
        }
    }
}
