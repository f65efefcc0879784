//! Rank 2: bounded blocks, sealed spill, single flight.
