//! The images that are open: each is opened or made once, while all who want it wait.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use grove_engine::{Error as EngineError, ObjectId, Result as EngineResult};
use lru::LruCache;

use super::Image;
use super::build::Built;
use crate::view::Source;

/// Images that are kept open.
const OPEN: usize = 64;
/// Bytes of those that are in no file; the one used last stays even if it is larger.
const MEMORY: usize = 256 << 20;

/// The images of a source that are open.
pub(crate) struct Images<S> {
    shared: Arc<Shared<S>>,
    /// Those who make images that nobody waits for yet.
    makers: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared<S> {
    source: Arc<S>,
    state: Mutex<State>,
    made: Condvar,
    cancel: AtomicBool,
}

struct State {
    open: LruCache<ObjectId, Arc<Image>>,
    weight: usize,
    making: HashSet<ObjectId>,
    /// Commits whose image files are bad, and cannot be removed, perhaps.
    distrusted: HashSet<ObjectId>,
}

impl<S: Source> Images<S> {
    pub(crate) fn new(source: Arc<S>) -> Self {
        let state = State {
            open: LruCache::unbounded(),
            weight: 0,
            making: HashSet::new(),
            distrusted: HashSet::new(),
        };
        Self {
            shared: Arc::new(Shared {
                source,
                state: Mutex::new(state),
                made: Condvar::new(),
                cancel: AtomicBool::new(false),
            }),
            makers: Mutex::default(),
        }
    }

    /// The image of a commit: opened, or made, which takes time.
    pub(crate) fn get(&self, commit: &ObjectId) -> EngineResult<Arc<Image>> {
        self.shared.get(commit)
    }

    /// The image of a commit, if it is open or in a file.
    pub(crate) fn existing(&self, commit: &ObjectId) -> Option<Arc<Image>> {
        self.shared.existing(commit)
    }

    /// Sees to it that a commit has an image, without waiting for it.
    pub(crate) fn prepare(&self, commit: ObjectId) {
        if self.existing(&commit).is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let make = std::thread::Builder::new().name("image".to_owned());
        // What goes wrong is met again by whoever needs the image.
        let maker = make.spawn(move || drop(shared.get(&commit)));
        let mut makers = lock(&self.makers);
        makers.retain(|maker| !maker.is_finished());
        makers.extend(maker.ok());
    }

    /// Forgets an image that was found to be wrong or out of date: the next who asks gets another
    /// one.
    pub(crate) fn discard(&self, commit: &ObjectId, image: &Arc<Image>) {
        let mut state = self.shared.lock();
        let current = state.open.peek(commit);
        if current.is_none_or(|current| !Arc::ptr_eq(current, image)) {
            return;
        }
        state.remove(commit);
        state.distrusted.insert(*commit);
        if let Some(path) = self.shared.source.image_path(commit) {
            drop(std::fs::remove_file(path));
        }
    }

    /// All that are open, with their commits, the one used last first.
    pub(crate) fn open(&self) -> Vec<(ObjectId, Arc<Image>)> {
        let state = self.shared.lock();
        let open = state.open.iter();
        open.map(|(commit, image)| (*commit, Arc::clone(image)))
            .collect()
    }
}

impl<S> Drop for Images<S> {
    fn drop(&mut self) {
        self.shared.cancel.store(true, Ordering::Relaxed);
        for maker in lock(&self.makers).drain(..) {
            drop(maker.join());
        }
    }
}

impl<S: Source> Shared<S> {
    fn existing(&self, commit: &ObjectId) -> Option<Arc<Image>> {
        let mut state = self.lock();
        if let Some(image) = state.open.get(commit) {
            return Some(Arc::clone(image));
        }
        if state.distrusted.contains(commit) {
            return None;
        }
        drop(state);
        let path = self.source.image_path(commit)?;
        let image = Arc::new(Image::open(&path, commit)?);
        let mut state = self.lock();
        if let Some(image) = state.open.get(commit) {
            return Some(Arc::clone(image));
        }
        state.put(*commit, &image);
        Some(image)
    }

    fn get(&self, commit: &ObjectId) -> EngineResult<Arc<Image>> {
        if let Some(image) = self.existing(commit) {
            return Ok(image);
        }
        let mut state = self.lock();
        loop {
            if let Some(image) = state.open.get(commit) {
                return Ok(Arc::clone(image));
            }
            if state.making.insert(*commit) {
                break;
            }
            state = self
                .made
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Those who wait are released even if this fails or panics; the next of them tries itself.
        let _release = Release {
            state: &self.state,
            made: &self.made,
            commit: *commit,
        };
        let image = Arc::new(self.make(commit)?);
        self.lock().put(*commit, &image);
        Ok(image)
    }

    fn make(&self, commit: &ObjectId) -> EngineResult<Image> {
        let built = Built::new(&*self.source, commit, self.base(commit), &self.cancel)?;
        let path = self.source.image_path(commit);
        let path = path.filter(|_| built.is_complete());
        if let Some(path) = path
            && built.write(&path).is_ok()
            && let Some(image) = Image::open(&path, commit)
        {
            self.lock().distrusted.remove(commit);
            return Ok(image);
        }
        built.into_image().map_err(|bad| EngineError::Corrupt {
            path: "image".into(),
            detail: format!("made for commit {commit}: {}", bad.0),
        })
    }
    /// The image of a commit that has much in common with another one, if there is one already.
    fn base(&self, commit: &ObjectId) -> Option<Arc<Image>> {
        let parent = self.source.commit(commit).ok()?.parent;
        let parent = parent.and_then(|parent| self.existing(&parent));
        let last = || {
            self.lock()
                .open
                .peek_mru()
                .map(|(_, image)| Arc::clone(image))
        };
        parent.or_else(last).filter(|image| image.is_complete())
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn put(&mut self, commit: ObjectId, image: &Arc<Image>) {
        self.remove(&commit);
        self.weight += image.weight();
        self.open.put(commit, Arc::clone(image));
        while self.open.len() > OPEN || self.weight > MEMORY && self.open.len() > 1 {
            match self.open.pop_lru() {
                Some((_, old)) => self.weight -= old.weight(),
                None => break,
            }
        }
    }

    fn remove(&mut self, commit: &ObjectId) {
        if let Some(old) = self.open.pop(commit) {
            self.weight -= old.weight();
        }
    }
}

struct Release<'a> {
    state: &'a Mutex<State>,
    made: &'a Condvar,
    commit: ObjectId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        lock(self.state).making.remove(&self.commit);
        self.made.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> fmt::Debug for Images<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Images")
            .field("open", &state.open.len())
            .field("weight", &state.weight)
            .finish_non_exhaustive()
    }
}
