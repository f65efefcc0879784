//! The `dupfs` program.

fn main() {}
