//! Inputs that are built: small ones for a quick look at everything, or releases of the small
//! distribution.

use std::path::Path;
use std::time::Duration;

use grove_fixtures::mini::{Scale, build_distribution, build_tree};
use grove_fixtures::tree::{self, Tree, mutate};

use super::{Inputs, Options, Scenario};
use crate::error::Result;

/// Files that have just changed are not remembered by the caches that are measured.
const SETTLE: Duration = Duration::from_millis(2100);

/// Builds what the scenarios need and nobody named.
pub(super) fn build(inputs: &mut Inputs, options: &Options, work: &Path) -> Result<()> {
    let scale = scale(options);
    if inputs.tree.is_none() && options.scenarios.iter().any(wants_trees) {
        let (first, second) = (work.join("tree"), work.join("tree-2"));
        // A file system is used with an operating system on it, not with odd cases alone.
        if options.months > 0 || options.scenarios == [Scenario::Mount] {
            build_tree(&first, 1, scale)?;
            build_tree(&second, 2, scale)?;
        } else {
            Tree::build(&first, 1, tree::Options::default())?;
            Tree::build(&second, 1, tree::Options::default())?;
            mutate(&second, 1)?;
        }
        (inputs.tree, inputs.second) = (Some(first), Some(second));
        std::thread::sleep(SETTLE);
    }
    if inputs.rpms.is_none() && options.scenarios.contains(&Scenario::Rpms) {
        let (first, second) = (work.join("rpms"), work.join("rpms-2"));
        build_distribution(&first, 1, scale)?;
        build_distribution(&second, 2, scale)?;
        (inputs.rpms, inputs.second_rpms) = (Some(first), Some(second));
    }
    Ok(())
}

/// The size in which the small distribution is built.
pub(super) fn scale(options: &Options) -> Scale {
    if options.small {
        Scale::Small
    } else {
        Scale::Default
    }
}

/// Whether two trees have to be there for a scenario. A store of months builds its own.
fn wants_trees(scenario: &Scenario) -> bool {
    !matches!(scenario, Scenario::Rpms | Scenario::Store | Scenario::Index)
}
