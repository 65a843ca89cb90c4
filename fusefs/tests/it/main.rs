//! Mounts as their users see them.

mod content;
mod damage;
mod lifecycle;
mod requests;
mod support;
