//! Rank 7: the only module that knows the FUSE crate.
