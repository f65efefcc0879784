//! Tests of the source tree: the rules that the compiler does not check.
//!
//! - `layers`: a module imports only from modules of a lower rank, some crates are known to one module only, no unsafe code.
//! - `circles`: the files of a crate do not depend on each other in a circle.
//! - `names`: the name of a type is unique among all crates.
//!
//! Also tests of the script that runs the tests (`runner`).
#![cfg(test)]

mod circles;
mod layers;
mod modules;
mod names;
mod runner;
mod source;
mod tokens;
mod tree;
