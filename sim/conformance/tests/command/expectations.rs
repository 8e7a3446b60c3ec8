//! Known failures have to fail; what is hidden is said.

use crate::stage::{Stage, command};

const CHECKS: [&str; 3] = ["--run", "status.version", "status.healthz-ok"];

#[test]
fn a_known_failure_that_fails_is_no_failure() {
    let stage = Stage::reference(Some("version-v1"));
    let known = stage.file("known", "# ours\nstatus.version  # mended in 2.0\n");
    let ended = stage.check(&[&["--known-failing", &known], &CHECKS[..]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.said.contains("known") && ended.said.contains("mended in 2.0"), "{}", ended.said);
    assert!(ended.said.contains("0 MUST failed") && ended.said.contains("1 known failures"));
    assert!(ended.said.contains("conformant but for 1 known failures (exit 0)"), "{}", ended.said);
    assert!(!ended.said.contains("every selected MUST passed"), "{}", ended.said);
}

#[test]
fn a_known_failure_that_passes_is_one() {
    let stage = Stage::reference(None);
    let known = stage.file("known", "status.version  # mended in 2.0\n");
    let ended = stage.check(&[&["--known-failing", &known], &CHECKS[..]].concat());
    assert_eq!(ended.code, 1, "{ended:?}");
    let says = "status.version is listed as known failing, and passes";
    assert!(ended.said.contains(says), "{}", ended.said);
}

#[test]
fn to_skip_a_check_in_ci_is_warned_of() {
    let stage = Stage::reference(None);
    let endpoint = format!("unix://{}", stage.path("a.sock").display());
    let args = ["--endpoint", &endpoint, "--run", "status.version", "status.healthz-ok"];
    let output = command().args(args).args(["--skip", "status.version"]).env("CI", "true").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1 checks: 1 passed"), "{said}");
    let complained = String::from_utf8(output.stderr).unwrap();
    assert!(complained.contains("--skip hides a check from CI"), "{complained}");
}
