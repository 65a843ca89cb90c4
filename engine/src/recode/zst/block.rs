//! Blocks of a frame (RFC 8878, section 3.1.1.2): which matches the encoder chose, and the block
//! again from them.

use super::bits::{Backward, Writer};
use super::fse::Table;
use super::huffman::Codes;

/// Largest block.
pub(super) const MAX_BLOCK: usize = 128 << 10;

/// Lowest value and extra bits of the codes of literal lengths above 15.
const LITERAL_CODES: [(u32, u8); 20] = [
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];

/// The same of match lengths, less three, above 31.
const MATCH_CODES: [(u32, u8); 21] = [
    (32, 1),
    (34, 1),
    (36, 1),
    (38, 1),
    (40, 2),
    (44, 2),
    (48, 3),
    (56, 3),
    (64, 4),
    (80, 4),
    (96, 5),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];

const LITERAL_FREQUENCIES: [i16; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const OFFSET_FREQUENCIES: [i16; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];
const MATCH_FREQUENCIES: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];

/// Largest log, number of symbols and default frequencies of literal lengths, offsets and match
/// lengths, in the order of their tables in a block.
const KINDS: [(u32, usize, u32, &[i16]); 3] = [
    (9, 36, 6, &LITERAL_FREQUENCIES),
    (8, 32, 5, &OFFSET_FREQUENCIES),
    (9, 53, 6, &MATCH_FREQUENCIES),
];

/// Bytes as they are, then a copy of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sequence {
    /// Bytes before the copy.
    pub(super) literals: u32,
    /// Length of the copy.
    pub(super) len: u32,
    /// Where from, as the format has it: 1 to 3 are the last offsets, others are 3 more.
    pub(super) offset: u32,
}

/// A block of a frame as it lies there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// Header and content.
    pub(super) bytes: &'a [u8],
    /// Is it the last one of its frame?
    pub(super) last: bool,
    /// 0 is bytes as they are, 1 a byte repeated, 2 compressed.
    pub(super) kind: u8,
    /// The size field.
    pub(super) size: usize,
}

impl<'a> Block<'a> {
    /// Takes the block at the front.
    pub(super) fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let head = bytes.first_chunk::<3>()?;
        let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let (kind, size) = ((head >> 1 & 3) as u8, (head >> 3) as usize);
        if kind == 3 || size > MAX_BLOCK {
            return None;
        }
        let stored = if kind == 1 { 1 } else { size };
        let (block, rest) = bytes.split_at_checked(3 + stored)?;
        *bytes = rest;
        Some(Self {
            bytes: block,
            last: head & 1 != 0,
            kind,
            size,
        })
    }

    /// What follows the header.
    pub(super) fn content(&self) -> &'a [u8] {
        &self.bytes[3..]
    }
}

/// The header of a block.
pub(super) fn head(last: bool, kind: u8, size: usize) -> [u8; 3] {
    let head = u32::from(last) | u32::from(kind) << 1 | (size as u32) << 3;
    let [a, b, c, _] = head.to_le_bytes();
    [a, b, c]
}

/// Codes that a block may take over from the ones before it.
#[derive(Debug, Default)]
pub(super) struct Tables {
    huffman: Option<Codes>,
    sequences: [Option<Table>; 3],
}

impl Tables {
    /// Reads a description of Huffman codes; gives its length.
    fn read_tree(&mut self, bytes: &[u8]) -> Option<usize> {
        let (codes, len) = Codes::read(bytes)?;
        self.huffman = Some(codes);
        Some(len)
    }

    /// Reads the tables of sequences as the byte of modes says; gives their length.
    fn read_sequences(&mut self, modes: u8, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        for (i, (max_log, symbols, log, frequencies)) in KINDS.into_iter().enumerate() {
            let rest = bytes.get(at..)?;
            let (table, len) = match modes >> (6 - 2 * i) & 3 {
                0 => (Table::new(log, frequencies), 0),
                1 => {
                    let symbol = *rest.first()?;
                    if usize::from(symbol) >= symbols {
                        return None;
                    }
                    (Table::single(symbol), 1)
                }
                2 => Table::read(rest, max_log, symbols)?,
                _ => continue,
            };
            self.sequences[i] = Some(table);
            at += len;
        }
        Some(at)
    }
}

/// What the encoder chose for a compressed block, but for its literals.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choices {
    /// The lowest four bits of the header of literals: how they are coded.
    pub(super) literals: u8,
    /// Description of their Huffman codes, if there is one.
    pub(super) tree: Vec<u8>,
    /// How the tables of sequences are given.
    pub(super) modes: u8,
    /// The tables that are given.
    pub(super) tables: Vec<u8>,
    pub(super) sequences: Vec<Sequence>,
}

/// Header of literals: how they are coded, how many they are, their stored size, its own length.
fn literals_head(content: &[u8]) -> Option<(u8, usize, usize, usize)> {
    let first = *content.first()?;
    let mut bytes = [0; 8];
    let have = content.len().min(5);
    bytes[..have].copy_from_slice(&content[..have]);
    let value = u64::from_le_bytes(bytes) as usize;
    let (len, shift, bits, coded) = match (first & 3, first >> 2 & 3) {
        (0 | 1, 0 | 2) => (1, 3, 5, false),
        (0 | 1, 1) => (2, 4, 12, false),
        (0 | 1, _) => (3, 4, 20, false),
        (_, 0 | 1) => (3, 4, 10, true),
        (_, 2) => (4, 4, 14, true),
        _ => (5, 4, 18, true),
    };
    let field = |shift: usize| value >> shift & ((1 << bits) - 1);
    let count = field(shift);
    let stored = match first & 3 {
        0 => count,
        1 => 1,
        _ => field(shift + bits),
    };
    let how = if coded || shift == 4 {
        first & 15
    } else {
        first & 7
    };
    (have >= len).then_some((how, count, stored, len))
}

/// Reads the number of sequences; gives its length, too.
fn sequence_count(bytes: &[u8]) -> Option<(usize, usize)> {
    let at = |i: usize| bytes.get(i).map(|byte| usize::from(*byte));
    Some(match at(0)? {
        first @ 0..128 => (first, 1),
        255 => (at(1)? + (at(2)? << 8) + 0x7f00, 3),
        first => (((first - 128) << 8) + at(1)?, 2),
    })
}

impl Choices {
    /// Reads a compressed block. Also gives the number of plain bytes in it.
    pub(super) fn read(content: &[u8], tables: &mut Tables) -> Option<(Self, usize)> {
        let mut choices = Self::default();
        let (how, count, stored, len) = literals_head(content)?;
        choices.literals = how;
        let (literals, rest) = content.get(len..)?.split_at_checked(stored)?;
        if how & 3 == 2 {
            let len = tables.read_tree(literals)?;
            choices.tree = literals[..len].to_vec();
        }
        let (number, len) = sequence_count(rest)?;
        let mut plain = count;
        let mut rest = rest.get(len..)?;
        if number > 0 {
            choices.modes = *rest.first()?;
            rest = &rest[1..];
            let len = tables.read_sequences(choices.modes, rest)?;
            choices.tables = rest[..len].to_vec();
            choices.sequences = read_sequences(&rest[len..], number, tables)?;
            let copied = choices
                .sequences
                .iter()
                .map(|sequence| sequence.len as usize);
            plain += copied.sum::<usize>();
        } else if !rest.is_empty() {
            return None;
        }
        (plain <= MAX_BLOCK).then_some((choices, plain))
    }

    /// Writes the block of these choices; `None` if they do not fit the plain bytes.
    pub(super) fn write(&self, plain: &[u8], tables: &mut Tables, out: &mut Vec<u8>) -> Option<()> {
        let mut literals = Vec::with_capacity(plain.len());
        let mut rest = plain;
        for sequence in &self.sequences {
            let (head, after) = rest.split_at_checked(sequence.literals as usize)?;
            literals.extend_from_slice(head);
            rest = after.get(sequence.len as usize..)?;
        }
        literals.extend_from_slice(rest);
        self.write_literals(&literals, tables, out)?;
        let number = self.sequences.len();
        match number {
            0..128 => out.push(number as u8),
            128..0x7f00 => out.extend_from_slice(&[(number >> 8) as u8 + 128, number as u8]),
            _ => {
                let more = u16::try_from(number - 0x7f00).ok()?;
                out.push(255);
                out.extend_from_slice(&more.to_le_bytes());
            }
        }
        if number > 0 {
            out.push(self.modes);
            if tables.read_sequences(self.modes, &self.tables)? != self.tables.len() {
                return None;
            }
            out.extend_from_slice(&self.tables);
            write_sequences(&self.sequences, tables, out)?;
        }
        Some(())
    }

    fn write_literals(
        &self,
        literals: &[u8],
        tables: &mut Tables,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (kind, form) = (self.literals & 3, self.literals >> 2 & 3);
        let count = literals.len() as u64;
        if kind < 2 {
            let (len, shift) = match form {
                0 | 2 => (1, 3),
                1 => (2, 4),
                _ => (3, 4),
            };
            let head = u64::from(self.literals) | count << shift;
            out.extend_from_slice(&head.to_le_bytes()[..len]);
            out.extend_from_slice(match kind {
                0 => literals,
                _ => literals.get(..1)?,
            });
            return Some(());
        }
        let (len, bits) = match form {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let mut coded = self.tree.clone();
        if kind == 2 && tables.read_tree(&self.tree)? != self.tree.len() {
            return None;
        }
        let codes = tables.huffman.as_ref()?;
        codes.put(literals, form != 0, &mut coded)?;
        let sizes = count | (coded.len() as u64) << bits;
        let head = u64::from(self.literals) | sizes << 4;
        out.extend_from_slice(&head.to_le_bytes()[..len]);
        out.extend_from_slice(&coded);
        Some(())
    }
}

fn read_sequences(bytes: &[u8], number: usize, tables: &Tables) -> Option<Vec<Sequence>> {
    let [Some(literals), Some(offsets), Some(matches)] = &tables.sequences else {
        return None;
    };
    let mut bits = Backward::new(bytes)?;
    let mut sequences = Vec::with_capacity(number);
    let mut literal = literals.start(&mut bits);
    let mut offset = offsets.start(&mut bits);
    let mut copy = matches.start(&mut bits);
    for left in (0..number).rev() {
        let extra = u32::from(offsets.symbol(offset));
        let offset_value = (1 << extra) + bits.take(extra);
        let len = value(&MATCH_CODES, 32, matches.symbol(copy), &mut bits) + 3;
        let before = value(&LITERAL_CODES, 16, literals.symbol(literal), &mut bits);
        sequences.push(Sequence {
            literals: before,
            len,
            offset: offset_value,
        });
        if left > 0 {
            literal = literals.advance(literal, &mut bits);
            copy = matches.advance(copy, &mut bits);
            offset = offsets.advance(offset, &mut bits);
        }
        if bits.left() < 0 {
            return None;
        }
    }
    (bits.left() == 0).then_some(sequences)
}

fn write_sequences(sequences: &[Sequence], tables: &Tables, out: &mut Vec<u8>) -> Option<()> {
    let [Some(literals), Some(offsets), Some(matches)] = &tables.sequences else {
        return None;
    };
    let mut bits = Writer::new(out);
    let mut states = None;
    for sequence in sequences.iter().rev() {
        let (literal, literal_bits) = code(&LITERAL_CODES, 16, sequence.literals);
        let (copy, copy_bits) = code(&MATCH_CODES, 32, sequence.len.checked_sub(3)?);
        let offset = sequence.offset.checked_ilog2()?;
        states = Some(match states {
            None => {
                let copy = matches.last(copy)?;
                let offset = offsets.last(offset as u8)?;
                (literals.last(literal)?, offset, copy)
            }
            Some((l, o, m)) => {
                let o = offsets.put(offset as u8, o, &mut bits)?;
                let m = matches.put(copy, m, &mut bits)?;
                (literals.put(literal, l, &mut bits)?, o, m)
            }
        });
        bits.put(sequence.literals, literal_bits);
        bits.put(sequence.len - 3, copy_bits);
        bits.put(sequence.offset, offset);
    }
    let (literal, offset, copy) = states?;
    matches.finish(copy, &mut bits);
    offsets.finish(offset, &mut bits);
    literals.finish(literal, &mut bits);
    bits.finish();
    Some(())
}

/// The value of a code, whose extra bits come next.
fn value(codes: &[(u32, u8)], direct: u8, code: u8, bits: &mut Backward<'_>) -> u32 {
    match code
        .checked_sub(direct)
        .and_then(|i| codes.get(usize::from(i)))
    {
        Some((base, extra)) => base + bits.take(u32::from(*extra)),
        None => u32::from(code),
    }
}

/// The code of a value, and the number of its low bits that come with it.
fn code(codes: &[(u32, u8)], direct: u8, value: u32) -> (u8, u32) {
    if value < u32::from(direct) {
        return (value as u8, 0);
    }
    let i = codes.partition_point(|(base, _)| *base <= value) - 1;
    (direct + i as u8, u32::from(codes[i].1))
}
