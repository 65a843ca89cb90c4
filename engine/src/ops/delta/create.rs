//! Making a delta from two commits of a repository.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;

use super::DeltaCounts;
use super::base::{Base, Origin, Source};
use super::builder::{Builder, Input, MAX_SOURCE, SEGMENT};
use super::content::Group;
use super::encode::{Encoder, estimate};
use super::file::{DeltaWriter, Kind};
use super::packed::{Apart, OldMembers, is_apart, plain_source, take_apart};
use super::show::DeltaInfo;
use super::tree::{ContentOf, pack_files, pack_tree};
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::ops::changes::{
    Contents, NewFile, Object, OldFiles, Readable, batch_len, order, payloads_of, piece,
};
use crate::ops::static_delta::DeltaName;
use crate::pack::recipe::Piece;
use crate::recode;
use crate::repo::Repository;
use crate::repo::split::members;

/// How to make a delta.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateOptions {
    /// zstd level.
    pub level: i32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { level: 19 }
    }
}

/// Makes a delta, applies it, and puts it where it belongs.
///
/// # Errors
/// Those of reading the commits and of writing; [`crate::Error::InvalidDelta`] if what was written does not
/// make the commit.
pub fn create(
    repo: &Repository,
    name: DeltaName,
    output: &Path,
    options: &CreateOptions,
    monitor: &dyn Monitor,
) -> Result<DeltaInfo> {
    // Neither commit can be deleted meanwhile.
    let leased: Vec<ObjectId> = name.from.into_iter().chain([name.to]).collect();
    let _lease = repo.lease(&leased)?;
    // An output that cannot be written is told at once.
    let commits = (name.from.as_ref(), &name.to);
    let mut writer = DeltaWriter::create(repo.storage(), output, commits)?;
    let counts = fill(repo, &name, options.level, &mut writer, monitor)?;
    writer.seal(&counts)?;
    super::apply::verify_file(repo, &writer.reopen()?, monitor)?;
    writer.keep()?;
    super::show::show(output)
}

/// Writes all sections.
fn fill(
    repo: &Repository,
    name: &DeltaName,
    level: i32,
    writer: &mut DeltaWriter<'_>,
    monitor: &dyn Monitor,
) -> Result<DeltaCounts> {
    monitor.begin(Phase::Scan, None);
    let base = Base::load(repo, name.from.as_ref(), writer.target())?;
    let plan = Plan::make(repo, &base, &name.to)?;
    monitor.end(Phase::Scan);
    let total = plan.contents.iter().map(|new| new.file.size).sum();
    monitor.begin(Phase::Delta, Some(total));
    let mut adder = Adder {
        repo,
        base: &base,
        old_files: &plan.old_files,
        builder: Builder::new((&base, level), writer, monitor),
    };
    adder.add_all(&plan.contents)?;
    let builder = adder.builder;
    let files = plan.files.iter();
    let rows: Vec<ContentOf> = files
        .map(|new| content_of(&base, &builder, new.file.payload))
        .collect();
    let (mut counts, kept) = builder.finish()?;
    monitor.end(Phase::Delta);
    let headers = plan.files.iter().map(|new| &new.file.header);
    let files = pack_files(headers.zip(rows), kept.into_iter(), level).at(base.delta())?;
    writer.add(Kind::Files, &files)?;
    let tree = pack_tree(repo, &name.to, &plan.metadata, (&base, level))?;
    writer.add(Kind::Tree, &tree)?;
    counts.metadata = plan.metadata.len() as u64 + 1;
    counts.files = plan.files.len() as u64;
    Ok(counts)
}

fn content_of(base: &Base<'_>, builder: &Builder<'_, '_>, payload: Option<PayloadId>) -> ContentOf {
    let Some(payload) = payload else {
        return ContentOf::Nothing;
    };
    let known = base.number(&payload).map(ContentOf::Base);
    let made = || builder.number(&payload).map(ContentOf::Made);
    let found = known.or_else(made);
    found.expect("because every payload that the base lacks was added")
}

/// What goes into a delta.
#[derive(Debug)]
struct Plan {
    metadata: Vec<Object>,
    /// New files in the order of the walk.
    files: Vec<NewFile>,
    /// Of each content that the base commit lacks, one file, with what it is like.
    contents: Vec<NewFile>,
    old_files: OldFiles,
}

impl Plan {
    fn make(repo: &Repository, base: &Base<'_>, to: &ObjectId) -> Result<Self> {
        let new = Contents::of(repo, to, |object| base.knows(object))?;
        let files = new.new_files(repo)?;
        let mut seen = HashSet::new();
        let is_new = |file: &&NewFile| {
            let payload = file.file.payload;
            payload.is_some_and(|id| base.number(&id).is_none() && seen.insert(id))
        };
        let copy = |new: &NewFile| NewFile {
            path: new.path.clone(),
            file: new.file.clone(),
            sources: Vec::new(),
        };
        let mut contents: Vec<NewFile> = files.iter().filter(is_new).map(copy).collect();
        let old_files = OldFiles::load(repo, &base.contents, Readable::All)?;
        old_files.assign(repo, &mut contents, &payloads_of(repo, to)?);
        order(&mut contents);
        Ok(Self {
            metadata: new.metadata,
            files,
            contents,
            old_files,
        })
    }
}

/// What became of a content that is compressed inside.
enum Unpacked {
    Encoded(Group),
    /// Its plain form, encoded, and how it is compressed.
    Apart(Group, Apart),
    /// A plain form that is too large to be encoded at once, or whose source is.
    Large(Apart),
    /// It cannot be taken apart, and is too large as it is.
    LargeWhole,
}

/// Adds contents to a delta.
struct Adder<'a, 's> {
    repo: &'a Repository,
    base: &'a Base<'a>,
    old_files: &'a OldFiles,
    builder: Builder<'a, 's>,
}

impl Adder<'_, '_> {
    fn add_all(&mut self, contents: &[NewFile]) -> Result<()> {
        let (large, small): (Vec<&NewFile>, Vec<&NewFile>) =
            contents.iter().partition(|new| is_large(new));
        let mut packed = self.add_small(&small)?;
        for new in large {
            match self.is_packed(payload_of(new))? {
                true => packed.push(new),
                false => self.add_large(new)?,
            }
        }
        self.add_packed(&packed)
    }

    fn add_large(&mut self, new: &NewFile) -> Result<()> {
        let payload = payload_of(new);
        let source = sources_of(self.base, new).first().copied();
        let input = Input::Payload(payload);
        self.builder.add_large(Some(payload.id), input, source)?;
        Ok(())
    }

    fn is_packed(&self, payload: Piece) -> Result<bool> {
        if payload.size > recode::MAX_SIZE {
            return Ok(false);
        }
        if is_apart(self.repo, payload)? {
            return Ok(true);
        }
        let head = self.base.read_range(payload, 0, payload.size.min(8))?;
        Ok(recode::is_compressed(&head))
    }

    /// Encodes contents, some at a time, and adds them in their order; gives back those that are
    /// compressed inside.
    fn add_small<'n>(&mut self, mut rest: &[&'n NewFile]) -> Result<Vec<&'n NewFile>> {
        let (base, level, repo) = (self.base, self.builder.level, self.repo);
        let mut packed = Vec::new();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            let looked: Vec<Option<Group>> = batch
                .par_iter()
                .map_init(
                    || Encoder::new(base, level),
                    |encoder, new| {
                        let payload = payload_of(new);
                        if is_apart(repo, payload)? {
                            return Ok(None);
                        }
                        let bytes = base.read_whole(payload)?;
                        if recode::is_compressed(&bytes) {
                            return Ok(None);
                        }
                        encoder.encode(&bytes, &sources_of(base, new)).map(Some)
                    },
                )
                .collect::<Result<_>>()?;
            for (new, looked) in batch.iter().zip(looked) {
                let Piece { id, size } = payload_of(new);
                match looked {
                    None => packed.push(*new),
                    Some(group) => {
                        self.builder.push(Some(id), size, group)?;
                        self.builder.advance(size)?;
                    }
                }
            }
        }
        Ok(packed)
    }

    fn add_packed(&mut self, mut rest: &[&NewFile]) -> Result<()> {
        let (base, level, repo) = (self.base, self.builder.level, self.repo);
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            let unpacked: Vec<Unpacked> = batch
                .par_iter()
                .map_init(
                    || Encoder::new(base, level),
                    |encoder, new| unpack(repo, base, encoder, new),
                )
                .collect::<Result<_>>()?;
            for (new, unpacked) in batch.iter().zip(unpacked) {
                self.add_unpacked(new, unpacked)?;
            }
        }
        Ok(())
    }

    fn add_unpacked(&mut self, new: &NewFile, unpacked: Unpacked) -> Result<()> {
        let of = payload_of(new);
        match unpacked {
            Unpacked::LargeWhole => return self.add_large(new),
            Unpacked::Encoded(group) => {
                self.builder.push(Some(of.id), of.size, group)?;
            }
            Unpacked::Apart(group, Apart { plain, recipe }) => {
                let plain = self.builder.push(None, plain.len() as u64, group)?;
                self.builder.recode(of, plain, &recipe)?;
            }
            Unpacked::Large(Apart { plain, recipe }) => {
                let source = plain_source(self.base, new)?;
                let plain = match members(&plain) {
                    Some(_) => self.add_archive(&plain, source)?,
                    None => self.builder.add_large(None, Input::Bytes(&plain), source)?,
                };
                self.builder.recode(of, plain, &recipe)?;
                self.base.forget_plain();
            }
        }
        self.builder.advance(of.size)
    }

    /// Adds an archive as its members: many of them are files of the tree, too.
    fn add_archive(&mut self, bytes: &[u8], source: Option<Source>) -> Result<u64> {
        let old = match source {
            Some(source) => OldMembers::load(self.base, source)?,
            None => OldMembers::default(),
        };
        let cuts = members(bytes).unwrap_or_default();
        let glue: Vec<u8> = cuts
            .iter()
            .filter(|cut| cut.name.is_none())
            .flat_map(|cut| &bytes[cut.range.clone()])
            .copied()
            .collect();
        let glue = self.builder.add_large(None, Input::Bytes(&glue), None)?;
        let mut pieces = Vec::with_capacity(cuts.len());
        let mut glue_at = 0;
        let ids: Vec<PayloadId> = cuts
            .par_iter()
            .map(|cut| PayloadId::of(&bytes[cut.range.clone()]))
            .collect();
        for (cut, id) in cuts.into_iter().zip(ids) {
            let len = cut.range.len() as u64;
            let Some(name) = &cut.name else {
                pieces.push(Source {
                    origin: Origin::Made(glue),
                    window: Some((glue_at, len)),
                });
                glue_at += len;
                continue;
            };
            let known = self
                .base
                .number(&id)
                .map(|number| Origin::Base(number).into());
            let made = || Some(Origin::Made(self.builder.number(&id)?).into());
            let piece: Option<Source> = known.or_else(made).or_else(|| old.same(&id));
            pieces.push(match piece {
                Some(piece) => piece,
                None => {
                    let path = String::from_utf8_lossy(name);
                    let source = old.earlier(name).or_else(|| self.old_file(&path, len));
                    let input = Input::Bytes(&bytes[cut.range.clone()]);
                    let number = self.builder.add_large(Some(id), input, source)?;
                    Origin::Made(number).into()
                }
            });
        }
        self.builder.join(None, bytes.len() as u64, &pieces)
    }

    fn old_file(&self, path: &str, size: u64) -> Option<Source> {
        let source = self.old_files.by_name(path, size)?;
        let number = self.base.number(&source.payload.id)?;
        Some(Origin::Base(number).into())
    }
}

/// Takes a content apart and encodes its plain form, if that is smaller.
fn unpack(
    repo: &Repository,
    base: &Base<'_>,
    encoder: &mut Encoder<'_>,
    new: &NewFile,
) -> Result<Unpacked> {
    let payload = payload_of(new);
    let direct = |encoder: &mut Encoder<'_>| {
        let bytes = base.read_whole(payload)?;
        encoder.encode(&bytes, &sources_of(base, new))
    };
    let Some(apart) = take_apart(base, repo, payload)? else {
        return match is_large(new) {
            true => Ok(Unpacked::LargeWhole),
            false => direct(encoder).map(Unpacked::Encoded),
        };
    };
    let source = plain_source(base, new)?;
    let source_size = source.map_or(Ok(0), |source| base.len_of(&source));
    if apart.plain.len() as u64 > SEGMENT || source_size.map_err(|f| base.fault(f))? > MAX_SOURCE {
        return Ok(Unpacked::Large(apart));
    }
    let encoded = encoder.encode(&apart.plain, source.as_slice())?;
    if source.is_none() && !is_large(new) {
        let direct = direct(encoder)?;
        let cost = |group: &Group| estimate(group).at(base.delta());
        if cost(&direct)? <= cost(&encoded)? + apart.recipe.len() {
            return Ok(Unpacked::Encoded(direct));
        }
    }
    Ok(Unpacked::Apart(encoded, apart))
}

/// Whether a content, or the sources that it is like, cannot be encoded at once.
fn is_large(new: &NewFile) -> bool {
    let sources: u64 = new.sources.iter().map(|source| source.payload.size).sum();
    new.file.size > SEGMENT || sources > MAX_SOURCE
}

fn payload_of(new: &NewFile) -> Piece {
    piece(&new.file).expect("because files without a payload are no contents")
}

/// The sources of a content.
fn sources_of(base: &Base<'_>, new: &NewFile) -> Vec<Source> {
    let numbers = new.sources.iter();
    let numbers = numbers.filter_map(|source| base.number(&source.payload.id));
    numbers.map(|number| Origin::Base(number).into()).collect()
}
