//! The GitHub Action: its step is run as it is, without GitHub.

use std::path::Path;
use std::process::Command;

use crate::stage::{Stage, run, text};

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn inputs_become_flags_and_reports_are_kept() {
    let stage = Stage::reference(Some("version-v1"));
    let known = stage.file("known", "status.version  # on purpose\n");
    let action = |strict: &str| {
        Command::new(file("action.sh"))
            .env("KMS_CONFORMANCE", env!("CARGO_BIN_EXE_kms-conformance"))
            .env("INPUT_ENDPOINT", format!("unix://{}", stage.path("a.sock").display()))
            .env("INPUT_PROFILE", "core")
            .env("INPUT_STRICT", strict)
            .env("INPUT_KNOWN_FAILING", &known)
            .env("INPUT_ON_ROTATE", stage.hook("rotate"))
            .env("INPUT_IMPLEMENTATION", "a name")
            .env("INPUT_REPORTS", stage.path("reports"))
            .env("GITHUB_STEP_SUMMARY", stage.path("summary"))
            .output()
            .unwrap()
    };
    let output = action("false");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.read("summary").contains("# KMS v2 conformance of a name"));
    assert!(stage.read("reports/junit.xml").contains("<testsuites"));
    assert!(stage.read("reports/report.json").contains("\"on purpose\""));
    assert_eq!(action("true").status.code(), Some(1), "status.version-v2 counts if strict");
}

#[test]
fn every_input_is_a_flag_and_is_passed_on() {
    let yaml = std::fs::read_to_string(file("action.yml")).unwrap();
    let inputs = yaml.split("\nruns:").next().unwrap().split("\ninputs:").nth(1).unwrap();
    let inputs: Vec<&str> = inputs
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with(' '))
        .collect();
    assert!(inputs.len() >= 15, "{inputs:?}");
    let (help, script) =
        (run(&["--help"]).said, std::fs::read_to_string(file("action.sh")).unwrap());
    for input in inputs {
        let variable =
            format!("INPUT_{}: ${{{{ inputs.{input} }}}}", input.to_uppercase().replace('-', "_"));
        assert!(yaml.contains(&variable), "{variable}");
        assert!(input == "reports" || help.contains(&format!("--{input} ")) || input == "strict");
        assert!(script.contains(input) || script.contains(&input.to_uppercase()), "{input}");
    }
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let dockerfile = std::fs::read_to_string(file("Dockerfile")).unwrap();
    assert!(dockerfile.contains("--package kms-conformance"));
    let toolchain = std::fs::read_to_string(file("../../rust-toolchain.toml")).unwrap();
    let version = toolchain.split('"').nth(1).unwrap();
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-")),
        "{version}: {}",
        text(&file("Dockerfile"))
    );
}
