//! Operations on repositories, one file each.

pub mod checkout;
pub mod diff;
pub mod log;
pub mod ls;
pub mod source;
pub mod stats;
