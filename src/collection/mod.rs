//! Rank 2: names to sets to chains to snapshots, with every problem reported; pure.
