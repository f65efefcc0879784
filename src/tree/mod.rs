//! Rank 4: signature archives to one table of versions per path.
