//! Commits, prunes and repacks, one after the other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use grove_fixtures::rng::Rng;

use super::Soak;
use super::readers::told;
use crate::error::{At, Result};

/// Longer than any of these takes.
const LIMIT: Duration = Duration::from_secs(600);
/// The branch that is changed again and again.
pub(super) const BRANCH: &str = "churn";
const FILES: usize = 30;

/// Writes until it is over.
pub(super) fn write(soak: &Soak) {
    let beat = soak.shared.beat();
    let mut rng = Rng::named(0, "writer");
    let tree = soak.work.join("churn");
    for round in 1u32.. {
        if soak.shared.is_over() {
            break;
        }
        if let Err(error) = change(&tree, &mut rng, round) {
            soak.shared
                .error(&format!("the writer's tree: {}", told(&error)));
            break;
        }
        let mut source = std::ffi::OsString::from("--tree=dir=");
        source.push(&tree);
        let source = source.to_string_lossy().into_owned();
        let mut verbs = vec![("commits", vec!["commit", "-q", "-b", BRANCH, &source])];
        if round.is_multiple_of(4) {
            verbs.push(("prunes", vec!["prune", "--refs-only", "--depth=2"]));
        }
        if round.is_multiple_of(6) {
            let all = round.is_multiple_of(30);
            verbs.push((
                "repacks",
                if all {
                    vec!["repack", "--all"]
                } else {
                    vec!["repack"]
                },
            ));
        }
        if round.is_multiple_of(15) {
            verbs.push(("fscks", vec!["fsck"]));
        }
        for (what, verb) in verbs {
            beat.begin(what, LIMIT);
            match soak.grove(&soak.repo).args(&verb).output() {
                Ok(_) => soak.shared.count(what, 1),
                Err(error) => soak.shared.error(&told(&error)),
            }
        }
        beat.rest();
        // Readers are to be heard beside the writer, also where there are few processors.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Writes files anew, some of them with a part of what they held before.
fn change(tree: &Path, rng: &mut Rng, round: u32) -> Result<()> {
    fs::create_dir_all(tree).at(tree)?;
    for _ in 0..FILES {
        let path = tree.join(format!("file-{}", rng.below(400)));
        let mut bytes = fs::read(&path).unwrap_or_default();
        if bytes.is_empty() || rng.below(2) == 0 {
            let len = rng.size(20_000);
            bytes = rng.bytes(len);
        } else {
            bytes.extend_from_slice(format!("changed in round {round}\n").as_bytes());
        }
        fs::write(&path, bytes).at(&path)?;
    }
    Ok(())
}
