//! What the README says can be pasted into a shell.

use std::process::Command;

use crate::stage::Stage;

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).unwrap()
}

/// Runs text in a shell whose PATH begins with `directory`.
fn shell(stage: &Stage, directory: &str, text: &str) -> (bool, String) {
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", text])
        .env("PATH", path)
        .current_dir(stage.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

#[test]
fn the_first_two_minutes_find_what_they_have_built() {
    let stage = Stage::empty();
    let readme = readme();
    let block = readme.split("## Two minutes\n\n```sh\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    // Builds what is there already.
    let cargo = "#!/bin/sh\nmkdir -p target/release\nprintf '#!/bin/sh\\necho \"ran $*\"' \
                 >target/release/kms-conformance\nchmod +x target/release/kms-conformance\n";
    let cargo = stage.file("cargo", cargo);
    let (_, said) = shell(&stage, "/bin", &format!("chmod +x '{cargo}'"));
    assert_eq!(said, "");
    let (well, said) = shell(&stage, &stage.path("").display().to_string(), block);
    assert!(well && said.starts_with("ran --endpoint unix:///"), "{said}");
}

/// As it is on a machine where others of a group may write what is made.
#[test]
fn the_worked_example_works_and_leaves_nothing_running() {
    let stage = Stage::empty();
    let readme = readme().replace("/tmp/ref", &stage.path("ref").display().to_string());
    let block = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let mut script = "umask 002\n".to_owned();
    let mut goes_on = false;
    for line in block.lines() {
        let command = line.strip_prefix("$ ").or(goes_on.then_some(line));
        goes_on = command.is_some_and(|command| command.ends_with('\\'));
        script.extend(command.into_iter().flat_map(|command| [command, "\n"]));
    }
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_kms-conformance"));
    let (well, said) = shell(&stage, &binary.parent().unwrap().display().to_string(), &script);
    // What it says that it is said.
    let marks = ["NOT conformant (exit 1)", " checks: "];
    let promised: Vec<&str> =
        block.lines().filter(|line| marks.iter().any(|part| line.contains(part))).collect();
    assert_eq!(promised.len(), 2, "{block}");
    for line in promised {
        assert!(said.lines().any(|other| other == line), "{line}: {said}");
    }
    assert!(well && said.contains("every selected MUST passed (exit 0)"), "{said}");
    assert!(stage.read("out.xml").contains("<testsuites"));
    assert!(stage.read("out.md").contains("## Reproduce"));
    for node in ["a", "b"] {
        assert!(!stage.path(&format!("ref/{node}.pid")).exists(), "{node} runs: {said}");
    }
}

/// What a job's steps do, with a plugin that is late.
#[test]
fn the_example_for_ci_works() {
    let stage = Stage::empty();
    let readme = readme();
    let block = readme.split("## In CI\n\n```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let value = |key: &str| {
        let found =
            block.lines().find_map(|line| line.trim_start_matches(['-', ' ']).strip_prefix(key));
        found.unwrap().trim().to_owned()
    };
    let directory = stage.path("").display().to_string();
    let binary = env!("CARGO_BIN_EXE_kms-conformance");
    // Called with --socket PATH/kms.sock.
    let lifeline = stage.path("lifeline");
    let plugin = format!(
        "#!/bin/sh\nsleep 1\nexec '{binary}' reference serve --dir \"${{2%/*}}\" --name kms --lifeline '{}' \
         --mutant version-v1 >'{directory}/log' 2>&1\n",
        lifeline.display()
    );
    let plugin = stage.file("my-plugin", &plugin);
    stage.file(&value("known-failing:"), "status.version  # mended in 2.0\n");
    let endpoint =
        value("endpoint:").replace("${{ runner.temp }}", directory.trim_end_matches('/'));
    let action = concat!(env!("CARGO_MANIFEST_DIR"), "/action.sh");
    let steps = format!("chmod +x '{plugin}'\n{}\n'{action}'\n", value("run:"));
    let output = Command::new("sh")
        .args(["-c", &steps])
        .env("PATH", format!("{directory}:{}", std::env::var("PATH").unwrap()))
        .env("RUNNER_TEMP", directory.trim_end_matches('/'))
        .env("KMS_CONFORMANCE", binary)
        .env("INPUT_ENDPOINT", endpoint)
        .env("INPUT_KNOWN_FAILING", value("known-failing:"))
        // As action.yml has it if nothing is said.
        .env("INPUT_WAIT", "30s")
        .current_dir(&directory)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stage.read("kms-conformance-reports/report.json").contains("\"mended in 2.0\""));
}
