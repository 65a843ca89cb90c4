//! Making a static delta from two commits of a repository.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rayon::prelude::*;

use super::Fault;
use super::check::check_whole;
use super::files::{SUPERBLOCK, detached_key, install, part_key, put_beside};
use super::name::DeltaName;
use super::part::Effort;
use super::superblock::{Fallback, PartHead, Superblock};
use super::writer::{PartsWriter, Target, write};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{FileObject, Metadata, Value, Variant};
use crate::ops::changes::{
    Contents, Encoded, Encoder, NewFile, NewTree, Object, OldFiles, Readable, batch_len, order,
    payloads_of, piece,
};
use crate::repo::Repository;

/// Larger files are fetched by themselves: clients hold a part in memory.
const MAX_FILE: u64 = 384 << 20;

/// How to make a delta.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Put the parts into the superblock, so that the delta is one file.
    pub inline: bool,
    /// Where to write the superblock; parts are put beside it. Else the repository's own place.
    pub output: Option<PathBuf>,
    /// A part is closed before it holds more than this.
    pub max_chunk_bytes: u64,
    /// Larger files are not patched.
    pub max_bsdiff_bytes: u64,
    /// New files above this size are left out, to be fetched as objects; 0 leaves out none.
    pub min_fallback_bytes: u64,
    /// How much time compression may take.
    pub effort: Effort,
    /// Write numbers big-endian.
    pub big_endian: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            inline: false,
            output: None,
            max_chunk_bytes: 32_000_000,
            max_bsdiff_bytes: 128_000_000,
            min_fallback_bytes: 0,
            effort: Effort::Fast,
            big_endian: false,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerateReport {
    /// Objects in the delta.
    pub objects: u64,
    /// Parts.
    pub parts: u64,
    /// Files that are copies of old ones.
    pub copied_files: u64,
    /// Files that are patches of old ones.
    pub patched_files: u64,
    /// Files that are spliced from old ones.
    pub spliced_files: u64,
    /// Files that are there as they are.
    pub whole_files: u64,
    /// Objects that are left out.
    pub fallbacks: u64,
    /// What the objects take when they are made.
    pub made_bytes: u64,
    /// Size of the superblock and the parts.
    pub delta_bytes: u64,
}

/// Makes a delta, applies each of its parts, and puts it where it belongs.
///
/// # Errors
/// Those of reading the commits and of writing; [`Error::InvalidDelta`] if a part does not make the
/// objects that it shall.
pub fn generate(
    repo: &Repository,
    name: DeltaName,
    options: &GenerateOptions,
    monitor: &dyn Monitor,
) -> Result<GenerateReport> {
    if options.output.is_none() {
        repo.check_writable()?;
    }
    // Neither commit can be deleted meanwhile.
    let leased: Vec<ObjectId> = name.from.into_iter().chain([name.to]).collect();
    let _lease = repo.lease(&leased)?;
    let place = match &options.output {
        Some(output) => output.clone(),
        None => repo.path().join(name.dir()).join(SUPERBLOCK),
    };
    let staging = stage(repo, options)?;
    let plan = Plan::make(repo, name, options, monitor)?;
    let dir = staging.path().join("delta");
    std::fs::create_dir(&dir).at(&dir)?;
    let target = match options.inline {
        true => Target::Inline(Vec::new()),
        false => Target::Dir(dir.clone()),
    };
    let max_blob = usize::try_from(options.max_chunk_bytes).unwrap_or(usize::MAX);
    let mut writer = PartsWriter::new(repo, (target, &place), max_blob, options.effort, monitor);
    let mut report = GenerateReport {
        fallbacks: plan.fallbacks.len() as u64,
        ..Default::default()
    };
    let add = |object: &Object| writer.add_metadata(*object);
    let metadata_bytes = plan.metadata.iter().map(add).sum::<Result<u64>>()?;
    let files_bytes: u64 = plan.files.iter().map(|new| new.file.size).sum();
    // Parts are compressed and verified while the next ones are filled.
    monitor.begin(Phase::Verify, Some(metadata_bytes + files_bytes));
    encode_files(
        repo,
        &plan.files,
        options,
        &mut writer,
        &mut report,
        monitor,
    )?;
    let (parts, inline) = writer.finish()?;
    let commit = repo.object_bytes(ObjectKind::Commit, &name.to)?;
    check(repo, &commit, &plan, &parts).map_err(|fault| fault.of(&place))?;
    monitor.end(Phase::Verify);
    report.parts = parts.len() as u64;
    report.objects = parts.iter().map(|part| part.objects.len() as u64).sum();
    report.made_bytes = parts.iter().map(|part| part.made_size).sum();
    report.delta_bytes = parts.iter().map(|part| part.size).sum();
    let detached = repo.sound_detached_metadata(&name.to)?;
    let superblock = Superblock {
        metadata: metadata(name, &inline, detached.as_deref(), options.big_endian),
        timestamp: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        name,
        commit,
        parts,
        fallbacks: plan.fallbacks,
        big_endian: options.big_endian,
    };
    let bytes = superblock.to_bytes();
    report.delta_bytes += match options.inline {
        true => bytes.len() as u64 - report.delta_bytes.min(bytes.len() as u64),
        false => bytes.len() as u64,
    };
    write(repo, &dir.join(SUPERBLOCK), &bytes)?;
    repo.storage().sync_dir(&dir).at(&dir)?;
    match &options.output {
        Some(output) => {
            let parts = if options.inline { 0 } else { report.parts };
            put_beside(repo, &dir, output, parts)?;
        }
        None => install(repo, &dir, &name)?,
    }
    Ok(report)
}

/// Where the delta is until it is complete. An output that cannot be written is told at once.
fn stage(repo: &Repository, options: &GenerateOptions) -> Result<OwnedDir> {
    match &options.output {
        Some(output) if output.is_dir() => {
            Err(std::io::Error::from(std::io::ErrorKind::IsADirectory)).at(output)
        }
        Some(output) => OwnedDir::beside(output),
        None => OwnedDir::create(&repo.path().join("staging")),
    }
}

/// Sees that what parts make and what is left out is all that a commit has and the old one has not.
fn check(repo: &Repository, commit: &[u8], plan: &Plan, parts: &[PartHead]) -> Result<(), Fault> {
    let mut tree = NewTree::new(commit)?;
    let objects = parts.iter().flat_map(|part| &part.objects);
    for object in objects.filter(|object| object.0 != ObjectKind::File) {
        let bytes = repo.object_bytes(object.0, &object.1)?;
        if !tree.add(object, &bytes) {
            return Err(Fault::other_object(object.0, &object.1));
        }
    }
    check_whole(&tree, &plan.known, parts, &plan.fallbacks)
}

/// The superblock's metadata: byte order, inline parts, and what is attached to the commit.
fn metadata(
    name: DeltaName,
    parts: &[Vec<u8>],
    detached: Option<&[u8]>,
    big_endian: bool,
) -> Metadata {
    let mut metadata = Metadata::default();
    let order = Value::Byte(if big_endian { b'B' } else { b'l' });
    let variant = |value| Variant::from_value(&value).expect("because it is not nested");
    metadata.push("ostree.endianness", variant(order));
    for (number, file) in parts.iter().enumerate() {
        let (method, rest) = file
            .split_first()
            .expect("because a part file has a first byte");
        let part = Value::Tuple(vec![Value::Byte(*method), Value::Bytes(rest.to_vec())]);
        metadata.push(part_key(&name, number), variant(part));
    }
    if let Some(bytes) = detached {
        let dictionary = Variant::from_parts("a{sv}", bytes);
        let dictionary = dictionary.expect("because it was seen to be one");
        metadata.push(detached_key(&name), dictionary);
    }
    metadata
}

/// What goes into a delta.
struct Plan {
    /// Objects of the old commit.
    known: HashSet<Object>,
    metadata: Vec<Object>,
    files: Vec<NewFile>,
    fallbacks: Vec<Fallback>,
}

impl Plan {
    fn make(
        repo: &Repository,
        name: DeltaName,
        options: &GenerateOptions,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        monitor.begin(Phase::Scan, None);
        let old = match &name.from {
            Some(from) => Contents::of(repo, from, |_| false)?,
            None => Contents::default(),
        };
        let known: HashSet<Object> = old.objects().collect();
        let new = Contents::of(repo, &name.to, |object| known.contains(object))?;
        let files = new.new_files(repo)?;
        let limit = match options.min_fallback_bytes {
            0 => MAX_FILE,
            bytes => bytes.min(MAX_FILE),
        };
        let (large, mut files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|new| new.file.size > limit);
        let old_files = OldFiles::load(repo, &old, Readable::ByOthers)?;
        let (copies, large): (Vec<_>, Vec<_>) = large.into_iter().partition(|new| {
            new.file
                .payload
                .is_some_and(|payload| old_files.same(&payload).is_some())
        });
        files.extend(copies);
        let kept = payloads_of(repo, &name.to)?;
        old_files.assign(repo, &mut files, &kept);
        order(&mut files);
        let fallbacks = large
            .iter()
            .map(|new| fallback(repo, &new.file))
            .collect::<Result<_>>()?;
        monitor.end(Phase::Scan);
        Ok(Self {
            known,
            metadata: new.metadata,
            files,
            fallbacks,
        })
    }
}

/// An object to be fetched: its size is that of the object as an archive repository has it.
fn fallback(repo: &Repository, file: &FileObject) -> Result<Fallback> {
    let mut counted = DeflateEncoder::new(Counter(0), Compression::new(6));
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < file.size {
        let n = repo.read_at(file, at, &mut buf)?;
        counted.write_all(&buf[..n]).at(repo.path())?;
        at += n as u64;
    }
    let Counter(deflated) = counted.finish().at(repo.path())?;
    let size = file.header.archive_prefix(file.size).len() as u64 + deflated;
    Ok(Fallback {
        object: (ObjectKind::File, file.id),
        size,
        made_size: file.size,
    })
}

#[derive(Debug)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Encodes files, some at a time, and adds them in their order.
fn encode_files(
    repo: &Repository,
    files: &[NewFile],
    options: &GenerateOptions,
    writer: &mut PartsWriter<'_>,
    report: &mut GenerateReport,
    monitor: &dyn Monitor,
) -> Result<()> {
    let total: u64 = files.iter().map(|new| new.file.size).sum();
    monitor.begin(Phase::Delta, Some(total));
    let mut rest = files;
    while !rest.is_empty() {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (batch, after) = rest.split_at(batch_len(rest));
        rest = after;
        let encoded: Vec<Encoded> = batch
            .par_iter()
            .map_init(
                || Encoder::new(repo, options.max_bsdiff_bytes),
                |encoder, new| encoder.encode(new),
            )
            .collect::<Result<_>>()?;
        for (new, encoded) in batch.iter().zip(&encoded) {
            writer.add_file(new, encoded)?;
            *match encoded {
                Encoded::Whole { .. } => &mut report.whole_files,
                Encoded::Patch { .. } => &mut report.patched_files,
                Encoded::Splice { .. } if is_copy(new) => &mut report.copied_files,
                Encoded::Splice { .. } => &mut report.spliced_files,
            } += 1;
            monitor.advance(Phase::Delta, new.file.size);
        }
    }
    monitor.end(Phase::Delta);
    Ok(())
}

fn is_copy(new: &NewFile) -> bool {
    new.sources
        .first()
        .is_some_and(|source| Some(source.payload) == piece(&new.file))
}
