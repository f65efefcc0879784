//! Extended attributes `user.dupfs.*`: which set an object is from, and which volumes hold it.

use super::error::FsError;
use super::inode::Inode;
use super::tree_fs::TreeFs;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};
use dupfs_read::content::FileRef;
use dupfs_read::volume::VolumeError;

impl TreeFs {
    /// `user.dupfs.set`: the set that last changed the object. `user.dupfs.volumes`: the stored volumes a read of the
    /// whole file would fetch, one a line. `user.dupfs.at_hand`: `yes` if none of them would be fetched now. `user.dupfs.cost`, of anything: what serving has cost so far.
    pub(super) fn xattr(
        &self,
        inode: Inode,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Option<Vec<u8>>, FsError> {
        let Some(name) = name.strip_prefix(b"user.dupfs.") else { return Ok(None) };
        if name == b"cost" {
            return Ok(Some(self.repository.cost().into_bytes()));
        }
        let Inode::Node(snapshot, node) = inode else { return Ok(None) };
        let found = self.find(snapshot, node, context)?;
        let (line, depth) = self.loaded_line(snapshot, context)?;
        if name == b"set" {
            let position = found.version.and_then(|v| line.table().position(v));
            let set = position.and_then(|p| line.set_at(p));
            return Ok(set.map(|set| self.repository.label(set).as_bytes().to_vec()));
        }
        let Some(file) = FileRef::at(&line, node, depth) else { return Ok(None) };
        match name {
            b"volumes" => {
                let volumes = self.volumes_of(&file, context)?;
                let names = volumes.iter().map(|&id| self.volume_name(id));
                Ok(Some(names.collect::<Vec<_>>().join("\n").into_bytes()))
            }
            b"at_hand" => {
                let volumes = self.volumes_of(&file, context)?;
                let at_hand = volumes.iter().all(|&id| self.repository.was_decoded(id));
                Ok(Some(if at_hand { b"yes".to_vec() } else { b"no".to_vec() }))
            }
            _ => Ok(None),
        }
    }

    /// The volumes that may hold parts of the file in the sets its content may rest on, by the manifests alone.
    fn volumes_of(&self, file: &FileRef, context: &RequestContext) -> Result<Vec<VolumeId>, FsError> {
        let mut found = Vec::new();
        for version in &file.history {
            let Some(set) = file.branch.set_at(version.position) else { continue };
            let manifest = self.repository.manifest(set, context).map_err(|error| volume_error(&error))?;
            found.extend(manifest.volumes_of(&file.path).iter().map(|v| VolumeId { set, number: v.number }));
        }
        Ok(found)
    }

    fn volume_name(&self, id: VolumeId) -> String {
        let set = self.repository.set(id.set).ok();
        let name = set.and_then(|set| set.volumes.get(&id.number).map(|object| object.name.to_string()));
        name.unwrap_or_else(|| missing_name(id.set, id.number))
    }
}

fn missing_name(set: SetIndex, number: VolumeNumber) -> String {
    format!("volume {number} of set {} (not in the store)", set.0)
}

fn volume_error(error: &VolumeError) -> FsError {
    let kind = match error.kind() {
        ErrorKind::NotFound => ErrorKind::Missing,
        kind => kind,
    };
    FsError::failed(kind, error.to_string())
}
