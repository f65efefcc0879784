//! The report of `dupfs volumes` as data and as text. Keys of its JSON are stable (docs/CLI.md).

use serde::Serialize;

use crate::cli::attr_json::json_bytes;
use crate::cli::error::CliError;
use crate::cli::printer::Printer;
use crate::cli::quantities::{counted, human_bytes};
use dupfs_format::ArchivePath;

/// The report of `dupfs volumes`.
#[derive(Debug, Serialize)]
pub(super) struct VolumesReport {
    url: String,
    /// The name of the snapshot; none for paths as a mount has them.
    snapshot: Option<String>,
    paths: Vec<ReportedPath>,
    /// False if the manifests or signature archives that name the volumes are in cold storage.
    pub(super) known: bool,
    pub(super) volumes: Vec<ReportedVolume>,
    pub(super) metadata: Vec<ReportedMetadata>,
    count: usize,
    bytes: u64,
    certain_count: usize,
    certain_bytes: u64,
    cold_count: usize,
    cold_bytes: u64,
}

/// A path whose volumes are reported.
#[derive(Debug, Serialize)]
struct ReportedPath {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

/// A volume that a read needs, or may need.
#[derive(Debug, Serialize)]
pub(super) struct ReportedVolume {
    pub(super) object: String,
    /// The time of the set.
    pub(super) set: String,
    pub(super) number: u32,
    pub(super) size: u64,
    pub(super) storage_class: Option<String>,
    pub(super) cold: bool,
    /// True if the index has the table of its members.
    pub(super) indexed: bool,
    /// False if a read may do without it.
    pub(super) certain: bool,
}

/// A manifest or signature archive of the snapshot.
#[derive(Debug, Serialize)]
pub(super) struct ReportedMetadata {
    pub(super) object: String,
    /// `manifest` or `signatures`.
    pub(super) kind: &'static str,
    pub(super) set: String,
    pub(super) size: u64,
    pub(super) storage_class: Option<String>,
    pub(super) cold: bool,
}

impl VolumesReport {
    /// The report on `volumes`, which `paths` need.
    pub(super) fn new(
        (url, snapshot): (&str, Option<&str>),
        paths: &[ArchivePath],
        volumes: Vec<ReportedVolume>,
        metadata: Vec<ReportedMetadata>,
    ) -> Self {
        let reported = |path: &ArchivePath| {
            let (path, path_hex) = json_bytes(path.as_bytes());
            ReportedPath { path, path_hex }
        };
        let total = |sizes: Vec<u64>| (sizes.len(), sizes.into_iter().fold(0, u64::saturating_add));
        let (count, bytes) = total(volumes.iter().map(|volume| volume.size).collect());
        let certain = volumes.iter().filter(|volume| volume.certain);
        let (certain_count, certain_bytes) = total(certain.map(|volume| volume.size).collect());
        let cold = volumes.iter().filter(|volume| volume.cold).map(|volume| volume.size);
        let cold = cold.chain(metadata.iter().filter(|object| object.cold).map(|object| object.size));
        let (cold_count, cold_bytes) = total(cold.collect());
        Self {
            url: url.to_owned(),
            snapshot: snapshot.map(str::to_owned),
            paths: paths.iter().map(reported).collect(),
            known: true,
            volumes,
            metadata,
            count,
            bytes,
            certain_count,
            certain_bytes,
            cold_count,
            cold_bytes,
        }
    }

    /// The objects in cold storage with their classes, those first that name the others.
    pub(super) fn cold_objects(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let metadata = self.metadata.iter().filter(|object| object.cold);
        let metadata = metadata.map(|object| (object.object.as_str(), object.storage_class.as_deref()));
        let volumes = self.volumes.iter().filter(|volume| volume.cold);
        metadata.chain(volumes.map(|volume| (volume.object.as_str(), volume.storage_class.as_deref())))
    }

    /// Prints it as text: a line for each volume, and the sum.
    pub(super) fn print(&self, printer: &mut Printer<'_>) -> Result<(), CliError> {
        let is_terminal = printer.is_terminal();
        let size = |bytes: u64| if is_terminal { human_bytes(bytes) } else { bytes.to_string() };
        let class = |volume: &ReportedVolume| volume.storage_class.clone().unwrap_or_else(|| "-".to_owned());
        let size_width = self.volumes.iter().map(|volume| size(volume.size).len()).max().unwrap_or(0);
        let class_width = self.volumes.iter().map(|volume| class(volume).len()).max().unwrap_or(0);
        for volume in &self.volumes {
            let needed = if volume.certain { "needed" } else { "maybe" };
            let cold = if volume.cold { "cold" } else { "-" };
            let indexed = if volume.indexed { "indexed" } else { "-" };
            let (bytes, class, set) = (size(volume.size), class(volume), &volume.set);
            let line = format!(
                "{bytes:>size_width$} {class:class_width$} {cold:4} {indexed:7} {needed:6} {set} {}\n",
                volume.object
            );
            printer.name(line.trim_end().as_bytes())?;
            printer.text("\n")?;
        }
        printer.text(&format!("{}\n", self.summary(&size)))
    }

    fn summary(&self, size: &dyn Fn(u64) -> String) -> String {
        let bytes = |n: u64| {
            let text = size(n);
            if text.contains(' ') { text } else { format!("{text} bytes") }
        };
        let mut line = format!("{}, {}", counted(self.count, "volume"), bytes(self.bytes));
        if self.certain_count < self.count {
            let certain = bytes(self.certain_bytes);
            line = format!("at most {line}; {} of them certainly ({certain})", self.certain_count);
        }
        if self.cold_count > 0 {
            let (objects, cold) = (counted(self.cold_count, "object"), bytes(self.cold_bytes));
            line = format!("{line}; in cold storage: {objects} ({cold}), see --thaw");
        }
        line
    }
}
