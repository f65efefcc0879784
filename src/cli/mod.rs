//! Rank 8: commands; wires the layers.

pub mod cat;
pub mod failure;
pub mod ls;
pub mod printer;
pub mod repo;
mod resolve;
pub mod sets;
