//! Rank 3: a volume as verified random-access plaintext and its member table.
