//! `dupfs sets`: chains, sets and snapshots of a repository, and every problem of its names and manifests.

mod manifests;
mod reported_problem;
mod sets_report;
mod signatures;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::error::CliError;
use super::exit::CommandExit;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use dupfs_read::volume::Repository;
use reported_problem::ReportedProblem;

/// The output of `dupfs sets`, and its exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetsOptions {
    /// One JSON object instead of text.
    pub json: bool,
    /// The encrypted signature archives are read too, and damage counts for the exit code.
    pub check: bool,
}

/// Reports on `repository`, as text or as JSON (docs/CLI.md). Reads every manifest, with
/// [`SetsOptions::check`] the encrypted signature archives, and nothing else; a manifest that cannot be read is a problem in the report, so that the rest is reported without a key too. Manifests that could not be fetched or
/// decrypted (no key, no access, no answer) make the report incomplete, and the exit code gives the reason; damage is part of
/// a complete report, and counts for the exit code only with [`SetsOptions::check`]. Reading a manifest may take `timeout`.
///
/// # Errors
/// [`CliError`] when the output cannot be written.
pub fn run(
    repository: &Arc<Repository>,
    timeout: RequestTimeout,
    options: SetsOptions,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let manifests = manifests::read_all(repository, timeout);
    let signatures = options.check.then(|| signatures::check_all(repository, timeout));
    let (checked_problems, signatures_read) = match signatures {
        Some(signatures) => (signatures.problems, signatures.completeness),
        None => (Vec::new(), CommandExit::Done),
    };
    let report = sets_report::SetsReport::of(repository, &manifests, checked_problems);
    if options.json {
        printer.json(&report, true)?;
        printer.text("\n")?;
    } else {
        text::print(&report, printer)?;
    }
    let is_damaged = report.problems.iter().any(ReportedProblem::is_damage);
    let checked = if options.check && is_damaged { CommandExit::Damage } else { CommandExit::Done };
    Ok(printer.finish()?.max(manifests::completeness(&manifests)).max(signatures_read).max(checked))
}
