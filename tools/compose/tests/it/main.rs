//! Tests of the crate's public face, against real packages and rpm's own tools.

#![allow(clippy::unwrap_used)]

mod dataset;
mod fixtures;
mod forge;
mod hostile;
mod import;
mod moved;
mod setcap;
mod support;
