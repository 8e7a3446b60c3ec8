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
    let selection = report.selection.describe();
    // Its first letter is of ASCII.
    let _ = writeln!(text, "{}{}.", selection[..1].to_uppercase(), &selection[1..]);
    if !report.skipped.is_empty() {
        let ids: Vec<String> = report.skipped.iter().map(|id| code(id)).collect();
        let _ = writeln!(text, "Skipped: {}.", ids.join(", "));
    }
    for trouble in &report.troubles {
        let _ = writeln!(text, "\n- trouble: {}", code(trouble));
    }
    for id in &report.expectations.stale {
        let _ = writeln!(text, "\n- `{id}` is listed as known failing, and passes");
    }
    for id in &report.expectations.unused {
        let _ = writeln!(text, "\n- `{id}` is listed as known failing, and was not judged");
    }
    text += "\n| profile | result | MUST | SHOULD | INFO |\n|---|---|---|---|---|\n";
    for (profile, sums) in &report.profiles {
        let name = profile.name();
        let (must, should, info) = (counts(sums.must), counts(sums.should), counts(sums.info));
        let _ = writeln!(text, "| {name} | {} | {must} | {should} | {info} |", sums.result.name());
    }
    text += "\nCounts are passed / failed / known failures / not run.\n\n\
             | check | level | verdict | reason, evidence |\n|---|---|---|---|\n";
    for check in &report.checks {
        let mut remarks: Vec<String> = check.reason.iter().map(|reason| code(reason)).collect();
        remarks.extend(check.known_failing.iter().map(|known| format!("known: {}", cell(known))));
        remarks.extend(check.evidence.iter().map(|fact| code(fact)));
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
    let failed = counts.failed.saturating_sub(counts.known);
    format!("{} / {failed} / {} / {}", counts.passed, counts.known, counts.not_run)
}

/// Text of which the plugin may have written a part: as code, in which nothing is markup.
fn code(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A cell ends at a pipe, in code as well, unless a single backslash comes before it.
    let line = line.replace("\\|", "\\ |").replace('|', "\\|");
    let longest = line.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Without the space a backtick at either end would be the fence's.
    let space = if longest > 0 || line.is_empty() { " " } else { "" };
    format!("{fence}{space}{line}{space}{fence}")
}

/// Text that does not end a cell, nor is taken for markup.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn no_text_leaves_its_code_span() {
        for (text, span) in [
            ("plain", "`plain`"),
            ("![x](https://evil.example)", "`![x](https://evil.example)`"),
            ("a `b` c", "`` a `b` c ``"),
            ("```", "```` ``` ````"),
            ("a | b \\| c", "`a \\| b \\ \\| c`"),
            ("two\n\nlines", "`two lines`"),
        ] {
            assert_eq!(code(text), span);
        }
    }
}
