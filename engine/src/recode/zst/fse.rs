//! Finite state entropy coding (RFC 8878, section 4.1), both ways.

use super::bits::{Backward, Forward, Writer};

/// A table made from one description.
#[derive(Debug, Clone)]
pub(super) struct Table {
    log: u32,
    /// For each state: its symbol, the bits to read, and what to add to them.
    decode: Vec<(u8, u8, u16)>,
    /// For each symbol the number that makes the bits to write, and the one that leads into
    /// `states`; no bits can be made for a symbol that does not occur.
    encode: Vec<Option<(i32, i32)>>,
    states: Vec<u16>,
}

/// Reads a description: how often each symbol occurs. Also says how long it is.
fn frequencies(bytes: &[u8], max_log: u32, symbols: usize) -> Option<(u32, Vec<i16>, usize)> {
    let mut bits = Forward::new(bytes);
    let log = bits.take(4) + 5;
    if log > max_log {
        return None;
    }
    let mut left = 1i32 << log;
    let mut found = Vec::new();
    while left > 0 {
        let count = (left + 1).ilog2() + 1;
        let mut value = bits.take(count) as i32;
        let low = (1 << (count - 1)) - 1;
        let threshold = (1 << count) - 1 - (left + 1);
        if value & low < threshold {
            bits.rewind();
            value &= low;
        } else if value > low {
            value -= threshold;
        }
        let frequency = value - 1;
        left -= frequency.abs();
        found.push(frequency as i16);
        if frequency == 0 {
            loop {
                let zeroes = bits.take(2);
                found.extend(std::iter::repeat_n(0, zeroes as usize));
                if zeroes < 3 || found.len() > symbols {
                    break;
                }
            }
        }
        if found.len() > symbols {
            return None;
        }
    }
    let len = bits.bytes_taken()?;
    (left == 0).then_some((log, found, len))
}

impl Table {
    /// The table of a description, and its length.
    pub(super) fn read(bytes: &[u8], max_log: u32, symbols: usize) -> Option<(Self, usize)> {
        let (log, frequencies, len) = frequencies(bytes, max_log, symbols)?;
        Some((Self::new(log, &frequencies), len))
    }

    /// The table of one symbol, which takes no bits.
    pub(super) fn single(symbol: u8) -> Self {
        let mut encode = vec![None; usize::from(symbol)];
        encode.push(Some((0, 0)));
        Self {
            log: 0,
            decode: vec![(symbol, 0, 0)],
            encode,
            states: vec![0],
        }
    }

    /// The table of these frequencies, which add up to `1 << log`; -1 is "less than one".
    pub(super) fn new(log: u32, frequencies: &[i16]) -> Self {
        let size = 1usize << log;
        let symbols = spread(size, frequencies);
        let mut next: Vec<u32> = frequencies
            .iter()
            .map(|f| u32::from(f.unsigned_abs()))
            .collect();
        let state = |symbol: u8| {
            let value = &mut next[usize::from(symbol)];
            let bits = log - value.ilog2();
            let base = (*value << bits) - size as u32;
            *value += 1;
            (symbol, bits as u8, base as u16)
        };
        let decode = symbols.iter().copied().map(state).collect();
        let (mut encode, mut starts, mut total) = (Vec::new(), Vec::new(), 0i32);
        for frequency in frequencies {
            let count = i32::from(frequency.abs());
            starts.push(total as usize);
            encode.push(match count {
                0 => None,
                1 => Some((((log as i32) << 16) - (1 << log), total - 1)),
                _ => {
                    let bits = log as i32 - (count - 1).ilog2() as i32;
                    Some(((bits << 16) - (count << bits), total - count))
                }
            });
            total += count;
        }
        let mut states = vec![0; size];
        for (state, symbol) in symbols.iter().enumerate() {
            let place = &mut starts[usize::from(*symbol)];
            states[*place] = (size + state) as u16;
            *place += 1;
        }
        Self {
            log,
            decode,
            encode,
            states,
        }
    }

    /// The first state of a stream.
    pub(super) fn start(&self, bits: &mut Backward<'_>) -> u16 {
        bits.take(self.log) as u16
    }

    /// The symbol of a state.
    pub(super) fn symbol(&self, state: u16) -> u8 {
        self.decode[usize::from(state)].0
    }

    /// The state after this one.
    pub(super) fn advance(&self, state: u16, bits: &mut Backward<'_>) -> u16 {
        let (_, count, base) = self.decode[usize::from(state)];
        base + bits.take(u32::from(count)) as u16
    }

    /// The state to begin writing with, which is that of the last symbol.
    pub(super) fn last(&self, symbol: u8) -> Option<u16> {
        let (bits, state) = self.encode.get(usize::from(symbol)).copied().flatten()?;
        let count = (bits + (1 << 15)) >> 16;
        let value = (count << 16) - bits;
        self.state((value >> count) + state)
    }

    /// Writes the bits that lead to `state`, and gives the state before it.
    pub(super) fn put(&self, symbol: u8, state: u16, bits: &mut Writer<'_>) -> Option<u16> {
        let (delta, place) = self.encode.get(usize::from(symbol)).copied().flatten()?;
        let count = (i32::from(state) + delta) >> 16;
        bits.put(u32::from(state), count as u32);
        self.state((i32::from(state) >> count) + place)
    }

    /// Writes the first state of a stream.
    pub(super) fn finish(&self, state: u16, bits: &mut Writer<'_>) {
        bits.put(u32::from(state), self.log);
    }

    fn state(&self, at: i32) -> Option<u16> {
        self.states.get(usize::try_from(at).ok()?).copied()
    }
}

/// Which symbol each state has.
fn spread(size: usize, frequencies: &[i16]) -> Vec<u8> {
    let mut symbols = vec![0u8; size];
    let mut high = size;
    for (symbol, _) in frequencies.iter().enumerate().filter(|(_, f)| **f == -1) {
        high -= 1;
        symbols[high] = symbol as u8;
    }
    let (step, mask) = ((size >> 1) + (size >> 3) + 3, size - 1);
    let mut at = 0;
    for (symbol, frequency) in frequencies.iter().enumerate() {
        for _ in 0..(*frequency).max(0) {
            symbols[at] = symbol as u8;
            at = (at + step) & mask;
            while at >= high {
                at = (at + step) & mask;
            }
        }
    }
    symbols
}
