//! One pass over a payload, matching archive entries to the header's file list.
//!
//! Owns the agreement between header and payload: every listed entry must come exactly once, with
//! the type, size and digest that the header gives, and nothing else may come. The work is linear
//! in entries and bytes. Hard links are resolved here: content is handed over once, with all the
//! names it has.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use super::content::{Content, Found, drain, read_target};
use super::cpio::{self, Record};
use super::digest::{Expected, Hashing};
use super::entries::{Entry, EntryKind, FileList};
use super::payload::decompress;
use super::{Package, PackageError, copy_all};
use crate::Error;

/// Receives the entries of a package in payload order; ghosts come last.
pub trait Visitor {
    /// What stops the reading.
    type Error: From<Error>;

    /// A directory, symbolic link, device or the like, or a ghost of any kind.
    fn entry(&mut self, entry: &Entry) -> Result<(), Self::Error>;

    /// A regular file with all its names (never none, several for hard links). `content` gives
    /// exactly the size that each name's entry has; what is left unread is skipped. Digests are
    /// compared after this call, so nothing may be relied upon before the whole read succeeded.
    fn file(&mut self, names: &[&Entry], content: &mut dyn Read) -> Result<(), Self::Error>;
}

/// How to read a payload.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Whether to compare the payload's digest; not needed after [`Package::verify`].
    pub verify_payload: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            verify_payload: true,
        }
    }
}

impl ReadOptions {
    /// For a package whose payload was verified already.
    pub fn verified() -> Self {
        Self {
            verify_payload: false,
        }
    }
}

impl Package {
    /// Hands every entry to `visitor`, in one pass over the payload. An error after some calls
    /// means that nothing of what was handed over may be used.
    pub fn read<V: Visitor>(
        &self,
        files: &FileList,
        options: ReadOptions,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let fail = |source| V::Error::from(self.error(source));
        let expected = Expected::of_payload(&self.metadata);
        let packed = expected.as_ref().filter(|_| options.verify_payload);
        let unpacked = expected.clone().filter(|expected| expected.unpacked);
        let unpacked = unpacked.map(|expected| Expected {
            unpacked: false,
            ..expected
        });
        if self.payload_is_empty().map_err(fail)? {
            let present = files.entries().iter().find(|entry| !entry.is_ghost());
            let detail = "it is missing: the file ends after the header".to_owned();
            let missing = PackageError::Malformed {
                part: "payload",
                detail,
            };
            return present.map_or(Ok(()), |_| Err(fail(missing)));
        }
        let mut payload = Hashing::new(self.payload(), packed);
        let mut walk = Walk::new(self, files);
        {
            let plain = decompress(&mut payload, self.compressor()).map_err(fail)?;
            let plain = Hashing::new(plain, unpacked.as_ref());
            let mut plain = BufReader::with_capacity(64 << 10, plain);
            walk.run(&mut plain, visitor)?;
            drain(&mut plain).map_err(fail)?;
            plain
                .into_inner()
                .finish(unpacked.as_ref(), "unpacked payload")
                .map_err(fail)?;
        }
        copy_all(&mut payload).map_err(fail)?;
        payload.finish(packed, "payload").map_err(fail)?;
        walk.finish(visitor)
    }

    fn payload_is_empty(&self) -> Result<bool, PackageError> {
        Ok(self.payload().read(&mut [0])? == 0)
    }

    fn compressor(&self) -> &str {
        let tag = rpm::IndexTag::RPMTAG_PAYLOADCOMPRESSOR;
        self.metadata
            .header
            .get_entry_data_as_string(tag)
            .unwrap_or_default()
    }
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    /// Seen without its content, which comes with another name.
    Pending,
    /// Handed over together with another name, not seen itself.
    Covered,
    Done,
}

struct Walk<'a> {
    package: &'a Package,
    files: &'a FileList,
    states: Vec<State>,
    /// Regular files by the identity that the header gives them, where several share one.
    groups: HashMap<(u32, u32), Vec<usize>>,
}

impl<'a> Walk<'a> {
    fn new(package: &'a Package, files: &'a FileList) -> Self {
        let mut groups = HashMap::<_, Vec<usize>>::new();
        for (at, entry) in files.entries().iter().enumerate() {
            if let Some(inode) = entry.inode
                && entry.kind == EntryKind::File
                && !entry.is_ghost()
            {
                groups.entry(inode).or_default().push(at);
            }
        }
        groups.retain(|_, members| members.len() > 1);
        Self {
            package,
            files,
            states: vec![State::Missing; files.entries().len()],
            groups,
        }
    }

    fn run<V: Visitor>(&mut self, input: &mut impl Read, visitor: &mut V) -> Result<(), V::Error> {
        loop {
            let record = Record::read(input).map_err(|e| self.package.error(e))?;
            let found = match record {
                Record::Trailer => return Ok(()),
                Record::Named {
                    name,
                    mode,
                    links,
                    size,
                    sum,
                } => self
                    .find(&name)
                    .and_then(|at| self.check_type(at, mode).map(|()| at))
                    .map(|at| Found {
                        at,
                        size: u64::from(size),
                        linked: links > 1,
                        sum,
                    }),
                Record::Stripped { index } => self.find_stripped(index),
            };
            let found = found.map_err(|e| self.package.error(e))?;
            self.take(&found, input, visitor)?;
            cpio::skip_padding(input, found.size).map_err(|e| self.package.error(e))?;
        }
    }

    fn entry(&self, at: usize) -> &'a Entry {
        self.files
            .entries()
            .get(at)
            .expect("because indexes come from the list itself")
    }

    fn find(&self, name: &[u8]) -> Result<usize, PackageError> {
        let path = name
            .strip_prefix(b".")
            .filter(|rest| rest.is_empty() || rest[0] == b'/');
        let path = path.unwrap_or(name);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let at = self.files.find(path);
        at.ok_or_else(|| {
            let name = String::from_utf8_lossy(name).into_owned();
            PackageError::entry(name, "in the payload, but not in the header")
        })
    }

    fn check_type(&self, at: usize, mode: u32) -> Result<(), PackageError> {
        let entry = self.entry(at);
        if mode & 0o170000 == entry.mode & 0o170000 {
            return Ok(());
        }
        let reason = format!(
            "a {} in the header, but not in the payload",
            entry.kind_name()
        );
        Err(PackageError::entry(&entry.path, reason))
    }

    /// Stripped entries do not say their size: of several names only the last has the content.
    fn find_stripped(&self, index: u32) -> Result<Found, PackageError> {
        let at = index as usize;
        let Some(entry) = self.files.entries().get(at) else {
            let detail = format!("entry {index} is not in the header");
            return Err(cpio::archive(detail));
        };
        let group = self.group(entry);
        let elsewhere = !entry.is_ghost() && group.last().is_some_and(|last| *last != at);
        let size = match entry.kind {
            EntryKind::File if elsewhere => 0,
            EntryKind::File | EntryKind::Unnameable => entry.size,
            EntryKind::Symlink => entry.target.len() as u64,
            EntryKind::Dir | EntryKind::Special => 0,
        };
        Ok(Found {
            at,
            size,
            linked: !group.is_empty(),
            sum: None,
        })
    }

    fn group(&self, entry: &Entry) -> &[usize] {
        entry
            .inode
            .and_then(|inode| self.groups.get(&inode))
            .map_or(&[], Vec::as_slice)
    }

    fn take<V: Visitor>(
        &mut self,
        found: &Found,
        input: &mut impl Read,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let entry = self.entry(found.at);
        let state = self.states.get(found.at).copied().unwrap_or(State::Done);
        let refuse = |reason: String| {
            Err(V::Error::from(
                self.package.error(PackageError::entry(&entry.path, reason)),
            ))
        };
        match (entry.kind, state) {
            (_, State::Done | State::Pending) => refuse("twice in the payload".to_owned()),
            (EntryKind::File, _) if found.size == 0 && entry.size > 0 => {
                let covered = state == State::Covered;
                if !covered && self.group(entry).is_empty() {
                    return refuse(format!("{} bytes of content are missing", entry.size));
                }
                self.set(found.at, if covered { State::Done } else { State::Pending });
                Ok(())
            }
            (EntryKind::File, _) if found.size != entry.size => refuse(format!(
                "{} bytes in the header, but {} in the payload",
                entry.size, found.size
            )),
            (EntryKind::File, State::Covered) => self.compare_again(found, input),
            (EntryKind::File, _) => self.file(found, input, visitor),
            (EntryKind::Symlink, _) => {
                let target = read_target(input, found.size).map_err(|e| self.package.error(e))?;
                if target != entry.target.as_bytes() {
                    let target = String::from_utf8_lossy(&target).into_owned();
                    return refuse(format!(
                        "links to {:?} in the header, but to {target:?} in the payload",
                        entry.target
                    ));
                }
                self.set(found.at, State::Done);
                visitor.entry(entry)
            }
            (EntryKind::Unnameable, _) => {
                Content::new(input, found, None)
                    .finish(found, None, &entry.path)
                    .map_err(|e| self.package.error(e))?;
                self.set(found.at, State::Done);
                visitor.entry(entry)
            }
            (_, _) if found.size > 0 => refuse(format!("a {} with content", entry.kind_name())),
            (_, _) => {
                self.set(found.at, State::Done);
                visitor.entry(entry)
            }
        }
    }

    fn file<V: Visitor>(
        &mut self,
        found: &Found,
        input: &mut impl Read,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let entry = self.entry(found.at);
        let mut names = vec![entry];
        self.set(found.at, State::Done);
        for &at in self
            .groups
            .get(&entry.inode.unwrap_or_default())
            .into_iter()
            .flatten()
        {
            let other = self.entry(at);
            let same = other.size == entry.size && other.digest == entry.digest;
            let state = self.states.get_mut(at);
            match state {
                Some(state) if *state == State::Pending && same => *state = State::Done,
                Some(state) if *state == State::Missing && same && found.linked => {
                    *state = State::Covered;
                }
                _ => continue,
            }
            names.push(other);
        }
        let expected = self.files.expected(entry);
        let mut content = Content::new(input, found, expected.as_ref());
        let visited = visitor.file(&names, &mut content);
        // A reader's failure explains the visitor's.
        if let Some(error) = content.take_failure() {
            return Err(self.package.error(error).into());
        }
        visited?;
        content
            .finish(found, expected.as_ref(), &entry.path)
            .map_err(|e| self.package.error(e).into())
    }

    /// Content that was already handed over with another name: it must be the same.
    fn compare_again<E: From<Error>>(
        &mut self,
        found: &Found,
        input: &mut impl Read,
    ) -> Result<(), E> {
        let entry = self.entry(found.at);
        self.set(found.at, State::Done);
        let expected = self.files.expected(entry);
        if expected.is_none() && entry.size > 0 {
            let reason = "a hard link whose content comes twice, without a digest to compare";
            return Err(self
                .package
                .error(PackageError::entry(&entry.path, reason))
                .into());
        }
        Content::new(input, found, expected.as_ref())
            .finish(found, expected.as_ref(), &entry.path)
            .map_err(|e| self.package.error(e).into())
    }

    fn set(&mut self, at: usize, state: State) {
        if let Some(slot) = self.states.get_mut(at) {
            *slot = state;
        }
    }

    /// Nothing listed may be missing; ghosts are handed over now.
    fn finish<V: Visitor>(&self, visitor: &mut V) -> Result<(), V::Error> {
        for (entry, state) in self.files.entries().iter().zip(&self.states) {
            match state {
                State::Done | State::Covered => {}
                State::Missing if entry.is_ghost() => visitor.entry(entry)?,
                State::Missing | State::Pending => {
                    let reason = "in the header, but not in the payload";
                    let reason = if *state == State::Pending {
                        "its content is missing"
                    } else {
                        reason
                    };
                    let error = PackageError::entry(&entry.path, reason);
                    return Err(self.package.error(error).into());
                }
            }
        }
        Ok(())
    }
}
