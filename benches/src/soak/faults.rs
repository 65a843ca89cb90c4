//! What must not disturb anybody, or only those whom it hits.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grove_fixtures::rng::Rng;
use rustix::process::{Pid, Signal, kill_process};

use super::Soak;
use super::input::Kept;
use super::readers::told;
use super::writer::BRANCH;
use crate::error::{At, Error, Result};
use crate::walk;

/// Longer than any of these takes; a damaged copy is committed, and read whole, on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(500);
/// Servers are killed in this part of the time; later, those that live on are watched for leaks.
const KILLS: f64 = 0.3;
/// How long what a mapped or open file holds may keep a mount.
const BUSY: Duration = Duration::from_secs(30);

type Fault = fn(&Soak, &Kept) -> Result<()>;

const FAULTS: [(&str, Fault); 5] = [
    ("mounts taken away and made again", remount),
    ("unmounts of a mount in use that were refused", busy),
    ("lazy unmounts of a mount in use", lazy),
    ("mounts of the newest commit", newest),
    ("damaged copies", damage),
];
const KILLED: &str = "servers killed with open files";

/// Disturbs until it is over; everything at least once.
pub(super) fn disturb(soak: &Soak) {
    let beat = soak.shared.beat();
    let mut rng = Rng::named(7, "faults");
    for round in 0usize.. {
        if soak.shared.is_over() {
            break;
        }
        let early = soak.elapsed().as_secs_f64() < soak.duration.as_secs_f64() * KILLS;
        let fault = if early && round % 3 == 2 {
            (KILLED, kill as Fault)
        } else {
            *FAULTS.get(round % FAULTS.len()).unwrap_or(&FAULTS[0])
        };
        let kept = rng.pick(&soak.kept);
        let (what, make) = fault;
        beat.begin(what, LIMIT);
        match make(soak, kept) {
            Ok(()) => soak.shared.count(what, 1),
            Err(error) => soak
                .shared
                .error(&format!("{what}: {}: {}", kept.rev, told(&error))),
        }
        beat.rest();
        std::thread::sleep(PAUSE);
    }
}

/// A file of a mount that is not cached whole, open, and what is in it.
fn open(kept: &Kept) -> Result<(File, Vec<u8>)> {
    let path = kept.mount.join("soak/large");
    let tree = kept.tree.join("soak/large");
    Ok((File::open(&path).at(&path)?, fs::read(&tree).at(&tree)?))
}

fn check(soak: &Soak, file: &File, wanted: &[u8], what: &str) -> Result<()> {
    let mut bytes = vec![0; wanted.len()];
    file.read_exact_at(&mut bytes, 0).at(what)?;
    if bytes != wanted {
        soak.shared.found_wrong(what);
    }
    Ok(())
}

fn remount(soak: &Soak, kept: &Kept) -> Result<()> {
    let _alone = kept.in_use.write();
    unmount(soak, kept)?;
    soak.mount(&kept.rev, &kept.mount)
}

/// A process that another thread is just starting holds copies of all open files for a moment.
fn unmount(soak: &Soak, kept: &Kept) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match soak.umount(&kept.mount) {
            Err(Error::Command { .. }) if Instant::now() < end => std::thread::sleep(PAUSE / 5),
            other => return other,
        }
    }
}

fn busy(soak: &Soak, kept: &Kept) -> Result<()> {
    let _alone = kept.in_use.write();
    let (file, wanted) = open(kept)?;
    if soak.umount(&kept.mount).is_ok() {
        soak.mount(&kept.rev, &kept.mount)?;
        soak.shared
            .error("a mount with an open file was taken away");
    }
    check(
        soak,
        &file,
        &wanted,
        "a file that was open while its mount was to be taken away",
    )
}

fn lazy(soak: &Soak, kept: &Kept) -> Result<()> {
    let _alone = kept.in_use.write();
    let (file, wanted) = open(kept)?;
    let call = soak.grove(&soak.repo).args(["umount", "--lazy"]);
    call.arg(&kept.mount).output()?;
    check(
        soak,
        &file,
        &wanted,
        "a file whose mount was taken away lazily",
    )?;
    soak.mount(&kept.rev, &kept.mount)
}

fn newest(soak: &Soak, _: &Kept) -> Result<()> {
    let dir = soak.work.join("mnt-newest");
    fs::create_dir_all(&dir).at(&dir)?;
    let commit = soak.grove(&soak.repo).args(["rev-parse", BRANCH]).output();
    // The writer may not have come so far.
    let Ok(commit) = commit else { return Ok(()) };
    soak.mount(&commit, &dir)?;
    let read = walk::read(&dir);
    soak.umount(&dir)?;
    read.map(drop)
}

/// Whoever has a file open gets an error at once, and the next mount finds nothing in its way.
fn kill(soak: &Soak, kept: &Kept) -> Result<()> {
    soak.shared.turn();
    let done = kill_and_mount(soak, kept);
    soak.shared.turn();
    done
}

fn kill_and_mount(soak: &Soak, kept: &Kept) -> Result<()> {
    let (file, wanted) = open(kept)?;
    let servers = soak.servers();
    for pid in servers.pids().iter().filter_map(|pid| Pid::from_raw(*pid)) {
        kill_process(pid, Signal::KILL).at("a server")?;
    }
    if !servers.wait() {
        soak.shared.error("a server cannot be killed");
    }
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).at("an open file")?;
    let mut bytes = vec![0; wanted.len()];
    if file.read_exact_at(&mut bytes, 0).is_ok() && bytes != wanted {
        soak.shared.found_wrong("a file whose server was killed");
    }
    drop(file);
    soak.mount_all()
}

/// One damaged place: the files that need it give an error, all others what they hold, the log tells
/// of it; when the place is whole again, so are the files.
fn damage(soak: &Soak, _: &Kept) -> Result<()> {
    let copy = soak.work.join("damaged");
    let dir = soak.work.join("mnt-damaged");
    fs::create_dir_all(&dir).at(&dir)?;
    let whole = soak.kept.first().ok_or(Error::Client {
        what: "nothing is mounted",
    })?;
    make_copy(soak, whole, &copy)?;
    let call = soak.grove(&copy).args(["mount", &whole.rev]);
    call.arg(&dir).output()?;
    let done = damage_beneath(soak, whole, &copy, &dir);
    soak.grove(&copy).arg("umount").arg(&dir).output()?;
    fs::remove_dir_all(&copy).at(&copy)?;
    done
}

/// A repository with one release alone, so that everything in it is read by the mount.
fn make_copy(soak: &Soak, whole: &Kept, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy).at(copy)?;
    }
    soak.grove(copy).arg("init").output()?;
    let mut source = std::ffi::OsString::from("--tree=dir=");
    source.push(&whole.tree);
    let call = soak.grove(copy).args(["commit", "-q", "-b", &whole.rev]);
    call.arg(source).output().map(drop)
}

fn damage_beneath(soak: &Soak, whole: &Kept, copy: &Path, dir: &Path) -> Result<()> {
    let pack = largest_pack(copy)?;
    let size = fs::metadata(&pack).at(&pack)?.len();
    let at = size / 2;
    let file = File::options()
        .read(true)
        .write(true)
        .open(&pack)
        .at(&pack)?;
    let mut good = [0; 64];
    file.read_exact_at(&mut good, at).at(&pack)?;
    let bad = good.map(|byte| !byte);
    file.write_all_at(&bad, at).at(&pack)?;
    let hit = unreadable(soak, whole, dir);
    file.write_all_at(&good, at).at(&pack)?;
    let hit = hit?;
    if hit.is_empty() {
        soak.shared
            .error("damage in the middle of the largest pack hits no file");
    }
    let log = logs(copy)?;
    for name in &hit {
        let ours = dir.join(name);
        if !log.contains(&*name.to_string_lossy()) {
            soak.shared
                .error(&format!("no log names {}", name.display()));
        }
        match fs::read(&ours) {
            Ok(bytes) if bytes == fs::read(whole.tree.join(name)).at(name)? => {}
            Ok(_) => soak
                .shared
                .found_wrong("a file after its repository was mended"),
            Err(error) => {
                let text = format!(
                    "{} stays unreadable when the pack is whole: {error}",
                    name.display()
                );
                soak.shared.error(&text);
            }
        }
    }
    soak.shared.count("files that damage hit", hit.len() as u64);
    Ok(())
}

/// Files that give an error; the others must give what they hold.
fn unreadable(soak: &Soak, whole: &Kept, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut hit = Vec::new();
    for name in &whole.files {
        match fs::read(dir.join(name)) {
            Ok(bytes) if bytes == fs::read(whole.tree.join(name)).at(name)? => {}
            Ok(_) => soak
                .shared
                .found_wrong(&format!("{} of a damaged repository", name.display())),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                hit.push(name.clone());
            }
            Err(error) => return Err(error).at(name),
        }
    }
    Ok(hit)
}

fn largest_pack(repo: &Path) -> Result<PathBuf> {
    let mut largest = (0, PathBuf::new());
    walk::walk(repo, &mut |path, meta| {
        let is_pack = path
            .extension()
            .is_some_and(|extension| extension == "pack");
        if is_pack && meta.len() > largest.0 {
            largest = (meta.len(), path);
        }
        Ok(())
    })?;
    Ok(largest.1)
}

/// Everything that servers have written down.
fn logs(repo: &Path) -> Result<String> {
    let mut text = String::new();
    walk::walk(repo, &mut |path, meta| {
        if meta.is_file() && path.extension().is_some_and(|extension| extension == "log") {
            text.push_str(&String::from_utf8_lossy(&fs::read(&path).at(&path)?));
        }
        Ok(())
    })?;
    Ok(text)
}
