//! Tests of the engine from outside, in one binary.

#![allow(clippy::unwrap_used)]

mod alike;
mod bad_input;
mod checkout;
mod checkout_refused;
mod commit;
mod concurrent;
mod crash;
mod damage;
mod delta;
mod exchange;
mod export_again;
mod faulty;
mod foreign;
mod foreign_bare;
mod fuzz_smoke;
mod layering;
mod objects;
mod online;
mod own_delta;
mod own_delta_damage;
mod prune;
mod reading;
mod repack;
mod repair;
mod support;
