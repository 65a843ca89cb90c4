//! Operations on repositories, one file each.
