//! `dupfs sets`: chains, sets and snapshots of a repository, and every problem that names and manifests tell.

mod manifests;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::failure::{Exit, Failure};
use super::printer::Printer;
use dupfs_base::RequestContext;
use dupfs_read::volume::Repository;

/// Reports on `repository`, as text or as JSON (docs/CLI.md). Reads every manifest and nothing else; one that cannot be
/// read is a problem in the report, so that the rest is told without a key too. Manifests that could not be asked (no key,
/// no access, no answer) make the report incomplete, which its exit code says; damage is what a report is for.
///
/// # Errors
/// [`Failure`] when the output takes no more.
pub fn run(
    repository: &Arc<Repository>,
    context: &RequestContext,
    json: bool,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    let manifests = manifests::read_all(repository, context);
    let report = report::Report::of(repository.url(), &repository.collection(), &manifests);
    if json {
        printer.json(&report, true)?;
        printer.text("\n")?;
    } else {
        text::print(&report, printer)?;
    }
    Ok(printer.finish()?.max(manifests::completeness(&manifests)))
}
