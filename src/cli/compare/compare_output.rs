//! The report of a comparison. Differences are printed as they are found, so that any number of them needs no memory.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dupfs_format::ArchivePath;
use serde::Serialize;

use super::object_difference::Difference;
use crate::cli::attr_json::json_bytes;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;
use crate::cli::printer::Printer;
use crate::cli::progress_line::ProgressLine;

/// Upper bound of the failures in the JSON report; all are on standard error.
const MAX_FAILURES: usize = 1000;

/// A difference in the JSON report.
#[derive(Serialize)]
struct JsonDifference<'d> {
    path: String,
    path_hex: Option<String>,
    kind: &'static str,
    expected: &'d Option<String>,
    found: &'d Option<String>,
}

/// Prints a report while it is made.
pub(super) struct CompareOutput<'p, 'o> {
    printer: &'p mut Printer<'o>,
    json: bool,
    progress: ProgressLine,
    /// Number of objects compared, and of those that differ.
    objects: u64,
    different: u64,
    printed: u64,
    /// Number of files whose content was compared with the signature.
    pub(super) proved: u64,
    /// Number of files whose content was compared with the content of the backup.
    pub(super) read: u64,
    failures: Vec<String>,
    failed: u64,
}

/// The end of the JSON report.
#[derive(Serialize)]
struct JsonSummary<'s> {
    complete: bool,
    interrupted: bool,
    same: bool,
    compared: u64,
    different: u64,
    proved: u64,
    read: u64,
    failed: u64,
    failures: &'s [String],
}

impl<'p, 'o> CompareOutput<'p, 'o> {
    /// Begins the report on the comparison of `snapshot` (with a path) of `url`, about `objects` objects if their number is known,
    /// with `directory`.
    pub(super) fn begin(
        printer: &'p mut Printer<'o>,
        json: bool,
        (url, snapshot, directory): (&str, &str, &Path),
        objects: Option<u64>,
    ) -> Result<Self, CliError> {
        printer.show_own_line();
        if json {
            let (directory, _) = json_bytes(directory.as_os_str().as_bytes());
            printer.text("{\n")?;
            for (name, value) in [("url", url), ("snapshot", snapshot), ("directory", directory.as_str())] {
                printer.text(&format!("  \"{name}\": "))?;
                printer.json(&value, false)?;
                printer.text(",\n")?;
            }
            printer.text("  \"differences\": [")?;
        }
        Ok(Self {
            printer,
            json,
            progress: ProgressLine::of_objects(objects.map(|objects| objects.max(1))),
            objects: 0,
            different: 0,
            printed: 0,
            proved: 0,
            read: 0,
            failures: Vec::new(),
            failed: 0,
        })
    }

    /// Counts the object at `path`, and prints its differences.
    pub(super) fn compared(&mut self, path: &ArchivePath, differences: &[Difference]) -> Result<(), CliError> {
        self.objects = self.objects.saturating_add(1);
        if !differences.is_empty() {
            self.different = self.different.saturating_add(1);
        }
        for difference in differences {
            if self.json {
                let (shown, path_hex) = json_bytes(path.as_bytes());
                let Difference { kind, expected, found } = difference;
                self.printer.text(if self.printed == 0 { "\n    " } else { ",\n    " })?;
                self.printer.json(&JsonDifference { path: shown, path_hex, kind, expected, found }, false)?;
            } else {
                self.printer.text(&format!("{}: ", difference.kind))?;
                self.printer.name(if path.is_root() { b"." } else { path.as_bytes() })?;
                if let (Some(expected), Some(found)) = (&difference.expected, &difference.found) {
                    self.printer.text(&format!(": {found}, expected {expected}"))?;
                }
                self.printer.text("\n")?;
            }
            self.printed = self.printed.saturating_add(1);
        }
        self.progress.describe(format!("{} differ, ", self.different));
        self.progress.advance(1);
        Ok(())
    }

    /// Reports an object that cannot be compared.
    pub(super) fn fail(&mut self, failure: &CliError) {
        self.failed = self.failed.saturating_add(1);
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure.to_string());
        }
        self.printer.report(failure);
    }

    /// Ends the report. The exit code is 1 if something differs, as that of duplicity, unless a failure has a greater one.
    pub(super) fn finish(self, interrupted: bool) -> Result<CommandExit, CliError> {
        self.progress.clear();
        let complete = !interrupted && self.failed == 0;
        let same = complete && self.different == 0;
        let Self { printer, objects: compared, different, proved, read, failed, failures, .. } = self;
        if self.json {
            let summary = JsonSummary {
                complete,
                interrupted,
                same,
                compared,
                different,
                proved,
                read,
                failed,
                failures: &failures,
            };
            let text = serde_json::to_string_pretty(&summary).unwrap_or_default();
            printer.text(if self.printed == 0 { "],\n" } else { "\n  ],\n" })?;
            // The keys of the summary are those of the report.
            printer.text(text.strip_prefix("{\n").unwrap_or(&text))?;
            printer.text("\n")?;
        } else {
            let contents = match (proved, read) {
                (0, 0) => String::new(),
                _ => format!(", {proved} contents by their signatures and {read} with the backup"),
            };
            let end = match (interrupted, failed) {
                (true, _) => "; interrupted".to_owned(),
                (false, 0) => String::new(),
                (false, failed) => format!("; {failed} could not be compared"),
            };
            let objects = if compared == 1 { "object" } else { "objects" };
            let differ = if different == 1 { "differs" } else { "differ" };
            printer.text(&format!("{compared} {objects} compared{contents}: {different} {differ}{end}\n"))?;
        }
        let exit = printer.finish()?;
        Ok(match (interrupted, different) {
            (true, _) => CommandExit::Interrupted,
            (false, 0) => exit,
            (false, _) => exit.max(CommandExit::Failed),
        })
    }
}
