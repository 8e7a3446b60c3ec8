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
            .env("INPUT_PROFILE", "core,hardening")
            .env("INPUT_PRINT_LOG", "echo nothing to tell")
            .env("INPUT_DEADLINE", "10m")
            .env("INPUT_STRICT", strict)
            .env("INPUT_KNOWN_FAILING", &known)
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
    for wanted in ["timeout", "hook-timeout", "deadline"] {
        assert!(inputs.contains(&wanted), "{wanted}");
    }
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
fn without_an_endpoint_it_ends_as_the_command_does() {
    let output = Command::new(file("action.sh"))
        .env("KMS_CONFORMANCE", env!("CARGO_BIN_EXE_kms-conformance"))
        .env_remove("INPUT_ENDPOINT")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("endpoint is missing"), "{output:?}");
}

/// In a container the path of an expression is the host's; a target folder of the caller's may be anywhere.
#[test]
fn what_it_builds_is_what_it_runs() {
    let yaml = std::fs::read_to_string(file("action.yml")).unwrap();
    assert!(!yaml.contains("github.action_path"), "{yaml}");
    let build = yaml.split("run: |\n").nth(1).unwrap().split("\n    - name").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let action = place("sim/conformance");
    std::fs::create_dir_all(&action).unwrap();
    std::fs::copy(file("action.sh"), action.join("action.sh")).unwrap();
    let cargo = "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --target-dir ] && target=$2; shift; done\n\
                 mkdir -p \"${target:-$CARGO_TARGET_DIR}/release\"\n\
                 printf '#!/bin/sh\\necho built' >\"${target:-$CARGO_TARGET_DIR}/release/kms-conformance\"\n\
                 chmod +x \"${target:-$CARGO_TARGET_DIR}/release/kms-conformance\"\n";
    std::fs::create_dir(place("bin")).unwrap();
    std::fs::write(place("bin/cargo"), cargo).unwrap();
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("chmod +x bin/cargo\n({build}) && \"$GITHUB_ACTION_PATH/action.sh\""),
        ])
        .env("PATH", format!("{}:{}", place("bin").display(), std::env::var("PATH").unwrap()))
        .env("GITHUB_ACTION_PATH", &action)
        .env("CARGO_TARGET_DIR", place("elsewhere"))
        .env("INPUT_ENDPOINT", "unix:///x")
        .env_remove("KMS_CONFORMANCE")
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "built\n", "{output:?}");
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let ignored = std::fs::read_to_string(file("../../.dockerignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "target"), "{ignored}");
    // What the workspace needs to be built is not ignored.
    for member in ["Cargo", "proto", "sim", "harness", "src"] {
        assert!(!ignored.lines().any(|line| line.starts_with(member)), "{member}: {ignored}");
    }
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
