//! Recipes: how a payload is made from other payloads. Layout: docs/format.md, "Recipes".

use super::{Key, le64, part_count};
use crate::id::PayloadId;

const CONCAT: u8 = 1;
const RECODE: u8 = 2;
const DECODE: u8 = 3;
/// Size of one row of a concatenation: payload name and where in the whole it ends.
const PIECE_SIZE: usize = 40;
/// No concatenation has more pieces: its recipe stays below 4 MiB.
pub(crate) const MAX_PIECES: usize = 100_000;

/// A payload of which another one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Piece {
    pub(crate) id: PayloadId,
    pub(crate) size: u64,
}

/// How a payload is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe<'a> {
    /// By putting others after one another.
    Concat(Concat<'a>),
    /// By compressing another one in the way that the bytes describe.
    Recode { plain: Piece, how: &'a [u8] },
    /// By decompressing another one.
    Decode { packed: Piece },
}

/// The rows of a concatenation, not empty, with ascending ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concat<'a>(&'a [[u8; PIECE_SIZE]]);

/// Encodes a concatenation.
pub(crate) fn encode_concat(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + pieces.len() * PIECE_SIZE);
    out.push(CONCAT);
    let mut end = 0u64;
    for piece in pieces {
        end += piece.size;
        out.extend_from_slice(piece.id.as_bytes());
        out.extend_from_slice(&end.to_le_bytes());
    }
    out
}

/// Encodes a recompression.
pub(crate) fn encode_recode(plain: Piece, how: &[u8]) -> Vec<u8> {
    let mut out = vec![RECODE];
    out.extend_from_slice(plain.id.as_bytes());
    out.extend_from_slice(&plain.size.to_le_bytes());
    out.extend_from_slice(how);
    out
}

/// Encodes a decompression.
pub(crate) fn encode_decode(packed: Piece) -> Vec<u8> {
    let mut out = vec![DECODE];
    out.extend_from_slice(packed.id.as_bytes());
    out.extend_from_slice(&packed.size.to_le_bytes());
    out
}

impl<'a> Recipe<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (method, rest) = bytes.split_first().ok_or("recipe is empty")?;
        match *method {
            CONCAT => {
                let (rows, left) = rest.as_chunks::<PIECE_SIZE>();
                let ascending = rows.is_sorted_by(|a, b| le64(a, 32) < le64(b, 32))
                    && rows.first().is_some_and(|row| le64(row, 32) > 0);
                let end = rows.last().map_or(0, |row| le64(row, 32));
                let fits = part_count(end) <= u64::from(Key::MAX_PART);
                if !left.is_empty() || !ascending || !fits || rows.len() > MAX_PIECES {
                    return Err("malformed concatenation");
                }
                Ok(Self::Concat(Concat(rows)))
            }
            RECODE => {
                let (plain, how) = take_piece(rest)?;
                Ok(Self::Recode { plain, how })
            }
            DECODE => match take_piece(rest)? {
                (packed, []) => Ok(Self::Decode { packed }),
                _ => Err("recipe is too long"),
            },
            _ => Err("unknown kind of recipe"),
        }
    }

    /// The payloads that it needs.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        match self {
            Self::Concat(concat) => (0..concat.0.len()).map(|n| concat.piece(n).1).collect(),
            Self::Recode { plain: piece, .. } | Self::Decode { packed: piece } => vec![*piece],
        }
    }
}

fn take_piece(bytes: &[u8]) -> Result<(Piece, &[u8]), &'static str> {
    let (row, rest) = bytes
        .split_first_chunk::<PIECE_SIZE>()
        .ok_or("recipe is too short")?;
    let id = PayloadId::from_slice(&row[..32]).ok_or("recipe is too short")?;
    let size = le64(row, 32);
    if part_count(size) > u64::from(Key::MAX_PART) {
        return Err("recipe names a size that no payload has");
    }
    Ok((Piece { id, size }, rest))
}

impl Concat<'_> {
    /// Size of the whole.
    pub(crate) fn size(&self) -> u64 {
        self.0.last().map_or(0, |row| le64(row, 32))
    }

    /// Where the piece at a position begins, and the piece.
    fn piece(&self, n: usize) -> (u64, Piece) {
        let start = match n.checked_sub(1) {
            Some(before) => le64(&self.0[before], 32),
            None => 0,
        };
        let id = PayloadId::from_slice(&self.0[n][..32]).expect("because rows hold a name");
        let size = le64(&self.0[n], 32) - start;
        (start, Piece { id, size })
    }

    /// The piece that holds an offset of the whole, and where it begins.
    pub(crate) fn piece_at(&self, offset: u64) -> Option<(u64, Piece)> {
        let n = self.0.partition_point(|row| le64(row, 32) <= offset);
        (n < self.0.len()).then(|| self.piece(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &[u8], size: u64) -> Piece {
        Piece {
            id: PayloadId::of(name),
            size,
        }
    }

    #[test]
    fn every_offset_leads_to_its_piece() {
        let pieces = [piece(b"a", 3), piece(b"b", 1), piece(b"c", 6)];
        let bytes = encode_concat(&pieces);
        let Ok(Recipe::Concat(concat)) = Recipe::decode(&bytes) else {
            panic!("not a concatenation")
        };
        assert_eq!(concat.size(), 10);
        let expected = [(0, 0), (2, 0), (3, 1), (4, 2), (9, 2)];
        for (offset, n) in expected {
            let (start, found) = concat.piece_at(offset).unwrap();
            assert_eq!(found, pieces[n]);
            assert!(start <= offset && offset < start + found.size);
        }
        assert_eq!(concat.piece_at(10), None);
        assert_eq!(Recipe::Concat(concat).pieces(), pieces);
    }

    #[test]
    fn recompression_names_its_plain_form() {
        let bytes = encode_recode(piece(b"x", 7), b"how");
        let expected = Recipe::Recode {
            plain: piece(b"x", 7),
            how: b"how",
        };
        assert_eq!(Recipe::decode(&bytes), Ok(expected));
        let bytes = encode_decode(piece(b"x", 7));
        let packed = piece(b"x", 7);
        assert_eq!(Recipe::decode(&bytes), Ok(Recipe::Decode { packed }));
        assert!(Recipe::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn malformed_recipes_are_refused() {
        let good = encode_concat(&[piece(b"a", 3), piece(b"b", 1)]);
        let endless = encode_concat(&[piece(b"a", u64::MAX)]);
        assert!(Recipe::decode(&endless).is_err());
        assert!(Recipe::decode(&encode_decode(piece(b"a", u64::MAX))).is_err());
        let empty_piece = encode_concat(&[piece(b"a", 3), piece(b"b", 0)]);
        for bad in [
            &good[..80],
            &good[..1],
            &[],
            &[9],
            &empty_piece,
            &[RECODE; 40],
        ] {
            assert!(Recipe::decode(bad).is_err(), "{bad:?}");
        }
    }
}
