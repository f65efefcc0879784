//! Rank 8: commands; wires the layers.

pub mod cat;
pub mod failure;
#[cfg(test)]
mod fake;
pub mod ls;
pub mod printer;
pub mod repo;
mod resolve;
pub mod sets;
