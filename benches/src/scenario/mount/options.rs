//! What options of a mount bring, beside the same mount without them.

use std::ffi::OsString;
use std::path::Path;

use super::fs::{FileSystem, Mounted};
use super::images::{self, Images};
use super::lists::List;
use super::{On, step};
use crate::client::Act;
use crate::error::Result;
use crate::scenario::Bench;

/// How often each is mounted.
const TIMES: usize = 3;

impl Bench<'_> {
    pub(super) fn options_of_mounts(&mut self, images: &Images) -> Result<()> {
        images.read(FileSystem::Grove)?;
        let trace = self.work.join("trace");
        let (record, prefetch) = (named("--record", &trace), named("--prefetch", &trace));
        let programs: &[_] = &[(step::EXEC, Act::Exec, List::Exec)];
        self.with_option(images, Some(&record), programs)?;
        for _ in 0..TIMES {
            self.with_option(images, None, programs)?;
            self.with_option(images, Some(&prefetch), programs)?;
        }
        let largest: &[_] = &[
            (step::LARGEST, Act::Read, List::Largest),
            (step::WARM_LARGEST, Act::Read, List::Largest),
            (step::COLD_SMALL, Act::Read, List::Small),
            (step::SMALL, Act::Read, List::Small),
        ];
        let materialise = OsString::from("--materialise");
        // The first makes the copies.
        for _ in 0..TIMES {
            self.with_option(images, Some(&materialise), largest)?;
            self.with_option(images, None, largest)?;
        }
        Ok(())
    }

    fn with_option(
        &mut self,
        images: &Images,
        option: Option<&OsString>,
        steps: &[(&str, Act, List)],
    ) -> Result<()> {
        rustix::fs::sync();
        let (repo, dir) = (images.path(FileSystem::Grove), self.work.join("mnt"));
        let options = option.cloned();
        let options = options.as_slice();
        let (mounted, _, _) =
            Mounted::commit(&self.tools.grove, &repo, images::FIRST, &dir, options)?;
        let mut on = On::new(FileSystem::Grove.name(), images, None);
        on.mounted = Some(mounted);
        let option = option.map(|option| option.to_string_lossy().into_owned());
        let option = option.as_deref().unwrap_or("no option");
        let option = option.split('=').next().unwrap_or(option);
        for (step, act, list) in steps {
            self.client(&on, &format!("{step}; {option}"), *act, Some(*list))?;
        }
        on.end()
    }
}

fn named(option: &str, file: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push("=");
    text.push(file);
    text
}
