//! Mounts as their users see them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod content;
mod damage;
mod handles;
mod lifecycle;
mod materialise;
mod prefetch;
mod prune;
mod push;
mod requests;
mod shared;
mod support;
