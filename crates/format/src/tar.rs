//! Tar streams as duplicity writes them (docs/FORMAT.md sections 3 and 4.1).
//!
//! The stream ends at the first header block of zeros, whatever follows, or at its last byte: some volumes have no zero
//! block, and some have a single one with garbage after it. Sparse files, which duplicity does not write, are accepted
//! on request ([`TarLimits::allow_sparse`]).

mod extension_headers;
mod fields;
mod header;
mod parser;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

pub use header::TarEntry;
pub use parser::{TarLimits, TarParser, TarSink};
pub use sparse::{SparseLayout, SparseMap, SparseMapFault};
