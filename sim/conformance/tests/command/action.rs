//! The GitHub Action: its step is run as it is, without GitHub.

use std::path::Path;
use std::process::Command;

use crate::stage::{Stage, run};

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The action's step, for the plugin on `a.sock`, with these inputs.
fn step(stage: &Stage, inputs: &[(&str, &str)]) -> std::process::Output {
    let mut step = Command::new(file("action.sh"));
    step.env("KMS_CONFORMANCE", env!("CARGO_BIN_EXE_kms-conformance"))
        .env("INPUT_ENDPOINT", format!("unix://{}", stage.path("a.sock").display()))
        .env("INPUT_REPORTS", stage.path("reports"))
        .env("GITHUB_STEP_SUMMARY", stage.path("summary"))
        .current_dir(stage.path(""))
        .envs(inputs.iter().copied());
    step.output().unwrap()
}

#[test]
fn inputs_become_flags_and_reports_are_kept() {
    let stage = Stage::reference(Some("version-v1"));
    let known = stage.file("known", "status.version  # on purpose\n");
    let action = |strict: &str| {
        let inputs = [
            ("INPUT_PROFILE", "core,hardening"),
            ("INPUT_PRINT_LOG", "echo nothing to tell"),
            ("INPUT_DEADLINE", "10m"),
            ("INPUT_STRICT", strict),
            ("INPUT_KNOWN_FAILING", &known),
            ("INPUT_IMPLEMENTATION", "a name"),
            ("INPUT_IMPLEMENTATION_URL", "https://plugin.example"),
        ];
        step(&stage, &inputs)
    };
    let output = action("false");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.read("summary").contains("# KMS v2 conformance of a name"));
    assert!(stage.read("reports/junit.xml").contains("<testsuites"));
    let report = stage.read("reports/report.json");
    assert!(report.contains("\"on purpose\"") && report.contains("https://plugin.example"));
    assert_eq!(action("true").status.code(), Some(1), "status.version-v2 counts if strict");
}

/// The names of the inputs.
fn inputs(yaml: &str) -> Vec<&str> {
    let inputs = yaml.split("\nruns:").next().unwrap().split("\ninputs:").nth(1).unwrap();
    inputs
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with(' '))
        .collect()
}

#[test]
fn every_input_is_a_flag_and_is_passed_on() {
    let yaml = std::fs::read_to_string(file("action.yml")).unwrap();
    let inputs = inputs(&yaml);
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
fn every_flag_is_an_input() {
    // The reports have names of their own; the others are for people.
    let none = ["report", "list", "explain", "reproduce", "seed", "jobs"];
    let yaml = std::fs::read_to_string(file("action.yml")).unwrap();
    let inputs = inputs(&yaml);
    let help = run(&["--help"]).said;
    let flags = help.lines().filter_map(|line| line.strip_prefix("      --"));
    let flags: Vec<&str> = flags.map(|flag| flag.split(' ').next().unwrap()).collect();
    assert!(flags.contains(&"skip") && flags.contains(&"endpoint"), "{help}");
    for flag in flags {
        assert!(inputs.contains(&flag) != none.contains(&flag), "{flag}");
    }
}

/// No known failure can excuse what was not run.
#[test]
fn who_has_one_hook_leaves_out_what_needs_the_other() {
    let stage = Stage::reference(None);
    let rotate = stage.hook("rotate");
    let rotation = [
        ("INPUT_PROFILE", "rotation"),
        ("INPUT_ON_ROTATE", rotate.as_str()),
        ("INPUT_ROTATION_WINDOW", "5s"),
    ];
    let output = step(&stage, &rotation);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let skip = ("INPUT_SKIP", "rotation.no-reuse, rotation.no-flip-flop");
    let output = step(&stage, &[&rotation[..], &[skip]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let run = ("INPUT_RUN", "status.version rotation.key-id-changes");
    let output = step(&stage, &[&rotation[1..], &[run]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("2 checks: 2 passed"), "{said}");
}

#[test]
fn what_is_strict_is_said_clearly() {
    let stage = Stage::empty();
    for strict in ["True", "yes", "1"] {
        let output = step(&stage, &[("INPUT_STRICT", strict)]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let complained = String::from_utf8(output.stderr).unwrap();
        assert!(complained.contains("wanted true or false"), "{complained}");
    }
}

#[test]
fn the_summary_is_of_this_run_alone() {
    let stage = Stage::reference(None);
    std::fs::create_dir(stage.path("reports")).unwrap();
    for name in ["junit.xml", "report.json", "report.md"] {
        stage.file(&format!("reports/{name}"), "of an earlier run");
    }
    let output = step(&stage, &[("INPUT_RUN", "status.nothing")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!stage.path("summary").exists(), "{}", stage.read("summary"));
    assert!(!stage.path("reports/report.json").exists());
}

#[test]
fn an_endpoint_is_taken_as_it_is_written() {
    let stage = Stage::empty();
    // Which a shell would put in the place of the pattern.
    stage.file("k1", "");
    let pattern = format!("{}\nunix:///b", stage.path("k?").display());
    let output = step(&stage, &[("INPUT_ENDPOINT", &pattern)]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complained = String::from_utf8(output.stderr).unwrap();
    assert!(complained.contains("? is special in a URL"), "{complained}");
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
                 mkdir -p \"${target:-$CARGO_TARGET_DIR}/sim\"\n\
                 printf '#!/bin/sh\\necho built' >\"${target:-$CARGO_TARGET_DIR}/sim/kms-conformance\"\n\
                 chmod +x \"${target:-$CARGO_TARGET_DIR}/sim/kms-conformance\"\n";
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
    // Bases are moved in one go with those of the plugin's image.
    let dockerfile = std::fs::read_to_string(file("Dockerfile")).unwrap();
    let plugins = std::fs::read_to_string(file("../../Dockerfile")).unwrap();
    for base in ["ARG BASE=debian:", "ARG BUILDER=rust:"] {
        let line = plugins.lines().find(|line| line.starts_with(base)).unwrap();
        assert!(dockerfile.lines().any(|other| other == line), "{line}: {dockerfile}");
    }
    let toolchain = std::fs::read_to_string(file("../../rust-toolchain.toml")).unwrap();
    let version = toolchain.split('"').nth(1).unwrap();
    assert!(dockerfile.contains(&format!("ARG BUILDER=rust:{version}-")), "{dockerfile}");
}
