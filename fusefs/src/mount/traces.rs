//! The traces that a mount writes or replays.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::MountOptions;
use super::error::{MountError, Result};
use crate::trace::{Recorder, Trace};

/// Files of traces, opened before there is a mount to be taken away again.
pub(super) struct Traces {
    pub(super) recorder: Option<Recorder>,
    pub(super) prefetch: Option<Trace<BufReader<File>>>,
}

impl Traces {
    /// Opens what the options name.
    pub(super) fn open(options: &MountOptions) -> Result<Self> {
        let read = |path: &PathBuf| {
            let file = File::open(path).and_then(|file| Trace::open(BufReader::new(file)));
            file.map_err(MountError::io("read the trace", path))
        };
        let create = |path: &PathBuf| {
            Recorder::create(path).map_err(MountError::io("write the trace", path))
        };
        // Read first: both may be the same file.
        let prefetch = options.prefetch.as_ref().map(read).transpose()?;
        let recorder = options.record.as_ref().map(create).transpose()?;
        Ok(Self { recorder, prefetch })
    }
}
