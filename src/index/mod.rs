//! Rank 2: what was learnt of a repository, kept on disk from one mount to the next.

pub mod bytes;
