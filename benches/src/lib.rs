//! Measurements: inputs of the micro-benchmarks, and whole commands beside other programs.
//!
//! [`workload`] builds what the criterion benchmarks in `benches/` work on. Everything else belongs to
//! the program `scenario`, which runs `grove` and the peers that are installed on the same input in one
//! run, and writes down what each command used, stored and answered.

pub mod client;
pub mod compare;
pub mod error;
pub mod goals;
pub mod machine;
pub mod measure;
pub mod plot;
pub mod processes;
pub mod record;
pub mod render;
pub mod scenario;
pub mod soak;
pub mod tools;
pub mod walk;
pub mod workload;

pub use error::{Error, Result};
