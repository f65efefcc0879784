//! Tests of the source tree: the rules that the compiler does not check.
//!
//! - `layers`: a module imports only from modules of a lower rank, some crates are known to one module only, no unsafe code.
//! - `circles`: the files of a crate do not depend on each other in a circle.
//! - `names`: the name of a type is unique among all crates.
//! - `wording`: doc comments begin with their subject, and retired words are not used.
//! - `quotations`: the errors in docs/TROUBLESHOOTING.md exist in the source.
//! - `documents`: links and paths in documents exist, and lines have at most 100 characters.
//!
//! Also tests of the script that runs the tests (`runner`).
#![cfg(test)]

mod circles;
mod documents;
mod layers;
mod modules;
mod names;
mod quotations;
mod runner;
mod source;
mod tokens;
mod tree;
mod wording;
