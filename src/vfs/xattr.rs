//! Extended attributes `user.dupfs.*`: which set an object is from, and which volumes hold it.

use super::error::FsError;
use super::inode::Inode;
use super::ops::Wait;
use super::tree_fs::TreeFs;
use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};
use dupfs_read::content::FileRef;
use dupfs_read::volume::{VolumeError, Volumes};

impl TreeFs {
    /// `user.dupfs.set`: the set that last changed the object. `user.dupfs.volumes`: the stored volumes a read of the
    /// whole file would fetch, one a line. `user.dupfs.at_hand`: `yes` if none of them would be fetched now. `user.dupfs.cost`, of anything: what serving has cost so far.
    pub(super) fn xattr(&self, inode: Inode, name: &[u8], wait: Wait) -> Result<Option<Vec<u8>>, FsError> {
        let Some(name) = name.strip_prefix(b"user.dupfs.") else { return Ok(None) };
        if name == b"cost" {
            return Ok(Some(self.repository.cost().into_bytes()));
        }
        let Inode::Node(snapshot, node) = inode else { return Ok(None) };
        let found = self.find(snapshot, node, wait)?;
        let (line, depth) = self.loaded_line(snapshot, wait)?;
        if name == b"set" {
            let position = found.version.and_then(|v| line.table().position(v));
            let set = position.and_then(|p| line.set_at(p));
            return Ok(set.map(|set| Volumes::label(&*self.repository, set).as_bytes().to_vec()));
        }
        let Some(file) = FileRef::at(&line, node, depth) else { return Ok(None) };
        match name {
            b"volumes" => {
                let volumes = self.volumes_of(&file, wait)?;
                let names = volumes.iter().map(|&id| self.volume_name(id));
                Ok(Some(names.collect::<Vec<_>>().join("\n").into_bytes()))
            }
            b"at_hand" => {
                let volumes = self.volumes_of(&file, wait)?;
                let at_hand = volumes.iter().all(|&id| self.repository.was_decoded(id));
                Ok(Some(if at_hand { b"yes".to_vec() } else { b"no".to_vec() }))
            }
            _ => Ok(None),
        }
    }

    /// The volumes that may hold parts of the file in the sets its content may rest on, by the manifests alone.
    fn volumes_of(&self, file: &FileRef, wait: Wait) -> Result<Vec<VolumeId>, FsError> {
        let mut found = Vec::new();
        for version in &file.history {
            let Some(set) = file.line.set_at(version.position) else { continue };
            let manifest = match wait {
                Wait::Never => self.repository.cached_manifest(set).ok_or(FsError::WouldBlock)?,
                Wait::Allowed => self.repository.manifest(set).map_err(|e| volume_error(&e))?,
            };
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
    match error {
        VolumeError::NotAtHand => FsError::WouldBlock,
        other => FsError::failed(
            match other.kind() {
                ErrorKind::NotFound => ErrorKind::Missing,
                kind => kind,
            },
            other.to_string(),
        ),
    }
}
