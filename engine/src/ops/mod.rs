//! Operations on repositories, one file each.

pub mod source;
