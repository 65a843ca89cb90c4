//! Small inputs, for a quick look at everything.

use std::path::Path;
use std::time::Duration;

use grove_fixtures::mini::{Scale, build_distribution, build_tree};
use grove_fixtures::tree::{Options, Tree, mutate};

use super::{Inputs, Scenario};
use crate::error::Result;

/// Files that have just changed are not remembered by the caches that are measured.
const SETTLE: Duration = Duration::from_millis(2100);

/// Builds what the scenarios need and nobody named.
pub(super) fn build(inputs: &mut Inputs, scenarios: &[Scenario], work: &Path) -> Result<()> {
    let (trees, packages) = (
        scenarios.iter().any(|s| *s != Scenario::Rpms),
        scenarios.contains(&Scenario::Rpms),
    );
    if inputs.tree.is_none() && trees {
        let (first, second) = (work.join("tree"), work.join("tree-2"));
        // A file system is used with an operating system on it, not with odd cases alone.
        if scenarios == [Scenario::Mount] {
            build_tree(&first, 1, Scale::Small)?;
            build_tree(&second, 2, Scale::Small)?;
            (inputs.tree, inputs.second) = (Some(first), Some(second));
            return Ok(());
        }
        Tree::build(&first, 1, Options::default())?;
        Tree::build(&second, 1, Options::default())?;
        mutate(&second, 1)?;
        (inputs.tree, inputs.second) = (Some(first), Some(second));
        std::thread::sleep(SETTLE);
    }
    if inputs.rpms.is_none() && packages {
        let (first, second) = (work.join("rpms"), work.join("rpms-2"));
        build_distribution(&first, 1, Scale::Small)?;
        build_distribution(&second, 2, Scale::Small)?;
        (inputs.rpms, inputs.second_rpms) = (Some(first), Some(second));
    }
    Ok(())
}
