//! What a frame has that our own encoding of the same bytes has not.
//!
//! Another version of the encoder finds nearly the same matches, but one other match changes every
//! bit after it. So frames are compared by their matches, not by their bytes: a block is either
//! that of our encoding, or told by the matches that are not predicted, and by its tables. Both
//! sides walk the two frames together; the prediction for a match is the first one of our encoding
//! that begins no earlier than the last match ended.

use super::block::{Block, Choices, MAX_BLOCK, Sequence, Tables, head};
use crate::recode::recipe::{put, take};

/// Streams that compress better apart: kinds of blocks; runs of right and wrong predictions; the
/// three numbers of a sequence; tables; bytes.
const STREAMS: usize = 7;
const KINDS: usize = 0;
const RUNS: usize = 1;
const LITERALS: usize = 2;
const LENGTHS: usize = 3;
const OFFSETS: usize = 4;
const TABLES: usize = 5;
const BYTES: usize = 6;

/// Compression of the streams: small data, made once.
const LEVEL: i32 = 19;

/// Largest raw size of the streams; those of useful recipes are far below.
const MAX_STREAMS: usize = 64 << 20;

/// They are dense numbers: what unpacks to more than this many times its size is no recipe.
const MAX_EXPANSION: usize = 16;

/// Streams above this share (1/4) of the frame are given up before they are packed.
const HOPELESS_SHIFT: u32 = 2;

/// Kinds of blocks, above the bit for "last".
const SAME: u8 = 0;
const RAW: u8 = 1;
const REPEATED: u8 = 2;
const CHOICES: u8 = 3;
const VERBATIM: u8 = 4;

/// Our own encoding, read as far as needed.
struct Prediction<'a> {
    rest: &'a [u8],
    tables: Tables,
    block: Option<Block<'a>>,
    /// Plain offset of the block read last, and of the one after it.
    start: usize,
    end: usize,
    /// Its copies, by where they begin.
    copies: Vec<(usize, Sequence)>,
    next: usize,
}

impl<'a> Prediction<'a> {
    fn new(frame: &'a [u8]) -> Option<Self> {
        Some(Self {
            rest: frame.get(super::header_len(frame)?..)?,
            tables: Tables::default(),
            block: None,
            start: 0,
            end: 0,
            copies: Vec::new(),
            next: 0,
        })
    }

    /// Reads the next block; false at the end.
    fn load(&mut self) -> bool {
        let ended = self.block.is_some_and(|block| block.last);
        let Some(block) = Block::take(&mut self.rest).filter(|_| !ended) else {
            return false;
        };
        self.copies.clear();
        self.next = 0;
        self.start = self.end;
        self.end += block.size;
        self.block = Some(block);
        if block.kind == 2 {
            let Some((choices, plain)) = Choices::read(block.content(), &mut self.tables) else {
                self.rest = &[];
                return false;
            };
            self.end = self.start + plain;
            let mut at = self.start;
            self.copies.extend(choices.sequences.iter().map(|sequence| {
                let start = at + sequence.literals as usize;
                at = start + sequence.len as usize;
                (start, *sequence)
            }));
        }
        true
    }

    /// The block that begins at a plain offset, and the plain bytes in it.
    fn block_at(&mut self, at: usize) -> Option<(Block<'a>, usize)> {
        while self.block.is_none() || self.end <= at {
            if !self.load() {
                return None;
            }
        }
        let block = self.block.filter(|_| self.start == at)?;
        Some((block, self.end - self.start))
    }

    /// The first copy that begins at this plain offset or after it, as a sequence from there on.
    fn from(&mut self, at: usize) -> Option<Sequence> {
        loop {
            while let Some((start, sequence)) = self.copies.get(self.next) {
                if *start >= at {
                    let literals = (*start - at) as u32;
                    return Some(Sequence {
                        literals,
                        ..*sequence
                    });
                }
                self.next += 1;
            }
            if !self.load() {
                return None;
            }
        }
    }
}

/// How many of a frame's sequences are not predicted, for as many blocks as the prediction covers.
pub(super) fn misses(frame: &[u8], predicted: &[u8]) -> Option<usize> {
    let mut prediction = Prediction::new(predicted)?;
    let mut rest = frame.get(super::header_len(frame)?..)?;
    let (mut tables, mut at, mut misses) = (Tables::default(), 0, 0);
    while prediction.from(at).is_some() {
        let Some(block) = Block::take(&mut rest) else {
            break;
        };
        if block.kind != 2 {
            at += block.size;
            continue;
        }
        let (choices, plain) = Choices::read(block.content(), &mut tables)?;
        let mut place = at;
        for sequence in &choices.sequences {
            misses += usize::from(prediction.from(place) != Some(*sequence));
            place += (sequence.literals + sequence.len) as usize;
        }
        at += plain;
        if block.last {
            break;
        }
    }
    Some(misses)
}

/// The corrections that make `frame` from `predicted`; none at all if they are the same.
pub(super) fn find(frame: &[u8], predicted: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    if frame == predicted {
        return Some(Vec::new());
    }
    let mut streams: [Vec<u8>; STREAMS] = Default::default();
    let mut prediction = Prediction::new(predicted)?;
    let header = super::header_len(frame)?;
    put(&mut streams[BYTES], header as u64);
    streams[BYTES].extend_from_slice(&frame[..header]);
    let mut rest = &frame[header..];
    let (mut tables, mut again, mut at) = (Tables::default(), Tables::default(), 0);
    loop {
        let block = Block::take(&mut rest)?;
        at += find_block(
            block,
            plain.get(at..)?,
            at,
            &mut prediction,
            (&mut tables, &mut again),
            &mut streams,
        )?;
        if block.last {
            break;
        }
        if streams.iter().map(Vec::len).sum::<usize>() > frame.len() >> HOPELESS_SHIFT {
            return None;
        }
    }
    streams[BYTES].extend_from_slice(rest);
    pack(&streams)
}

/// Tells one block; gives the number of plain bytes in it.
fn find_block(
    block: Block<'_>,
    plain: &[u8],
    at: usize,
    prediction: &mut Prediction<'_>,
    (tables, again): (&mut Tables, &mut Tables),
    streams: &mut [Vec<u8>; STREAMS],
) -> Option<usize> {
    let kind = |kind: u8, streams: &mut [Vec<u8>; STREAMS]| {
        streams[KINDS].push(kind << 1 | u8::from(block.last));
    };
    if block.kind < 2 {
        kind(RAW + block.kind, streams);
        put(&mut streams[RUNS], block.size as u64);
        return Some(block.size);
    }
    let content = block.content();
    let (choices, len) = Choices::read(content, tables)?;
    let same = prediction.block_at(at);
    if same.is_some_and(|(same, _)| same.bytes == block.bytes) {
        kind(SAME, streams);
        Choices::read(content, again)?;
        return Some(len);
    }
    let mut made = Vec::with_capacity(block.size);
    let plain = plain.get(..len)?;
    if choices.write(plain, again, &mut made).is_none() || made != content {
        kind(VERBATIM, streams);
        Choices::read(content, again)?;
        put(&mut streams[RUNS], len as u64);
        put(&mut streams[RUNS], block.size as u64);
        streams[BYTES].extend_from_slice(content);
        return Some(len);
    }
    kind(CHOICES, streams);
    put(&mut streams[RUNS], len as u64);
    put(&mut streams[RUNS], choices.sequences.len() as u64);
    let tree = &choices.tree;
    streams[TABLES].extend_from_slice(&[choices.literals, tree.len() as u8]);
    streams[TABLES].extend_from_slice(tree);
    streams[TABLES].push(choices.modes);
    put(&mut streams[TABLES], choices.tables.len() as u64);
    streams[TABLES].extend_from_slice(&choices.tables);
    find_sequences(&choices.sequences, at, prediction, streams);
    Some(len)
}

/// Tells runs of right predictions, and of wrong ones with the sequences that are right.
fn find_sequences(
    sequences: &[Sequence],
    mut at: usize,
    prediction: &mut Prediction<'_>,
    streams: &mut [Vec<u8>; STREAMS],
) {
    let (mut right, mut run) = (true, 0u64);
    for sequence in sequences {
        let hit = prediction.from(at) == Some(*sequence);
        if hit != right {
            put(&mut streams[RUNS], run);
            (right, run) = (hit, 0);
        }
        run += 1;
        if !hit {
            put(&mut streams[LITERALS], u64::from(sequence.literals));
            put(&mut streams[LENGTHS], u64::from(sequence.len));
            put(&mut streams[OFFSETS], u64::from(sequence.offset));
        }
        at += (sequence.literals + sequence.len) as usize;
    }
    put(&mut streams[RUNS], run);
}

fn pack(streams: &[Vec<u8>; STREAMS]) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    streams
        .iter()
        .for_each(|stream| put(&mut raw, stream.len() as u64));
    raw.extend(streams.iter().flatten());
    if raw.len() > MAX_STREAMS {
        return None;
    }
    let mut packed = Vec::new();
    put(&mut packed, raw.len() as u64);
    packed.extend(zstd::bulk::compress(&raw, LEVEL).ok()?);
    Some(packed)
}

fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(take(&mut packed).ok()?).ok()?;
    if len > MAX_STREAMS.min((1 << 20) + packed.len() * MAX_EXPANSION) {
        return None;
    }
    let raw = zstd::bulk::decompress(packed, len).ok()?;
    (raw.len() == len).then_some(raw)
}

/// The streams, each read from its beginning.
struct Told<'a>([&'a [u8]; STREAMS]);

impl<'a> Told<'a> {
    fn new(raw: &'a [u8]) -> Option<Self> {
        let mut rest = raw;
        let mut lens = [0; STREAMS];
        for len in &mut lens {
            *len = usize::try_from(take(&mut rest).ok()?).ok()?;
        }
        let mut streams = [&[][..]; STREAMS];
        for (stream, len) in streams.iter_mut().zip(lens) {
            (*stream, rest) = rest.split_at_checked(len)?;
        }
        Some(Self(streams))
    }

    fn number(&mut self, stream: usize) -> Option<u64> {
        take(&mut self.0[stream]).ok()
    }

    fn small(&mut self, stream: usize) -> Option<u32> {
        u32::try_from(self.number(stream)?).ok()
    }

    /// A number of bytes in a block, at most its largest size.
    fn size(&mut self) -> Option<usize> {
        let size = usize::try_from(self.number(RUNS)?).ok()?;
        (size <= MAX_BLOCK).then_some(size)
    }

    fn bytes(&mut self, stream: usize, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0[stream].split_at_checked(len)?;
        self.0[stream] = rest;
        Some(bytes)
    }

    fn byte(&mut self, stream: usize) -> Option<u8> {
        Some(self.bytes(stream, 1)?[0])
    }
}

/// The frame again; `None` also if it gets longer than `size`.
pub(super) fn apply(
    corrections: &[u8],
    predicted: Vec<u8>,
    plain: &[u8],
    size: usize,
) -> Option<Vec<u8>> {
    if corrections.is_empty() {
        return Some(predicted);
    }
    let raw = unpack(corrections)?;
    let mut told = Told::new(&raw)?;
    let mut prediction = Prediction::new(&predicted)?;
    let header = usize::try_from(told.number(BYTES)?).ok()?;
    let mut out = told.bytes(BYTES, header)?.to_vec();
    let (mut tables, mut at) = (Tables::default(), 0);
    loop {
        let kind = told.byte(KINDS)?;
        let last = kind & 1 != 0;
        let rest = plain.get(at..)?;
        at += match kind >> 1 {
            SAME => {
                let (block, len) = prediction.block_at(at)?;
                out.extend_from_slice(block.bytes);
                Choices::read(block.content(), &mut tables)?;
                len
            }
            RAW => {
                let len = told.size()?;
                out.extend_from_slice(&head(last, 0, len));
                out.extend_from_slice(rest.get(..len)?);
                len
            }
            REPEATED => {
                let len = told.size()?;
                out.extend_from_slice(&head(last, 1, len));
                out.extend_from_slice(rest.get(..1)?);
                len
            }
            VERBATIM => {
                let (len, stored) = (told.size()?, told.size()?);
                let content = told.bytes(BYTES, stored)?;
                out.extend_from_slice(&head(last, 2, stored));
                out.extend_from_slice(content);
                Choices::read(content, &mut tables)?;
                len
            }
            CHOICES => {
                let len = told.size()?;
                let choices = apply_block(&mut told, at, &mut prediction)?;
                let mut content = Vec::with_capacity(len);
                choices.write(rest.get(..len)?, &mut tables, &mut content)?;
                out.extend_from_slice(&head(last, 2, content.len()));
                out.extend_from_slice(&content);
                len
            }
            _ => return None,
        };
        if out.len() > size {
            return None;
        }
        if last {
            break;
        }
    }
    let tail = told.0[BYTES];
    out.extend_from_slice(tail);
    Some(out)
}

fn apply_block(
    told: &mut Told<'_>,
    mut at: usize,
    prediction: &mut Prediction<'_>,
) -> Option<Choices> {
    let number = told.size()?;
    let literals = told.byte(TABLES)?;
    let len = usize::from(told.byte(TABLES)?);
    let tree = told.bytes(TABLES, len)?.to_vec();
    let modes = told.byte(TABLES)?;
    let len = usize::try_from(told.number(TABLES)?).ok()?;
    let tables = told.bytes(TABLES, len)?.to_vec();
    let mut sequences = Vec::with_capacity(number);
    let mut right = true;
    loop {
        let run = told.size()?;
        if run > number - sequences.len() {
            return None;
        }
        for _ in 0..run {
            let sequence = match right {
                true => prediction.from(at)?,
                false => Sequence {
                    literals: told.small(LITERALS)?,
                    len: told.small(LENGTHS)?,
                    offset: told.small(OFFSETS)?,
                },
            };
            at = at.checked_add(sequence.literals as usize)?;
            at = at.checked_add(sequence.len as usize)?;
            sequences.push(sequence);
        }
        if sequences.len() == number {
            break;
        }
        right = !right;
    }
    Some(Choices {
        literals,
        tree,
        modes,
        tables,
        sequences,
    })
}
