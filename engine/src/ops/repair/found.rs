//! Taking what sources give: it is hashed, compared with what is wanted, and stored.

use std::collections::HashSet;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::source::{Wanted, no_header};
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::monitor::Monitor;
use crate::object::FileHeader;
use crate::pack::EntryKind;
use crate::repo::Transaction;
use crate::repo::ingest::{Body, NewFile};
use crate::repo::restore::Restore;

/// Receives what a [`Source`](super::Source) has.
#[derive(Debug)]
pub struct Found<'r> {
    /// `None` on a dry run: nothing is stored.
    txn: Option<Transaction<'r>>,
    wanted: &'r Wanted,
    monitor: &'r dyn Monitor,
    objects: HashSet<(ObjectKind, ObjectId)>,
    payloads: HashSet<PayloadId>,
    /// Whether storing failed: what was written so far must not be published.
    poisoned: bool,
}

/// A reader that counts, so that its failures can be told from those of storing.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

impl<'r> Found<'r> {
    pub(super) fn new(
        txn: Option<Transaction<'r>>,
        wanted: &'r Wanted,
        monitor: &'r dyn Monitor,
    ) -> Self {
        Self {
            txn,
            wanted,
            monitor,
            objects: HashSet::new(),
            payloads: HashSet::new(),
            poisoned: false,
        }
    }

    /// What of the wanted things was given.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.objects.len() as u64, self.payloads.len() as u64)
    }

    /// What is still wanted.
    pub(super) fn left(&self) -> Wanted {
        let mut left = self.wanted.clone();
        left.objects.retain(|object| !self.objects.contains(object));
        left.payloads.retain(|id, _| !self.payloads.contains(id));
        left
    }

    /// Makes what was given part of the repository.
    pub(super) fn publish(self) -> Result<()> {
        match self.txn.filter(|_| !self.poisoned) {
            Some(txn) if !self.objects.is_empty() || !self.payloads.is_empty() => {
                txn.publish(&[]).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Fails when the repair is to stop.
    pub fn check_cancelled(&self) -> Result<()> {
        match self.monitor.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Turns a failure of a source into a warning: what it did not give, another one may.
    pub fn tolerate<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.poisoned || matches!(error, Error::Cancelled) => Err(error),
            Err(error) => {
                self.monitor.warn(&crate::ops::describe(&error));
                Ok(None)
            }
        }
    }

    /// Takes a commit, dirtree or dirmeta object.
    pub fn object(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        let id = ObjectId::of(bytes);
        let entry = match kind {
            ObjectKind::Commit => EntryKind::Commit,
            ObjectKind::Dirtree => EntryKind::Dirtree,
            ObjectKind::Dirmeta => EntryKind::Dirmeta,
            ObjectKind::File => return Ok(()),
        };
        let is_new = self.wanted.objects.contains(&(kind, id)) && self.objects.insert((kind, id));
        match &mut self.txn {
            Some(txn) if is_new => {
                let done = txn.restore_object(entry, bytes);
                done.inspect_err(|_| self.poisoned = true)
            }
            _ => Ok(()),
        }
    }

    /// Takes a file with the `size` bytes of its payload; without `header`, only the payload.
    /// `hint` is its path, if it has one. Gives the names of file object and payload.
    pub fn file(
        &mut self,
        header: Option<&FileHeader>,
        hint: &[u8],
        size: u64,
        payload: &mut dyn Read,
    ) -> Result<(ObjectId, Option<PayloadId>)> {
        let with_header = header.is_some();
        let header = header.cloned().unwrap_or_else(no_header);
        let Some(txn) = &mut self.txn else {
            let (id, payload) = hash(&header, size, payload)?;
            let restore = self.wants(with_header, &id, payload.as_ref());
            self.note(restore, &id, payload);
            return Ok((id, payload));
        };
        let file = NewFile {
            header,
            hint: hint.to_vec(),
            body: Body::None,
        };
        let names = std::cell::Cell::new(None);
        let (wanted, objects, payloads) = (self.wanted, &self.objects, &self.payloads);
        let wants = |id: &ObjectId, payload: Option<&PayloadId>| {
            names.set(Some((*id, payload.copied())));
            is_wanted(wanted, objects, payloads, with_header, id, payload)
        };
        let mut stream = Watched {
            inner: payload,
            left: size,
        };
        let restore = txn.restore_file(file, &mut stream, size, &wants);
        let read_all = stream.left == 0;
        let restore = restore.inspect_err(|_| self.poisoned |= read_all)?;
        let (id, payload) = names
            .get()
            .expect("because a restored file was asked about");
        self.note(restore, &id, payload);
        Ok((id, payload))
    }

    fn wants(&self, header: bool, id: &ObjectId, payload: Option<&PayloadId>) -> Restore {
        is_wanted(
            self.wanted,
            &self.objects,
            &self.payloads,
            header,
            id,
            payload,
        )
    }

    fn note(&mut self, restore: Restore, id: &ObjectId, payload: Option<PayloadId>) {
        if restore.record {
            self.objects.insert((ObjectKind::File, *id));
        }
        self.payloads.extend(payload.filter(|_| restore.payload));
    }
}

fn is_wanted(
    wanted: &Wanted,
    objects: &HashSet<(ObjectKind, ObjectId)>,
    payloads: &HashSet<PayloadId>,
    with_header: bool,
    id: &ObjectId,
    payload: Option<&PayloadId>,
) -> Restore {
    let object = (ObjectKind::File, *id);
    let record = with_header && wanted.objects.contains(&object) && !objects.contains(&object);
    let payload =
        payload.is_some_and(|id| wanted.payloads.contains_key(id) && !payloads.contains(id));
    Restore { record, payload }
}

/// The names of a file.
fn hash(
    header: &FileHeader,
    size: u64,
    payload: &mut dyn Read,
) -> Result<(ObjectId, Option<PayloadId>)> {
    let mut object = header.hasher();
    let mut sum = Sha256::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        let n = payload.read(&mut buf).at("the source of a repair")?;
        if n == 0 {
            break;
        }
        object.update(&buf[..n]);
        sum.update(&buf[..n]);
    }
    let payload = PayloadId::from_bytes(sum.finalize().into());
    Ok((object.finish(), Some(payload).filter(|_| size > 0)))
}
