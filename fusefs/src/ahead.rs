//! Which files will be read next: the others of a directory of which some are being read.
//!
//! Whoever reads a tree lists a directory and then reads what is in it. Listing made the kernel know
//! the files, so they can be given to it before it asks. What it finds in its cache it does not ask
//! for, and so nobody here sees how far the reader has come: of every window of files, the first is
//! left out, and when that is asked for, the next window is due.
//!
//! This decides; it neither reads files nor talks to the kernel.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::seen::Seen;

/// Larger files are left to the kernel's own read-ahead.
pub(crate) const FILE_MAX: u64 = 1 << 20;
/// Files of listings that are remembered.
const FILES: usize = 1 << 15;
/// Bytes of the first window after a read, and of the largest: each is twice the one before.
const WINDOWS: (u64, u64) = (1 << 20, 8 << 20);
/// A second read in a listing tells that more will follow.
const READS: u32 = 2;
/// So does a first one after this many listings were read, and then a listing alone.
const STREAK: u32 = 2;
const STREAK_MAX: u32 = 8;
/// The kernel lost what it was given when it asks for as many of this many files again.
const ASKED: u32 = 64;
const ASKED_AGAIN: u32 = ASKED / 2;

/// A file as a listing told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) size: u64,
}

/// A page of a listing of which files are to be given to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageId(u64);

/// What the kernel was told and asked for.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
    /// Files the kernel may know.
    known: Seen,
    /// Files that were asked for, or given.
    served: Seen,
}

#[derive(Debug, Default)]
struct State {
    /// The newest last; the first of them has the number `gone`.
    pages: VecDeque<Page>,
    gone: u64,
    /// Files of all of them; one that was listed twice counts twice.
    listed: usize,
    /// Where each file of them is.
    places: HashMap<u64, (PageId, u32)>,
    /// How many listings were read lately.
    streak: u32,
    /// The newest page, if it was not read yet.
    unread: Option<PageId>,
    asked: u32,
    asked_again: u32,
}

/// One answer to a request for a listing.
#[derive(Debug, Default)]
struct Page {
    files: Vec<(Told, bool)>,
    /// Where to go on.
    next: usize,
    /// Files that were neither asked for nor given.
    open: usize,
    reads: u32,
    /// Size of the window that is due next.
    window: u64,
    /// Bytes left of the window that is being given.
    left: u64,
    /// The file that is left out, so that the reader is seen to come by.
    mark: Option<usize>,
    /// Whether somebody has the page to give files of it.
    taken: bool,
}

impl Ahead {
    /// Files that the kernel is about to know. Gives the page if files of it should be given, too.
    pub(crate) fn note_listed(&self, files: Vec<Told>) -> Option<PageId> {
        for file in &files {
            self.known.insert(file.number);
        }
        let open =
            |file: &Told| (1..=FILE_MAX).contains(&file.size) && !self.served.contains(file.number);
        let files: Vec<_> = files.into_iter().map(|file| (file, open(&file))).collect();
        if files.is_empty() {
            return None;
        }
        let mut state = self.lock();
        let id = state.add(Page {
            open: files.iter().filter(|(_, open)| *open).count(),
            files,
            window: WINDOWS.0,
            ..Page::default()
        });
        if state.unread.replace(id).is_some() {
            state.streak /= 2;
        }
        let due = state.streak >= STREAK;
        due.then(|| state.page(id)?.take(0).then_some(id)).flatten()
    }

    /// A file that the kernel was told of by its name.
    pub(crate) fn note_found(&self, number: u64) {
        self.known.insert(number);
    }

    /// The kernel asks for the beginning of a file. Gives the page if others of it should be given.
    pub(crate) fn note_asked(&self, number: u64) -> Option<PageId> {
        let again = !self.served.insert(number);
        let mut state = self.lock();
        if state.is_forgotten(again) {
            self.served.clear();
        }
        let (id, at) = *state.places.get(&number)?;
        if state.unread == Some(id) {
            state.unread = None;
        }
        let page = state.page(id)?;
        page.reads += 1;
        page.close(at as usize);
        let reads = page.reads;
        if reads == 1 {
            state.streak = STREAK_MAX.min(state.streak + 1);
        }
        if reads < READS && state.streak < STREAK {
            return None;
        }
        state.page(id)?.take(at as usize + 1).then_some(id)
    }

    /// Whether the kernel may know a file and may not have it in its cache.
    pub(crate) fn is_missing(&self, number: u64) -> bool {
        self.known.contains(number) && !self.served.contains(number)
    }

    /// Notes that a file is about to be given to the kernel.
    pub(crate) fn note_given(&self, number: u64) {
        self.served.insert(number);
    }

    /// The file of a page to be given next; the page is given back when there is none.
    pub(crate) fn next(&self, id: PageId) -> Option<Told> {
        let mut state = self.lock();
        let page = state.page(id)?;
        let mut next = page.next_open();
        while let Some(file) = next
            && !self.served.insert(file.number)
        {
            next = page.next_open();
        }
        page.taken = next.is_some();
        next
    }

    /// Notes that nothing more of a page is given for now.
    pub(crate) fn give_back(&self, id: PageId) {
        if let Some(page) = self.lock().page(id) {
            page.taken = false;
        }
    }

    /// Notes that the kernel does not know a file of a page: it has not looked at the listing yet, and
    /// will ask for the first of its files when it has.
    pub(crate) fn refuse(&self, id: PageId, file: Told) {
        self.served.remove(file.number);
        let mut state = self.lock();
        let Some((place, at)) = state.places.get(&file.number).copied() else {
            return;
        };
        if let Some(page) = state.page(id).filter(|_| place == id) {
            page.taken = false;
            page.reopen(at as usize);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, page: Page) -> PageId {
        let id = PageId(self.gone + self.pages.len() as u64);
        for (at, (file, _)) in page.files.iter().enumerate() {
            self.places.insert(file.number, (id, at as u32));
        }
        self.listed += page.files.len();
        self.pages.push_back(page);
        while self.listed > FILES && self.pages.len() > 1 {
            let oldest = PageId(self.gone);
            let Some(page) = self.pages.pop_front() else {
                break;
            };
            self.gone += 1;
            self.listed -= page.files.len();
            for (file, _) in page.files {
                if self
                    .places
                    .get(&file.number)
                    .is_some_and(|(id, _)| *id == oldest)
                {
                    self.places.remove(&file.number);
                }
            }
        }
        id
    }

    fn page(&mut self, id: PageId) -> Option<&mut Page> {
        let at = id.0.checked_sub(self.gone)?;
        self.pages.get_mut(usize::try_from(at).ok()?)
    }

    /// Whether the kernel is found to have forgotten what it was given.
    fn is_forgotten(&mut self, again: bool) -> bool {
        self.asked += 1;
        self.asked_again += u32::from(again);
        if self.asked < ASKED {
            return false;
        }
        let forgotten = self.asked_again >= ASKED_AGAIN;
        (self.asked, self.asked_again) = (0, 0);
        forgotten
    }
}

impl Page {
    /// Opens the next window, where the first file that could be given is left out; the reader is
    /// before `at`. Says whether somebody has to be told.
    fn take(&mut self, at: usize) -> bool {
        if self.taken {
            // The reader is as fast: what it asks for is not given, too.
            self.next = self.next.max(at);
            return false;
        }
        if self.open < 2 {
            return false;
        }
        self.next = at;
        self.mark = None;
        self.mark = self.find_open();
        self.left = self.window;
        self.window = WINDOWS.1.min(self.window * 2);
        self.taken = true;
        true
    }

    fn close(&mut self, at: usize) {
        if let Some((_, open)) = self.files.get_mut(at)
            && std::mem::take(open)
        {
            self.open -= 1;
        }
    }

    fn reopen(&mut self, at: usize) {
        if let Some((_, open)) = self.files.get_mut(at)
            && !std::mem::replace(open, true)
        {
            self.open += 1;
        }
    }

    /// The next file that is open, which then is not any more; from the end on to the beginning.
    fn next_open(&mut self) -> Option<Told> {
        if self.open == 0 || self.left == 0 {
            return None;
        }
        let at = self.find_open()?;
        self.close(at);
        self.next = at + 1;
        let (file, _) = self.files.get(at)?;
        self.left = self.left.saturating_sub(file.size);
        Some(*file)
    }

    fn find_open(&self) -> Option<usize> {
        let start = self.next.min(self.files.len());
        let mut places = (start..self.files.len()).chain(0..start);
        places
            .find(|at| self.mark != Some(*at) && self.files.get(*at).is_some_and(|(_, open)| *open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(numbers: std::ops::Range<u64>, size: u64) -> Vec<Told> {
        numbers.map(|number| Told { number, size }).collect()
    }

    fn given(ahead: &Ahead, page: Option<PageId>) -> Vec<u64> {
        let page = page.expect("because something is to be given");
        std::iter::from_fn(|| ahead.next(page))
            .map(|file| file.number)
            .collect()
    }

    #[test]
    fn listing_alone_and_one_read_give_nothing() {
        let ahead = Ahead::default();
        for dir in 0..100 {
            let files = listing(dir * 10..dir * 10 + 10, 1);
            assert_eq!(ahead.note_listed(files), None);
        }
        assert_eq!(ahead.note_asked(5), None);
        assert_eq!(ahead.note_asked(123_456), None, "never heard of");
    }

    #[test]
    fn a_second_read_gives_what_is_left_but_the_next() {
        let ahead = Ahead::default();
        ahead.note_listed(listing(0..10, 1));
        assert_eq!(ahead.note_asked(3), None);
        let page = ahead.note_asked(4);
        assert_eq!(given(&ahead, page), [6, 7, 8, 9, 0, 1, 2]);
        assert_eq!(ahead.note_asked(5), None, "nothing is left");
    }

    #[test]
    fn who_reads_one_directory_after_the_other_gets_files_with_the_listing() {
        let ahead = Ahead::default();
        for dir in 0..2 {
            assert_eq!(ahead.note_listed(listing(dir * 10..dir * 10 + 5, 1)), None);
            let page = ahead.note_asked(dir * 10);
            assert_eq!(page.is_some(), dir == 1);
        }
        let page = ahead.note_listed(listing(20..25, 1));
        assert_eq!(given(&ahead, page), [21, 22, 23, 24]);
        // Nobody reads any more.
        let pages = (3..10).map(|dir| ahead.note_listed(listing(dir * 10..dir * 10 + 5, 1)));
        assert!(pages.filter(Option::is_some).count() <= 1);
    }

    #[test]
    fn windows_grow_and_the_first_file_of_each_tells_that_the_next_is_due() {
        let ahead = Ahead::default();
        ahead.note_listed(listing(0..100, FILE_MAX / 2));
        ahead.note_asked(0);
        let page = ahead.note_asked(1);
        assert_eq!(given(&ahead, page), [3, 4]);
        let page = ahead.note_asked(2);
        assert_eq!(given(&ahead, page), [6, 7, 8, 9]);
        let page = ahead.note_asked(5);
        assert_eq!(given(&ahead, page), [11, 12, 13, 14, 15, 16, 17, 18]);
        let page = ahead.note_asked(10);
        assert_eq!(given(&ahead, page).len(), 16);
        let page = ahead.note_asked(19);
        assert_eq!(given(&ahead, page).len(), 16);
    }

    #[test]
    fn a_reader_that_is_as_fast_is_not_given_what_it_asks_for() {
        let ahead = Ahead::default();
        ahead.note_listed(listing(0..10, 1));
        ahead.note_asked(0);
        let page = ahead.note_asked(1).expect("because it is the second read");
        let next = || ahead.next(page).map(|file| file.number);
        assert_eq!(next(), Some(3));
        assert_eq!(ahead.note_asked(4), None, "somebody has the page");
        assert_eq!((next(), next()), (Some(5), Some(6)));
    }

    #[test]
    fn what_the_kernel_did_not_know_yet_is_given_when_it_asks_for_its_neighbour() {
        let ahead = Ahead::default();
        for dir in 0..2 {
            ahead.note_listed(listing(dir * 10..dir * 10 + 5, 1));
            ahead.note_asked(dir * 10);
        }
        let page = ahead.note_listed(listing(20..25, 1));
        let page = page.expect("because directories are being read");
        let file = ahead.next(page).expect("because nothing was given");
        ahead.refuse(page, file);
        let page = ahead.note_asked(20);
        assert_eq!(given(&ahead, page), [22, 23, 24]);
    }

    #[test]
    fn empty_large_and_served_files_are_not_given() {
        let ahead = Ahead::default();
        ahead.note_listed(listing(0..4, FILE_MAX + 1));
        ahead.note_listed(listing(4..8, 0));
        ahead.note_given(12);
        let mut files = listing(8..14, 5);
        files.extend(listing(0..2, FILE_MAX + 1));
        ahead.note_listed(files);
        ahead.note_asked(8);
        let page = ahead.note_asked(0);
        assert_eq!(given(&ahead, page), [10, 11, 13]);
        assert!(ahead.is_missing(9) && !ahead.is_missing(12) && !ahead.is_missing(77));
    }

    #[test]
    fn what_the_kernel_asks_for_again_is_given_again() {
        let ahead = Ahead::default();
        ahead.note_listed(listing(0..200, 1));
        let ask = |numbers: std::ops::Range<u64>| {
            for number in numbers {
                ahead.note_asked(number);
            }
        };
        ask(0..200);
        assert!(!ahead.is_missing(199));
        ask(0..64);
        assert!(ahead.is_missing(199));
    }

    #[test]
    fn old_listings_are_forgotten() {
        let ahead = Ahead::default();
        for page in 0..1000 {
            ahead.note_listed(listing(page * 100..page * 100 + 100, 1));
        }
        let state = ahead.lock();
        assert!(state.places.len() <= FILES);
        assert_eq!(state.pages.len() * 100, state.places.len());
    }
}
