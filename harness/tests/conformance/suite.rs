//! The suite as a process.

use std::path::PathBuf;
use std::process::Command;

use kleidi_harness::{Stage, built};
use serde_json::Value;

use crate::director::{Director, Nodes};
use crate::kms::Kms;

const HOOKS: [(&str, &str); 9] = [
    ("--on-rotate", "rotate"),
    ("--on-rotate-back", "rotate-back"),
    ("--on-stop", "stop"),
    ("--on-start", "start"),
    ("--on-kill", "kill"),
    ("--on-backend-down", "backend-down"),
    ("--on-backend-up", "backend-up"),
    ("--on-deny-decrypt", "deny-decrypt"),
    ("--on-allow-decrypt", "allow-decrypt"),
];

/// Which checks are run.
pub enum Checks {
    /// Those of every profile but these.
    AllBut(&'static [&'static str]),
    /// These.
    Only(&'static [&'static str]),
}

/// Runs the suite: nothing fails, and nothing is left out but what is stated.
pub fn conforms(stage: &Stage, name: &str, nodes: Nodes, kms: impl Kms + Send, checks: &Checks) {
    let director = Director::new();
    let reports = match std::env::var_os("REPORTS") {
        Some(directory) => PathBuf::from(directory),
        None => stage.make_dir("reports"),
    };
    let path = |ending: &str| reports.join(format!("{name}.{ending}")).display().to_string();
    let mut command = Command::new(built::conformance());
    for endpoint in nodes.endpoints() {
        command.args(["--endpoint", &endpoint]);
    }
    for (flag, word) in HOOKS {
        command.args([flag, &director.command(word)]);
    }
    command
        .args(["--print-log", &format!("cat '{}'", stage.path("a.log").display())])
        .args(["--profile", "core,limits,hardening,concurrency,replicas,rotation,restart,outage"])
        .args(["--rotation-window", "20s", "--seed", "1"])
        .args(["--implementation", name, "--implementation-version", env!("CARGO_PKG_VERSION")])
        .args(["--implementation-url", env!("CARGO_PKG_REPOSITORY")])
        .args(["--reproduce", "ci/setup && sim/conformance/reports/make kleidi"])
        .args(["--report", &format!("junit:{}", stage.path("out.xml").display())])
        .args(["--report", &format!("json:{}", path("json"))])
        .args(["--report", &format!("markdown:{}", path("md"))]);
    let (flag, ids, count) = match checks {
        Checks::AllBut(ids) => ("--skip", ids, 78 - ids.len()),
        Checks::Only(ids) => ("--run", ids, ids.len()),
    };
    if !ids.is_empty() {
        command.arg(flag).args(*ids);
    }
    let output = std::thread::scope(|scope| {
        let serving = scope.spawn(|| director.serve(nodes, kms));
        let output = command.output().expect("the suite can be run");
        director.end();
        serving.join().expect("what hooks asked for was done");
        output
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let report = std::fs::read_to_string(path("json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("a report in JSON");
    let checks = report["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), count, "{said}");
    for check in checks {
        // kleidi sends no annotations: there is nothing to swap.
        let wanted =
            if check["id"] == "decrypt.swapped-annotations" { "not_run" } else { "passed" };
        assert_eq!(check["verdict"], wanted, "{}\n{said}", check["id"]);
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    // What a CI server is told: as much, and nothing that it would take for a failure.
    let junit = std::fs::read_to_string(stage.path("out.xml")).expect("a report in JUnit's form");
    let cases = checks.iter().map(|check| format!("<testcase name={} ", check["id"]));
    for case in cases {
        assert_eq!(junit.matches(&case).count(), 1, "{case}: {junit}");
    }
    assert!(!junit.contains("<failure") && !junit.contains("<error"), "{junit}");
}
