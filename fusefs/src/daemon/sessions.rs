//! The sessions of a daemon, and the commits it keeps for their mounts.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use grove_engine::fs::lease::Lease;
use grove_engine::{ObjectId, Repository};

use super::DaemonOptions;
use super::base::Base;
use super::bell::Bell;
use super::report::SessionReport;
use crate::adapter::{Running, ServeOptions, serve};
use crate::mount::{KIND, MountAttrs, MountError, Result, SharedRoot, device, source_name, table};
use crate::view::{Numbering, View, What};

/// The session that a mount is cut out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Serves extended attributes.
    Full,
    /// Does not: for commits that have none. The kernel can keep everything but these, so it
    /// would ask for them again and again.
    Plain,
}

/// The sessions: at most one of each kind, begun when first needed.
#[derive(Debug)]
pub(super) struct Sessions {
    /// What all sessions show.
    view: Arc<View<Repository>>,
    source: String,
    options: DaemonOptions,
    /// Rung when a session ends.
    bell: Bell,
    base: Option<Arc<Base>>,
    running: Vec<Session>,
    /// How many were begun.
    begun: usize,
}

#[derive(Debug)]
struct Session {
    kind: Kind,
    /// That of its directory in the base.
    name: Arc<str>,
    device: (u32, u32),
    running: Running,
}

impl Sessions {
    pub(super) fn new(
        repository: Arc<Repository>,
        options: DaemonOptions,
        bell: Bell,
    ) -> Result<Self> {
        let source = source_name(repository.path(), None);
        Ok(Self {
            view: Arc::new(View::new(repository, What::All)?),
            source,
            options,
            bell,
            base: None,
            running: Vec::new(),
            begun: 0,
        })
    }

    /// The kind of session that a commit goes to, or all commits. What is not known to have no
    /// extended attributes is taken to have some.
    pub(super) fn kind_for(&self, commit: Option<&ObjectId>, xattrs: bool) -> Kind {
        let has = commit.is_none_or(|id| self.view.has_xattrs(id).unwrap_or(true));
        match xattrs && has {
            true => Kind::Full,
            false => Kind::Plain,
        }
    }

    /// Has all that is needed for a mount of a commit made ready, in the background.
    pub(super) fn prepare(&self, commit: &ObjectId) {
        self.view.prepare(commit);
    }

    /// What mounts are cut out of, for a mount of this kind.
    pub(super) fn of(&mut self, kind: Kind, dir: &Path) -> Result<Source> {
        let base = match &self.base {
            Some(base) => Arc::clone(base),
            None => Arc::clone(self.base.insert(Arc::new(Base::start(dir)?))),
        };
        let is_good =
            |session: &&Session| session.kind == kind && !session.running.ended().is_set();
        let name = match self.running.iter().find(is_good) {
            Some(session) => Arc::clone(&session.name),
            None => {
                let session = self.start(kind, &base)?;
                let name = Arc::clone(&session.name);
                self.running.push(session);
                name
            }
        };
        Ok(Source { base, name })
    }

    fn start(&mut self, kind: Kind, base: &Base) -> Result<Session> {
        self.begun += 1;
        let name: Arc<str> = format!("session{}", self.begun).into();
        let device = base.attach(&name, self.source.clone())?;
        let bell = self.bell.clone();
        let how = ServeOptions {
            threads: device::threads(self.options.threads),
            push: true,
            recorder: None,
            materialise: false,
            on_error: Arc::clone(&self.options.on_error),
            xattrs: kind == Kind::Full,
            on_end: Box::new(move || bell.ring()),
        };
        let running =
            serve(Arc::clone(&self.view), device, how).map_err(MountError::io("serve", &*name))?;
        let device = base.device(&name)?;
        device::raise_read_ahead(device, self.options.read_ahead_kb);
        Ok(Session {
            kind,
            name,
            device,
            running,
        })
    }

    /// The devices of sessions that have ended although their base is there: someone aborted them.
    pub(super) fn dead(&self) -> Vec<(u32, u32)> {
        let ended = |session: &&Session| session.running.ended().is_set();
        let dead = self.running.iter().filter(ended);
        dead.map(|session| session.device).collect()
    }

    /// Takes such a session out, once nothing that is mounted of it is left.
    pub(super) fn bury(&mut self, device: (u32, u32)) {
        self.running.retain(|session| session.device != device);
    }

    pub(super) fn devices(&self) -> Vec<(u32, u32)> {
        self.running.iter().map(|session| session.device).collect()
    }

    pub(super) fn reports(&self) -> Vec<SessionReport> {
        let report = |session: &Session| {
            let xattrs = session.kind == Kind::Full;
            SessionReport::new(session.device, true, xattrs, &session.running.stats())
        };
        self.running.iter().map(report).collect()
    }

    /// Gives up the base. Each session ends when its last mount is gone, of whichever namespace.
    pub(super) fn leave(&mut self) -> Vec<Running> {
        self.base = None;
        let sessions = self.running.drain(..);
        sessions.map(|session| session.running).collect()
    }
}

/// What mounts are cut out of.
#[derive(Debug)]
pub(super) struct Source {
    base: Arc<Base>,
    name: Arc<str>,
}

impl Source {
    /// A detached mount of a commit, or of everything.
    pub(super) fn cut(
        &self,
        commit: Option<&ObjectId>,
        numbering: Numbering,
        attrs: MountAttrs,
    ) -> Result<OwnedFd> {
        let parent = match numbering {
            Numbering::Shared => "commits",
            Numbering::Unique => "unique",
        };
        let below = commit
            .map(|id| format!("{parent}/{id}"))
            .unwrap_or_default();
        self.base.cut(&self.name, below, attrs)
    }
}

/// The commits that are kept from being deleted, for guests (clients that are being served) and
/// for mounts.
#[derive(Debug, Default)]
pub(super) struct Kept {
    commits: HashMap<ObjectId, KeptCommit>,
    guests: usize,
    mounts: usize,
}

#[derive(Debug)]
struct KeptCommit {
    _lease: Lease,
    guests: usize,
}

impl Kept {
    /// A client comes for a commit; a lease is taken if there is none yet.
    pub(super) fn come(
        &mut self,
        commit: Option<&ObjectId>,
        lease: impl FnOnce(&ObjectId) -> grove_engine::Result<Lease>,
    ) -> Result<()> {
        if let Some(id) = commit {
            match self.commits.get_mut(id) {
                Some(kept) => kept.guests += 1,
                None => {
                    let _lease = lease(id)?;
                    self.commits.insert(*id, KeptCommit { _lease, guests: 1 });
                }
            }
        }
        self.guests += 1;
        Ok(())
    }

    /// It goes: what it wanted is mounted by now, or never will be.
    pub(super) fn go(&mut self, commit: Option<&ObjectId>) {
        self.guests -= 1;
        if let Some(kept) = commit.and_then(|id| self.commits.get_mut(id)) {
            kept.guests -= 1;
        }
    }

    /// Compares with the table of mounts. With the last mount no lease is given up: a session
    /// that others still use, in another namespace, has the commits that it had.
    pub(super) fn count(&mut self, rows: &[table::Row], devices: &[(u32, u32)]) {
        let ours = rows
            .iter()
            .filter(|row| row.kind == KIND && devices.contains(&row.device));
        let roots: Vec<_> = ours.map(|row| SharedRoot::of(&row.root)).collect();
        self.mounts = roots.len();
        if self.mounts > 0 {
            let roots: HashSet<_> = roots
                .into_iter()
                .flatten()
                .map(|root| root.commit)
                .collect();
            self.commits
                .retain(|id, kept| kept.guests > 0 || roots.contains(id));
        }
    }

    /// Whether nobody needs anything.
    pub(super) fn is_idle(&self) -> bool {
        self.mounts == 0 && self.guests == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(roots: &[String]) -> Vec<table::Row> {
        let line = |root: &String| format!("40 35 0:44 {root} /m ro - {KIND} grove:/r ro\n");
        table::parse_all(roots.iter().map(line).collect::<String>().as_bytes())
    }

    #[test]
    fn a_commit_is_kept_for_guests_and_mounts_but_not_longer_than_others() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(&dir.path().join("repo")).unwrap();
        let lease = |_: &ObjectId| repository.lease(&[]);
        let (a, b) = (ObjectId::of(b"a"), ObjectId::of(b"b"));
        let at = |id: &ObjectId| format!("/commits/{id}");
        let devices = [(0, 44)];
        let mut kept = Kept::default();
        assert!(kept.is_idle());
        kept.come(Some(&a), lease).unwrap();
        kept.come(Some(&a), |_| panic!("has a lease")).unwrap();
        assert!(!kept.is_idle());
        kept.go(Some(&a));
        kept.come(Some(&b), lease).unwrap();
        kept.count(&rows(&[at(&b)]), &devices);
        assert_eq!(
            kept.commits.len(),
            2,
            "one of the guests for a is still here"
        );
        kept.go(Some(&a));
        kept.go(Some(&b));
        kept.count(&rows(&[at(&b), "/".to_owned()]), &devices);
        assert_eq!(kept.commits.keys().collect::<Vec<_>>(), [&b]);
        kept.count(&rows(&[at(&b)]), &[(0, 45)]);
        assert_eq!(
            kept.commits.len(),
            1,
            "kept for whoever still uses the session"
        );
        assert!(kept.is_idle());
    }
}
