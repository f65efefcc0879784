//! The report as data. Keys of its JSON are stable (docs/CLI.md).

use serde::Serialize;

use super::manifests::{self, ManifestSummary, Manifests};
use super::reported_problem::ReportedProblem;
use crate::cli::attr_json::json_bytes;
use dupfs_format::SetIndex;
use dupfs_format::collection::{BackupSet, Chain, Collection, SignatureChain, Snapshot};
use dupfs_read::volume::Repository;

/// The report of `dupfs sets`. One field for each key of the JSON output.
#[derive(Serialize)]
pub(super) struct SetsReport {
    pub(super) url: String,
    /// Name of the newest snapshot that duplicity would restore and that is as protected as those before it.
    pub(super) latest: Option<String>,
    pub(super) sets: Vec<SetReport>,
    pub(super) chains: Vec<ChainReport>,
    /// Sets that are not encrypted although an earlier one is, or one that builds on them.
    pub(super) doubtful_sets: Vec<u32>,
    pub(super) orphaned_sets: Vec<u32>,
    pub(super) incomplete_sets: Vec<u32>,
    pub(super) replaced_sets: Vec<ReplacedReport>,
    /// The set that duplicity would discard because its signature archive is missing.
    pub(super) discarded_set: Option<u32>,
    pub(super) signature_chains: Vec<SignatureReport>,
    pub(super) orphaned_signatures: Vec<String>,
    pub(super) other_backups: Vec<OtherReport>,
    pub(super) foreign_objects: usize,
    pub(super) problems: Vec<ReportedProblem>,
}

/// One backup set. One field for each key of the JSON output.
#[derive(Serialize)]
pub(super) struct SetReport {
    pub(super) index: u32,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) time: String,
    pub(super) epoch: i64,
    pub(super) start_time: Option<String>,
    pub(super) start_epoch: Option<i64>,
    /// Name of its directory below `snapshots/`; none if it is not shown.
    pub(super) snapshot: Option<String>,
    /// The snapshot, as the sets that make it up, the full set first. The snapshots of a chain share one list.
    #[serde(serialize_with = "lineage")]
    pub(super) lineage: Option<Snapshot>,
    pub(super) encryption: &'static str,
    pub(super) manifest: Option<String>,
    /// True if the set is shown without a manifest.
    pub(super) rebuilt: bool,
    pub(super) signatures: Option<String>,
    /// Number of volumes in the store.
    pub(super) volumes: usize,
    /// Number of volumes in the manifest; none if it was not read.
    pub(super) listed_volumes: Option<usize>,
    pub(super) missing_volumes: Vec<u32>,
    pub(super) unlisted_volumes: Vec<u32>,
    pub(super) cold_objects: usize,
    /// Bytes of all its objects in the store.
    pub(super) bytes: u64,
    pub(super) volume_bytes: u64,
    pub(super) signature_bytes: u64,
    pub(super) hostname: Option<String>,
    pub(super) source_directory: Option<String>,
    /// Regular files that the manifest lists as new, changed or deleted.
    pub(super) listed_files: Option<u64>,
}

/// A chain as duplicity sees it.
#[derive(Serialize)]
pub(super) struct ChainReport {
    pub(super) start_time: String,
    pub(super) end_time: String,
    pub(super) primary: bool,
    pub(super) sets: Vec<u32>,
    pub(super) volumes: usize,
    pub(super) bytes: u64,
}

/// An increment that duplicity drops for another.
#[derive(Serialize)]
pub(super) struct ReplacedReport {
    pub(super) set: u32,
    pub(super) by: u32,
}

/// A signature chain as duplicity sees it.
#[derive(Serialize)]
pub(super) struct SignatureReport {
    pub(super) start_time: String,
    pub(super) end_time: String,
    pub(super) objects: Vec<String>,
}

/// Another backup in the same store.
#[derive(Serialize)]
pub(super) struct OtherReport {
    pub(super) options: Option<String>,
    pub(super) objects: usize,
}

impl SetsReport {
    pub(super) fn of(repository: &Repository, manifests: &Manifests, checked: Vec<ReportedProblem>) -> Self {
        let collection = &*repository.collection();
        let chains = collection.chains();
        let chain = |(index, chain): (usize, &Chain)| ChainReport::of(collection, chain, chains.primary == Some(index));
        let sets = collection.sets().iter().zip(manifests);
        let others = collection.other_backups().iter();
        Self {
            url: repository.url().to_owned(),
            latest: collection.latest().map(|latest| latest.name.to_string()),
            sets: sets.map(|(set, manifest)| SetReport::of(collection, set, manifest.as_ref())).collect(),
            chains: chains.chains.iter().enumerate().map(chain).collect(),
            doubtful_sets: indices(collection.doubtful_sets()),
            orphaned_sets: indices(&chains.orphaned),
            incomplete_sets: indices(&chains.incomplete),
            replaced_sets: chains.replaced.iter().map(|r| ReplacedReport { set: r.set.0, by: r.by.0 }).collect(),
            discarded_set: chains.discarded.map(|set| set.0),
            signature_chains: chains.signature_chains.iter().map(SignatureReport::of).collect(),
            orphaned_signatures: chains.orphaned_signatures.iter().map(ToString::to_string).collect(),
            other_backups: others.map(|o| OtherReport { options: o.options.clone(), objects: o.objects }).collect(),
            foreign_objects: collection.foreign_objects(),
            problems: manifests::problems(repository, collection, manifests, checked),
        }
    }

    pub(super) fn set(&self, index: u32) -> Option<&SetReport> {
        self.sets.get(usize::try_from(index).ok()?)
    }
}

fn indices(sets: &[SetIndex]) -> Vec<u32> {
    sets.iter().map(|set| set.0).collect()
}

fn lineage<S: serde::Serializer>(snapshot: &Option<Snapshot>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(snapshot.iter().flat_map(Snapshot::lineage).map(|set| set.0))
}

impl SetReport {
    fn of(
        collection: &Collection,
        set: &BackupSet,
        manifest: Option<&Result<ManifestSummary, dupfs_read::volume::VolumeError>>,
    ) -> Self {
        let snapshot = collection.snapshot_of(set.index);
        let manifest = manifest.and_then(|manifest| manifest.as_ref().ok());
        let text = |bytes: &Option<Box<[u8]>>| bytes.as_deref().map(|bytes| json_bytes(bytes).0);
        let numbers = |numbers: &Vec<dupfs_format::VolumeNumber>| numbers.iter().map(|number| number.0).collect();
        Self {
            index: set.index.0,
            kind: if set.is_full() { "full" } else { "inc" },
            time: set.time.to_string(),
            epoch: set.time.0,
            start_time: set.start.map(|start| start.to_string()),
            start_epoch: set.start.map(|start| start.0),
            snapshot: snapshot.map(|snapshot| snapshot.name.to_string()),
            lineage: snapshot.cloned(),
            encryption: set.encryption().code(),
            manifest: set.manifest.as_ref().map(|object| object.name.to_string()),
            rebuilt: set.is_rebuilt,
            signatures: set.signatures.as_ref().map(|object| object.name.to_string()),
            volumes: set.volumes.len(),
            listed_volumes: manifest.map(|manifest| manifest.volumes),
            missing_volumes: manifest.map_or_else(Vec::new, |manifest| numbers(&manifest.absent)),
            unlisted_volumes: manifest.map_or_else(Vec::new, |manifest| numbers(&manifest.unlisted)),
            cold_objects: set.objects().filter(|object| object.archived.is_some()).count(),
            bytes: set.stored_bytes(),
            volume_bytes: set.volumes.values().map(|object| object.size).fold(0, u64::saturating_add),
            signature_bytes: set.signatures.as_ref().map_or(0, |object| object.size),
            hostname: manifest.and_then(|manifest| text(&manifest.hostname)),
            source_directory: manifest.and_then(|manifest| text(&manifest.localdir)),
            listed_files: manifest.and_then(|manifest| manifest.changed_files),
        }
    }
}

impl ChainReport {
    fn of(collection: &Collection, chain: &Chain, primary: bool) -> Self {
        let sets = chain.sets.iter().filter_map(|index| collection.set(*index));
        Self {
            start_time: chain.start.to_string(),
            end_time: chain.end.to_string(),
            primary,
            sets: indices(&chain.sets),
            volumes: sets.clone().map(|set| set.volumes.len()).sum(),
            bytes: sets.map(|set| set.stored_bytes()).fold(0, u64::saturating_add),
        }
    }
}

impl SignatureReport {
    fn of(chain: &SignatureChain) -> Self {
        Self {
            start_time: chain.start.to_string(),
            end_time: chain.end.to_string(),
            objects: chain.names.iter().map(ToString::to_string).collect(),
        }
    }
}
