//! Rank 5: a file at a snapshot as extents over volumes, and their bytes.
