//! Tests of the crate's public face, against real packages and rpm's own tools.

mod dataset;
mod forge;
mod hostile;
mod setcap;
mod support;
