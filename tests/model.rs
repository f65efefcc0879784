//! Property tests: whatever history of trees duplicity may have written down, dupfs shows those trees.

// Failing by panic is what a test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
// Sizes here are those of small test data.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

#[path = "model/mod.rs"]
mod model;

// Tests of the model itself.
#[path = "model/doubt.rs"]
mod doubt;
#[path = "model/duplicity.rs"]
mod duplicity;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/regressions.rs"]
mod regressions;
