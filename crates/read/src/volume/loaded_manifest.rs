//! A manifest in memory.

use std::io::Read;
use std::sync::Arc;

use super::error::VolumeError;
use super::plaintext::fill;
use super::table_allowance::{TableAllowance, TableMemory};
use crate::storage::ObjectInfo;
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::{Manifest, ManifestParser};

/// Bytes parsed at a time.
const CHUNK: usize = 64 << 10;

/// A manifest in memory, with its share of the memory for tables.
#[derive(Debug)]
pub(super) struct LoadedManifest {
    pub(super) manifest: Arc<Manifest>,
    /// Given back when the last cache drops the manifest.
    _allowance: TableAllowance,
}

impl LoadedManifest {
    /// The manifest of `set` that was made from the names in its volumes.
    ///
    /// # Errors
    /// [`VolumeError`] if there is no memory for it.
    pub(super) fn rebuilt(set: &BackupSet, memory: &TableMemory, manifest: Manifest) -> Result<Self, VolumeError> {
        let stored = set.volumes.values().map(|object| object.size).fold(0, u64::saturating_add);
        let mut allowance = memory.manifest_allowance(&set.label().into(), stored, set.volumes.len());
        allowance.check(manifest.weight())?;
        Ok(Self { manifest: Arc::new(manifest), _allowance: allowance })
    }

    /// Reads the manifest `object` of `set` from its plaintext.
    ///
    /// # Errors
    /// [`VolumeError`] if it is damaged, if `plain` cannot be read, or if there is no memory for its list of volumes.
    pub(super) fn read(
        set: &BackupSet,
        object: &ObjectInfo,
        memory: &TableMemory,
        plain: &mut dyn Read,
    ) -> Result<Self, VolumeError> {
        let name = &object.name;
        let mut allowance = memory.manifest_allowance(name, object.size, set.volumes.len());
        let mut parser = ManifestParser::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let filled = fill(plain, &mut chunk).map_err(|e| VolumeError::from_io(name, &e))?;
            let fed = parser.feed(chunk.get(..filled).unwrap_or(&[]));
            fed.map_err(|e| VolumeError::from_format(name, &e))?;
            allowance.check(parser.table_bytes())?;
            if filled < CHUNK {
                break;
            }
        }
        let manifest = Arc::new(parser.finish().map_err(|e| VolumeError::from_format(name, &e))?);
        Ok(Self { manifest, _allowance: allowance })
    }
}
