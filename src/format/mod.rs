//! Rank 1: sans-IO parsers of what duplicity writes.
