//! Rank 8: commands; wires the layers.

pub mod repo;
