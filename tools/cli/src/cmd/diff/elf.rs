//! What changed of programs and libraries, as far as those care who link with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};

use grove_engine::monitor::Phase;
use grove_engine::ops::diff::{Content, DiffReport, FileKind, Info};
use grove_engine::{Error as Engine, Monitor, Repository};
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache};
use rayon::prelude::*;
use serde::Serialize;

use crate::exit::Result;
use crate::ui;

/// Symbols that text output names.
const NAMED: usize = 10;
/// Bytes at the beginning that say what kind of file it is.
const IDENT: usize = 16;
/// Bytes that are read at once: tables are scattered, what is in them is not.
const PAGE: usize = 64 << 10;

/// What others rely on in an ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    soname: Option<String>,
    build_id: Option<String>,
    needed: BTreeSet<String>,
    /// Defined dynamic symbols, `name` or `name@version`.
    symbols: BTreeSet<String>,
}

/// An ELF file that differs.
#[derive(Debug)]
pub(super) struct Change {
    path: String,
    /// Where it was before, if elsewhere.
    from: Option<String>,
    before: Option<Facts>,
    after: Option<Facts>,
}

#[derive(Serialize)]
pub(super) struct Row {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<String>,
    soname_before: Option<String>,
    soname_after: Option<String>,
    build_id_before: Option<String>,
    build_id_after: Option<String>,
    needed_added: Vec<String>,
    needed_removed: Vec<String>,
    symbols_added: Vec<String>,
    symbols_removed: Vec<String>,
}

/// Reads all ELF files whose content differs. A library that was replaced by one with the same
/// soname in the same directory is one change, whatever the files are called.
pub(super) fn find(
    repo: Option<&Repository>,
    report: &DiffReport,
    monitor: &dyn Monitor,
) -> Result<Vec<Change>> {
    let mut events = report.events();
    events.retain(|event| {
        event
            .aspects()
            .is_none_or(|found| found.content || found.kind)
    });
    let read = |info: Option<&Info>| -> Result<Option<Facts>> {
        if monitor.is_cancelled() {
            return Err(Engine::Cancelled.into());
        }
        info.map_or(Ok(None), |info| facts(repo, info))
    };
    monitor.begin(Phase::Scan, Some(events.len() as u64));
    let changes: Vec<Result<Change>> = events
        .par_iter()
        .map(|event| {
            monitor.advance(Phase::Scan, 1);
            Ok(Change {
                path: event.path().to_owned(),
                from: event
                    .from
                    .filter(|_| event.moved.is_some())
                    .map(|from| from.path.clone()),
                before: read(event.before())?,
                after: read(event.after())?,
            })
        })
        .collect();
    monitor.end(Phase::Scan);
    let mut changes = changes.into_iter().collect::<Result<Vec<Change>>>()?;
    changes.retain(|change| change.before != change.after);
    join(&mut changes);
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Makes one change of a removed and an added library with the same soname.
fn join(changes: &mut Vec<Change>) {
    let mut gone: BTreeMap<(String, String), Change> = BTreeMap::new();
    let mut kept = Vec::new();
    for change in changes.drain(..) {
        match (&change.before, &change.after) {
            (Some(before), None) if before.soname.is_some() => {
                if let Some(other) = gone.insert(place(&change.path, before), change) {
                    kept.push(other);
                }
            }
            _ => kept.push(change),
        }
    }
    for change in &mut kept {
        if change.before.is_none()
            && let Some(after) = &change.after
            && let Some(old) = gone.remove(&place(&change.path, after))
        {
            change.from = Some(old.path);
            change.before = old.before;
        }
    }
    kept.extend(gone.into_values());
    *changes = kept;
}

fn place(path: &str, facts: &Facts) -> (String, String) {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    (dir.to_owned(), facts.soname.clone().unwrap_or_default())
}

/// The facts of a file; `None` if it is no ELF file, or one that cannot be made out.
fn facts(repo: Option<&Repository>, info: &Info) -> Result<Option<Facts>> {
    if info.kind != FileKind::File || info.size < 64 {
        return Ok(None);
    }
    let content = Content::open(repo, info)?;
    let head = content.head(IDENT)?;
    if !head.starts_with(&elf::ELFMAG) {
        return Ok(None);
    }
    let data = ReadCache::new(Paged::new(content));
    let class = head.get(elf::ELFMAG.len()).copied().map(elf::FileClass);
    let found = match class {
        Some(elf::ELFCLASS32) => read::<FileHeader32<Endianness>>(&data),
        Some(elf::ELFCLASS64) => read::<FileHeader64<Endianness>>(&data),
        _ => return Ok(None),
    };
    match (found, data.into_inner().failed) {
        (_, Some(error)) => Err(error.into()),
        (found, None) => Ok(found.ok()),
    }
}

fn read<E: FileHeader<Endian = Endianness>>(data: &ReadCache<Paged<'_>>) -> object::Result<Facts> {
    let header = E::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut facts = Facts::default();
    for section in sections.iter() {
        let Some(mut notes) = section.notes(endian, data)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                let digits = note.desc().iter().map(|byte| format!("{byte:02x}"));
                facts.build_id = Some(digits.collect());
            }
        }
    }
    let dynamic = sections.dynamic_table(endian, data)?;
    for entry in dynamic.iter() {
        match entry.tag {
            elf::DT_SONAME => facts.soname = Some(text(dynamic.string(entry)?)),
            elf::DT_NEEDED => {
                facts.needed.insert(text(dynamic.string(entry)?));
            }
            _ => {}
        }
    }
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let versions = sections.versions(endian, data)?;
    for (index, symbol) in symbols.enumerate() {
        let name = symbols.symbol_name(endian, symbol)?;
        if symbol.is_local() || symbol.is_undefined(endian) || name.is_empty() {
            continue;
        }
        let mut name = text(name);
        if let Some(versions) = &versions
            && let Some(version) =
                versions.version(versions.version_index(endian, index).index())?
        {
            name = format!("{name}@{}", text(version.name()));
        }
        facts.symbols.insert(name);
    }
    Ok(facts)
}

/// A file read in pages, of which it holds the last one.
#[derive(Debug)]
struct Paged<'r> {
    content: Content<'r>,
    position: u64,
    page: Vec<u8>,
    page_start: u64,
    /// Why a page could not be read; the parser does not say.
    failed: Option<Engine>,
}

impl<'r> Paged<'r> {
    fn new(content: Content<'r>) -> Self {
        Self {
            content,
            position: 0,
            page: Vec::new(),
            page_start: 0,
            failed: None,
        }
    }
}

impl Read for Paged<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.page_start + self.page.len() as u64;
        if !(self.page_start..end).contains(&self.position) {
            self.page_start = self.position / PAGE as u64 * PAGE as u64;
            self.page.resize(PAGE, 0);
            match self.content.read_at(self.page_start, &mut self.page) {
                Ok(n) => self.page.truncate(n),
                Err(error) => {
                    self.page.clear();
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let skip = (self.position - self.page_start) as usize;
        let rest = self.page.get(skip..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Paged<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.content.size(), by),
            SeekFrom::Current(by) => (self.position, by),
        };
        let at = base.checked_add_signed(by);
        self.position = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// Prints a paragraph for each file.
pub(super) fn print(out: &mut dyn Write, changes: &[Change]) -> Result<()> {
    for change in changes {
        let from = change
            .from
            .as_ref()
            .map(|from| format!("{} -> ", ui::printable(from)));
        writeln!(
            out,
            "{}{}",
            from.unwrap_or_default(),
            ui::printable(&change.path)
        )?;
        let Row {
            soname_before,
            soname_after,
            build_id_before,
            build_id_after,
            ..
        } = row(change);
        value(out, "soname", soname_before, soname_after)?;
        value(out, "build ID", build_id_before, build_id_after)?;
        let none = BTreeSet::new();
        let lists = |of: fn(&Facts) -> &BTreeSet<String>| {
            let (before, after) = (
                change.before.as_ref().map(of),
                change.after.as_ref().map(of),
            );
            (
                before.unwrap_or(&none).clone(),
                after.unwrap_or(&none).clone(),
            )
        };
        let (before, after) = lists(|facts| &facts.needed);
        set(out, "needed", &before, &after, usize::MAX)?;
        let (before, after) = lists(|facts| &facts.symbols);
        set(out, "symbols", &before, &after, NAMED)?;
    }
    Ok(())
}

fn value(
    out: &mut dyn Write,
    name: &str,
    before: Option<String>,
    after: Option<String>,
) -> Result<()> {
    if before != after {
        let show = |value: Option<String>| ui::printable(value.as_deref().unwrap_or("none"));
        writeln!(out, "    {name:<9} {} -> {}", show(before), show(after))?;
    }
    Ok(())
}

fn set(
    out: &mut dyn Write,
    name: &str,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
    named: usize,
) -> Result<()> {
    for (sign, list) in [
        ('-', before.difference(after)),
        ('+', after.difference(before)),
    ] {
        let list: Vec<&String> = list.collect();
        if list.is_empty() {
            continue;
        }
        let names: Vec<String> = list
            .iter()
            .take(named)
            .map(|name| ui::printable(name))
            .collect();
        let more = match list.len().saturating_sub(named) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(
            out,
            "    {name:<9} {sign}{}: {}{more}",
            list.len(),
            names.join(", ")
        )?;
    }
    Ok(())
}

/// The JSON form.
pub(super) fn row(change: &Change) -> Row {
    let empty = Facts::default();
    let before = change.before.as_ref().unwrap_or(&empty);
    let after = change.after.as_ref().unwrap_or(&empty);
    let minus = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
    Row {
        path: change.path.clone(),
        moved_from: change.from.clone(),
        soname_before: before.soname.clone(),
        soname_after: after.soname.clone(),
        build_id_before: before.build_id.clone(),
        build_id_after: after.build_id.clone(),
        needed_added: minus(&after.needed, &before.needed),
        needed_removed: minus(&before.needed, &after.needed),
        symbols_added: minus(&after.symbols, &before.symbols),
        symbols_removed: minus(&before.symbols, &after.symbols),
    }
}
