//! Readers, each of which compares what it reads with what was committed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use grove_fixtures::rng::Rng;
use rustix::fs::Advice;

use super::Soak;
use super::input::{Kept, PROGRAM};
use crate::client::{Act, Client};
use crate::compare::{compare, same_content};
use crate::error::{At, Error, Result};
use crate::walk;

/// Longer than anything here takes on a machine with much else to do.
const LIMIT: Duration = Duration::from_secs(120);
/// Files that are read in one go.
const FILES: usize = 40;
const PLACES: usize = 100;

/// What a reader found.
enum Found {
    Same(u64),
    Different(String),
}

type Reader = fn(&Kept, &mut Rng) -> Result<Found>;

const KINDS: [(&str, Reader); 5] = [
    ("walks", walk_all),
    ("files compared", files),
    ("places compared", places),
    ("files mapped", map),
    ("programs executed", exec),
];

/// Reads until it is over.
pub(super) fn read(soak: &Soak, number: u64) {
    let beat = soak.shared.beat();
    let mut rng = Rng::named(number, "reader");
    while !soak.shared.is_over() {
        let kept = rng.pick(&soak.kept);
        let (what, reader) = *rng.pick(&KINDS);
        let calm = soak.shared.calm();
        if calm.is_none() {
            // The mount may be gone: there is nothing to learn until it is back.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        beat.begin(what, LIMIT);
        let held = kept.in_use.read();
        let found = reader(kept, &mut rng);
        drop(held);
        beat.rest();
        match found {
            Ok(Found::Same(count)) => soak.shared.count(what, count),
            Ok(Found::Different(text)) => soak.shared.found_wrong(&format!("{}: {text}", kept.rev)),
            Err(error) if soak.shared.still_calm(calm) => {
                let text = format!("{}: {what}: {}", kept.rev, told(&error));
                soak.shared
                    .error(&format!("{text} ({})", circumstances(soak, kept, &error)));
            }
            Err(_) => soak.shared.count("errors while a server was killed", 1),
        }
    }
}

/// What tells a name that is gone from a mount that is gone: whether the error comes again, and
/// what the kernel has mounted there.
fn circumstances(soak: &Soak, kept: &Kept, error: &Error) -> String {
    let again = match error {
        Error::Io { path, .. } => match fs::symlink_metadata(path) {
            Ok(_) => "not again".to_owned(),
            Err(error) => format!("again: {error}"),
        },
        _ => "not tried again".to_owned(),
    };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = format!(" {} ", kept.mount.display());
    let mounts: Vec<_> = table.lines().filter(|row| row.contains(&point)).collect();
    let second = soak.elapsed().as_secs();
    format!("second {second}; {again}; mounted: {mounts:?}")
}

/// Compares everything.
pub(super) fn whole(soak: &Soak, kept: &Kept) {
    match compare(&kept.tree, &kept.mount) {
        Ok(found) if found.different == 0 => {
            soak.shared.count("bytes compared in the end", found.bytes);
        }
        Ok(found) => soak.shared.found_wrong(&found.differences.join("; ")),
        Err(error) => soak.shared.error(&told(&error)),
    }
}

/// An error with what caused it.
pub(super) fn told(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn walk_all(kept: &Kept, _: &mut Rng) -> Result<Found> {
    let found = walk::list(&kept.mount)?;
    if found == kept.manifest {
        Ok(Found::Same(1))
    } else {
        Ok(Found::Different(format!(
            "{found} instead of {}",
            kept.manifest
        )))
    }
}

fn files(kept: &Kept, rng: &mut Rng) -> Result<Found> {
    for _ in 0..FILES {
        let name = rng.pick(&kept.files);
        let (ours, tree) = (kept.mount.join(name), kept.tree.join(name));
        if rng.below(2) == 0 {
            forget(&ours)?;
        }
        let same = ours.metadata().at(&ours)?.len() == tree.metadata().at(&tree)?.len();
        if !same || !same_content(&ours, &tree)? {
            return Ok(Found::Different(name.display().to_string()));
        }
    }
    Ok(Found::Same(FILES as u64))
}

/// Lets the kernel forget what a file holds, so that the server is asked.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).at(path)?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).at(path)
}

fn places(kept: &Kept, rng: &mut Rng) -> Result<Found> {
    for number in 0..PLACES {
        let large = Path::new("soak/large");
        let name = if number % 2 == 0 {
            large
        } else {
            rng.pick(&kept.files)
        };
        let (ours, tree) = (kept.mount.join(name), kept.tree.join(name));
        if rng.below(20) == 0 {
            forget(&ours)?;
        }
        let (ours, tree) = (File::open(&ours).at(&ours)?, File::open(&tree).at(&tree)?);
        let size = tree.metadata().at(name)?.len();
        let offset = rng.below(size as usize + 1) as u64;
        let len = 1 + rng.below(100_000);
        let (mut found, mut wanted) = (vec![0; len], vec![0; len]);
        let (n, m) = (
            fill(&ours, &mut found, offset).at(name)?,
            fill(&tree, &mut wanted, offset).at(name)?,
        );
        if n != m || found != wanted {
            let text = format!("{} at {offset}, {len} bytes", name.display());
            return Ok(Found::Different(text));
        }
    }
    Ok(Found::Same(PLACES as u64))
}

fn fill(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// By another process: a page that cannot be had ends it with a signal.
fn map(kept: &Kept, rng: &mut Rng) -> Result<Found> {
    let mut list = tempfile::NamedTempFile::new().at("a list")?;
    let mut text = Vec::new();
    for _ in 0..FILES {
        let name = rng.pick(&kept.files);
        if !name.as_os_str().as_encoded_bytes().contains(&b'\n') {
            text.extend_from_slice(name.as_os_str().as_encoded_bytes());
            text.push(b'\n');
        }
    }
    std::io::Write::write_all(&mut list, &text).at("a list")?;
    let client = Client {
        act: Act::Map,
        root: kept.mount.clone(),
        list: Some(list.path().to_owned()),
        limit: None,
    };
    Ok(Found::Same(client.run()?.items))
}

fn exec(kept: &Kept, rng: &mut Rng) -> Result<Found> {
    let name = rng.pick(&kept.files);
    let program = kept.mount.join(PROGRAM);
    if rng.below(4) == 0 {
        forget(&program)?;
    }
    let mut command = Command::new(&program);
    command.arg(kept.mount.join(name)).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().at(&program)?;
    let mut bytes = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut bytes).at(&program)?;
    }
    let output = child.wait_with_output().at(&program)?;
    if !output.status.success() {
        return Err(Error::Command {
            command: format!("{} {}", program.display(), name.display()),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let tree = kept.tree.join(name);
    if bytes == fs::read(&tree).at(&tree)? {
        Ok(Found::Same(1))
    } else {
        Ok(Found::Different(format!(
            "{} by a program of the mount",
            name.display()
        )))
    }
}
