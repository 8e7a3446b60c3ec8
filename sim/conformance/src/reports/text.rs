//! For terminals.

use std::fmt::Write as _;

use super::title;
use crate::report::Report;
use crate::verdict::Verdict;

/// One line a check, with more below those that did not pass; then the sums.
pub(super) fn write(report: &Report) -> String {
    let mut text = format!(
        "kms-conformance {} of {}, seed {}\n",
        report.suite_version,
        title(report),
        report.seed
    );
    for profile in report.profiles.keys() {
        let _ = writeln!(text, "\n{}", profile.name());
        for check in report.checks.iter().filter(|check| check.profile == *profile) {
            let mark = match (check.verdict, &check.known_failing) {
                (Verdict::Passed, _) => "pass",
                (Verdict::NotRun, _) => "-",
                (Verdict::EngineError, _) => "ERROR",
                (Verdict::InfoFailed, _) => "info",
                (_, Some(_)) => "known",
                (Verdict::ShouldFailed, None) => "should",
                (Verdict::MustFailed, None) => "FAIL",
            };
            let id = &check.id;
            let _ = writeln!(
                text,
                "  {mark:<6} {:<6} {id:<32} {} ms",
                check.level.name(),
                check.duration_ms
            );
            let more = check.reason.iter().chain(&check.known_failing).chain(&check.evidence);
            for line in more.flat_map(|fact| fact.lines()) {
                let _ = writeln!(text, "           {line}");
            }
        }
    }
    text.push('\n');
    let _ = writeln!(text, "{}", report.selection.describe());
    if !report.skipped.is_empty() {
        let _ = writeln!(text, "skipped: {}", report.skipped.join(", "));
    }
    for trouble in &report.troubles {
        let _ = writeln!(text, "trouble: {trouble}");
    }
    for id in &report.expectations.stale {
        let _ = writeln!(text, "{id} is listed as known failing, and passes");
    }
    for id in &report.expectations.unused {
        let _ = writeln!(text, "{id} is listed as known failing, and was not judged");
    }
    let count = |verdict| report.count(verdict);
    let _ = writeln!(
        text,
        "{} checks: {} passed, {} MUST failed, {} SHOULD failed, {} INFO failed, {} known failures, \
         {} not run, {} errors",
        report.checks.len(),
        count(Verdict::Passed),
        count(Verdict::MustFailed),
        count(Verdict::ShouldFailed),
        count(Verdict::InfoFailed),
        report.known(),
        count(Verdict::NotRun),
        count(Verdict::EngineError),
    );
    let _ = writeln!(text, "{} (exit {})", report.conclusion(), report.exit() as u8);
    text
}
