//! The operations of a file system: lookup, getattr, readdir, open, read. No FUSE types.

mod at_dir;
mod attr;
mod error;
mod fs_status;
mod handle_table;
mod inode;
mod link_counts;
#[cfg(test)]
pub(crate) mod memory_fs;
mod node_xattrs;
mod ops;
mod overview;
mod owners;
mod pagination;
mod recorded_branch;
mod recorded_trees;
mod shown_sizes;
mod size_ahead;
mod snapshot_nodes;
mod snapshot_tree;
mod snapshot_trees;
mod snapshot_view;
mod tree_fs;
mod unpacked;
mod versions_dir;

pub use error::FsError;
pub(crate) use fs_status::tenths;
pub use fs_status::{CacheStatus, FetchStatus, FsStatus, LastListing, LinkStatus, ShownRange};
pub use ops::{Attr, DirEntry, FileSystem, FsStats, Ino, NodeKind, Opened, ROOT_INO};
pub use owners::OwnerOptions;
pub use recorded_branch::{BranchEntry, RecordedBranch, parts_within};
pub use recorded_trees::{ListedSnapshot, RecordedObject, RecordedTree, RecordedTrees};
pub use shown_sizes::ShownSizes;
pub use tree_fs::{MountRoot, TreeFs, TreeOptions};
pub use unpacked::UnpackedFs;
