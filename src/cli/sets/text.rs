//! The report as text.

use super::sets_report::{ChainReport, SetReport, SetsReport};
use crate::cli::error::CliError;
use crate::cli::printer::Printer;
use crate::cli::quantities::{counted, human_bytes};

/// Prints the report.
pub(super) fn print(report: &SetsReport, printer: &mut Printer<'_>) -> Result<(), CliError> {
    let mut lines = Vec::new();
    head(report, &mut lines);
    for chain in &report.chains {
        lines.push(String::new());
        chain_lines(report, chain, &mut lines);
    }
    unchained(report, &mut lines);
    signatures(report, &mut lines);
    lines.push(String::new());
    if report.problems.is_empty() {
        lines.push("no problems found".to_owned());
    } else {
        lines.push(format!("{}:", counted(report.problems.len(), "problem")));
        lines.extend(report.problems.iter().map(|problem| format!("  {}: {}", problem.severity, problem.message)));
    }
    for line in lines {
        printer.name(line.as_bytes())?;
        printer.text("\n")?;
    }
    Ok(())
}

fn head(report: &SetsReport, lines: &mut Vec<String>) {
    let snapshots = report.sets.iter().filter(|set| set.snapshot.is_some()).count();
    let volumes: usize = report.sets.iter().map(|set| set.volumes).sum();
    let total = report.sets.iter().map(|set| set.bytes).fold(0, u64::saturating_add);
    lines.push(report.url.clone());
    lines.push(format!(
        "{}, {}, {}, {}",
        counted(report.sets.len(), "backup set"),
        counted(snapshots, "snapshot"),
        counted(volumes, "volume"),
        human_bytes(total)
    ));
    let source = report.sets.iter().rev().find(|set| set.hostname.is_some() || set.source_directory.is_some());
    if let Some(set) = source {
        let unknown = "unknown";
        let directory = set.source_directory.as_deref().unwrap_or(unknown);
        lines.push(format!("source directory {directory}, host {}", set.hostname.as_deref().unwrap_or(unknown)));
    }
    let latest = report.latest.as_deref().unwrap_or("none: no set can be restored");
    lines.push(format!("latest snapshot {latest}"));
}

fn chain_lines(report: &SetsReport, chain: &ChainReport, lines: &mut Vec<String>) {
    lines.push(format!(
        "{} chain {} to {}: {}, {}, {}",
        if chain.primary { "primary" } else { "secondary" },
        chain.start_time,
        chain.end_time,
        counted(chain.sets.len(), "set"),
        counted(chain.volumes, "volume"),
        human_bytes(chain.bytes)
    ));
    let sets = chain.sets.iter().filter_map(|index| report.set(*index));
    lines.extend(sets.map(|set| set_line(set, if set.rebuilt { "rebuilt" } else { "" })));
}

/// The sets that duplicity counts to no chain.
fn unchained(report: &SetsReport, lines: &mut Vec<String>) {
    let mut rest: Vec<(u32, String)> = Vec::new();
    rest.extend(report.orphaned_sets.iter().map(|set| (*set, "orphaned".to_owned())));
    rest.extend(report.incomplete_sets.iter().map(|set| (*set, "incomplete".to_owned())));
    for replaced in &report.replaced_sets {
        let by = report.set(replaced.by).map_or_else(String::new, |by| format!(" by {}", by.time));
        rest.push((replaced.set, format!("replaced{by}")));
    }
    if rest.is_empty() {
        return;
    }
    rest.sort();
    lines.push(String::new());
    lines.push(format!("in no chain of duplicity's: {}", counted(rest.len(), "set")));
    for (index, what) in rest {
        if let Some(set) = report.set(index) {
            let shown = if set.snapshot.is_some() { "shown" } else { "not shown" };
            lines.push(set_line(set, &format!("{what}, {shown}")));
        }
    }
}

fn signatures(report: &SetsReport, lines: &mut Vec<String>) {
    if report.signature_chains.is_empty() && report.orphaned_signatures.is_empty() {
        return;
    }
    lines.push(String::new());
    for chain in &report.signature_chains {
        let count = counted(chain.objects.len(), "archive");
        lines.push(format!("signature chain {} to {}: {count}", chain.start_time, chain.end_time));
    }
    lines.extend(report.orphaned_signatures.iter().map(|name| format!("orphaned signature archive {name}")));
}

fn set_line(set: &SetReport, remark: &str) -> String {
    let from = match &set.start_time {
        Some(start) => format!(" since {start}"),
        None => " ".repeat(" since 20170128T021500Z".len()),
    };
    let volumes = match set.listed_volumes {
        Some(listed) if !set.missing_volumes.is_empty() => {
            format!("{} of {}", listed.saturating_sub(set.missing_volumes.len()), counted(listed, "volume"))
        }
        _ => counted(set.volumes, "volume"),
    };
    let encryption = match set.encryption {
        "openpgp" => "encrypted",
        "cms" => "gpgsm",
        "mixed" => "mixed",
        _ => "not encrypted",
    };
    let line =
        format!("  {:4} {}{from}  {volumes:>14}  {:>10}  {encryption:13}", set.kind, set.time, human_bytes(set.bytes));
    let line = if remark.is_empty() { line } else { format!("{line}  {remark}") };
    line.trim_end().to_owned()
}
