//! Storing what the reading threads make, in the packages' order.
//!
//! Owns the threads and the memory on its way: each package has a channel of few messages, and
//! only a few packages beyond the one being stored are read ahead.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use grove_engine::monitor::Phase;
use grove_engine::tree::FileEntry;
use grove_engine::{Body, Monitor, NewFile, Transaction};

use super::collect::{Finished, Made, Message, read_package};
use super::record::{Item, Record};
use super::{ImportOptions, Named};
use crate::Error;
use crate::package::PackageError;

/// Threads that read packages; more would only wait for the one that stores.
const MAX_READERS: usize = 8;
/// Messages of one package on their way.
const MESSAGES_AT_ONCE: usize = 2;
/// Content given to the transaction at a time, in bytes and in files.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_FILES: usize = 16 << 10;

type Job<'a> = (&'a Named, SyncSender<Message>);

/// Reads and stores packages; the records are in the order of `packages`.
pub(super) fn store(
    txn: &mut Transaction<'_>,
    packages: &[&Named],
    options: &ImportOptions,
    monitor: &dyn Monitor,
) -> Result<Vec<Record>, Error> {
    let readers = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = readers.min(MAX_READERS).min(packages.len());
    let (jobs, queue) = channel::<Job<'_>>();
    let queue = Mutex::new(queue);
    let mut storing = Storing::new(txn, monitor, packages.len());
    std::thread::scope(|scope| {
        // Whatever ends this closure drops the channels, and with them the threads end.
        let jobs = jobs;
        for _ in 0..readers {
            scope.spawn(|| work(&queue, options));
        }
        let mut waiting = packages.iter();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < readers + 2 {
                let Some(named) = waiting.next() else { break };
                let (sender, receiver) = sync_channel(MESSAGES_AT_ONCE);
                jobs.send((named, sender))
                    .expect("because the queue outlives this scope");
                ahead.push_back((*named, receiver));
            }
            let Some((named, receiver)) = ahead.pop_front() else {
                break;
            };
            storing.package(named, &receiver)?;
        }
        storing.flush()
    })?;
    Ok(storing.records)
}

fn work(queue: &Mutex<Receiver<Job<'_>>>, options: &ImportOptions) {
    loop {
        // Only waiting for the next job happens under the lock.
        let job = queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .recv();
        let Ok((named, sender)) = job else { return };
        read_package(named, options, &sender);
    }
}

/// A package that is not complete: some of its files wait in the batch.
struct Open<'a> {
    named: &'a Named,
    files: Vec<(String, FileEntry)>,
    finished: Option<Finished>,
}

struct Storing<'a, 't, 'r> {
    txn: &'t mut Transaction<'r>,
    monitor: &'a dyn Monitor,
    records: Vec<Record>,
    open: VecDeque<Open<'a>>,
    /// Files to store, with the number of their package in `open` and their places.
    batch: Vec<NewFile>,
    owners: Vec<(usize, Vec<String>)>,
    batch_bytes: usize,
}

impl<'a, 't, 'r> Storing<'a, 't, 'r> {
    fn new(txn: &'t mut Transaction<'r>, monitor: &'a dyn Monitor, count: usize) -> Self {
        Self {
            txn,
            monitor,
            records: Vec::with_capacity(count),
            open: VecDeque::new(),
            batch: Vec::new(),
            owners: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Takes everything a package's reader says.
    fn package(&mut self, named: &'a Named, messages: &Receiver<Message>) -> Result<(), Error> {
        self.open.push_back(Open {
            named,
            files: Vec::new(),
            finished: None,
        });
        loop {
            if self.monitor.is_cancelled() {
                return Err(grove_engine::Error::Cancelled.into());
            }
            match messages.recv() {
                Ok(Message::Files(files)) => {
                    files.into_iter().try_for_each(|made| self.add(made))?;
                }
                Ok(Message::Stream(made, size, pieces)) => {
                    self.stream(made, size, pieces)
                        .map_err(|error| cause(error, messages))?;
                }
                Ok(Message::Done(finished)) => {
                    if let Some(open) = self.open.back_mut() {
                        open.finished = Some(*finished);
                    }
                    return Ok(());
                }
                Ok(Message::Failed(error)) => return Err(*error),
                Err(_) => {
                    let source = PackageError::Io(io::Error::other("its reader stopped"));
                    return Err(Error::package(&named.path, source));
                }
            }
        }
    }

    fn add(&mut self, made: Made) -> Result<(), Error> {
        let size = made.content.as_ref().map_or(0, Vec::len);
        if self.batch_bytes + size > BATCH_BYTES || self.batch.len() >= BATCH_FILES {
            self.flush()?;
        }
        self.batch_bytes += size;
        let body = made.content.map_or(Body::None, Body::Bytes);
        self.batch.push(new_file(&made.paths, made.header, body));
        self.owners.push((self.open.len() - 1, made.paths));
        Ok(())
    }

    fn stream(&mut self, made: Made, size: u64, pieces: Receiver<Vec<u8>>) -> Result<(), Error> {
        self.flush()?;
        let file = new_file(&made.paths, made.header, Body::None);
        let mut content = Pieces {
            pieces,
            piece: Vec::new(),
            used: 0,
        };
        let entry = self.txn.put_stream(file, &mut content, size)?;
        self.keep(self.open.len() - 1, made.paths, &entry);
        Ok(())
    }

    fn keep(&mut self, at: usize, paths: Vec<String>, entry: &FileEntry) {
        if let Some(open) = self.open.get_mut(at) {
            open.files
                .extend(paths.into_iter().map(|path| (path, entry.clone())));
        }
    }

    /// Stores the batch and completes the packages that wait for it.
    fn flush(&mut self) -> Result<(), Error> {
        self.batch_bytes = 0;
        let entries = self.txn.put_files(std::mem::take(&mut self.batch))?;
        for ((at, paths), entry) in std::mem::take(&mut self.owners).into_iter().zip(entries) {
            self.keep(at, paths, &entry);
        }
        while let Some(open) = self.open.pop_front() {
            let Some(finished) = open.finished else {
                self.open.push_front(open);
                break;
            };
            let mut files = open.files;
            files.sort_by(|(a, _), (b, _)| a.cmp(b));
            files.dedup_by(|(a, x), (b, y)| a == b && x.id == y.id);
            let record = complete(open.named, finished, &files)?;
            let files: Vec<_> = files.into_iter().map(|(_, entry)| entry).collect();
            self.txn
                .put_import(&open.named.key, &record.encode(), &files)?;
            self.records.push(record);
            self.monitor.advance(Phase::Import, 1);
        }
        Ok(())
    }
}

fn new_file(paths: &[String], header: grove_engine::object::FileHeader, body: Body) -> NewFile {
    let hint = paths
        .first()
        .map(|path| path.clone().into_bytes())
        .unwrap_or_default();
    NewFile { header, hint, body }
}

/// Why storing a stream failed: if its reader failed, then for that reason.
fn cause(error: Error, messages: &Receiver<Message>) -> Error {
    match messages.iter().next() {
        Some(Message::Failed(error)) => *error,
        _ => error,
    }
}

/// Puts a package's entries in order. The path rules can bring several to one place.
fn complete(
    named: &Named,
    finished: Finished,
    files: &[(String, FileEntry)],
) -> Result<Record, Error> {
    let refuse = |path: &str, reason: &str| {
        Err(Error::package(
            &named.path,
            PackageError::entry(path, reason),
        ))
    };
    let mut entries = BTreeMap::new();
    for (path, kind) in finished.dirs {
        entries.entry(path).or_insert(Item::Dir(kind));
    }
    let mut plain = HashSet::new();
    for (path, entry) in files {
        plain.insert(path.as_str());
        match entries.insert(path.clone(), Item::File(entry.id)) {
            None => {}
            Some(_) => return refuse(path, "several of its entries end up here"),
        }
    }
    for path in entries.keys() {
        let mut rest = path.as_str();
        while let Some((parent, _)) = rest.rsplit_once('/') {
            if plain.contains(parent) {
                return refuse(
                    path,
                    &format!("passes through {parent}, which is no directory"),
                );
            }
            rest = parent;
        }
    }
    let entries = entries.into_iter().collect();
    Ok(Record {
        facts: finished.facts,
        skipped: finished.skipped,
        entries,
    })
}

/// The content of a file that comes in pieces.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.used) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = self.piece.get(self.used..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.used += count;
        Ok(count)
    }
}
