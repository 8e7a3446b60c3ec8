//! For CI servers.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::title;
use crate::report::{CheckReport, Report};
use crate::verdict::Verdict;

/// A suite for each profile, a case for each check, and a suite for what was selected. What was not run,
/// was left out, is known to fail, does not count, or is only a measurement is skipped, with a message;
/// never passed.
pub(super) fn write(report: &Report) -> Result<String, String> {
    let mut junit = quick_junit::Report::new(format!("kms-conformance of {}", title(report)));
    junit.set_time(Duration::from_millis(report.duration_ms));
    for profile in report.profiles.keys() {
        let mut suite = TestSuite::new(profile.name());
        for check in report.checks.iter().filter(|check| check.profile == *profile) {
            suite.add_test_case(case(check, report.strict));
        }
        junit.add_test_suite(suite);
    }
    junit.add_test_suite(selection(report));
    if !report.troubles.is_empty() || !report.expectations.stale.is_empty() {
        junit.add_test_suite(run(report));
    }
    let xml = junit.to_string().map_err(|error| error.to_string())?;
    Ok(xml.trim_end().to_owned() + "\n")
}

fn case(check: &CheckReport, strict: bool) -> TestCase {
    let reason = check.reason.clone().unwrap_or_default();
    let skipped = |message: String| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(message);
        status
    };
    let unlike = |kind: NonSuccessKind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(check.verdict.name());
        status.set_message(reason.clone());
        status.set_description(format!("{}\n{}", check.requirement, check.source.join("\n")));
        status
    };
    let status = match (check.verdict, &check.known_failing) {
        (Verdict::Passed, _) => TestCaseStatus::success(),
        (Verdict::NotRun, _) => skipped(format!("not run: {reason}")),
        (Verdict::InfoFailed, _) => skipped(format!("no measurement: {reason}")),
        (Verdict::EngineError, _) => unlike(NonSuccessKind::Error),
        (_, Some(known)) => skipped(format!("known to fail ({known}): {reason}")),
        (Verdict::ShouldFailed, None) if !strict => {
            skipped(format!("SHOULD, which counts with --strict: {reason}"))
        }
        (_, None) => unlike(NonSuccessKind::Failure),
    };
    let mut case = TestCase::new(&check.id, status);
    case.set_classname(check.level.name());
    case.set_time(Duration::from_millis(check.duration_ms));
    if !check.evidence.is_empty() {
        case.set_system_out(check.evidence.join("\n"));
    }
    case
}

/// What was selected, and what was left out of it.
fn selection(report: &Report) -> TestSuite {
    let mut suite = TestSuite::new("selection");
    let profiles: Vec<&str> = report.selection.profiles.iter().map(|p| p.name()).collect();
    suite.add_property(("profiles", profiles.join(",").as_str()));
    suite.add_property(("run", report.selection.run.join(",").as_str()));
    for id in &report.skipped {
        let mut status = TestCaseStatus::skipped();
        status.set_message("left out by --skip");
        suite.add_test_case(TestCase::new(id, status));
    }
    suite
}

/// What concerns the run as a whole.
fn run(report: &Report) -> TestSuite {
    let mut suite = TestSuite::new("run");
    for trouble in &report.troubles {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(trouble);
        suite.add_test_case(TestCase::new("trouble", status));
    }
    for id in &report.expectations.stale {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(format!("{id} is listed as known failing, and passes"));
        suite.add_test_case(TestCase::new("stale expectation", status));
    }
    suite
}
