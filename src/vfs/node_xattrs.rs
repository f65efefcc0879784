//! Extended attributes `user.dupfs.*`: the set an object is from, and the volumes with its data.

use super::error::FsError;
use super::inode::Inode;
use super::snapshot_nodes::SnapshotNodes;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};
use dupfs_read::content::FileRef;
use dupfs_read::volume::{Repository, VolumeError};

/// The value of an extended attribute; `None` if there is none of that name.
///
/// - `user.dupfs.set`: the set that last changed the object.
/// - `user.dupfs.volumes`: the stored volumes that a read of the whole file would fetch, one per line.
/// - `user.dupfs.at_hand`: `yes` if all of them were decoded since the mount started. Blocks of them may have been evicted since,
///   and are then fetched again.
/// - `user.dupfs.cost`, of any inode: the requests and bytes fetched so far.
///
/// # Errors
/// [`FsError`] when the tree or a manifest cannot be read.
pub(super) fn xattr(
    nodes: &SnapshotNodes,
    inode: Inode,
    name: &[u8],
    context: &RequestContext,
) -> Result<Option<Vec<u8>>, FsError> {
    let repository = &nodes.repository;
    let Some(name) = name.strip_prefix(b"user.dupfs.") else { return Ok(None) };
    if name == b"cost" {
        return Ok(Some(repository.cost().into_bytes()));
    }
    let Inode::Node(snapshot, node) = inode else { return Ok(None) };
    let state = nodes.state(snapshot, node, context)?;
    let tree = nodes.tree(snapshot, context)?;
    if name == b"set" {
        let set = state.version.and_then(|version| tree.set_of(version));
        return Ok(set.map(|set| repository.label(set).as_bytes().to_vec()));
    }
    let Some(file) = tree.find_file(node) else { return Ok(None) };
    match name {
        b"volumes" => {
            let volumes = volumes_of(repository, &file, context)?;
            let names = volumes.iter().map(|&id| volume_name(repository, id));
            Ok(Some(names.collect::<Vec<_>>().join("\n").into_bytes()))
        }
        b"at_hand" => {
            let volumes = volumes_of(repository, &file, context)?;
            let are_cached = volumes.iter().all(|&id| repository.was_decoded(id));
            Ok(Some(if are_cached { b"yes".to_vec() } else { b"no".to_vec() }))
        }
        _ => Ok(None),
    }
}

/// The volumes that may have parts of the file in the sets that its content may depend on, by the manifests alone.
fn volumes_of(
    repository: &std::sync::Arc<Repository>,
    file: &FileRef,
    context: &RequestContext,
) -> Result<Vec<VolumeId>, FsError> {
    let mut found = Vec::new();
    for version in &file.history {
        let Some(set) = file.branch.set_at(version.position) else { continue };
        let manifest = repository.manifest(set, context).map_err(|error| volume_error(&error))?;
        found.extend(manifest.volumes_of(&file.path).iter().map(|v| VolumeId { set, number: v.number }));
    }
    Ok(found)
}

fn volume_name(repository: &Repository, id: VolumeId) -> String {
    let set = repository.set(id.set).ok();
    let name = set.and_then(|set| set.volumes.get(&id.number).map(|object| object.name.to_string()));
    name.unwrap_or_else(|| missing_name(id.set, id.number))
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
