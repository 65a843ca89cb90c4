//! A disk that loses power after a given number of operations, and what it leaves behind.
//!
//! Until the cut everything works. From the cut on every operation fails, as for a process that is
//! gone. Then [`PowerCut::settle`] leaves on the real disk what a file system may leave: bytes
//! that were not synced are lost or torn, names that were not synced are undone or not, in any
//! combination.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use grove_engine::fs::{DiskStorage, Storage, StorageFile};

/// How unsynced changes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of them are lost.
    Lost,
    /// All of them are kept, as after `kill -9`.
    Kept,
    /// Each of them is lost, torn or kept, by a pseudo-random choice.
    Mixed(u64),
}

#[derive(Debug)]
enum NameChange {
    Renamed {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<PathBuf>,
    },
    Removed {
        path: PathBuf,
        kept: PathBuf,
    },
}

#[derive(Debug, Default)]
struct State {
    operations: u64,
    cut_after: Option<u64>,
    /// Bytes known to be on the medium, by current path.
    synced: HashMap<PathBuf, u64>,
    names: Vec<NameChange>,
    trash: u64,
}

/// The disk.
#[derive(Debug, Clone)]
pub struct PowerCut {
    attic: PathBuf,
    state: Arc<Mutex<State>>,
}

impl PowerCut {
    /// A disk that fails after `cut_after` operations (never if `None`). `attic` is a directory
    /// outside the repository, where deleted and replaced files are kept until that is durable.
    pub fn new(attic: &Path, cut_after: Option<u64>) -> Self {
        fs::create_dir_all(attic).unwrap();
        let state = State {
            cut_after,
            ..Default::default()
        };
        Self {
            attic: attic.to_owned(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    fn operate<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        if state.cut_after.is_some_and(|cut| state.operations >= cut) {
            return Err(io::Error::other("power cut"));
        }
        state.operations += 1;
        act(&mut state)
    }

    fn keep(&self, state: &mut State, path: &Path) -> io::Result<PathBuf> {
        state.trash += 1;
        let kept = self.attic.join(state.trash.to_string());
        fs::rename(path, &kept).map(|()| kept)
    }

    /// Leaves what the medium holds after the cut.
    pub fn settle(&self, fate: Fate) {
        let mut state = self.state.lock().unwrap();
        let mut random = match fate {
            Fate::Mixed(seed) => seed.wrapping_mul(2).wrapping_add(1),
            _ => 1,
        };
        let mut choose = |n: u64| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (random >> 33) % n
        };
        for change in state.names.drain(..).rev().collect::<Vec<_>>() {
            let undo = match fate {
                Fate::Lost => true,
                Fate::Kept => false,
                Fate::Mixed(_) => choose(2) == 0,
            };
            match change {
                NameChange::Renamed { from, to, replaced } if undo && to.exists() => {
                    // Staging directories are removed by their owner when it ends.
                    if from.parent().is_some_and(Path::exists) {
                        fs::rename(&to, &from).unwrap();
                    } else {
                        fs::remove_file(&to).unwrap();
                    }
                    if let Some(old) = replaced {
                        fs::rename(old, &to).unwrap();
                    }
                    if let Some(len) = state.synced.remove(&to) {
                        state.synced.insert(from, len);
                    }
                }
                NameChange::Removed { path, kept } if undo => {
                    // The directory's own removal is undone with it.
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::rename(kept, path).unwrap();
                }
                _ => {}
            }
        }
        for (path, synced) in state.synced.drain() {
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            if meta.len() <= synced || fate == Fate::Kept {
                continue;
            }
            let file = fs::File::options().write(true).open(&path).unwrap();
            let unsynced = meta.len() - synced;
            match if fate == Fate::Lost { 0 } else { choose(4) } {
                0 => file.set_len(synced).unwrap(),
                1 => {
                    use std::os::unix::fs::FileExt;
                    file.set_len(synced + choose(unsynced)).unwrap();
                    // The size reached the medium, the bytes did not.
                    file.write_all_at(&vec![0; choose(unsynced) as usize], synced)
                        .unwrap();
                }
                2 => {
                    use std::os::unix::fs::FileExt;
                    // Some sectors reached the medium and others did not, whatever was there then.
                    let at = synced + choose(unsynced);
                    let len = choose(4096).min(meta.len() - at) as usize;
                    let old: Vec<u8> = (0..len).map(|_| choose(256) as u8).collect();
                    file.write_all_at(&old, at).unwrap();
                }
                _ => {}
            }
        }
    }
}

#[derive(Debug)]
struct CutFile {
    disk: PowerCut,
    path: PathBuf,
    file: Box<dyn StorageFile>,
}

impl StorageFile for CutFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.operate(|_| self.file.write_all(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate(|state| {
            let len = fs::metadata(&self.path)?.len();
            state.synced.insert(self.path.clone(), len);
            Ok(())
        })
    }
}

impl Storage for PowerCut {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = self.operate(|state| {
            state.synced.insert(path.to_owned(), 0);
            DiskStorage.create(path)
        })?;
        Ok(Box::new(CutFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|state| {
            let replaced = if to.exists() {
                Some(self.keep(state, to)?)
            } else {
                None
            };
            fs::rename(from, to)?;
            if let Some(len) = state.synced.remove(from) {
                state.synced.insert(to.to_owned(), len);
            }
            let change = NameChange::Renamed {
                from: from.to_owned(),
                to: to.to_owned(),
                replaced,
            };
            state.names.push(change);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate(|state| {
            state.names.retain(|change| {
                let path = match change {
                    NameChange::Renamed { to, .. } => to,
                    NameChange::Removed { path, .. } => path,
                };
                path.parent() != Some(dir)
            });
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operate(|state| {
            let kept = self.keep(state, path)?;
            state.names.push(NameChange::Removed {
                path: path.to_owned(),
                kept,
            });
            Ok(())
        })
    }
}
