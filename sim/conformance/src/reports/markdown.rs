//! For repositories.

use std::fmt::Write as _;

use super::title;
use crate::report::{Counts, Report};

/// A table of the profiles, and one of the checks.
pub(super) fn write(report: &Report) -> String {
    let mut text = format!("# KMS v2 conformance of {}\n\n", title(report));
    let _ = writeln!(text, "**{}** (exit {})\n", report.conclusion(), report.exit() as u8);
    let _ = writeln!(
        text,
        "Suite {}, {}, seed {}, {} ms{}.",
        report.suite_version,
        report.started,
        report.seed,
        report.duration_ms,
        if report.strict { ", strict" } else { "" }
    );
    for trouble in &report.troubles {
        let _ = writeln!(text, "\n- trouble: {}", cell(trouble));
    }
    for id in &report.expectations.stale {
        let _ = writeln!(text, "\n- `{id}` is listed as known failing, and passes");
    }
    text += "\n| profile | result | MUST | SHOULD | INFO |\n|---|---|---|---|---|\n";
    for (profile, sums) in &report.profiles {
        let name = profile.name();
        let (must, should, info) = (counts(sums.must), counts(sums.should), counts(sums.info));
        let _ = writeln!(text, "| {name} | {} | {must} | {should} | {info} |", sums.result.name());
    }
    text += "\nCounts are passed / failed / not run.\n\n\
             | check | level | verdict | reason, evidence |\n|---|---|---|---|\n";
    for check in &report.checks {
        let mut remarks: Vec<String> = check.reason.iter().map(|reason| cell(reason)).collect();
        remarks.extend(check.known_failing.iter().map(|known| format!("known: {}", cell(known))));
        remarks.extend(check.evidence.iter().map(|fact| cell(fact)));
        let verdict = check.verdict.name();
        let _ = writeln!(
            text,
            "| {} | {} | {verdict} | {} |",
            check.id,
            check.level.name(),
            remarks.join("; ")
        );
    }
    if !report.reproduce.is_empty() {
        let _ = writeln!(text, "\n## Reproduce\n\n```sh\n{}\n```", report.reproduce);
    }
    text
}

fn counts(counts: Counts) -> String {
    format!("{} / {} / {}", counts.passed, counts.failed, counts.not_run)
}

/// Text that does not end a cell, nor is taken for markup.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}
