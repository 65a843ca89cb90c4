//! Tests of the engine from outside, in one binary.

mod fuzz_smoke;
mod objects;
