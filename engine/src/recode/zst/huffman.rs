//! Huffman codes of literals (RFC 8878, section 4.2): read from their description, and written.

use super::bits::{Backward, Writer};
use super::fse::Table;

/// Longest code.
const MAX_BITS: u32 = 11;

/// Code and its length for each symbol; length 0 is "does not occur".
#[derive(Debug, Clone)]
pub(super) struct Codes(Vec<(u16, u8)>);

/// The weights, but for the last one, and the length of the description.
fn weights(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let head = usize::from(*bytes.first()?);
    if head >= 128 {
        let count = head - 127;
        let len = 1 + count.div_ceil(2);
        let packed = bytes.get(1..len)?;
        let weights = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        return Some((weights.take(count).collect(), len));
    }
    let coded = bytes.get(1..1 + head)?;
    let (table, len) = Table::read(coded, 6, 12)?;
    let mut bits = Backward::new(&coded[len..])?;
    let mut weights = Vec::new();
    let (mut state, mut other) = (table.start(&mut bits), table.start(&mut bits));
    while bits.left() >= 0 && weights.len() < 255 {
        weights.push(table.symbol(state));
        state = table.advance(state, &mut bits);
        (state, other) = (other, state);
    }
    weights.push(table.symbol(state));
    (weights.len() <= 255).then_some((weights, 1 + head))
}

impl Codes {
    /// The codes of a description, and its length.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut weights, len) = weights(bytes)?;
        if weights.iter().any(|weight| u32::from(*weight) > MAX_BITS) {
            return None;
        }
        let slots = |weight: u8| (1u32 << weight) >> 1;
        let sum: u32 = weights.iter().map(|weight| slots(*weight)).sum();
        let bits = sum.checked_ilog2()? + 1;
        let left = (1u32 << bits) - sum;
        if bits > MAX_BITS || !left.is_power_of_two() {
            return None;
        }
        weights.push(left.ilog2() as u8 + 1);
        let mut codes = vec![(0, 0); weights.len()];
        let mut slot = 0;
        for weight in 1..=bits as u8 {
            for (symbol, _) in weights.iter().enumerate().filter(|(_, w)| **w == weight) {
                codes[symbol] = ((slot >> (weight - 1)) as u16, bits as u8 + 1 - weight);
                slot += slots(weight);
            }
        }
        Some((Self(codes), len))
    }

    /// Writes one stream; `None` if a symbol has no code.
    fn put_stream(&self, literals: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut bits = Writer::new(out);
        for literal in literals.iter().rev() {
            let (code, len) = *self.0.get(usize::from(*literal))?;
            if len == 0 {
                return None;
            }
            bits.put(u32::from(code), u32::from(len));
        }
        bits.finish();
        Some(())
    }

    /// Writes literals in one stream, or in four with their lengths in front.
    pub(super) fn put(&self, literals: &[u8], four: bool, out: &mut Vec<u8>) -> Option<()> {
        if !four {
            return self.put_stream(literals, out);
        }
        let lengths = out.len();
        out.extend_from_slice(&[0; 6]);
        let quarter = literals.len().div_ceil(4);
        let mut rest = literals;
        for stream in 0..4 {
            let (head, after) = match stream {
                3 => (rest, &[][..]),
                _ => rest.split_at_checked(quarter)?,
            };
            rest = after;
            let start = out.len();
            self.put_stream(head, out)?;
            if stream < 3 {
                let len = u16::try_from(out.len() - start).ok()?;
                out[lengths + 2 * stream..][..2].copy_from_slice(&len.to_le_bytes());
            }
        }
        Some(())
    }
}
